"""Peak activation memory by liveness: what must be held while each layer runs, batch 1, in topological order.

A tensor lives from the layer that writes it to its last reader, at the widest bits one of its readers asks for.
The logits, and what nobody reads, are of 32 bits. The peak is a maximum over layers and no sum over them.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import pairwise

import numpy as np

from nas.genotype import FloatArray, Genotype, IntArray, SearchSpace, choice_counts
from nas.network import FLOAT_BITS, Input, Layer, Network
from nas.tables import AdditiveCost, AdditiveTable, LayerTable, PipelinedCost


def tensor_bytes(network: Network, layer: Layer) -> float:
    """Bytes of a layer's output as its readers need it."""
    bits = [reader.precision.act_bits for reader in network.consumers[layer.name] if not isinstance(reader, Input)]
    return math.prod(layer.out_shape) * max(bits, default=FLOAT_BITS) / 8


def live_bytes(network: Network) -> dict[str, float]:
    """For each layer's name, bytes alive while it runs: its output, and what it or a later layer reads."""
    order = {layer.name: index for index, layer in enumerate(network)}
    size = {layer.name: tensor_bytes(network, layer) for layer in network}
    last = {
        layer.name: max((order[reader.name] for reader in network.consumers[layer.name]), default=order[layer.name])
        for layer in network
    }
    return {
        now.name: sum(size[name] for name, written in order.items() if written <= order[now.name] <= last[name])
        for now in network
    }


def peak_memory_bytes(network: Network) -> float:
    """Largest number of activation bytes alive at once."""
    return max(live_bytes(network).values())


def peak_cost(space: SearchSpace, tables: Sequence[LayerTable]) -> PipelinedCost:
    """`peak_memory_bytes` of every network of a space, exactly: the largest of one sum for each layer.

    While a layer runs, the sum is over the tensors that may be alive then. Each is a table over the genes that decide
    its size, who reads it and in which bits, and whether the layer is there. Layers that can never be the largest are
    left out. All of it holds where every network has its layers in the order of the space's maximal ones.
    """
    order, counts = _order(space), choice_counts(space)
    ordered = sorted(tables, key=lambda table: order[table.name])
    tensors = [_tensor(place, ordered, counts) for place in range(len(ordered))]
    stages = [
        AdditiveCost(tuple(tensor.while_runs(place, there, counts) for tensor in tensors if tensor.may_live(place)))
        for place, there in enumerate(_grid(table, lambda _: 1, counts) for table in ordered)
    ]
    floor = max(sum(float(table.values.min()) for table in stage.tables) for stage in stages)
    highest = [sum(float(table.values.max()) for table in stage.tables) for stage in stages]
    return PipelinedCost(tuple(stage for stage, most in zip(stages, highest, strict=True) if most >= floor))


@dataclass(frozen=True)
class _Grid:
    """A quantity for each combination of some genes' choices: one axis for each gene, in their order."""

    genes: Genotype
    values: FloatArray

    def over(self, genes: Genotype, counts: IntArray) -> FloatArray:
        """The same over more genes, to broadcast."""
        return self.values.reshape([counts[gene] if gene in self.genes else 1 for gene in genes])


@dataclass(frozen=True)
class _Tensor:
    """The output of the layer at `place`: how many numbers, and the bits in which each later layer reads it, or 0."""

    place: int
    size: _Grid
    readers: Mapping[int, _Grid]

    def may_live(self, place: int) -> bool:
        """Whether it may have to be held while the layer at `place` runs."""
        return self.place <= place <= max(self.readers, default=self.place)

    def while_runs(self, place: int, there: _Grid, counts: IntArray) -> AdditiveTable:
        """Its bytes while the layer at `place` runs, 0 where one of them is not there or nobody reads it any more."""
        grids = (self.size, there, *self.readers.values())
        genes = tuple(sorted(set().union(*(grid.genes for grid in grids))))
        reads = {reader: grid.over(genes, counts) for reader, grid in self.readers.items()}
        bits = functools.reduce(np.maximum, reads.values(), np.zeros(()))
        later = [read for reader, read in reads.items() if reader >= place]
        held = functools.reduce(np.maximum, later, np.zeros(())) > 0 if place > self.place else np.ones((), dtype=bool)
        count = self.size.over(genes, counts) * there.over(genes, counts) * held
        return _table(genes, count * np.where(bits > 0, bits, FLOAT_BITS) / 8, counts)


def _tensor(place: int, tables: Sequence[LayerTable], counts: IntArray) -> _Tensor:
    name = tables[place].name
    readers = {
        reader: _grid(tables[reader], functools.partial(_read_bits, name), counts) for reader in range(len(tables))
    }
    size = _grid(tables[place], lambda layer: math.prod(layer.out_shape), counts)
    return _Tensor(place, size, {reader: grid for reader, grid in readers.items() if grid.values.any()})


def _read_bits(name: str, layer: Layer) -> int:
    return layer.precision.act_bits if not isinstance(layer, Input) and name in layer.inputs else 0


def _grid(table: LayerTable, read: Callable[[Layer], float], counts: IntArray) -> _Grid:
    """What `read` gives for each form of a layer, 0 where it is absent, over those genes only that change it."""
    values = np.array([0.0 if form is None else read(form) for form in table.forms])
    return _reduced(table.genes, values.reshape([counts[gene] for gene in table.genes]))


def _reduced(genes: Genotype, values: FloatArray) -> _Grid:
    counts = [bool((values != values.take([0], axis)).any()) for axis in range(values.ndim)]
    kept = tuple(gene for gene, needed in zip(genes, counts, strict=True) if needed)
    return _Grid(kept, values[tuple(slice(None) if needed else 0 for needed in counts)])


def _table(genes: Genotype, values: FloatArray, counts: IntArray) -> AdditiveTable:
    grid = _reduced(genes, np.broadcast_to(values, [counts[gene] for gene in genes]))
    strides = tuple(math.prod(grid.values.shape[axis + 1 :]) for axis in range(grid.values.ndim))
    return AdditiveTable(grid.genes, strides, grid.values.ravel())


def _order(space: SearchSpace) -> dict[str, int]:
    """The place of each layer of a space, such that those of each maximal network follow each other."""
    before: dict[str, set[str]] = defaultdict(set)
    for network in space.maximal():
        for first, second in pairwise(network.layers):
            before[second.name].add(first.name)
    return {name: place for place, name in enumerate(TopologicalSorter(before).static_order())}
