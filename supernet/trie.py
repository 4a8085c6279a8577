"""Many networks as one list of layers, in which what they have in common occurs once.

Layers give the same tensor where their records are equal and their inputs are the same tensors: value numbering, as
compilers do it (Cocke & Schwartz 1970). Networks of one space begin alike and then part, so the list is the
depth-first walk of a trie, joined by what other branches compute as well. Networks of two resolutions have nothing in
common.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from nas.network import Input, Layer, Network
from supernet.run import Reader, fit

Row = tuple[int, ...]
"""The numbers of the values of some layers."""


@dataclass(frozen=True)
class Visit:
    """One distinct layer of many networks.

    Attributes:
        layer: What it computes.
        inputs: Of what: the visits it reads.
        gives: The networks, by index, whose logits these are.
        frees: The visits whose tensors nothing reads any more.
    """

    layer: Layer
    inputs: Row
    gives: tuple[int, ...]
    frees: tuple[int, ...]


@dataclass(frozen=True)
class Walk:
    """Many networks as one list of distinct layers.

    Attributes:
        visits: The layers, in the order in which to compute them.
        places: For each network, the place in `visits` of each of its layers.
    """

    visits: tuple[Visit, ...]
    places: tuple[Row, ...]

    @property
    def values_held(self) -> int:
        """The largest number of values, per image, of all tensors that are kept at a time.

        A walk over n images in float32 takes `4 * n * values_held` bytes, and what its largest layer needs on the way.
        """
        held = most = 0
        for visit in self.visits:
            held += math.prod(visit.layer.out_shape)
            most = max(most, held)
            held -= sum(math.prod(self.visits[spent].layer.out_shape) for spent in visit.frees)
        return most


def shared_order(networks: Sequence[Network]) -> list[int]:
    """Indices of the networks in an order in which neighbours have most in common; equal ones stay in sequence.

    Any contiguous part of it is in such an order again, so workers that take such parts repeat only what networks
    on both sides of a border begin with.
    """
    rows, _ = _numbered(networks)
    return sorted(range(len(rows)), key=rows.__getitem__)


def merge(networks: Sequence[Network]) -> Walk:
    """What to compute for the logits of all networks, each distinct layer once, its inputs before it.

    The order is depth-first: tensors that wait for a reader are those on the way to one network, and those that several
    ways from one of them share (a shortcut's convolution).
    """
    order = shared_order(networks)
    rows, values = _numbered([networks[index] for index in order])
    gives: dict[int, list[int]] = {}
    for index, row in zip(order, rows, strict=True):
        gives.setdefault(row[-1], []).append(index)
    last = {place: place for place in range(len(values))}
    last |= {source: place for place, (_, inputs) in enumerate(values) for source in inputs}
    frees: dict[int, list[int]] = {}
    for source, reader in last.items():
        frees.setdefault(reader, []).append(source)
    visits = (
        Visit(layer, inputs, tuple(gives.get(place, ())), tuple(frees.get(place, ())))
        for place, (layer, inputs) in enumerate(values)
    )
    return Walk(tuple(visits), tuple(row for _, row in sorted(zip(order, rows, strict=True))))


def run_all(
    walk: Walk, images: Tensor, compute: Callable[[int, Reader, list[Tensor]], Tensor]
) -> Iterator[tuple[int, Tensor]]:
    """Index and logits, shape (n, classes), of every network of a walk, one after another.

    Args:
        walk: What to compute.
        images: As `supernet.run.run` takes them.
        compute: The output of a visit, given its place in the walk, its layer and the layer's inputs.
    """
    tensors: dict[int, Tensor] = {}
    for place, visit in enumerate(walk.visits):
        if isinstance(visit.layer, Input):
            tensors[place] = fit(images, visit.layer.out_shape)
        else:
            tensors[place] = compute(place, visit.layer, [tensors[source] for source in visit.inputs])
        for index in visit.gives:
            yield index, tensors[place]
        for spent in visit.frees:
            del tensors[spent]


def _numbered(networks: Sequence[Network]) -> tuple[list[Row], list[tuple[Layer, Row]]]:
    """Each network as the numbers of its layers' values, and all values, each numbered where it first occurs."""
    known: dict[tuple[Layer, Row], int] = {}
    rows: list[Row] = []
    for network in networks:
        here: dict[str, int] = {}
        for layer in network:
            value = layer, tuple(here[source] for source in layer.inputs)
            here[layer.name] = known.setdefault(value, len(known))
        rows.append(tuple(here.values()))
    return rows, list(known)
