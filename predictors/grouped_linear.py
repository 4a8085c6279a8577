"""Bayesian linear regression whose columns form groups, each with a prior variance of its own.

value = level + columns @ weights + noise: the level has a flat prior, the weights of group g the standard deviation
exp(theta[g]), the noise exp(theta[-1]), all times a scale whose square has an inverse gamma prior. So the evidence is
Student's t (Gelman et al., Bayesian Data Analysis, 2013, section 3.3; Rasmussen & Williams, 2006, section 2.1 and
equation 2.30). Where theta maximises it, a group whose columns do not help is given up: its deviation falls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from predictors.prediction import Prediction

SHAPE = 2.0
"""Of the inverse gamma prior, which expects a squared scale of about 1."""
_LEVEL = 3.0
"""Standard deviation of the level where nothing is measured yet, and a flat prior would not do."""
_WIDTH, _REACH = 2.0, 4.0
"""Of the normal priors on theta: their standard deviation, and how far from their means it is sought."""


@dataclass(frozen=True)
class Basis:
    """What values are linear in: columns (n, columns) of groups (columns,)."""

    columns: FloatArray
    groups: IntArray

    def scaled(self, theta: FloatArray, rows: IntArray) -> FloatArray:
        """Some rows' columns times their prior standard deviations; `theta` holds the logarithms, the noise's last."""
        scaled: FloatArray = self.columns[rows] * np.exp(theta)[self.groups]
        return scaled


@dataclass(frozen=True)
class Samples:
    """Values, or several sets of them stacked in front, rotated so that all further dimensions hold noise only.

    Attributes:
        design: Centred columns, shape (..., k, columns).
        groups: Of the columns, shape (columns,).
        values: Centred, shape (..., k).
        rest: Squared length of the values in the further dimensions, shape (...).
        count: How many values a set has.
    """

    design: FloatArray
    groups: IntArray
    values: FloatArray
    rest: FloatArray
    count: int


@dataclass(frozen=True)
class Posterior:
    """What is known of the weights.

    Attributes:
        basis: The columns.
        theta: Logarithms of the prior standard deviations.
        centre: Mean of the rows' scaled columns, shape (columns,).
        level: Mean of their values.
        weights: Of the scaled columns, shape (columns,).
        covariance: Of the weights, shape (columns, columns).
        noise: Variance of the noise.
        errors: What each value misses when it is left out, in standard deviations, the scale kept, shape (rows,).
    """

    basis: Basis
    theta: FloatArray
    centre: FloatArray
    level: float
    weights: FloatArray
    covariance: FloatArray
    noise: float
    errors: FloatArray

    def predict(self, rows: IntArray) -> Prediction:
        """Values of rows, noise included."""
        return self.of(self.basis.columns[rows])

    def of(self, columns: FloatArray) -> Prediction:
        """The same for columns of whatever has some, shape (n, columns)."""
        offset = columns * np.exp(self.theta)[self.basis.groups] - self.centre
        variance = self.noise * (1 + 1 / len(self.errors)) + _squares(offset, self.covariance)
        return Prediction(self.level + offset @ self.weights, np.sqrt(variance))


def samples(basis: Basis, rows: IntArray, values: FloatArray) -> Samples:
    """Values of rows, shape (rows,)."""
    columns, centred = basis.columns[rows], values - values.mean()
    rotation, design = np.linalg.qr(columns - columns.mean(axis=0))
    turned = rotation.T @ centred
    return Samples(design, basis.groups, turned, np.asarray(centred @ centred - turned @ turned), len(rows))


def stacked(sets: list[Samples]) -> Samples:
    """Sets of equally many values, of bases with the same groups, as one."""
    design, values, rest = (np.stack([getattr(one, name) for one in sets]) for name in ("design", "values", "rest"))
    return Samples(design, sets[0].groups, values, rest, sets[0].count)


def evidence(theta: FloatArray, found: Samples) -> FloatArray:
    """Log marginal likelihood of each set of values, up to a constant."""
    scaled = found.design * np.exp(theta)[found.groups]
    noise, dimensions = np.exp(2 * theta[-1]), found.values.shape[-1]
    factor = np.linalg.cholesky(scaled @ np.swapaxes(scaled, -1, -2) + noise * np.eye(dimensions))
    whitened = np.linalg.solve(factor, found.values[..., None])[..., 0]
    squares = (whitened**2).sum(axis=-1) + found.rest / noise
    logs = np.log(np.diagonal(factor, axis1=-2, axis2=-1)).sum(axis=-1)
    freedom = found.count - 1
    logs = logs + (freedom - dimensions) * theta[-1]
    likelihood: FloatArray = -logs - (SHAPE + freedom / 2) * np.log1p(squares / (2 * SHAPE))
    return likelihood


def most_evident(
    prior: FloatArray, evidence_of: Callable[[FloatArray], float], start: FloatArray | None = None
) -> tuple[FloatArray, float]:
    """The theta that maximises its evidence times normal priors with these means, and the logarithm of that.

    It is sought from the start, or else from the means.
    """

    def loss(theta: FloatArray) -> float:
        return float(((theta - prior) ** 2).sum()) / (2 * _WIDTH**2) - evidence_of(theta)

    begin = prior if start is None else start
    found = minimize(loss, begin, method="L-BFGS-B", bounds=[(mean - _REACH, mean + _REACH) for mean in prior])
    return found.x, -float(found.fun)


def posterior(basis: Basis, theta: FloatArray, rows: IntArray, values: FloatArray) -> Posterior:
    """Learn from the values of rows, shape (rows,)."""
    scaled, noise, count = basis.scaled(theta, rows), float(np.exp(2 * theta[-1])), len(rows)
    centre, level = scaled.mean(axis=0), float(values.mean())
    offset, centred = scaled - centre, values - level
    inverse = np.linalg.inv(offset.T @ offset / noise + np.eye(offset.shape[1]))
    weights = inverse @ offset.T @ centred / noise
    left = centred - offset @ weights
    scale = (SHAPE + float(centred @ left) / noise / 2) / (SHAPE + (count - 1) / 2)
    leverage = 1 / count + _squares(offset, inverse) / noise
    errors = left / np.sqrt(scale * noise * np.maximum(1 - leverage, 1e-9))
    return Posterior(basis, theta, centre, level, weights, scale * inverse, scale * noise, errors)


def least_variance(basis: Basis, theta: FloatArray, count: int, pool: IntArray) -> IntArray:
    """Rows of the pool whose values would tell most, chosen one by one.

    Each is the one that lowers the sum of the variances over the pool most (Seo et al., IJCNN 2000).

    Raises:
        NasError: The pool has fewer rows.
    """
    if count > len(pool):
        raise NasError(f"cannot choose {count} rows out of {len(pool)}; offer more, or ask for fewer")
    scaled = basis.scaled(theta, pool)
    columns = np.column_stack([np.full(len(pool), _LEVEL), scaled])
    covariance, moments, noise = np.eye(columns.shape[1]), columns.T @ columns, np.exp(2 * theta[-1])
    order: list[int] = []
    for _ in range(count):
        reach = columns @ covariance
        variance = (reach * columns).sum(axis=1) + noise
        gain = _squares(reach, moments) / variance
        gain[order] = -1
        order.append(int(gain.argmax()))
        covariance -= np.outer(reach[order[-1]], reach[order[-1]]) / variance[order[-1]]
    return pool[order]


def _squares(rows: FloatArray, matrix: FloatArray) -> FloatArray:
    """row @ matrix @ row for each row."""
    squares: FloatArray = ((rows @ matrix) * rows).sum(axis=1)
    return squares
