"""An additive stand-in of a metric, its exact fronts, and what they prove about the metric itself.

Errors multiply rather than add: on the project's own predictors a sum over genes explains 99 % of the variance of the
logarithm of the error, and 89 % of that of the error. So a metric that is positive is stood in for by its logarithm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nas.genotype import FloatArray, IntArray
from nas.problem import Problem
from nas.search import surrogate
from nas.search.archive import Archive
from nas.search.exact_front import Front, exact_front
from nas.tables import AdditiveCost, AdditiveTable

_ROUNDING = 1e-9

_MOST_FITTED = 4000


@dataclass(frozen=True)
class StandIn:
    """A sum over genes in place of a metric.

    Attributes:
        problem: Whose metric it is.
        additive: The sum; of the metric's logarithm if `logarithmic`.
        genewise: The same as one weight for each choice, where it was fitted.
        logarithmic: Whether it is.
        slack: What it is lowered by to be a bound, 0 or more; see `lower_stand_in`.
    """

    problem: Problem
    additive: AdditiveCost
    genewise: surrogate.Genewise | None = None
    logarithmic: bool = False
    slack: float = 0.0

    def front(self, cost: AdditiveCost) -> Front:
        """Every network on the front of the stand-in and a cost, over the allowed choices; no limit is held.

        Raises:
            NasError: As `exact_front`.
        """
        return exact_front(self.problem, self.additive, cost)

    def bounds(self, front: Front, budgets: FloatArray) -> FloatArray:
        """A lower bound of the metric under each budget of a front's cost, in the metric's unit; inf where none fits.

        Proved for every network at which the metric is not below the lowered stand-in. Those evaluated are such, so
        where all of them are, the bound holds for the metric itself.
        """
        reached = np.searchsorted(front.values[::-1, 1], budgets + _ROUNDING * np.abs(budgets), side="right")
        return self.below(np.append(np.inf, front.values[::-1, 0])[reached])

    def below(self, values: FloatArray) -> FloatArray:
        """What the metric is at least, in its unit, where the sum is at least `values`; proved as `bounds` are."""
        least = values - self.slack
        return np.exp(least) if self.logarithmic else least


def stand_in(
    archive: Archive,
    metric: str,
    places: IntArray | None = None,
    centre: IntArray | None = None,
    prior: StandIn | None = None,
) -> StandIn:
    """Fit to an archive; a metric that is a sum itself stands for itself.

    Args:
        archive: What is known of the metric.
        metric: The metric.
        places: Of the members to fit to; all of them if not given.
        centre: Where given, genotypes near which the fit counts the most, shape (n, genes).
        prior: Where given, only what it leaves is fitted.
    """
    problem, shown = archive.problem, slice(None) if places is None else places
    population, values = archive.genotypes[shown], archive.metrics[shown, problem.metrics.index(metric)]
    if metric in problem.additive:
        return StandIn(problem, problem.additive[metric])
    logarithmic = bool((values > 0).all()) if prior is None else prior.logarithmic
    wanted = np.log(values) if logarithmic else values
    importance = None if centre is None else surrogate.nearness(population, centre)
    fitted = surrogate.fit(problem, population, wanted, importance, None if prior is None else prior.genewise)
    return StandIn(problem, fitted.additive(problem), fitted, logarithmic)


def lower_stand_in(archive: Archive, metric: str) -> StandIn:
    """A stand-in fitted to the front and some others, and lowered until it is below the metric at every member."""
    return lowered(fitted_to_some(archive, metric, archive.front()), archive, metric)


def fitted_to_some(archive: Archive, metric: str, places: IntArray) -> StandIn:
    """A stand-in fitted to the members at some places, and to a few thousand of all."""
    step = max(1, len(archive) // _MOST_FITTED)
    return stand_in(archive, metric, np.union1d(places, np.arange(0, len(archive), step)))


def lowered(fitted: StandIn, archive: Archive, metric: str) -> StandIn:
    """The same, lowered until it is below the metric at every member of an archive."""
    if fitted.genewise is None:
        return fitted
    values = archive.metrics[:, archive.problem.metrics.index(metric)]
    rest = (np.log(values) if fitted.logarithmic else values) - fitted.genewise(archive.problem, archive.genotypes)
    return replace(fitted, slack=max(0.0, -float(rest.min())))


def weighted(costs: Sequence[AdditiveCost], weights: FloatArray) -> AdditiveCost:
    """The weighted sum of several costs."""
    tables = [
        AdditiveTable(table.genes, table.strides, table.values * weight)
        for cost, weight in zip(costs, weights.tolist(), strict=True)
        for table in cost.tables
    ]
    return AdditiveCost(tuple(tables), float(sum(w * c.constant for c, w in zip(costs, weights.tolist(), strict=True))))
