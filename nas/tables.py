"""Per-layer tables: what each layer can look like, and sums over layers for whole populations.

Geometry is derived in one place, `SearchSpace.lower`. A table is filled once, by lowering each combination of
the few genes a layer depends on; after that a population's additive cost is a gather and a sum.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nas.genotype import FloatArray, IntArray, SearchSpace, choice_counts, largest
from nas.network import Layer


@dataclass(frozen=True)
class LayerTable:
    """Every form of one layer, over all combinations of the genes it depends on.

    Attributes:
        name: The layer's name.
        genes: Indices of the genes it depends on, its presence included.
        forms: The layer for each combination, row-major over `genes`; None where it is absent.
    """

    name: str
    genes: tuple[int, ...]
    forms: tuple[Layer | None, ...]


@dataclass(frozen=True)
class AdditiveTable:
    """One layer's share of an additive quantity: `values[row]`, the row as in `LayerTable`."""

    genes: tuple[int, ...]
    strides: tuple[int, ...]
    values: FloatArray

    def rows(self, population: IntArray) -> IntArray:
        """Row of each member, shape (n,)."""
        return population[:, self.genes] @ np.array(self.strides, dtype=np.int64)


@dataclass(frozen=True)
class AdditiveCost:
    """A quantity that is a constant plus a sum over layers. Values may be vectors: then so is the sum."""

    tables: tuple[AdditiveTable, ...]
    constant: float = 0.0

    def __call__(self, population: IntArray) -> FloatArray:
        """The quantity for each member, shape (n,) or (n, features)."""
        total = self.tables[0].values[self.tables[0].rows(population)] + self.constant
        for table in self.tables[1:]:
            total = total + table.values[table.rows(population)]
        return total


def layer_tables(space: SearchSpace) -> tuple[LayerTable, ...]:
    """Find the genes each layer depends on and lower every combination of them.

    A layer depends on a gene when changing that gene alone, from the largest network or from any other choice
    of the genes that gate others, changes or removes the layer.
    """
    counts = choice_counts(space)
    gates = sorted({gene.gate.gene for gene in space.genes if gene.gate is not None})
    bases = [largest(space)]
    for gate in gates:
        bases += [_with(largest(space), (gate,), (choice,)) for choice in range(counts[gate] - 1)]
    depends: dict[str, set[int]] = {}
    for base in bases:
        reference = space.lower(base.tolist()).by_name
        for name in reference:
            depends.setdefault(name, set())
        for gene, count in enumerate(counts):
            for choice in range(count):
                changed = space.lower(_with(base, (gene,), (choice,)).tolist()).by_name
                for name in reference.keys() | changed.keys():
                    if reference.get(name) != changed.get(name):
                        depends.setdefault(name, set()).add(gene)
    return tuple(_fill(space, name, tuple(sorted(genes)), counts) for name, genes in depends.items())


def _fill(space: SearchSpace, name: str, genes: tuple[int, ...], counts: IntArray) -> LayerTable:
    base = largest(space)
    combinations = itertools.product(*(range(counts[gene]) for gene in genes))
    forms = tuple(space.lower(_with(base, genes, combo).tolist()).by_name.get(name) for combo in combinations)
    return LayerTable(name, genes, forms)


def _with(genotype: IntArray, genes: Sequence[int], choices: Sequence[int]) -> IntArray:
    changed = genotype.copy()
    changed[list(genes)] = choices
    return changed


def additive(
    space: SearchSpace, tables: Sequence[LayerTable], cost: Callable[[Layer], float | FloatArray], constant: float = 0.0
) -> AdditiveCost:
    """Price every form of every layer once; an absent layer costs nothing."""
    counts = choice_counts(space)
    return AdditiveCost(tuple(_price(table, cost, counts) for table in tables), constant)


def _price(table: LayerTable, cost: Callable[[Layer], float | FloatArray], counts: IntArray) -> AdditiveTable:
    sizes = [int(counts[gene]) for gene in table.genes]
    strides = tuple(math.prod(sizes[i + 1 :]) for i in range(len(sizes)))
    prices = [None if form is None else np.asarray(cost(form), dtype=np.float64) for form in table.forms]
    zero = np.zeros_like(next(price for price in prices if price is not None))
    return AdditiveTable(table.genes, strides, np.stack([zero if p is None else p for p in prices]))
