"""Evolution of whole populations at once: NSGA-II (Deb et al., 2002) and NSGA-III (Deb & Jain, 2014)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nas.errors import NasError
from nas.genotype import BoolArray, FloatArray, IntArray, distinct
from nas.problem import Problem, sample, sample_sizes
from nas.search.archive import Archive, Progress, silent
from nas.search.directions import reference_directions
from nas.search.selection import Survivors, by_crowding, by_niches
from nas.search.stagnation import Stagnation
from nas.search.variation import Crossover, cross, mutate_blocks, mutate_genes

_ATTEMPTS = 4
_SPARE = 8
"""One in so many children is drawn beyond those that are missing, for those that turn out to be known."""

Survival = Callable[[FloatArray, FloatArray], Survivors]
"""Costs, shape (n, m), and violations, shape (n,), to those who are kept."""


@dataclass(frozen=True)
class Evolution(ABC):
    """Constrained domination, crossover of tournament winners, mutation to another allowed choice, no duplicates.

    Attributes:
        population: Members that survive a generation, and children it makes.
        generations: Generations after the first population.
        mutated_genes: Expected number of mutated genes per child; each gene mutates with this over their number.
        mutated_blocks: Expected number of blocks per child whose genes are all drawn anew.
        crossover: Whether children take each gene from either parent, or each stage as a whole.
        lifetime: Generations after which a member leaves, however good it is (age regularisation, Real et al.,
            2019); 0 for never.
        patience: Generations over which the hypervolume must grow by the tolerance, or the search ends; 0 for no end.
        tolerance: Relative growth that counts.
    """

    population: int = 200
    generations: int = 100
    mutated_genes: float = 2.0
    mutated_blocks: float = 0.0
    crossover: Crossover = "uniform"
    lifetime: int = 0
    patience: int = 0
    tolerance: float = 1e-3

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}
    name: ClassVar[str]

    def __post_init__(self) -> None:
        if self.population < 4 or self.generations < 0 or self.mutated_genes <= 0:
            raise NasError(f"{self.name} needs population >= 4, generations >= 0 and mutated_genes > 0; got {self}")
        if min(self.mutated_blocks, self.lifetime, self.patience, self.tolerance) < 0:
            raise NasError(
                f"{self.name} needs mutated_blocks, lifetime, patience and tolerance of at least 0; got {self}"
            )

    @abstractmethod
    def survival(self, archive: Archive, rng: np.random.Generator) -> Survival:
        """How the survivors of a generation are chosen."""

    def run(self, problem: Problem, seed: int, progress: Progress = silent, starts: IntArray | None = None) -> Archive:
        """Evolve; ends early once neither crossover nor chance finds a genotype that is new, or on stagnation."""
        rng, archive = np.random.default_rng(seed), Archive(problem)
        if starts is not None:
            archive.add(problem.require_allowed(starts), "start")
        survive, stagnation = self.survival(archive, rng), Stagnation(self.patience, self.tolerance)
        ranks = _first(problem, self.population, rng, starts)
        alive = _Population(ranks, archive.add(problem.genotypes(ranks), self.name), np.zeros(len(ranks), dtype=int))
        alive, preference = alive.survivors(archive, survive)
        for generation in range(self.generations):
            progress(generation, self.generations)
            children = self._children(archive, alive.ranks, preference, generation + 1, rng)
            if not len(children.ranks) or stagnation.reached(archive):
                break
            young = alive.born > generation - self.lifetime if self.lifetime else np.ones(len(alive.born), dtype=bool)
            alive, preference = alive.taken(young).with_(children).survivors(archive, survive)
        progress(self.generations, self.generations)
        return archive

    def _children(
        self, archive: Archive, parents: IntArray, preference: FloatArray, born: int, rng: np.random.Generator
    ) -> _Population:
        """Up to `population` children that no earlier generation has seen; strangers where parents run dry."""
        problem, ranks, first = archive.problem, parents[:0], len(archive)
        for attempt in range(_ATTEMPTS):
            missing = self.population - len(ranks)
            size = missing + missing // _SPARE + 1
            if attempt < _ATTEMPTS - 1:
                drawn = cross(problem, parents, preference, size, self.crossover, rng)
                drawn = mutate_genes(problem, drawn, self.mutated_genes, rng)
                drawn = mutate_blocks(problem, drawn, self.mutated_blocks, rng)
            else:
                drawn = rng.integers(0, problem.allowed_counts, (size, parents.shape[1])).astype(parents.dtype)
            new = archive.add_new(problem.genotypes(drawn), self.name, missing)
            ranks = np.concatenate([ranks, drawn[new]])
            if len(ranks) == self.population:
                break
        return _Population(ranks, np.arange(first, len(archive)), np.full(len(ranks), born))


@dataclass(frozen=True)
class Nsga2(Evolution):
    """NSGA-II: the last front's members survive by their crowding distance."""

    name: ClassVar[str] = "nsga2"

    def survival(self, archive: Archive, rng: np.random.Generator) -> Survival:
        """By crowding."""
        return lambda costs, violation: by_crowding(costs, violation, self.population)


@dataclass(frozen=True)
class Nsga3(Evolution):
    """NSGA-III, for many objectives: the last front's members survive where few others lie in their direction.

    There are as many directions as the population holds.
    """

    name: ClassVar[str] = "nsga3"

    def survival(self, archive: Archive, rng: np.random.Generator) -> Survival:
        """By niches; the ideal point is the best of all feasible members of all generations."""
        directions = reference_directions(len(archive.problem.objectives), self.population)
        ideal = np.full(directions.shape[1], np.inf)

        def survive(costs: FloatArray, violation: FloatArray) -> Survivors:
            np.minimum(ideal, costs[violation == 0].min(axis=0, initial=np.inf), out=ideal)
            return by_niches(costs, violation, self.population, directions, ideal, rng)

        return survive


@dataclass(frozen=True)
class _Population:
    """Members: ranks of their choices, shape (n, genes), places in the archive and generations of birth, (n,)."""

    ranks: IntArray
    places: IntArray
    born: IntArray

    def taken(self, which: IntArray | BoolArray) -> _Population:
        return _Population(self.ranks[which], self.places[which], self.born[which])

    def with_(self, other: _Population) -> _Population:
        return _Population(
            np.concatenate([self.ranks, other.ranks]),
            np.concatenate([self.places, other.places]),
            np.concatenate([self.born, other.born]),
        )

    def survivors(self, archive: Archive, survive: Survival) -> tuple[_Population, FloatArray]:
        metrics = archive.metrics[self.places]
        chosen = survive(archive.problem.costs(metrics), archive.problem.violation(metrics))
        return self.taken(chosen.kept), chosen.preference


def _first(problem: Problem, size: int, rng: np.random.Generator, starts: IntArray | None) -> IntArray:
    """Ranks of the first population: starts, the smallest, the largest, half at random and half at every size."""
    ends = np.stack([np.zeros_like(problem.allowed_counts), problem.allowed_counts - 1])
    given = ends[:0] if starts is None else problem.ranks(starts)
    rest = max(2, size - len(given) - 2)
    drawn = [sample(problem, rest // 2, rng), sample_sizes(problem, rest - rest // 2, rng)]
    ranks = np.concatenate([given, ends, *(problem.ranks(genotypes) for genotypes in drawn)])
    return problem.ranks(distinct(problem.genotypes(ranks)))
