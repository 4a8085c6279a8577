"""Transfer from many float networks to few quantized ones (APQ, CVPR 2020), with a safeguard.

A predictor of float networks ranks quantized ones, too, but knows nothing of bits. What it says is the prior. Three
ways to use it compete in cross-validation: alone, corrected by a regressor of what it leaves over, or not at all. The
prior alone is given up only for what ranks better by more than the folds' standard error. Between the other two the
better mean decides, and with few samples it may be the wrong one: then training from scratch ranks a little better.
Values are replaced by their ranks' normal scores: networks that collapse at low bits come last, not far off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from predictors import regressors
from predictors.boosting import Arrays
from predictors.prediction import Prediction, pairwise_accuracy
from predictors.regressors import FEWEST_ROWS, Fitted

Way = Literal["prior", "residual", "scratch"]

_FOLDS = 4
_REPEATS = 2


@dataclass(frozen=True)
class Transferred:
    """A predictor of quantized networks.

    Attributes:
        way: How the prior is used.
        line: Offset and slope from the prior to normal scores.
        knots: Normal scores and the values they stand for, both ascending, shape (2, n).
        fitted: Of what the way leaves to be learned; None where the prior stands alone.
        spread: Standard deviation of the normal scores about the line, where nothing is fitted.
    """

    way: Way
    line: FloatArray
    knots: FloatArray
    fitted: Fitted | None
    spread: float

    def predict(self, features: FloatArray, prior: FloatArray) -> Prediction:
        """In the unit of the values, for features of shape (n, columns) and the prior's mean, shape (n,)."""
        along = np.zeros(len(prior)) if self.way == "scratch" else self.line[0] + self.line[1] * prior
        if self.fitted is None:
            scores, std = along, np.full(len(prior), self.spread)
        else:
            own = self.fitted.predict(_extended(self.way, features, along))
            scores, std = along + own.mean, own.std
        up, down = _value(self.knots, scores + std), _value(self.knots, scores - std)
        return Prediction(_value(self.knots, scores), (up - down) / 2)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """What `restore` needs besides way and kind."""
        inner = {} if self.fitted is None else self.fitted.arrays()
        return {"line": self.line, "knots": self.knots, "spread": np.asarray(self.spread), **inner}


def fit(
    kind: str, features: FloatArray, values: FloatArray, groups: IntArray, prior: FloatArray, seed: int
) -> Transferred:
    """Choose a way by cross-validation and fit it to all rows.

    Args:
        kind: One of `regressors.REGRESSORS`.
        features: Of the quantized networks, bits and sparsity included, shape (n, columns).
        values: Shape (n,).
        groups: Group of each column, shape (columns,).
        prior: What the predictor of float networks says of each row, shape (n,).
        seed: Of the folds and the fits.

    Raises:
        NasError: Fewer than four rows, or values that are all the same.
    """
    if len(values) < 4 or np.ptp(values) == 0:
        raise NasError(f"a transfer needs at least 4 rows with differing values, got {len(values)}; bring more rows")
    return _fit(choose(kind, features, values, groups, prior, seed), kind, features, values, groups, prior, seed)


def restore(way: Way, kind: str, arrays: Arrays) -> Transferred:
    """The predictor that `arrays` came from."""
    line, knots = (np.asarray(arrays[name], np.float64) for name in ("line", "knots"))
    fitted = None if way == "prior" else regressors.restore(kind, arrays)
    return Transferred(way, line, knots, fitted, float(np.asarray(arrays["spread"], np.float64)))


def choose(kind: str, features: FloatArray, values: FloatArray, groups: IntArray, prior: FloatArray, seed: int) -> Way:
    """The way that ranks left-out rows best; the prior alone unless another is better beyond doubt."""
    if len(values) * (_FOLDS - 1) // _FOLDS < FEWEST_ROWS:
        return "prior"
    scores: dict[Way, list[float]] = {way: [] for way in get_args(Way)}
    for repeat in range(_REPEATS):
        part = regressors.folds(len(values), _FOLDS, seed + repeat)
        for fold in range(_FOLDS):
            own, rest = part == fold, part != fold
            if np.ptp(values[rest]) == 0:
                return "prior"
            for way, found in scores.items():
                fitted = _fit(way, kind, features[rest], values[rest], groups, prior[rest], seed)
                found.append(pairwise_accuracy(fitted.predict(features[own], prior[own]).mean, values[own]))
    gains = {way: np.subtract(found, scores["prior"]) for way, found in scores.items() if way != "prior"}
    best = max(gains, key=lambda way: float(gains[way].mean()))
    error = float(gains[best].std(ddof=1)) / np.sqrt(_FOLDS)
    return best if gains[best].mean() > error else "prior"


def _fit(
    way: Way, kind: str, features: FloatArray, values: FloatArray, groups: IntArray, prior: FloatArray, seed: int
) -> Transferred:
    scores = norm.ppf((rankdata(values) - 0.5) / len(values))
    order = np.argsort(values, kind="stable")
    knots = np.stack([scores[order], values[order]])[:, np.unique(scores[order], return_index=True)[1]]
    line = _line(prior, scores)
    along = np.zeros(len(values)) if way == "scratch" else line[0] + line[1] * prior
    left = scores - along
    if way == "prior" or np.ptp(left) == 0:
        return Transferred("prior", line, knots, None, float(left.std()))
    wide = groups if way == "scratch" else np.append(groups, groups.max() + 1)
    fitted = regressors.fit(kind, _extended(way, features, along), left, wide, seed)
    return Transferred(way, line, knots, fitted, 0.0)


def _extended(way: Way, features: FloatArray, along: FloatArray) -> FloatArray:
    return features if way == "scratch" else np.column_stack([features, along])


def _line(prior: FloatArray, scores: FloatArray) -> FloatArray:
    """Least squares, but rising: the order is the prior's, whatever few samples say."""
    centred = prior - prior.mean()
    variance = float(centred @ centred)
    slope = max(float(centred @ scores), 0.05 * np.sqrt(variance * len(prior))) / variance if variance else 1.0
    return np.array([scores.mean() - slope * prior.mean(), slope])


def _value(knots: FloatArray, scores: FloatArray) -> FloatArray:
    """Values of normal scores; beyond the ends, along the straight line through both ends, so that order is kept."""
    slope = (knots[1, -1] - knots[1, 0]) / (knots[0, -1] - knots[0, 0])
    inside = np.clip(scores, knots[0, 0], knots[0, -1])
    values: FloatArray = np.interp(inside, knots[0], knots[1]) + slope * (scores - inside)
    return values
