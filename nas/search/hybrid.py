"""Evolution between integer programs: they seed its first population and polish its front.

The programs are whole exact fronts of an additive stand-in for the first objective. Each round corrects it around a
stretch of the front by all that was evaluated, solves again, and evaluates what is new.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nas.errors import NasError
from nas.genotype import IntArray
from nas.pareto import crowding_distance
from nas.problem import Constraint, Problem, sample, sample_sizes
from nas.search.archive import Archive, Progress, Proof, Status, silent
from nas.search.evolution import Nsga2
from nas.search.refine import best_within
from nas.search.stand_in import StandIn, lower_stand_in, stand_in, weighted

_STRETCH = 16
"""Neighbours on the front around which a stand-in is corrected."""

_PROOFS = 12
"""Budgets of each further objective that a proof is kept for."""


@dataclass(frozen=True)
class Hybrid:
    """Programs, evolution from their solutions, programs around its front, evolution from those.

    The archive's last proofs are of its best members under budgets of each additive objective: see `StandIn.bounds`.

    Attributes:
        population: Of the evolution.
        generations: Of the evolution, half of them before and half after its front is polished.
        rounds: Corrections of the stand-in, each around another stretch of the front.
        samples: Genotypes evaluated to fit the stand-in at first.
    """

    population: int = 400
    generations: int = 400
    rounds: int = 2
    samples: int = 1000

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.population < 4 or self.generations < 0 or self.rounds < 0 or self.samples < 2:
            law = "population >= 4, generations >= 0, rounds >= 0 and samples >= 2"
            raise NasError(f"hybrid needs {law}; got {self}")

    def run(self, problem: Problem, seed: int, progress: Progress = silent, starts: IntArray | None = None) -> Archive:
        """Seed, evolve, polish, evolve, prove."""
        rng, archive, half = np.random.default_rng(seed), Archive(problem), self.generations // 2
        if starts is not None:
            archive.add(problem.require_allowed(starts), "start")
        first, costs = self._seeded(archive, rng)
        known = np.arange(len(archive))
        for part, (generations, rounds) in enumerate(((half, self.rounds), (self.generations - half, 0))):
            evolution, done = Nsga2(self.population, generations), part * (half + self.rounds)
            spread = _spread(archive, self.population)
            archive.absorb(evolution.run(problem, seed + part, _after(progress, done, self._steps), spread))
            for turn in range(rounds if costs else 0):
                progress(half + turn, self._steps)
                _polish(archive, first, costs, known, rng)
        archive.proofs += proofs(archive, hard(problem), costs)
        progress(self._steps, self._steps)
        return archive

    @property
    def _steps(self) -> int:
        return self.generations + self.rounds

    def _seeded(self, archive: Archive, rng: np.random.Generator) -> tuple[StandIn, list[str]]:
        """The first stand-in, and the objectives whose front with it can be listed: those fronts are in the archive.

        Other objectives are left to the evolution.
        """
        problem, metric = archive.problem, hard(archive.problem)
        half = self.samples // 2
        drawn = np.concatenate([sample(problem, half, rng), sample_sizes(problem, self.samples - half, rng)])
        archive.add(drawn, "random")
        first = stand_in(archive, metric)
        costs: list[str] = []
        for name in problem.objectives:
            if name in problem.additive and name != metric:
                with suppress(NasError):
                    archive.add(first.front(problem.additive[name]).genotypes, "integer_program")
                    costs.append(name)
        return first, costs


def _after(progress: Progress, done: int, total: int) -> Progress:
    return lambda more, _: progress(done + more, total)


def hard(problem: Problem) -> str:
    """The objective that the programs minimise: the first that is no sum over layers, or the first of all."""
    return next((name for name in problem.objectives if name not in problem.priced), problem.objectives[0])


def proofs(archive: Archive, metric: str, costs: Sequence[str]) -> Iterator[Proof]:
    """The best members under budgets of each cost, from the least it can be to where it limits nothing, with bounds."""
    problem, below = archive.problem, lower_stand_in(archive, metric)
    for cost in costs:
        front = below.front(problem.additive[cost])
        budgets = np.linspace(front.values[-1, 1], front.values[0, 1], _PROOFS)
        for budget, bound in zip(budgets.tolist(), below.bounds(front, budgets).tolist(), strict=True):
            limits = (*problem.constraints, Constraint(cost, budget))
            place = best_within(archive, metric, limits)
            if place is not None:
                value = float(archive.metrics[place, problem.metrics.index(metric)])
                status: Status = "optimal" if value <= bound else "feasible"
                yield Proof(metric, limits, status, value, min(bound, value), place)


def _spread(archive: Archive, size: int) -> IntArray:
    """Half a population's worth of the front, far apart; without a front, of what violates the least."""
    front = archive.front()
    if not len(front):
        return archive.genotypes[np.argsort(archive.problem.violation(archive.metrics), kind="stable")[: size // 2]]
    far = crowding_distance(archive.problem.costs(archive.metrics[front]))
    return archive.genotypes[front[np.argsort(-far, kind="stable")[: size // 2]]]


def _polish(archive: Archive, first: StandIn, costs: Sequence[str], known: IntArray, rng: np.random.Generator) -> None:
    """Correct the stand-in around a stretch of the front, and evaluate its exact front with a mix of the costs.

    The correction is fitted to the members at `known` and to the front.
    """
    front, problem = archive.front(), archive.problem
    if not len(front):
        front = np.argsort(problem.violation(archive.metrics), kind="stable")[:_STRETCH]
    values = problem.costs(archive.metrics[front])
    spans = np.ptp(values, axis=0)
    scaled = values / np.where(spans > 0, spans, 1.0)
    near = np.argsort(np.abs(scaled - scaled[rng.integers(len(front))]).sum(axis=1), kind="stable")[:_STRETCH]
    shown = np.union1d(known, front)
    local = stand_in(archive, hard(problem), shown, archive.genotypes[front[near]], first)
    shares = rng.dirichlet(np.ones(len(costs)))
    scales = np.array([spans[problem.objectives.index(name)] or 1.0 for name in costs])
    mix = weighted([problem.additive[name] for name in costs], shares / scales)
    archive.add(local.front(mix).genotypes, "integer_program")
