"""Cells of NAS-Bench-201 (Dong & Yang, ICLR 2020): which are one network, and what sets networks apart.

A cell is six operations on the edges 0-1, 0-2, 1-2, 0-3, 1-3, 2-3; each node is the sum of its edges, and node 3 the
output. Many cells compute the same: an edge from or to nothing counts for nothing, a skip connection is its source,
sums commute, and average pooling, which is linear, of a sum is the sum of the poolings. The 15625 cells are 4660
networks; accuracies within one differ by training noise alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from nas.errors import NasError
from nas.genotype import BoolArray, FloatArray, IntArray

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
NONE, SKIP, CONV1, CONV3, POOL = range(5)
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))

Term: TypeAlias = "tuple[int, Sum] | None"
"""The cell's input (None), or an operation on a sum."""
Sum: TypeAlias = tuple[Term, ...]


def parse(text: str) -> tuple[int, ...]:
    """Operations of a cell, in the order of `EDGES`, from the benchmark's `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`."""
    parts = [part.partition("~") for node in text.split("+") for part in node.strip("|").split("|")]
    sources = [source for _, _, source in parts]
    if sources != [str(source) for source, _ in EDGES] or not all(name in OPERATIONS for name, _, _ in parts):
        raise NasError(f"a cell is written as |op~0|+|op~0|op~1|+|op~0|op~1|op~2| with {OPERATIONS}, got {text!r}")
    return tuple(OPERATIONS.index(name) for name, _, _ in parts)


def expression(cell: tuple[int, ...]) -> Sum:
    """What a cell computes, in canonical form; equal for cells that are one network, empty where nothing arrives."""
    nodes: list[list[Term]] = [[None], [], [], []]
    for (source, target), operation in zip(EDGES, cell, strict=True):
        nodes[target] += _applied(operation, nodes[source])
    return _sum(nodes[3])


def _applied(operation: int, terms: list[Term]) -> list[Term]:
    if operation == NONE or not terms:
        return []
    if operation == SKIP:
        return terms
    if operation == POOL:
        return [(POOL, (term,)) for term in terms]
    return [(operation, _sum(terms))]


def _sum(terms: list[Term]) -> Sum:
    return tuple(sorted(terms, key=repr))


def paths(terms: Sum) -> Counter[tuple[int, ...]]:
    """How often each sequence of operations leads from the input to the output, skip connections left out."""
    found: Counter[tuple[int, ...]] = Counter()
    for term in terms:
        if term is None:
            found[()] += 1
        else:
            for path, count in paths(term[1]).items():
                found[*path, term[0]] += count
    return found


def _layers(terms: Sum) -> Iterator[tuple[int, Sum]]:
    for term in terms:
        if term is not None:
            yield term
            yield from _layers(term[1])


@dataclass(frozen=True)
class Networks:
    """The distinct networks among cells.

    Attributes:
        of_cell: The network each cell is, shape (cells,).
        connected: Whether anything arrives at the output, shape (networks,).
        multiplications: Of its distinct layers, those of a 1x1 convolution being 1, shape (networks,).
        features: What sets networks apart, shape (networks, columns), each group scaled alike.
        groups: Group of each column, shape (columns,): 0 operations of the plainest cell that is this network, 1 counts
            of paths, 2 depths and sums.
    """

    of_cell: IntArray
    connected: BoolArray
    multiplications: FloatArray
    features: FloatArray
    groups: IntArray


def networks(cells: IntArray) -> Networks:
    """Group cells, shape (n, 6), into networks and describe these; needs no training and no data."""
    known: dict[Sum, int] = {}
    of_cell = np.array([known.setdefault(expression(tuple(cell)), len(known)) for cell in cells.tolist()])
    sums = list(known)
    blocks = [_scaled(block) for block in (_plainest(cells, of_cell), _path_counts(sums), _summaries(sums))]
    groups = np.repeat(np.arange(len(blocks)), [block.shape[1] for block in blocks])
    connected = np.array([bool(terms) for terms in sums])
    multiplications = np.array([_multiplications(terms) for terms in sums])
    return Networks(of_cell, connected, multiplications, np.concatenate(blocks, axis=1), groups)


def _multiplications(terms: Sum) -> float:
    layers = Counter(operation for operation, _ in set(_layers(terms)))
    return 9.0 * layers[CONV3] + layers[CONV1]


def _plainest(cells: IntArray, of_cell: IntArray) -> FloatArray:
    """One-hot operations of each network's cell with the most edges to nothing, then the most skip connections."""
    order = np.lexsort([-(cells == SKIP).sum(axis=1), -(cells == NONE).sum(axis=1), of_cell])
    first = order[np.unique(of_cell[order], return_index=True)[1]]
    one_hot: FloatArray = (cells[first][:, :, None] == np.arange(len(OPERATIONS))).astype(np.float64)
    return one_hot.reshape(len(first), -1)


def _path_counts(sums: list[Sum]) -> FloatArray:
    counted = [paths(terms) for terms in sums]
    kinds = sorted(set().union(*counted))
    return np.log1p([[found[kind] for kind in kinds] for found in counted])


def _summaries(sums: list[Sum]) -> FloatArray:
    return np.array([_summary(terms) for terms in sums])


def _summary(terms: Sum) -> list[float]:
    """Depths of the paths, how much of what lies on them, and the multiplications of the layers."""
    found = paths(terms)
    if not found:
        return [0.0] * 14
    weight = np.array(list(found.values()))
    on_path = np.array([[path.count(kind) for kind in (CONV1, CONV3, POOL)] for path in found])
    depth, total = on_path[:, 0] + on_path[:, 1], weight @ on_path
    pools = sum(operation == POOL for operation, _ in set(_layers(terms)))
    unpooled = weight[(on_path[:, 1] > 0) & (on_path[:, 2] == 0)].sum()
    counts = [weight.sum(), found[()], unpooled, *total, _multiplications(terms)]
    depths = [depth.min(), depth @ weight / weight.sum(), depth.max()]
    means = [total[1] / weight.sum(), on_path[:, 1].max(), total[2] / weight.sum()]
    return [*np.log1p(counts), *depths, *means, float(pools)]


def _scaled(block: FloatArray) -> FloatArray:
    """Columns of unit variance over the networks, divided so that two networks are about 1 apart."""
    block = block[:, np.ptp(block, axis=0) > 0]
    scaled: FloatArray = block / block.std(axis=0) / np.sqrt(2 * block.shape[1])
    return scaled
