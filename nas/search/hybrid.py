"""Evolution between integer programs: they seed its first population and polish its front.

The programs are whole exact fronts of an additive stand-in for the first objective. Each round corrects it around a
stretch of the front by all that was evaluated, solves again, and evaluates what is new.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from nas.pareto import crowding_distance
from nas.problem import Constraint, Problem, sample, sample_sizes
from nas.search.archive import Archive, Progress, Proof, silent
from nas.search.evolution import Nsga2
from nas.search.programs import Programs
from nas.search.refine import best_within
from nas.search.stand_in import StandIn, stand_in, weighted

_STRETCH = 16
"""Neighbours on the front around which a stand-in is corrected."""

_PROOFS = 12
"""Budgets of each further objective that a proof is kept for."""


@dataclass(frozen=True)
class Hybrid:
    """Programs, evolution from their solutions, programs around its front.

    The archive's last proofs are of its best members under budgets of each additive objective: see `StandIn.bounds`.

    Attributes:
        population: Of the evolution.
        generations: Of the evolution.
        rounds: Corrections of the stand-in, each around another stretch of the front.
        samples: Genotypes evaluated to fit the stand-in at first.
    """

    population: int = 100
    generations: int = 60
    rounds: int = 40
    samples: int = 1000

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.population < 4 or self.generations < 0 or self.rounds < 0 or self.samples < 2:
            law = "population >= 4, generations >= 0, rounds >= 0 and samples >= 2"
            raise NasError(f"hybrid needs {law}; got {self}")

    def run(self, problem: Problem, seed: int, progress: Progress = silent, starts: IntArray | None = None) -> Archive:
        """Seed, evolve, polish, prove."""
        rng, archive, total = np.random.default_rng(seed), Archive(problem), self.generations + self.rounds
        if starts is not None:
            archive.add(problem.require_allowed(starts), "start")
        first, costs = self._seeded(archive, seed, rng)
        evolution = Nsga2(self.population, self.generations)
        found = evolution.run(problem, seed, lambda done, _: progress(done, total), _spread(archive, self.population))
        archive.absorb(found)
        for turn in range(self.rounds if costs else 0):
            progress(self.generations + turn, total)
            _polish(archive, first, costs, rng)
        archive.proofs += [proof for cost in costs for proof in proofs(archive, cost)]
        progress(total, total)
        return archive

    def _seeded(self, archive: Archive, seed: int, rng: np.random.Generator) -> tuple[StandIn, list[str]]:
        """The first stand-in, and the objectives whose front with it can be listed: those fronts are in the archive."""
        problem, metric = archive.problem, hard(archive.problem)
        half = self.samples // 2
        drawn = np.concatenate([sample(problem, half, rng), sample_sizes(problem, self.samples - half, rng)])
        archive.add(drawn, "random")
        first = stand_in(archive, metric)
        costs = [name for name in problem.objectives if name in problem.additive and name != metric]
        for name in costs:
            archive.add(first.front(problem.additive[name]).genotypes, "integer_program")
        return first, costs


def hard(problem: Problem) -> str:
    """The objective that the programs minimise: the first that is no sum over layers, or the first of all."""
    return next((name for name in problem.objectives if name not in problem.priced), problem.objectives[0])


def proofs(archive: Archive, cost: str) -> Iterator[Proof]:
    """The best members under budgets of a cost, from the least it can be to where it limits nothing, with bounds."""
    problem, metric = archive.problem, hard(archive.problem)
    whole = stand_in(archive, metric)
    front = whole.front(problem.additive[cost])
    budgets = np.linspace(front.values[-1, 1], front.values[0, 1], _PROOFS)
    for budget, bound in zip(budgets.tolist(), whole.bounds(front, budgets).tolist(), strict=True):
        limits = (*problem.constraints, Constraint(cost, budget))
        place = best_within(archive, metric, limits)
        if place is not None:
            value = float(archive.metrics[place, problem.metrics.index(metric)])
            yield Proof(metric, limits, "optimal" if value <= bound else "feasible", value, min(bound, value), place)


def _spread(archive: Archive, size: int) -> IntArray:
    """Half a population's worth of the front, far apart; without a front, of what violates the least."""
    front = archive.front()
    if not len(front):
        return archive.genotypes[np.argsort(archive.problem.violation(archive.metrics), kind="stable")[: size // 2]]
    far = crowding_distance(archive.problem.costs(archive.metrics[front]))
    return archive.genotypes[front[np.argsort(-far, kind="stable")[: size // 2]]]


def _polish(archive: Archive, first: StandIn, costs: Sequence[str], rng: np.random.Generator) -> None:
    """Correct the stand-in around a stretch of the front, and evaluate its exact front with a mix of the costs."""
    front, problem = archive.front(), archive.problem
    if not len(front):
        front = np.argsort(problem.violation(archive.metrics), kind="stable")[:_STRETCH]
    values = problem.costs(archive.metrics[front])
    spans = np.ptp(values, axis=0)
    scaled = values / np.where(spans > 0, spans, 1.0)
    near = np.argsort(np.abs(scaled - scaled[rng.integers(len(front))]).sum(axis=1), kind="stable")[:_STRETCH]
    local = stand_in(archive, hard(problem), archive.genotypes[front[near]], first)
    shares = rng.dirichlet(np.ones(len(costs)))
    scales = np.array([spans[problem.objectives.index(name)] or 1.0 for name in costs])
    mix = weighted([problem.additive[name] for name in costs], shares / scales)
    archive.add(local.front(mix).genotypes, "integer_program")
