"""Per-layer tables: what each layer can look like, and sums over layers for whole populations.

Geometry is derived in one place, `SearchSpace.lower`. A table is filled once, by lowering each combination of
the few genes a layer depends on; after that a population's additive cost is a gather and a sum.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.errors import NasError
from nas.genotype import FloatArray, GeneKind, Genotype, IntArray, SearchSpace, choice_counts, largest
from nas.network import Layer, Precision

_EXACT_FLOAT32 = 1 << 24
"""Integers up to this are exact in 32-bit floats."""

_SHAPING: tuple[GeneKind, ...] = ("resolution", "kernel", "depth", "width")


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
    """One layer's share of an additive quantity: `values[row]`, row = sum of choice * stride as in `LayerTable`."""

    genes: tuple[int, ...]
    strides: tuple[int, ...]
    values: FloatArray


@dataclass(frozen=True)
class AdditiveCost:
    """A quantity that is a constant plus a sum over layers. Values may be vectors: then so is the sum."""

    tables: tuple[AdditiveTable, ...]
    constant: float = 0.0

    def __call__(self, population: IntArray) -> FloatArray:
        """The quantity for each member, shape (n,) or (n, features)."""
        rows = self._rows(population)
        total: FloatArray = self.tables[0].values.take(rows[0], axis=0) + self.constant
        for table, places in zip(self.tables[1:], rows[1:], strict=True):
            total += table.values.take(places, axis=0)
        return total

    def _rows(self, population: IntArray) -> IntArray:
        """Row of each member in each table, shape (tables, n): one product of matrices, exact in these floats."""
        choices = population.T[: self._strides.shape[1]].astype(self._strides.dtype)
        with np.errstate(invalid="ignore"):  # OpenBLAS 0.3.31 computes with what lies on the stack, too, and drops it
            rows = self._strides @ choices
        return rows.astype(np.intp)

    @cached_property
    def _strides(self) -> npt.NDArray[np.floating]:
        """Stride of each gene in each table, shape (tables, genes up to the last that counts)."""
        largest_table = max(len(table.values) for table in self.tables)
        genes = 1 + max((gene for table in self.tables for gene in table.genes), default=0)
        dtype = np.float32 if largest_table < _EXACT_FLOAT32 else np.float64
        strides = np.zeros((len(self.tables), genes), dtype=dtype)
        for row, table in zip(strides, self.tables, strict=True):
            row[list(table.genes)] = table.strides
        return strides


def stacked(costs: Sequence[AdditiveCost]) -> AdditiveCost:
    """Several costs over the same layers as one whose sum is the vector of theirs, shape (n, costs).

    Raises:
        NasError: Their tables are not over the same genes.
    """
    keys = {tuple((table.genes, table.strides) for table in cost.tables) for cost in costs}
    if len(keys) != 1:
        raise NasError(
            f"costs can be stacked where their tables are over the same genes; got {len(keys)} kinds of them"
        )
    tables = [
        AdditiveTable(same[0].genes, same[0].strides, np.stack([table.values for table in same], axis=1))
        for same in zip(*(cost.tables for cost in costs), strict=True)
    ]
    constants = np.array([cost.constant for cost in costs])
    return AdditiveCost((replace(tables[0], values=tables[0].values + constants), *tables[1:]))


@dataclass(frozen=True)
class PipelinedCost:
    """The slowest stage of a pipeline, such as the latency between two results: a maximum over sums of layers."""

    stages: tuple[AdditiveCost, ...]

    def __call__(self, population: IntArray) -> FloatArray:
        """The quantity for each member, shape (n,)."""
        slowest: FloatArray = np.max([stage(population) for stage in self.stages], axis=0)
        return slowest


def layer_tables(space: SearchSpace) -> tuple[LayerTable, ...]:
    """Find the genes each layer depends on and list its form for every combination of them.

    A layer is looked at from its home: the largest network or, where that lacks it, the first that another choice of
    a gene that gates others gives. Each field of the layer depends on the genes that change it alone, and is lowered
    for every combination of those only; so is whether the layer is there. The forms are put together from the fields.

    Raises:
        NasError: One name stands for different ops.
    """
    tables: dict[str, LayerTable] = {}
    for genotype in _homes(space):
        home = _Home(space, genotype)
        tables |= {name: home.table(name) for name in home.layers if name not in tables}
    return tuple(tables.values())


def _homes(space: SearchSpace) -> Iterator[IntArray]:
    """The largest genotype, then those that differ from it by one gene that gates others."""
    top = largest(space)
    yield top
    for gate in _gates(space):
        for choice in range(top[gate]):
            yield _with(top, (gate,), (choice,))


def _gates(space: SearchSpace) -> list[int]:
    return sorted({gene.gate.gene for gene in space.genes if gene.gate is not None})


@dataclass(frozen=True)
class _Part:
    """A layer, or a part of one, for each combination of the genes it depends on, row-major; None where absent."""

    genes: Genotype
    values: tuple[Any, ...]


class _Home:
    """The layers of one network, and what becomes of them where some of its genes change."""

    def __init__(self, space: SearchSpace, genotype: IntArray) -> None:
        self.space, self.genotype, self.counts = space, genotype, choice_counts(space).tolist()
        self.layers = space.lower(genotype.tolist()).by_name
        self._memory: dict[tuple[Genotype, Genotype], dict[str, Layer | None]] = {}

    def changed(self, genes: Genotype, choices: Genotype) -> dict[str, Layer | None]:
        """The layers that differ once these genes take these choices; None for one that is gone."""
        if (genes, choices) not in self._memory:
            found = self.space.lower(_with(self.genotype, genes, choices).tolist()).by_name
            different = {name: found.get(name) for name, layer in self.layers.items() if found.get(name) != layer}
            self._memory[genes, choices] = different
        return self._memory[genes, choices]

    @cached_property
    def alone(self) -> Mapping[str, Mapping[int, Sequence[tuple[Layer, Layer | None]]]]:
        """For each layer and each gene that changes it alone: what it is before and after."""
        alone: dict[str, dict[int, list[tuple[Layer, Layer | None]]]] = defaultdict(lambda: defaultdict(list))
        for place, genes in self._places():
            for gene in genes:
                for choice in range(self.counts[gene]):
                    for name, after in place.changed((gene,), (choice,)).items():
                        alone[name][gene].append((place.layers[name], after))
        return alone

    def _places(self) -> Iterator[tuple[_Home, Sequence[int]]]:
        """Where to change genes one at a time, and which: here all of them.

        A change of shape may hide behind rounding at one choice of another gene and show at the next. So the genes
        that shape a network are changed at every choice of the others, too: of those that gate, then of the rest.
        """
        yield self, range(len(self.counts))
        gates = _gates(self.space)
        shaping = [index for index, gene in enumerate(self.space.genes) if gene.kind in _SHAPING]
        for group in (gates, [gene for gene in shaping if gene not in gates]):
            for level in range(max((self.counts[gene] for gene in group), default=1) - 1):
                choices = [min(level, self.counts[gene] - 1) for gene in group]
                yield _Home(self.space, _with(self.genotype, group, choices)), shaping

    def table(self, name: str) -> LayerTable:
        """Every form of one layer."""
        kind = type(self.layers[name])
        for before, after in itertools.chain.from_iterable(self.alone[name].values()):
            if after is not None and type(before) is not type(after):
                law = f"is a {type(before).__name__} in one network and a {type(after).__name__} in another"
                raise NasError(f"layer {name}: {law}; give them names of their own")
        form = _combined(kind, [self._part(name, field.name) for field in dataclasses.fields(kind)], self.counts)
        return LayerTable(name, form.genes, form.values)

    def _part(self, name: str, path: str) -> _Part:
        """One field of a layer, such as `kernel` or `precision.act_bits`; its name stands for the layer's presence."""
        read = attrgetter(path)
        value = read(self.layers[name])
        if isinstance(value, Precision):
            parts = [self._part(name, f"{path}.{field.name}") for field in dataclasses.fields(value)]
            return _combined(type(value), parts, self.counts)

        def changes(before: Layer, after: Layer | None) -> bool:
            return path == "name" if after is None else read(before) != read(after)

        genes = [gene for gene, pairs in self.alone[name].items() if any(itertools.starmap(changes, pairs))]
        return self._lowered(name, genes, read)

    def _lowered(self, name: str, genes: Sequence[int], read: Callable[[Layer], object]) -> _Part:
        """What `read` gives for each combination of these genes, everything else as at home."""
        ordered, values = tuple(sorted(genes)), []
        for choices in itertools.product(*(range(self.counts[gene]) for gene in ordered)):
            layer = self.changed(ordered, choices).get(name, self.layers[name])
            values.append(None if layer is None else read(layer))
        return _Part(ordered, tuple(values))


def _combined(make: Callable[..., object], parts: Sequence[_Part], counts: Sequence[int]) -> _Part:
    """`make` of the parts, for each combination of all their genes; None where one of them is."""
    genes = tuple(sorted(set().union(*(part.genes for part in parts))))
    combinations = np.array(list(itertools.product(*(range(counts[gene]) for gene in genes))), dtype=np.int64)
    columns = []
    for part in parts:
        places = [genes.index(gene) for gene in part.genes]
        rows = combinations[:, places] @ np.array(_strides(part.genes, counts), dtype=np.int64)
        columns.append([part.values[row] for row in rows.tolist()])
    rows_of_values = zip(*columns, strict=True)
    return _Part(genes, tuple(None if None in values else make(*values) for values in rows_of_values))


def _strides(genes: Sequence[int], counts: Sequence[int]) -> tuple[int, ...]:
    """Row-major strides of the combinations of these genes."""
    return tuple(math.prod(counts[gene] for gene in genes[i + 1 :]) for i in range(len(genes)))


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
    strides = _strides(table.genes, counts.tolist())
    prices = [None if form is None else np.asarray(cost(form), dtype=np.float64) for form in table.forms]
    zero = np.zeros_like(next(price for price in prices if price is not None))
    return AdditiveTable(table.genes, strides, np.stack([zero if p is None else p for p in prices]))
