"""Active learning: which networks to train next when training is what costs.

The first objective, the error, is dear and predicted with an uncertainty; the others are known exactly beforehand. Each
batch is chosen by the expected growth of the hypervolume, then measured, and the predictor is refitted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray, distinct
from nas.pareto import non_dominated
from nas.search.archive import Progress, silent

Predict = Callable[[IntArray], tuple[FloatArray, FloatArray]]
"""Networks, shape (n, genes), to mean and standard deviation of what measuring them would give, each of shape (n,)."""

_NEGLIGIBLE = -8.0
_CELLS = 1 << 21
_REFRESHED = 256
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


@dataclass(frozen=True)
class Dear:
    """A problem whose first objective is dear and whose others are known; all are minimised.

    Attributes:
        measure: Networks, shape (n, genes), to their first objective, shape (n,).
        known: Networks to their other objectives, shape (n, others); exact and free.
        fit: Networks and their measured first objective to a predictor of it.
        candidates: Networks to choose among once a predictor is fitted; may hold measured ones and duplicates.
        reference: Upper corner of the hypervolume, shape (1 + others,).
    """

    measure: Callable[[IntArray], FloatArray]
    known: Callable[[IntArray], FloatArray]
    fit: Callable[[IntArray, FloatArray], Predict]
    candidates: Callable[[Predict, np.random.Generator], IntArray]
    reference: FloatArray


@dataclass(frozen=True)
class Measured:
    """Networks in the order they were measured, shape (n, genes), and all their objectives, shape (n, 1 + others)."""

    genotypes: IntArray
    costs: FloatArray


@dataclass(frozen=True)
class ActiveSearch:
    """Batches by expected hypervolume improvement.

    Attributes:
        budget: Networks measured in all; fewer only where the candidates run out.
        batch: Networks measured between two fits of the predictor.
    """

    budget: int
    batch: int = 8

    def __post_init__(self) -> None:
        if self.budget < 1 or self.batch < 1:
            raise NasError(f"an active search needs budget >= 1 and batch >= 1; got {self}")

    def run(self, problem: Dear, first: IntArray, rng: np.random.Generator, progress: Progress = silent) -> Measured:
        """Measure the first networks, shape (n, genes), then batch after batch; no network is measured twice."""
        new = distinct(first)
        if not 2 <= len(new) <= self.budget:
            raise NasError(f"an active search needs 2..{self.budget} (its budget) networks first, got {len(new)}")
        measured = Measured(new[:0], np.zeros((0, len(problem.reference))))
        while len(new):
            costs = np.column_stack([problem.measure(new), problem.known(new)])
            measured = Measured(np.concatenate([measured.genotypes, new]), np.concatenate([measured.costs, costs]))
            progress(len(measured.costs), self.budget)
            new = self._next(problem, measured, rng)
        return measured

    def _next(self, problem: Dear, measured: Measured, rng: np.random.Generator) -> IntArray:
        size = min(self.batch, self.budget - len(measured.costs))
        if not size:
            return measured.genotypes[:0]
        predict = problem.fit(measured.genotypes, measured.costs[:, 0])
        fresh = unmeasured(problem.candidates(predict, rng), measured.genotypes)
        mean, std = predict(fresh)
        return fresh[choose(mean, std, problem.known(fresh), measured.costs, problem.reference, size)]


def unmeasured(candidates: IntArray, measured: IntArray) -> IntArray:
    """Distinct candidates that are not among the measured, in order."""
    both = np.concatenate([measured, candidates])
    first: IntArray = np.sort(np.unique(both, axis=0, return_index=True)[1])
    return both[first[first >= len(measured)]]


def choose(
    mean: FloatArray, std: FloatArray, known: FloatArray, points: FloatArray, reference: FloatArray, size: int
) -> IntArray:
    """Choose a batch greedily by expected hypervolume improvement.

    Each choice is believed to come out at its mean (the kriging believer of Ginsbourger et al., 2010) before the next.
    A believed point can only lessen the improvement others promise, so those are computed again only where they lead.

    Args:
        mean: Predicted first objective of the candidates, shape (n,).
        std: Its standard deviation, shape (n,), positive.
        known: Their other objectives, shape (n, others).
        points: Measured objectives, shape (k, 1 + others).
        reference: Upper corner, shape (1 + others,).
        size: How many to choose; all candidates where there are no more.

    Returns:
        Indices in the order of choice, shape (min(size, n),).
    """
    gain, stale = expected_improvement(mean, std, known, points, reference), np.zeros(len(mean), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < min(size, len(mean)):
        best = int(np.argmax(gain))
        if stale[best]:
            rows = np.flatnonzero(stale)
            rows = rows[np.argsort(-gain[rows], kind="stable")[:_REFRESHED]]
            gain[rows] = expected_improvement(mean[rows], std[rows], known[rows], points, reference)
            stale[rows] = False
        else:
            chosen.append(best)
            points = np.vstack([points, [mean[best], *known[best]]])
            gain[best] = -1.0
            stale = gain >= 0
    return np.array(chosen, dtype=np.int64)


def expected_improvement(
    mean: FloatArray, std: FloatArray, known: FloatArray, points: FloatArray, reference: FloatArray
) -> FloatArray:
    """By how much each candidate is expected to enlarge the dominated hypervolume, in closed form, shape (n,).

    Let h(x) be the least first objective among the points that are nowhere above x in the others (the reference's where
    there is none). A candidate at (y, c) adds the integral of max(h(x) - y, 0) over c <= x <= reference. h is constant
    on the boxes of the grid that the points span, so with y ~ N(mean, std^2) the expectation is a sum over boxes of
    volume(box beyond c) * std * (z Phi(z) + phi(z)), z = (h - mean) / std: the expected improvement of Jones et al.
    (1998, equation 15) slab by slab, to which the formula of Emmerich et al. (2011) comes down where all objectives
    but one are certain.

    Args:
        mean: Shape (n,).
        std: Shape (n,), positive.
        known: Shape (n, others); no others gives the expected improvement itself.
        points: What is dominated already, shape (k, 1 + others).
        reference: Upper corner, shape (1 + others,).
    """
    lower, upper, level = _boxes(points, reference)
    improvement = np.zeros(len(mean))
    step = max(1, _CELLS // level.size)
    for start in range(0, len(mean), step):
        rows = slice(start, start + step)
        volume = np.ones((len(mean[rows]), len(level)))
        for column, low, high in zip(known[rows].T, lower.T, upper.T, strict=True):
            volume *= np.maximum(high - np.maximum(low, column[:, None]), 0)
        z = (level - mean[rows, None]) / std[rows, None]
        row, box = np.nonzero((volume > 0) & (z > _NEGLIGIBLE))
        added = volume[row, box] * std[rows][row] * _excess(z[row, box])
        improvement[rows] = np.bincount(row, added, minlength=len(volume))
    return improvement


def _excess(z: FloatArray) -> FloatArray:
    """E[max(z - Z, 0)] of a standard normal Z."""
    if not z.size:
        return z
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    value: FloatArray = np.maximum(z * _erfc(-z / math.sqrt(2)) / 2 + density, 0)
    return value


def _boxes(points: FloatArray, reference: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Lower and upper corners of the grid's boxes, shape (boxes, others) each, and h on them, shape (boxes,)."""
    inside = points[(points < reference).all(axis=1)]
    front = inside[non_dominated(inside)]
    sides = [_intervals(column, limit) for column, limit in zip(front.T[1:], reference[1:], strict=True)]
    grid = list(product(*sides))
    corners = np.array(grid).reshape(len(grid), len(sides), 2)
    lower, upper = corners[:, :, 0], corners[:, :, 1]
    below = (front[:, 1:] <= lower[:, None, :]).all(axis=2)
    return lower, upper, np.where(below, front[:, 0], reference[0]).min(axis=1, initial=reference[0])


def _intervals(column: FloatArray, limit: float) -> Iterator[tuple[float, float]]:
    return pairwise([-math.inf, *np.unique(column).tolist(), float(limit)])
