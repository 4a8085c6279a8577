"""Genes and populations.

A genotype is one choice index per gene; a population is an integer array of shape (n, genes). Every gene's
choices ascend in network size, so the last index of each gene together is the largest network, and the
genes that have no effect are set to index 0: one network, one key.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from nas.errors import NasError
from nas.network import Network

IntArray = npt.NDArray[np.signedinteger]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Genotype = tuple[int, ...]

GeneKind = Literal["resolution", "kernel", "depth", "width", "weight_bits", "act_bits", "sparsity"]


@dataclass(frozen=True, slots=True)
class Gate:
    """A gene counts only where the gene at `gene` has choice index `least` or above."""

    gene: int
    least: int


@dataclass(frozen=True, slots=True)
class Gene:
    """One decision, its choices ascending in network size (so sparsity descends)."""

    name: str
    kind: GeneKind
    choices: tuple[float, ...]
    gate: Gate | None = None

    def __post_init__(self) -> None:
        if not self.choices:
            raise NasError(f"gene {self.name}: needs at least one choice")
        ordered = tuple(sorted(set(self.choices), reverse=self.kind == "sparsity"))
        if ordered != self.choices:
            raise NasError(f"gene {self.name}: choices must be distinct and ascend in size, got {self.choices}")


class SearchSpace(Protocol):
    """A set of networks, each named by a genotype."""

    @property
    def genes(self) -> tuple[Gene, ...]: ...

    def lower(self, genotype: Sequence[int]) -> Network:
        """The network a genotype means; genotypes equal in canonical form give equal networks."""
        ...

    def maximal(self) -> tuple[Network, ...]:
        """Networks whose layers, taken together, hold every weight of every network of the space."""
        ...


def choice_counts(space: SearchSpace) -> IntArray:
    """Number of choices per gene, shape (genes,)."""
    return np.array([len(gene.choices) for gene in space.genes])


def choice_type(space: SearchSpace) -> np.dtype[np.signedinteger]:
    """The smallest type that holds every choice index: what is narrow is quick to copy, compare and hash."""
    smallest: np.dtype[np.signedinteger] = np.min_scalar_type(-int(choice_counts(space).max()))
    return smallest


def active(space: SearchSpace, population: IntArray) -> BoolArray:
    """Mark the genes that have an effect, shape (n, genes)."""
    mask = np.ones(population.shape, dtype=bool)
    for gate, columns in _gated(space):
        mask[:, columns] = (population[:, gate.gene] >= gate.least)[:, None]
    return mask


def canonical(space: SearchSpace, population: IntArray) -> IntArray:
    """Set the genes that have no effect to 0, so that equal networks have equal rows."""
    reduced = population.copy()
    for gate, columns in _gated(space):
        reduced[:, columns] *= (population[:, gate.gene] >= gate.least)[:, None]
    return reduced


def _gated(space: SearchSpace) -> Iterator[tuple[Gate, slice]]:
    """Runs of genes with one gate, which a population holds side by side."""
    first = 0
    keys = [(gene.gate.gene, gene.gate.least) if gene.gate else None for gene in space.genes]  # plain: fast to compare
    for key, run in itertools.groupby(keys):
        last = first + len(list(run))
        if key is not None:
            yield Gate(*key), slice(first, last)
        first = last


def parts(space: SearchSpace, depth: int) -> IntArray:
    """Number of the part each gene belongs to, by at most `depth` components of its name, shape (genes,).

    `s2.b1.expand.weight_bits` belongs to the stage `s2` (depth 1) and to the block `s2.b1` (depth 2), as does
    `s2.b1.kernel`; `head.sparsity` to `head`, and `resolution` is a part of its own.
    """
    names = [gene.name.split(".") for gene in space.genes]
    owners = [tuple(name[:-1][:depth] or name) for name in names]
    number = {owner: index for index, owner in enumerate(dict.fromkeys(owners))}
    return np.array([number[owner] for owner in owners])


def largest(space: SearchSpace) -> IntArray:
    """The genotype of the largest network, shape (genes,)."""
    return choice_counts(space) - 1


def random_population(space: SearchSpace, size: int, rng: np.random.Generator) -> IntArray:
    """Genotypes with independent uniform genes, canonical, shape (size, genes); may hold duplicates."""
    counts = choice_counts(space)
    return canonical(space, rng.integers(0, counts, size=(size, len(counts))))


def opened(space: SearchSpace, kinds: Container[GeneKind]) -> IntArray:
    """Least choices, shape (genes,), that open the genes of these kinds and hold the others at their largest."""
    return np.where([gene.kind in kinds for gene in space.genes], 0, largest(space))


def count_networks(space: SearchSpace) -> int:
    """The exact number of distinct networks: the number of canonical genotypes."""
    gated: dict[int, list[Gene]] = defaultdict(list)
    for gene in space.genes:
        if gene.gate is not None:
            gated[gene.gate.gene].append(gene)
    total = 1
    for index, gene in enumerate(space.genes):
        if gene.gate is not None:
            continue
        total *= sum(
            math.prod(len(g.choices) for g in gated[index] if g.gate is not None and choice >= g.gate.least)
            for choice in range(len(gene.choices))
        )
    return total


def tilted_population(space: SearchSpace, size: int, rng: np.random.Generator, least: IntArray) -> IntArray:
    """Genotypes that reach from the smallest networks to the largest, canonical, shape (size, genes).

    Each member draws one level in [0, 1] per kind of gene; its genes of that kind are binomial around the level.
    Uniform genes would put nearly all members in the middle.

    Args:
        space: The space.
        size: Number of genotypes.
        rng: Source of randomness.
        least: The least choice index each gene may take, shape (genes,); zeros for the whole space.
    """
    population = np.tile(largest(space), (size, 1))
    for kind in dict.fromkeys(gene.kind for gene in space.genes):
        level = rng.random((size, 1))
        columns = [index for index, gene in enumerate(space.genes) if gene.kind == kind]
        lower = least[columns]
        population[:, columns] = lower + rng.binomial(largest(space)[columns] - lower, level, (size, len(columns)))
    return canonical(space, population)


def distinct(population: IntArray) -> IntArray:
    """The rows of a population without repetitions, in the order of their first occurrence."""
    _, first = np.unique(population, axis=0, return_index=True)
    return population[np.sort(first)]
