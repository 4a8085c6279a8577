"""Dominance, hypervolume and representative subsets; every column of a point set is minimised."""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

from nas.errors import NasError
from nas.genotype import BoolArray, FloatArray, IntArray

_BLOCK = 256
_PART = 4000
_ROWS = 64
"""A multiple of 8."""

_LATER = np.triu(np.ones((_ROWS, _ROWS), dtype=bool), 1)


def non_dominated(points: FloatArray) -> BoolArray:
    """Mark the points no other point dominates.

    Args:
        points: Objective values, shape (n, m), finite.

    Returns:
        Boolean mask, shape (n,). Equal points are all kept.
    """
    parts = len(points) // _PART + 1
    left = [np.arange(part, len(points), parts) for part in range(parts)]
    # Of many points most are dominated within any share of them already.
    left = [rows[_non_dominated(points[rows])] for rows in left] if parts > 1 else left
    rows = np.concatenate(left)
    mask = np.zeros(len(points), dtype=bool)
    mask[rows[_non_dominated(points[rows])]] = True
    return mask


def _non_dominated(points: FloatArray) -> BoolArray:
    if not len(points):
        return np.zeros(0, dtype=bool)
    distinct, inverse = _distinct(points)
    keep = np.zeros(len(distinct), dtype=bool)
    # Rows are sorted, so whatever dominates a row comes before it.
    for start in range(0, len(distinct), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(distinct)))
        block = block[~_below(distinct[block], distinct[keep]).any(axis=1)]
        # Every row is below itself.
        keep[block[_below(distinct[block], distinct[block]).sum(axis=1) == 1]] = True
    mask: BoolArray = keep[inverse]
    return mask


def _distinct(points: FloatArray) -> tuple[FloatArray, IntArray]:
    """The different rows in lexicographic order, and which of them each point is, shape (n,)."""
    order = np.lexsort(points.T[::-1])
    sorted_points = points[order]
    head = np.ones(len(points), dtype=bool)
    head[1:] = (sorted_points[1:] != sorted_points[:-1]).any(axis=1)
    inverse = np.empty(len(points), dtype=np.int64)
    inverse[order] = np.cumsum(head) - 1
    return sorted_points[head], inverse


def _below(points: FloatArray, others: FloatArray) -> BoolArray:
    """Mark, for each point, the others that are nowhere above it, shape (points, others)."""
    below = np.ones((len(points), len(others)), dtype=bool)
    for own, other in zip(np.ascontiguousarray(points.T), np.ascontiguousarray(others.T), strict=True):
        below &= other <= own[:, None]
    return below


def rank(points: FloatArray, enough: int | None = None) -> IntArray:
    """Number of the front each point lies on, 0 first, shape (n,) (Deb et al., NSGA-II, 2002, section III-A).

    Takes n * n / 8 bytes of memory.

    Args:
        points: Objective values, shape (n, m), finite.
        enough: Once the fronts hold this many different points, all others get the next number.
    """
    distinct, inverse = _distinct(points)
    dominated = _dominated(distinct)
    ranks, waiting, level = np.empty(len(distinct), dtype=np.int64), np.arange(len(distinct)), 0
    while len(waiting) and (enough is None or len(distinct) - len(waiting) < enough):
        beaten = np.unpackbits(np.bitwise_or.reduce(dominated[waiting], axis=0), count=len(distinct))[waiting] == 1
        ranks[waiting[~beaten]] = level
        waiting, level = waiting[beaten], level + 1
    ranks[waiting] = level
    by_row: IntArray = ranks[inverse]
    return by_row


def _dominated(points: FloatArray) -> npt.NDArray[np.uint8]:
    """Bits of the points that each dominates, shape (n, n / 8), for distinct points in lexicographic order.

    A point dominates only what comes behind it, and there the first objective is no less.
    """
    size = len(points)
    # The places of values in their column compare as the values do, and faster.
    codes = [_places(column) for column in points.T[1:]] or [np.zeros(size, dtype=np.int8)]
    packed = np.zeros((size, -(-size // 8)), dtype=np.uint8)
    for start in range(0, size, _ROWS):
        rows = slice(start, start + _ROWS)
        behind = codes[0][rows, None] <= codes[0][start:]
        for column in codes[1:]:
            behind &= column[rows, None] <= column[start:]
        behind[:, :_ROWS] &= _LATER[: len(behind), : size - start]
        packed[rows, start // 8 :] = np.packbits(behind, axis=1)
    return packed


def _places(column: FloatArray) -> IntArray:
    """Place of each value among the different ones, in the smallest integers that hold it, shape (n,)."""
    places: IntArray = np.unique(column, return_inverse=True)[1].astype(np.min_scalar_type(-len(column)))
    return places


def crowding_distance(points: FloatArray) -> FloatArray:
    """Half the perimeter of the box between each point's neighbours, shape (n,) (Deb et al., 2002, section III-B).

    Every column is scaled to its range; the extremes of a column are infinitely far apart.
    """
    distance = np.zeros(len(points))
    if not len(points):
        return distance
    for column in points.T:
        order = np.argsort(column, kind="stable")
        spread = column[order[-1]] - column[order[0]]
        distance[order[[0, -1]]] = np.inf
        if spread > 0:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / spread
    return distance


def hypervolume(points: FloatArray, reference: FloatArray) -> float:
    """The exact volume that the points dominate within the reference point.

    Two objectives cost one sort; each further one a sweep over the last column (While et al., 2006).

    Args:
        points: Objective values, shape (n, m), finite.
        reference: Upper corner, shape (m,); points not below it in every column add nothing.
    """
    inside = points[(points < reference).all(axis=1)]
    return _volume(inside[non_dominated(inside)], np.asarray(reference, dtype=np.float64))


def _volume(points: FloatArray, reference: FloatArray) -> float:
    if not len(points):
        return 0.0
    points = points[np.argsort(points[:, -1], kind="stable")]
    if points.shape[1] == 1:
        return float(reference[0] - points[0, 0])
    heights = np.diff(np.append(points[:, -1], reference[-1]))
    if points.shape[1] == 2:
        return float(heights @ (reference[0] - np.minimum.accumulate(points[:, 0])))
    volume, slab = 0.0, points[:0, :-1]
    for point, height in zip(points, heights, strict=True):
        slab = slab[~(slab >= point[:-1]).all(axis=1)]
        slab = np.vstack([slab, point[:-1]])
        if height > 0:
            volume += height * _volume(slab, reference[:-1])
    return volume


def dominated_share(front: FloatArray, points: FloatArray) -> float:
    """The share of some points, shape (n, m), that a front dominates or equals: a hypervolume, estimated."""
    blocks = (points[start : start + _BLOCK] for start in range(0, len(points), _BLOCK))
    return sum(int(_below(block, front).any(axis=1).sum()) for block in blocks) / len(points)


def spread_subset(points: FloatArray, size: int) -> IntArray:
    """Choose members that represent a front: the best of each objective, then greedily the largest hypervolume.

    Columns are scaled to their range, the reference lies a tenth of it beyond the worst. Greedy choice keeps at
    least 1 - 1/e of the best reachable hypervolume, which is submodular (Nemhauser et al., 1978).

    Args:
        points: A front, shape (n, m).
        size: How many to choose; all of them where the front has no more.

    Returns:
        Ascending indices, shape (min(size, n),).
    """
    if len(points) <= size:
        return np.arange(len(points))
    best = [int(np.lexsort((*points.T, column))[0]) for column in points.T]
    chosen = list(dict.fromkeys(best))
    if size < len(chosen):
        raise NasError(f"a subset of {size} cannot hold the best of each objective; ask for at least {len(chosen)}")
    span = np.ptp(points, axis=0)
    scaled = (points - points.min(axis=0)) / np.where(span > 0, span, 1.0)
    return _greedy(scaled, chosen, size)


def _greedy(points: FloatArray, chosen: list[int], size: int) -> IntArray:
    reference = np.full(points.shape[1], 1.1)
    volume = hypervolume(points[chosen], reference)
    # A gain only shrinks as the set grows, so one that is fresh and on top of the heap is the largest.
    queue = [(-np.inf, index, -1) for index in range(len(points)) if index not in set(chosen)]
    while len(chosen) < size:
        loss, index, seen = heapq.heappop(queue)
        if seen == len(chosen):
            chosen.append(index)
            volume -= loss
        else:
            gain = hypervolume(points[[*chosen, index]], reference) - volume
            heapq.heappush(queue, (-gain, index, len(chosen)))
    return np.sort(np.array(chosen, dtype=np.int64))
