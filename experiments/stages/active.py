"""Within the search: subnets that promise most growth of the front are scored, and the predictor learns from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.context import Context
from experiments.stages.fit import ACCURACY
from experiments.stages.sample import evaluated
from nas.genotype import FloatArray, IntArray
from nas.pareto import non_dominated, spread_subset
from nas.search.active import choose, unmeasured
from nas.search.archive import Archive
from predictors import accuracy
from predictors.accuracy import AccuracyPredictor

_BOXES = 4096
"""Of the grid that known points span; beyond a few thousand, choosing takes longer than scoring."""


@dataclass(frozen=True)
class Found:
    """What a search found, and the front of 8-bit unpruned networks that it began with, if it did."""

    archive: Archive
    dense: IntArray | None = None


@dataclass(frozen=True)
class Learned:
    """The last search's finds, and how far off the predictor was on each batch of subnets before it learned them."""

    found: Found
    evaluations: int
    rmse_by_batch: list[float]


def learning(
    context: Context,
    train_folder: Path,
    fit_folder: Path,
    folder: Path,
    search: Callable[[AccuracyPredictor, IntArray], Found],
) -> Learned:
    """Search, and go on scoring, learning and searching while the config's evaluations last.

    It ends early when the whole front has been scored.

    Args:
        context: Config, data and space.
        train_folder: Where the supernet is.
        fit_folder: Where the predictor is that the first search asks.
        folder: Of the log of scores; an interrupted search finds its own there.
        search: With a predictor, and with networks to begin with, shape (n, genes): those that were scored last.
    """
    settings, rmse = context.config.search, list[float]()
    errors = accuracy.load(context.space, fit_folder / ACCURACY)
    scored = chosen = errors.samples[:0]
    while True:
        found = search(errors, chosen)
        chosen = promising(errors, found.archive, min(settings.evaluations - len(scored), settings.batch))
        if not len(chosen):
            return Learned(found, len(scored), rmse)
        scored = np.concatenate([scored, chosen])
        truth = evaluated(context, train_folder, scored, folder, "score subnets of the front")[-len(chosen) :]
        rmse.append(float(np.sqrt(np.mean((errors.predict(chosen).mean - truth) ** 2))))
        errors = errors.taught(chosen, truth)


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
