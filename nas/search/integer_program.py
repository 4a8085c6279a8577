"""Integer programming: an additive loss under budgets, solved to a proved gap (epsilon constraint)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from nas.problem import Constraint, Problem
from nas.search.archive import Archive, Progress, silent
from nas.search.programs import Programs, SolverName, solver
from nas.search.refine import refine

__all__ = ["IntegerProgram", "SolverName", "solver"]


@dataclass(frozen=True)
class IntegerProgram:
    """Minimises the first objective under budgets of each other one.

    The first objective is replaced by an additive surrogate, unless it is a sum or a maximum over layers itself.
    Budgets run from the least reachable value of a metric to the one it has where nothing limits it. Objectives and
    constraints on other metrics stay out of the program; the archive judges its solutions by all of them.

    Attributes:
        solver: `cp-sat`, `highs`, or `auto`: HiGHS for a maximum, CP-SAT for all else.
        budgets: Values each further objective is limited to, in geometric progression.
        samples: Genotypes evaluated to fit the surrogate.
        effort: Most deterministic time per program, about seconds.
        best: Solutions that each program gives, from the best on.
        rounds: How often a surrogate is corrected by its solutions and solved again, for each budget.
    """

    solver: SolverName = "auto"
    budgets: int = 12
    samples: int = 2000
    effort: float = 10.0
    best: int = 1
    rounds: int = 0

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if min(self.budgets, self.best) < 1 or self.samples < 2 or self.effort <= 0 or self.rounds < 0:
            law = "budgets >= 1, best >= 1, samples >= 2, effort > 0 and rounds >= 0"
            raise NasError(f"integer_program needs {law}; got {self}")

    def run(self, problem: Problem, seed: int, progress: Progress = silent, starts: IntArray | None = None) -> Archive:
        """Solve one program without a budget, then for each budget of each further additive objective."""
        archive = Archive(problem)
        if starts is not None:
            archive.add(problem.require_allowed(starts), "start")
        others = [name for name in problem.objectives[1:] if name in problem.priced]
        done, total = 0, 1 + len(others) * (self.budgets + 1)
        programs = Programs(archive, seed, self.solver, self.effort, self.samples)
        progress(done, total)
        free = self._solve(programs, problem.constraints)
        for name in others if free is not None else []:
            least = programs.minimise(name, problem.constraints)
            for budget in _budgets(programs, name, least, free, self.budgets):
                done += 1
                progress(done, total)
                self._solve(programs, (*problem.constraints, Constraint(name, budget)))
        progress(total, total)
        return archive

    def _solve(self, programs: Programs, limits: tuple[Constraint, ...]) -> int | None:
        """The best solution of one program, with those that follow it and those of its refinement in the archive."""
        metric = programs.archive.problem.objectives[0]
        found = programs.best(metric, limits, self.best)
        if found and self.rounds and metric not in programs.archive.problem.priced:
            refine(programs, metric, limits, self.best, self.rounds)
        return found[0] if found else None


def _budgets(programs: Programs, metric: str, least: int | None, most: int | None, count: int) -> FloatArray:
    """Limits from the least value of a metric up to, not including, the one nothing limits."""
    if least is None or most is None:
        return np.zeros(0)
    low, high = programs.cost(metric, least), programs.cost(metric, most)
    if high <= low:
        return np.zeros(0)
    spaced = np.geomspace if low > 0 else np.linspace
    limits: FloatArray = spaced(low, high, count + 1)[:-1]
    limits[0] = low
    return limits
