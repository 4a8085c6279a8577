"""NSGA-II over whole populations at once (Deb et al., "A fast and elitist multiobjective genetic algorithm", 2002)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from nas.pareto import crowding_distance, rank
from nas.problem import Problem, sample, sample_sizes
from nas.search.archive import Archive, Progress, silent

_CROSSOVER = 0.9
_ATTEMPTS = 4


@dataclass(frozen=True)
class Nsga2:
    """NSGA-II with constrained domination: uniform crossover, mutation to another allowed choice, no duplicates.

    Attributes:
        population: Members that survive a generation, and children it makes.
        generations: Generations after the first population.
        mutated_genes: Expected number of mutated genes per child; each gene mutates with this over their number.
    """

    population: int = 200
    generations: int = 100
    mutated_genes: float = 2.0

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.population < 4 or self.generations < 0 or self.mutated_genes <= 0:
            raise NasError(f"nsga2 needs population >= 4, generations >= 0 and mutated_genes > 0; got {self}")

    def run(self, problem: Problem, seed: int, progress: Progress = silent, starts: IntArray | None = None) -> Archive:
        """Evolve; ends early once neither crossover nor chance finds a genotype that is new."""
        rng, archive = np.random.default_rng(seed), Archive(problem)
        if starts is not None:
            archive.add(problem.require_allowed(starts), "start")
        members = _first(problem, self.population, rng, starts)
        places = archive.add(problem.genotypes(members), "nsga2")
        for generation in range(self.generations):
            progress(generation, self.generations)
            fitness = _fitness(problem, archive.metrics[places])
            children = self._children(archive, members, fitness, rng)
            if not len(children):
                break
            members = np.concatenate([members, children])
            places = np.concatenate([places, archive.add(problem.genotypes(children), "nsga2")])
            kept = np.lexsort(_fitness(problem, archive.metrics[places]))[: self.population]
            members, places = members[kept], places[kept]
        progress(self.generations, self.generations)
        return archive

    def _children(
        self, archive: Archive, members: IntArray, fitness: tuple[FloatArray, IntArray], rng: np.random.Generator
    ) -> IntArray:
        """Up to `population` children that no earlier generation has seen; strangers where parents run dry."""
        problem, found = archive.problem, members[:0]
        for attempt in range(_ATTEMPTS):
            if attempt < _ATTEMPTS - 1:
                new = _mutate(problem, _cross(members, fitness, self.population, rng), self.mutated_genes, rng)
            else:
                new = rng.integers(0, problem.allowed_counts, size=(self.population, members.shape[1]))
            found = np.concatenate([found, new[~archive.seen(problem.genotypes(new))]])
            found = found[_first_of_each(problem.genotypes(found))]
            if len(found) >= self.population:
                break
        return found[: self.population]


def _first(problem: Problem, size: int, rng: np.random.Generator, starts: IntArray | None) -> IntArray:
    """Ranks of the first population: starts, the smallest, the largest, half at random and half at every size."""
    ends = np.stack([np.zeros_like(problem.allowed_counts), problem.allowed_counts - 1])
    given = ends[:0] if starts is None else problem.ranks(starts)
    rest = max(2, size - len(given) - 2)
    drawn = [sample(problem, rest // 2, rng), sample_sizes(problem, rest - rest // 2, rng)]
    ranks = np.concatenate([given, ends, *(problem.ranks(genotypes) for genotypes in drawn)])
    return ranks[_first_of_each(problem.genotypes(ranks))]


def _first_of_each(population: IntArray) -> IntArray:
    """Rows that differ from all before them, in order."""
    rows: IntArray = np.unique(population, axis=0, return_index=True)[1]
    return np.sort(rows)


def _fitness(problem: Problem, metrics: FloatArray) -> tuple[FloatArray, IntArray]:
    """Keys for `lexsort`, best first: the rank under constrained domination, then the crowding distance, negated.

    The feasible rank among themselves and before all others, which rank by violation (Deb et al., 2002, section VI-A).
    """
    violation, costs = problem.violation(metrics), problem.costs(metrics)
    feasible = violation == 0
    ranks = np.zeros(len(metrics), dtype=np.int64)
    ranks[feasible] = rank(costs[feasible])
    ranks[~feasible] = 1 + ranks.max() + rank(violation[~feasible, None])
    crowding = np.full(len(metrics), np.inf)
    for front in np.flatnonzero(np.bincount(ranks) > 2):
        crowding[ranks == front] = crowding_distance(costs[ranks == front])
    return -crowding, ranks


def _cross(members: IntArray, fitness: tuple[FloatArray, IntArray], size: int, rng: np.random.Generator) -> IntArray:
    """Uniform crossover of the winners of binary tournaments, shape (size, genes)."""
    place = np.empty(len(members), dtype=np.int64)
    place[np.lexsort(fitness)] = np.arange(len(members))
    pairs = rng.integers(0, len(members), size=(2, 2, size))
    mother, father = np.where(place[pairs[:, 0]] <= place[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
    mixed = (rng.random((size, 1)) < _CROSSOVER) & (rng.random((size, members.shape[1])) < 0.5)
    children: IntArray = np.where(mixed, members[father], members[mother])
    return children


def _mutate(problem: Problem, ranks: IntArray, mutated_genes: float, rng: np.random.Generator) -> IntArray:
    """Move genes to another allowed choice, each with equal chance."""
    counts = problem.allowed_counts
    steps = rng.integers(1, np.maximum(counts, 2), size=ranks.shape)
    hit = (rng.random(ranks.shape) < mutated_genes / ranks.shape[1]) & (counts > 1)
    return np.where(hit, (ranks + steps) % counts, ranks)
