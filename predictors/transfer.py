"""Transfer from many float networks to few quantized ones (APQ, CVPR 2020), with a safeguard.

A predictor of float networks ranks quantized ones, too, but knows nothing of bits. What it says is the prior. With it
goes a stack of three members: a linear trend of the prior and the groups' means, whose few coefficients few samples
suffice for; a regressor of what the prior leaves over, which is told the prior; and a regressor from scratch. The mean
of the last two ranks about as well as the better one. The prior alone stays until the stack ranks left-out samples
better; the trend is left out where many samples rank better without.

Values are replaced by their ranks' normal scores: networks that collapse at low bits come last, not far off.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from predictors import regressors
from predictors.boosting import Arrays
from predictors.prediction import Prediction, pairwise_accuracy
from predictors.regressors import FEWEST_ROWS, Fitted

Way = Literal["prior", "stack"]

FEWEST = 4

_FOLDS = 4
_MOST_JUDGED = 200
"""Rows that the choice is made on: a stack that ranks better when it learned from 150 of them does so from more."""

_TREND_ROWS = 50
"""With so many rows, the trend counts as much as the regressors; its weight falls as they grow."""


@dataclass(frozen=True)
class Stack:
    """The members that learn from quantized networks; all give normal scores.

    Attributes:
        trend: Offset, a slope for each column and one for the prior's line, shape (columns + 2,).
        weight: Of the trend, in [0, 1].
        residual: Predicts from columns and line what the line leaves over.
        scratch: Predicts from columns alone.
    """

    trend: FloatArray
    weight: float
    residual: Fitted
    scratch: Fitted

    def predict(self, features: FloatArray, along: FloatArray) -> Prediction:
        """Normal scores for features of shape (n, columns) and the prior's line there, shape (n,)."""
        wide = np.column_stack([features, along])
        residual, scratch = self.residual.predict(wide), self.scratch.predict(features)
        learned = (along + residual.mean + scratch.mean) / 2
        straight = self.trend[0] + wide @ self.trend[1:]
        mean = self.weight * straight + (1 - self.weight) * learned
        return Prediction(mean, (residual.std + scratch.std) / 2)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """What `restore` needs besides the regressors' kind."""
        members = {"residual": self.residual, "scratch": self.scratch}
        inner = {f"{name}.{key}": value for name, one in members.items() for key, value in one.arrays().items()}
        return {"trend": self.trend, "weight": np.asarray(self.weight), **inner}


@dataclass(frozen=True)
class Transferred:
    """A predictor of quantized networks.

    Attributes:
        line: Offset and slope from the prior to normal scores.
        knots: Normal scores and the values they stand for, both ascending, shape (2, n).
        spread: Standard deviation of the normal scores about the line, used where the prior stands alone.
        stack: None where the prior stands alone.
    """

    line: FloatArray
    knots: FloatArray
    spread: float
    stack: Stack | None

    @property
    def way(self) -> Way:
        """Which of the two was chosen."""
        return "prior" if self.stack is None else "stack"

    def predict(self, features: FloatArray, prior: FloatArray) -> Prediction:
        """In the unit of the values, for features of shape (n, columns) and the prior's mean, shape (n,)."""
        along = self.line[0] + self.line[1] * prior
        if self.stack is None:
            found = Prediction(along, np.full(len(prior), self.spread))
        else:
            found = self.stack.predict(features, along)
        up, down = _value(self.knots, found.mean + found.std), _value(self.knots, found.mean - found.std)
        return Prediction(_value(self.knots, found.mean), (up - down) / 2)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """What `restore` needs besides way and kind."""
        inner = {} if self.stack is None else self.stack.arrays()
        return {"line": self.line, "knots": self.knots, "spread": np.asarray(self.spread), **inner}


def fit(
    kind: str, features: FloatArray, values: FloatArray, groups: IntArray, prior: FloatArray, seed: int
) -> Transferred:
    """Choose between prior and stack by cross-validation, and fit to all rows.

    Args:
        kind: One of `regressors.REGRESSORS`.
        features: Of the quantized networks, bits and sparsity included, shape (n, columns).
        values: Shape (n,).
        groups: Group of each column, from 0, shape (columns,).
        prior: What the predictor of float networks says of each row, shape (n,).
        seed: Of the folds and the fits.

    Raises:
        NasError: Fewer than four rows, or values that are all the same.
    """
    if len(values) < FEWEST or np.ptp(values) == 0:
        raise NasError(
            f"a transfer needs at least {FEWEST} rows with differing values, got {len(values)}"
            f"{' equal ones' if len(values) and np.ptp(values) == 0 else ''}; bring more rows"
        )
    return _fit(_choose(kind, features, values, groups, prior, seed), kind, features, values, groups, prior, seed)


def restore(way: Way, kind: str, arrays: Arrays) -> Transferred:
    """The predictor that `arrays` came from."""
    line, knots = (np.asarray(arrays[name], np.float64) for name in ("line", "knots"))
    stack = None if way == "prior" else _restore_stack(kind, arrays)
    return Transferred(line, knots, float(np.asarray(arrays["spread"], np.float64)), stack)


def normal_scores(values: FloatArray) -> FloatArray:
    """What the values' ranks would be worth in a normal sample (Blom, 1958), shape (n,); equal values stay equal."""
    scores: FloatArray = norm.ppf((rankdata(values) - 0.5) / len(values))
    return scores


def _choose(
    kind: str, features: FloatArray, values: FloatArray, groups: IntArray, prior: FloatArray, seed: int
) -> float | None:
    """Weight of the trend in the stack that, fitted without one fold at a time, ranks the rows of all folds best.

    None for the prior alone, unless a stack ranks better; 0 where many rows say that the trend is of no help.
    """
    rows = np.random.default_rng(seed).permutation(len(values))[:_MOST_JUDGED]
    part = regressors.folds(len(rows), _FOLDS, seed)
    weights = [_TREND_ROWS / (_TREND_ROWS + len(values)), 0.0][: 1 + (len(values) >= _TREND_ROWS)]
    found = np.empty((len(weights), len(rows)))
    for fold in range(_FOLDS):
        own, rest = rows[part == fold], rows[part != fold]
        if len(rest) < FEWEST_ROWS or np.ptp(values[rest]) == 0:
            return None
        fitted = _fit(0.0, kind, features[rest], values[rest], groups, prior[rest], seed)
        along = fitted.line[0] + fitted.line[1] * prior[own]
        for place, weight in enumerate(weights):
            stack = None if fitted.stack is None else replace(fitted.stack, weight=weight)
            found[place, part == fold] = along if stack is None else stack.predict(features[own], along).mean
    accuracy = [pairwise_accuracy(each, values[rows]) for each in found]
    best = int(np.argmax(accuracy))
    return weights[best] if accuracy[best] > pairwise_accuracy(prior[rows], values[rows]) else None


def _fit(
    weight: float | None,
    kind: str,
    features: FloatArray,
    values: FloatArray,
    groups: IntArray,
    prior: FloatArray,
    seed: int,
) -> Transferred:
    """With the trend's weight in the stack, or the prior alone."""
    scores = normal_scores(values)
    order = np.argsort(values, kind="stable")
    knots = np.stack([scores[order], values[order]])[:, np.unique(scores[order], return_index=True)[1]]
    line = _line(prior, scores)
    along = line[0] + line[1] * prior
    left = scores - along
    alone = weight is None or np.ptp(left) == 0
    stack = None if alone else _fit_stack(weight or 0.0, kind, features, scores, groups, along, seed)
    return Transferred(line, knots, float(left.std()), stack)


def _fit_stack(
    weight: float,
    kind: str,
    features: FloatArray,
    scores: FloatArray,
    groups: IntArray,
    along: FloatArray,
    seed: int,
) -> Stack:
    wide, grouped = np.column_stack([features, along]), np.append(groups, groups.max() + 1)
    residual = regressors.fit(kind, wide, scores - along, grouped, seed)
    scratch = regressors.fit(kind, features, scores, groups, seed)
    return Stack(_trend(wide, scores, grouped), weight, residual, scratch)


def _restore_stack(kind: str, arrays: Arrays) -> Stack:
    def member(name: str) -> Fitted:
        prefix = f"{name}."
        return regressors.restore(kind, {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)})

    trend, weight = np.asarray(arrays["trend"], np.float64), float(np.asarray(arrays["weight"], np.float64))
    return Stack(trend, weight, member("residual"), member("scratch"))


def _line(prior: FloatArray, scores: FloatArray) -> FloatArray:
    """Least squares, but rising: the order is the prior's, whatever few samples say."""
    centred = prior - prior.mean()
    variance = float(centred @ centred)
    slope = max(float(centred @ scores), 0.05 * np.sqrt(variance * len(prior))) / variance if variance else 1.0
    return np.array([scores.mean() - slope * prior.mean(), slope])


def _trend(columns: FloatArray, scores: FloatArray, groups: IntArray) -> FloatArray:
    """Offset and slope of each column: a ridge regression on each group's mean of standardised columns."""
    centre, share = columns.mean(axis=0), _inverse(columns.std(axis=0)) / np.bincount(groups)[groups]
    means = ((columns - centre) * share) @ np.eye(int(groups.max()) + 1)[groups]
    scale = _inverse(means.std(axis=0))
    known = means * scale
    slopes = np.linalg.solve(known.T @ known + np.eye(len(scale)), known.T @ scores) * scale
    by_column = slopes[groups] * share
    return np.array([scores.mean() - centre @ by_column, *by_column])


def _inverse(scale: FloatArray) -> FloatArray:
    return np.where(scale > 1e-12, 1 / np.maximum(scale, 1e-12), 0.0)


def _value(knots: FloatArray, scores: FloatArray) -> FloatArray:
    """Values of normal scores; beyond the ends, along the straight line through both ends, so that order is kept."""
    slope = (knots[1, -1] - knots[1, 0]) / (knots[0, -1] - knots[0, 0])
    inside = np.clip(scores, knots[0, 0], knots[0, -1])
    values: FloatArray = np.interp(inside, knots[0], knots[1]) + slope * (scores - inside)
    return values
