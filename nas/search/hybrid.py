"""Evolution between integer programs: they seed its first population and polish its front.

The programs are whole exact fronts of an additive stand-in for the first objective. Each round corrects it around a
stretch of the front by all that was evaluated, solves again, and evaluates what is new. Before, walks evaluate all
networks that differ from the front's in one gene: near the end, more is found there than by crossing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nas.errors import NasError
from nas.genotype import IntArray
from nas.pareto import crowding_distance, non_dominated
from nas.problem import Constraint, Problem, sample, sample_sizes
from nas.search.archive import Archive, Progress, Proof, Status, silent
from nas.search.evolution import Nsga2
from nas.search.refine import best_within
from nas.search.stand_in import StandIn, fitted_to_some, lowered, stand_in, weighted

_STRETCH = 16
"""Neighbours on the front around which a stand-in is corrected."""

_SEEDED = 10
"""One of so many of the first population is a program's solution; more of them would leave less to cross."""

_PROOFS = 12
"""Budgets of each further objective that a proof is kept for."""


@dataclass(frozen=True)
class Hybrid:
    """Programs, evolution from their solutions, programs around its front.

    The archive's last proofs are of its best members under budgets of each additive objective: see `proofs`.

    Attributes:
        population: Of the evolution.
        generations: Of the evolution.
        walks: Steps of a Pareto local search (Paquete et al., 2004), each from as many of the front as the population.
        rounds: Corrections of the stand-in, each around another stretch of the front.
        samples: Genotypes evaluated to fit the stand-in at first.
    """

    population: int = 400
    generations: int = 400
    walks: int = 3
    rounds: int = 1
    samples: int = 1000

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.population < 4 or min(self.generations, self.walks, self.rounds) < 0 or self.samples < 2:
            law = "population >= 4, generations, walks and rounds >= 0 and samples >= 2"
            raise NasError(f"hybrid needs {law}; got {self}")

    def run(self, problem: Problem, seed: int, progress: Progress = silent, starts: IntArray | None = None) -> Archive:
        """Seed, evolve, polish, prove."""
        rng, archive, total = np.random.default_rng(seed), Archive(problem), self.generations + self.rounds
        if starts is not None:
            archive.add(problem.require_allowed(starts), "start")
        first, costs = self._seeded(archive, rng)
        known = np.arange(len(archive))
        evolution = Nsga2(self.population, self.generations)
        spread = _spread(archive, archive.front(), max(1, self.population // _SEEDED))
        archive.absorb(evolution.run(problem, seed, lambda done, _: progress(done, total), spread))
        front = archive.front()
        for _ in range(self.walks):
            front = _grown(archive, front, archive.add(_neighbours(archive, front, self.population), "walk"))
        for turn in range(self.rounds if costs else 0):
            progress(self.generations + turn, total)
            front = _polished(archive, front, first, costs, known, rng)
        archive.proofs += proofs(archive, hard(problem), costs, front)
        progress(total, total)
        return archive

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


def hard(problem: Problem) -> str:
    """The objective that the programs minimise: the first that is no sum over layers, or the first of all."""
    return next((name for name in problem.objectives if name not in problem.priced), problem.objectives[0])


def proofs(archive: Archive, metric: str, costs: Sequence[str], front: IntArray) -> Iterator[Proof]:
    """The best members under budgets of each cost, from the least it can be to where it limits nothing, with bounds.

    What proves the bounds is fitted to the members at `front` and some of the others. Its exact fronts are evaluated,
    and the bounds lowered by what that shows.
    """
    problem, fitted = archive.problem, fitted_to_some(archive, metric, front)
    fronts = {cost: fitted.front(problem.additive[cost]) for cost in costs}
    for found in fronts.values():
        archive.add(found.genotypes, "integer_program")
    below = lowered(fitted, archive, metric)
    for cost, found in fronts.items():
        budgets = np.linspace(found.values[-1, 1], found.values[0, 1], _PROOFS)
        for budget, bound in zip(budgets.tolist(), below.bounds(found, budgets).tolist(), strict=True):
            limits = (*problem.constraints, Constraint(cost, budget))
            place = best_within(archive, metric, limits)
            if place is not None:
                value = float(archive.metrics[place, problem.metrics.index(metric)])
                status: Status = "optimal" if value <= bound else "feasible"
                yield Proof(metric, limits, status, value, min(bound, value), place)


def _spread(archive: Archive, front: IntArray, size: int) -> IntArray:
    """Genotypes of so many of the front, far apart; without a front, of what violates the least."""
    if not len(front):
        return archive.genotypes[np.argsort(archive.problem.violation(archive.metrics), kind="stable")[:size]]
    far = crowding_distance(archive.problem.costs(archive.metrics[front]))
    return archive.genotypes[front[np.argsort(-far, kind="stable")[:size]]]


def _neighbours(archive: Archive, front: IntArray, size: int) -> IntArray:
    """Every allowed genotype that differs in one gene from one of so many of the front, shape (n, genes)."""
    problem, counts = archive.problem, archive.problem.allowed_counts
    genes, moves = np.repeat(np.arange(len(counts)), counts - 1), np.concatenate([np.arange(1, n) for n in counts])
    ranks = np.repeat(problem.ranks(_spread(archive, front, size))[:, None], len(genes), axis=1)
    places = np.arange(len(genes))
    ranks[:, places, genes] = (ranks[:, places, genes] + moves) % counts[genes]
    return problem.genotypes(ranks.reshape(-1, len(counts)))


def _grown(archive: Archive, front: IntArray, places: IntArray) -> IntArray:
    """Places of the front of an old front and new members."""
    problem, both = archive.problem, np.union1d(front, places)
    feasible = both[problem.violation(archive.metrics[both]) == 0]
    kept: IntArray = feasible[non_dominated(problem.costs(archive.metrics[feasible]))]
    return kept


def _polished(
    archive: Archive,
    front: IntArray,
    first: StandIn,
    costs: Sequence[str],
    known: IntArray,
    rng: np.random.Generator,
) -> IntArray:
    """Correct the stand-in around a stretch of the front, evaluate its exact front with a mix of the costs.

    The correction is fitted to the members at `known` and to the front.

    Returns:
        The places of the archive's front afterwards.
    """
    problem = archive.problem
    centre = front if len(front) else np.argsort(problem.violation(archive.metrics), kind="stable")[:_STRETCH]
    values = problem.costs(archive.metrics[centre])
    spans = np.ptp(values, axis=0)
    scaled = values / np.where(spans > 0, spans, 1.0)
    near = np.argsort(np.abs(scaled - scaled[rng.integers(len(centre))]).sum(axis=1), kind="stable")[:_STRETCH]
    shown = np.union1d(known, centre)
    local = stand_in(archive, hard(problem), shown, archive.genotypes[centre[near]], first)
    shares = rng.dirichlet(np.ones(len(costs)))
    scales = np.array([spans[problem.objectives.index(name)] or 1.0 for name in costs])
    mix = weighted([problem.additive[name] for name in costs], shares / scales)
    return _grown(archive, front, archive.add(local.front(mix).genotypes, "integer_program"))
