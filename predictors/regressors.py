"""Regressors behind one interface: features to a mean and a standard deviation, kept as plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from predictors import boosting, gaussian_process, mlp_ensemble
from predictors.boosting import Arrays
from predictors.prediction import Prediction

FEWEST_ROWS = 10
MOST_PROCESS_ROWS = 1500

_TELLING_ROWS = 400
"""So many tell a Gaussian process's few hyper-parameters; each step of their search takes time with the third power."""

_QUANTILE90 = 1.6449


class Regressor(Protocol):
    """Predicts standardised values from standardised features."""

    def predict(self, features: FloatArray) -> Prediction:
        """For features of shape (n, columns)."""
        ...

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """All there is to save."""
        ...


@dataclass(frozen=True)
class Kind:
    """How a kind of regressor is fitted, to (features, values, groups of the columns, seed), and restored."""

    fit: Callable[[FloatArray, FloatArray, IntArray, int], Regressor]
    restore: Callable[[Arrays], Regressor]


@dataclass(frozen=True)
class _Process:
    """A Gaussian process whose groups count alike, however many columns they have."""

    process: gaussian_process.GaussianProcess
    weight: FloatArray

    def predict(self, features: FloatArray) -> Prediction:
        return self.process.predict(features * self.weight)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        return {"weight": self.weight, **{name: np.asarray(value) for name, value in vars(self.process).items()}}


def _fit_process(features: FloatArray, values: FloatArray, groups: IntArray, seed: int) -> _Process:
    if len(values) > MOST_PROCESS_ROWS:
        raise NasError(
            f"a Gaussian process takes at most {MOST_PROCESS_ROWS} rows, got {len(values)}; "
            "use the kind boosting, or fewer rows"
        )
    weight = 1 / np.sqrt(np.bincount(groups)[groups])
    scaled = features * weight
    few = np.random.default_rng(seed).permutation(len(values))[:_TELLING_ROWS]
    if len(few) == len(values) or np.ptp(values[few]) == 0:
        return _Process(gaussian_process.fit(scaled, values, groups), weight)
    start = gaussian_process.fit(scaled[few], values[few], groups).theta
    return _Process(gaussian_process.fit(scaled, values, groups, start, steps=0), weight)


def _restore_process(arrays: Arrays) -> _Process:
    names = ("theta", "groups", "features", "factor", "weights")
    scalars = {name: float(arrays[name]) for name in ("centre", "scale")}
    process = gaussian_process.GaussianProcess(**{n: arrays[n] for n in names}, **scalars)  # type: ignore[arg-type]
    return _Process(process, np.asarray(arrays["weight"], np.float64))


REGRESSORS: dict[str, Kind] = {
    "gp": Kind(_fit_process, _restore_process),
    "boosting": Kind(boosting.fit, boosting.restore),
    "mlp": Kind(mlp_ensemble.fit, mlp_ensemble.restore),
}


@dataclass(frozen=True)
class Fitted:
    """A regressor with the scales of what it was fitted to: `columns` (2, columns) and `values` (2,), mean and std."""

    kind: str
    columns: FloatArray
    values: FloatArray
    regressor: Regressor

    def predict(self, features: FloatArray) -> Prediction:
        """In the unit of the values, for features of shape (n, columns)."""
        inner = self.regressor.predict((features - self.columns[0]) / self.columns[1])
        return Prediction(self.values[0] + self.values[1] * inner.mean, self.values[1] * inner.std)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """What `restore` needs."""
        inner = {f"regressor.{name}": value for name, value in self.regressor.arrays().items()}
        return {"columns": self.columns, "values": self.values, **inner}


def fit(kind: str, features: FloatArray, values: FloatArray, groups: IntArray, seed: int) -> Fitted:
    """Fit one of `REGRESSORS`.

    Args:
        kind: Its name.
        features: Shape (n, columns).
        values: Shape (n,).
        groups: Group of each column, from 0, shape (columns,): a table's column may have become several.
        seed: Seed of whatever is random in the fit.

    Raises:
        NasError: Too few rows, values that are all the same, or more rows than the kind takes.
    """
    if len(values) < FEWEST_ROWS or np.ptp(values) == 0:
        raise NasError(
            f"a predictor needs at least {FEWEST_ROWS} rows with differing values, got {len(values)}"
            f"{' equal ones' if len(values) and np.ptp(values) == 0 else ''}; bring more rows"
        )
    columns = np.stack([features.mean(axis=0), _positive(features.std(axis=0))])
    scales = np.array([values.mean(), values.std()])
    inner = REGRESSORS[kind].fit((features - columns[0]) / columns[1], (values - scales[0]) / scales[1], groups, seed)
    return Fitted(kind, columns, scales, inner)


def restore(kind: str, arrays: Arrays) -> Fitted:
    """The predictor that `arrays` came from."""
    prefix = "regressor."
    inner = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
    columns, values = (np.asarray(arrays[name], np.float64) for name in ("columns", "values"))
    return Fitted(kind, columns, values, REGRESSORS[kind].restore(inner))


def calibration(prediction: Prediction, truth: FloatArray) -> float:
    """What standard deviations must be multiplied by for 90 % of values to lie in their central 90 % intervals.

    Args:
        prediction: Of values that the predictor was not fitted to, such as those of left-out folds.
        truth: The values, shape (n,). The quantile is that of split conformal prediction (Lei et al., 2018, section
            2.2), so that the coverage is at least 90 % on average.
    """
    ratios = np.sort(np.abs(truth - prediction.mean) / np.maximum(prediction.std, 1e-300))
    rank = min(len(ratios), int(np.ceil(0.9 * (len(ratios) + 1))))
    return float(ratios[rank - 1]) / _QUANTILE90


def folds(count: int, parts: int, seed: int) -> IntArray:
    """Part of each of `count` rows, shape (count,), evenly and at random."""
    part: IntArray = np.random.default_rng(seed).permutation(count) % parts
    return part


def _positive(scale: FloatArray) -> FloatArray:
    return np.where(scale > 1e-12 * (1 + scale.max(initial=0.0)), scale, 1.0)
