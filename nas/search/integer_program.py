"""Integer programming: an additive loss under budgets, solved to a proved gap (epsilon constraint)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from nas.problem import Constraint, Problem, sample, sample_sizes
from nas.search import surrogate
from nas.search.archive import Archive, Progress, Proof, silent
from nas.search.program import Linear, Program, Solution, build

SolverName = Literal["cp-sat", "highs"]
Solve = Callable[[Program, Linear, Sequence[tuple[Linear, float]], float, int], Solution]


def solver(name: SolverName) -> Solve:
    """The solver of this name. Imported on first use: the import takes a second, and a config check needs none."""
    match name:
        case "cp-sat":
            from nas.search import cp_sat

            return cp_sat.solve
        case "highs":
            from nas.search import highs

            return highs.solve


@dataclass(frozen=True)
class IntegerProgram:
    """Minimises the first objective under budgets of each other one.

    The first objective is replaced by an additive surrogate, unless it is a sum over layers itself. Budgets run
    from the least reachable value of a metric to the one it has where nothing limits it. Objectives and constraints
    on metrics that are not additive stay out of the program; the archive judges its solutions by all of them.

    Attributes:
        solver: `cp-sat` or `highs`.
        budgets: Values each further objective is limited to, in geometric progression.
        samples: Genotypes evaluated to fit the surrogate.
        effort: Most deterministic time per program, about seconds.
    """

    solver: SolverName = "cp-sat"
    budgets: int = 12
    samples: int = 2000
    effort: float = 10.0

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.budgets < 1 or self.samples < 2 or self.effort <= 0:
            raise NasError(f"integer_program needs budgets >= 1, samples >= 2 and effort > 0; got {self}")

    def run(self, problem: Problem, seed: int, progress: Progress = silent, starts: IntArray | None = None) -> Archive:
        """Solve one program without a budget, then for each budget of each further additive objective."""
        archive = Archive(problem)
        if starts is not None:
            archive.add(problem.require_allowed(starts), "start")
        others = [name for name in problem.objectives[1:] if name in problem.additive]
        done, total = 0, 1 + len(others) * (self.budgets + 1)
        programs = Programs(self, archive, seed)
        progress(done, total)
        free = programs.minimise(problem.objectives[0], problem.constraints)
        for name in others if free is not None else []:
            least = programs.minimise(name, problem.constraints)
            for budget in _budgets(programs.cost(name, least), programs.cost(name, free), self.budgets):
                done += 1
                progress(done, total)
                programs.minimise(problem.objectives[0], (*problem.constraints, Constraint(name, budget)))
        progress(total, total)
        return archive


@dataclass(frozen=True)
class Programs:
    """The programs of one run, solved one by one into its archive.

    Attributes:
        settings: Solver, samples and effort.
        archive: Takes the solutions, their proofs and the samples of the surrogate.
        seed: Of the samples and of the solver.
    """

    settings: IntegerProgram
    archive: Archive
    seed: int

    @cached_property
    def _built(self) -> dict[frozenset[str], Program]:
        return {}

    def program(self, metrics: frozenset[str]) -> Program:
        """The program that knows these additive metrics; each one less makes it smaller and faster."""
        if metrics not in self._built:
            self._built[metrics] = build(self.archive.problem, sorted(metrics))
        return self._built[metrics]

    @cached_property
    def _weights(self) -> dict[str, tuple[FloatArray, float]]:
        return {}

    def surrogate(self, metric: str) -> tuple[FloatArray, float]:
        """Weights and constant that stand for a metric that is not additive, fitted once."""
        if metric not in self._weights:
            problem, size = self.archive.problem, self.settings.samples
            rng = np.random.default_rng(self.seed)
            drawn = np.concatenate([sample(problem, size // 2, rng), sample_sizes(problem, size - size // 2, rng)])
            places = self.archive.add(drawn, "random")
            values = self.archive.metrics[places, problem.metrics.index(metric)]
            self._weights[metric] = surrogate.fit(problem, drawn, values)
        return self._weights[metric]

    def minimise(self, metric: str, limits: Sequence[Constraint]) -> int | None:
        """Minimise one metric under those of the limits that are additive.

        Returns:
            The solution's place in the archive, None without one. The proof is the archive's last.
        """
        additive = self.archive.problem.additive
        held = tuple(limit for limit in limits if limit.metric in additive)
        program = self.program(frozenset({limit.metric for limit in held} | ({metric} & additive.keys())))
        cost = program.costs[metric] if metric in additive else program.genewise(*self.surrogate(metric))
        pairs = [(program.costs[limit.metric], limit.limit) for limit in held]
        solution = solver(self.settings.solver)(program, cost, pairs, self.settings.effort, self.seed)
        place = None
        if solution.chosen is not None:
            place = int(self.archive.add(program.genotype(solution.chosen)[None], "integer_program")[0])
        self.archive.proofs.append(Proof(metric, held, solution.status, solution.value, solution.bound, place))
        return place

    def cost(self, metric: str, place: int | None) -> float | None:
        """An additive metric of a solution."""
        if place is None:
            return None
        return float(self.archive.problem.additive[metric](self.archive.genotypes[[place]])[0])


def _budgets(least: float | None, most: float | None, count: int) -> FloatArray:
    """Limits from the least value up to, not including, the one nothing limits."""
    if least is None or most is None or most <= least:
        return np.zeros(0)
    spaced = np.geomspace if least > 0 else np.linspace
    limits: FloatArray = spaced(least, most, count + 1)[:-1]
    limits[0] = least
    return limits
