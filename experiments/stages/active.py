"""Within the search: which subnets the accuracy predictor should see next, by the growth of the front they promise."""

from __future__ import annotations

import numpy as np

from nas.genotype import FloatArray, IntArray
from nas.pareto import non_dominated, spread_subset
from nas.search.active import choose, unmeasured
from nas.search.archive import Archive
from predictors.accuracy import AccuracyPredictor

_BOXES = 4096
"""Of the grid that known points span; beyond a few thousand, choosing takes longer than scoring."""


def promising(errors: AccuracyPredictor, archive: Archive, size: int) -> IntArray:
    """Members of an archive's front that the predictor was not fitted to, shape (at most `size`, genes).

    They are chosen one after the other by expected hypervolume improvement over the networks it was fitted to. Their
    errors are known, and all else is computed. The reference point lies a tenth of the front's range beyond its worst.

    Args:
        errors: The predictor the archive's errors come from.
        archive: Of a search.
        size: How many to choose.
    """
    problem, front = archive.problem, archive.front()
    candidates = unmeasured(archive.genotypes[front], errors.samples)
    if not len(candidates) or not size:
        return candidates[:0]
    columns = problem.columns(("error", *(name for name in problem.objectives if name != "error")))
    reached = archive.metrics[front][:, columns]
    reference = reached.max(axis=0) + 0.1 * np.ptp(reached, axis=0)
    prediction = errors.predict(candidates)
    known = problem.evaluate(candidates)[:, columns[1:]]
    chosen = choose(prediction.mean, prediction.std, known, _points(errors, archive, columns), reference, size)
    return candidates[chosen]


def _points(errors: AccuracyPredictor, archive: Archive, columns: list[int]) -> FloatArray:
    """The front of the feasible samples, error first, shape (n, objectives), thinned where objectives are many."""
    metrics = archive.problem.evaluate(errors.samples)
    metrics[:, columns[0]] = errors.errors
    points = metrics[archive.problem.violation(metrics) == 0][:, columns]
    points = points[non_dominated(points)]
    most = len(points) if len(columns) < 3 else int(_BOXES ** (1 / (len(columns) - 1)))
    thinned: FloatArray = points[spread_subset(points, most)]
    return thinned
