"""Dominance, hypervolume and representative subsets; every column of a point set is minimised."""

from __future__ import annotations

import heapq

import numpy as np

from nas.errors import NasError
from nas.genotype import BoolArray, FloatArray, IntArray

_BLOCK = 256


def non_dominated(points: FloatArray) -> BoolArray:
    """Mark the points no other point dominates.

    Args:
        points: Objective values, shape (n, m), finite.

    Returns:
        Boolean mask, shape (n,). Equal points are all kept.
    """
    if not len(points):
        return np.zeros(0, dtype=bool)
    distinct, inverse = np.unique(points, axis=0, return_inverse=True)
    keep = np.zeros(len(distinct), dtype=bool)
    # Rows are sorted, so whatever dominates a row comes before it.
    for start in range(0, len(distinct), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(distinct)))
        block = block[~_below(distinct[block], distinct[keep]).any(axis=1)]
        # Every row is below itself.
        keep[block[_below(distinct[block], distinct[block]).sum(axis=1) == 1]] = True
    mask: BoolArray = keep[inverse.ravel()]
    return mask


def _below(points: FloatArray, others: FloatArray) -> BoolArray:
    """Mark, for each point, the others that are nowhere above it, shape (points, others)."""
    below = np.ones((len(points), len(others)), dtype=bool)
    for column in range(points.shape[1]):
        below &= others[None, :, column] <= points[:, None, column]
    return below


def rank(points: FloatArray) -> IntArray:
    """Number of the front each point lies on, 0 first, shape (n,) (Deb et al., NSGA-II, 2002, section III-A).

    Takes n * n bytes of memory.
    """
    distinct, inverse = np.unique(points, axis=0, return_inverse=True)
    below = _below(distinct, distinct)
    np.fill_diagonal(below, False)
    ranks, waiting = np.zeros(len(distinct), dtype=np.int64), below.sum(axis=1)
    front, level = np.flatnonzero(waiting == 0), 0
    while len(front):
        ranks[front], level = level, level + 1
        waiting -= below[:, front].sum(axis=1)
        waiting[front] = -1
        front = np.flatnonzero(waiting == 0)
    by_row: IntArray = ranks[inverse.ravel()]
    return by_row


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
