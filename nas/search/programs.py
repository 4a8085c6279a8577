"""The programs of one search, solved one by one into its archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from nas.genotype import IntArray
from nas.problem import Constraint, sample, sample_sizes
from nas.search import surrogate
from nas.search.archive import Archive, Proof
from nas.search.program import Limit, Linear, Peak, Program, Shares, Solution, Solve, build

SolverName = Literal["auto", "cp-sat", "highs"]

_REPAIRS = 20


def solver(name: SolverName, peaks: bool = False) -> Solve:
    """The solver of this name; `auto` is HiGHS where a maximum is minimised, and CP-SAT elsewhere.

    Imported on first use: the import takes a second, and a config check needs none.
    """
    if name == "highs" or (name == "auto" and peaks):
        from nas.search import highs

        return highs.solve
    from nas.search import cp_sat

    return cp_sat.solve


@dataclass(frozen=True)
class Programs:
    """The programs of one search.

    Attributes:
        archive: Takes the solutions, their proofs and the samples of the surrogate.
        seed: Of the samples and of the solver.
        solver: `auto`, `cp-sat` or `highs`.
        effort: Most effort per program, about seconds.
        samples: Genotypes evaluated to fit a surrogate.
    """

    archive: Archive
    seed: int
    solver: SolverName = "auto"
    effort: float = 10.0
    samples: int = 2000

    @cached_property
    def _built(self) -> dict[frozenset[str], Program]:
        return {}

    @cached_property
    def _factors(self) -> Shares:
        return {}

    def program(self, metrics: frozenset[str]) -> Program:
        """The program that knows these metrics; each one less makes it smaller and faster."""
        if metrics not in self._built:
            self._built[metrics] = build(self.archive.problem, sorted(metrics), self._factors)
        return self._built[metrics]

    @cached_property
    def surrogates(self) -> dict[str, surrogate.Genewise]:
        """What stands for metrics that are no sums, by metric; a refinement puts better ones in."""
        return {}

    def surrogate(self, metric: str) -> surrogate.Genewise:
        """The stand-in of a metric, fitted to samples at first."""
        if metric not in self.surrogates:
            problem, size = self.archive.problem, self.samples
            rng = np.random.default_rng(self.seed)
            drawn = np.concatenate([sample(problem, size // 2, rng), sample_sizes(problem, size - size // 2, rng)])
            places = self.archive.add(drawn, "random")
            values = self.archive.metrics[places, problem.metrics.index(metric)]
            self.surrogates[metric] = surrogate.fit(problem, drawn, values)
        return self.surrogates[metric]

    def held(self, limits: Sequence[Constraint]) -> tuple[Constraint, ...]:
        """The limits that a program can hold."""
        return tuple(limit for limit in limits if limit.metric in self.archive.problem.priced)

    def minimise(
        self, metric: str | Mapping[str, float], limits: Sequence[Constraint], excluded: Sequence[int] = ()
    ) -> int | None:
        """Minimise a metric under those of the limits that a program can hold, exactly.

        Solvers hold limits up to rounding. A solution that breaks one by as little is cut off, and so is no other.

        Args:
            metric: The metric; or several, each with the factor it counts with.
            limits: Upper limits.
            excluded: Places in the archive that do not count.

        Returns:
            The solution's place in the archive, None without one. The proof is the archive's last.
        """
        held, weights = self.held(limits), {metric: 1.0} if isinstance(metric, str) else metric
        problem = self.archive.problem
        known = {limit.metric for limit in held} | (weights.keys() & problem.priced.keys())
        program = self.program(frozenset(known))
        objective, peaks = self._objective(program, weights)
        pairs = [pair for limit in held for pair in program.limits(limit.metric, limit.limit)]
        pairs += [program.without(problem, self.archive.genotypes[place]) for place in excluded]
        solution = self._solved(program, objective, peaks, pairs, held)
        return self._kept(" + ".join(weights), held, program, solution, len(excluded))

    def _kept(
        self, name: str, held: tuple[Constraint, ...], program: Program, solution: Solution, excluded: int
    ) -> int | None:
        place = None
        if solution.chosen is not None:
            place = int(self.archive.add(program.genotype(solution.chosen)[None], "integer_program")[0])
        self.archive.proofs.append(Proof(name, held, solution.status, solution.value, solution.bound, place, excluded))
        return place

    def best(self, metric: str, limits: Sequence[Constraint], count: int, excluded: Sequence[int] = ()) -> list[int]:
        """The `count` best networks, best first, fewer where there are no more: each with its proof.

        Args:
            metric: The metric.
            limits: Upper limits.
            count: How many.
            excluded: Places in the archive that do not count.
        """
        found: list[int] = []
        while len(found) < count:
            place = self.minimise(metric, limits, [*excluded, *found])
            if place is None:
                break
            found.append(place)
        return found

    def nearest(self, limits: Sequence[Constraint]) -> int | None:
        """The network that exceeds those limits that a program can hold by the least sum of their shares.

        Returns:
            Its place in the archive, None without one. The proof is the archive's last, of the summed excess.
        """
        held = self.held(limits)
        program = self.program(frozenset(limit.metric for limit in held))
        none = Linear(np.zeros(program.columns), 0.0)
        excess = []
        for limit in held:
            share = 1 / (abs(limit.limit) or 1.0)
            over = [part.plus(Linear(none.coefficients, -limit.limit)).times(share)
                    for part, _ in program.limits(limit.metric, limit.limit)]  # fmt: skip
            excess.append(Peak((none, *over)))
        solution = self._solved(program, none, excess, [], ())
        return self._kept("excess", (), program, solution, 0)

    def cost(self, metric: str, place: int) -> float:
        """A metric that is a sum or a maximum, of a member of the archive."""
        return float(self.archive.problem.priced[metric](self.archive.genotypes[[place]])[0])

    def _objective(self, program: Program, weights: Mapping[str, float]) -> tuple[Linear, list[Peak]]:
        total, peaks = Linear(np.zeros(program.columns), 0.0), []
        for metric, weight in weights.items():
            if metric in program.peaks:
                peaks.append(program.peaks[metric].times(weight))
            elif metric in program.costs:
                total = total.plus(program.costs[metric].times(weight))
            else:
                stand_in = self.surrogate(metric)
                total = total.plus(program.genewise(stand_in.weights, stand_in.constant).times(weight))
        return total, peaks

    def _solved(
        self, program: Program, objective: Linear, peaks: list[Peak], pairs: list[Limit], held: Sequence[Constraint]
    ) -> Solution:
        solve = solver(self.solver, bool(peaks))
        for _ in range(_REPAIRS):
            solution = solve(program, objective, pairs, self.effort, self.seed, peaks)
            if solution.chosen is None:
                return solution
            genotype = program.genotype(solution.chosen)
            if self._holds(genotype, held):
                return solution
            pairs = [*pairs, program.without(self.archive.problem, genotype)]
        return Solution("unknown", bound=solution.bound)

    def _holds(self, genotype: IntArray, held: Sequence[Constraint]) -> bool:
        priced = self.archive.problem.priced
        return all(priced[limit.metric](genotype[None])[0] <= limit.limit for limit in held)
