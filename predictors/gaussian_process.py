"""A Gaussian process on feature vectors whose columns form groups, quick enough to be refitted during a search.

Kernel: a^2 Matern-5/2(r) + noise, r^2 = sum over groups g of |difference in g|^2 / l_g^2 (Rasmussen & Williams, 2006,
equation 4.17 and section 5.1). Amplitude, length-scales and noise maximise the marginal likelihood (equation 2.30)
times log-normal priors, which keep them sane where the values are few.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from predictors.prediction import Prediction

_JITTER = 1e-6


@dataclass(frozen=True)
class GaussianProcess:
    """A fitted process; `theta` holds the logarithms of amplitude, each group's length-scale, and noise."""

    theta: FloatArray
    groups: IntArray
    features: FloatArray
    centre: float
    scale: float
    factor: FloatArray
    weights: FloatArray

    def predict(self, features: FloatArray) -> Prediction:
        """What a measurement would give, noise included, for features of shape (n, columns)."""
        amplitude, lengths, noise = _split(self.theta)
        distance = _squared(features / lengths[self.groups], self.features / lengths[self.groups])
        kernel = amplitude * matern(distance)[0]
        known = solve_triangular(self.factor, kernel.T, lower=True, check_finite=False)
        variance = amplitude + noise - np.einsum("ij,ij->j", known, known)
        mean = self.centre + self.scale * (kernel @ self.weights)
        return Prediction(mean, self.scale * np.sqrt(np.maximum(variance, _JITTER)))


def fit(
    features: FloatArray, values: FloatArray, groups: IntArray, start: FloatArray | None = None, steps: int = 50
) -> GaussianProcess:
    """Fit to values.

    Args:
        features: Shape (n, columns), each group scaled so that typical distances are about 1.
        values: Shape (n,).
        groups: Group of each column, from 0, shape (columns,).
        start: `theta` of an earlier fit to begin with.
        steps: Steps of the hyper-parameter search; 0 keeps the start.

    Raises:
        NasError: Fewer than two values, or values that are all the same.
    """
    if len(values) < 2 or np.ptp(values) == 0:
        raise NasError(
            f"a Gaussian process needs at least 2 differing values, got {values}; measure more at random first"
        )
    centre, scale = float(values.mean()), float(values.std())
    scaled = (values - centre) / scale
    theta, spread = _prior(int(groups.max()) + 1)
    by_group = np.stack([_squared(features[:, groups == g], features[:, groups == g]) for g in range(len(theta) - 2)])
    begin = theta if start is None else start
    if steps:
        begin = minimize(
            _loss, begin, (by_group, scaled, theta, spread), "L-BFGS-B", jac=True, options={"maxiter": steps}
        ).x
    factor = _factor(begin, by_group)[0]
    return GaussianProcess(
        begin, groups, features, centre, scale, factor, cho_solve((factor, True), scaled, check_finite=False)
    )


def _prior(groups: int) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of theta: amplitude and length-scales about 1, noise about 0.1."""
    return np.array([0.0] * (1 + groups) + [np.log(0.1)]), np.array([1.0] * (1 + groups) + [1.5])


def _split(theta: FloatArray) -> tuple[float, FloatArray, float]:
    """Squared amplitude, length-scales, squared noise."""
    return float(np.exp(2 * theta[0])), np.exp(theta[1:-1]), float(np.exp(2 * theta[-1]))


def _squared(left: FloatArray, right: FloatArray) -> FloatArray:
    product = left @ right.T
    sums = (left * left).sum(axis=1)[:, None] + (right * right).sum(axis=1)
    squared: FloatArray = np.maximum(sums - 2 * product, 0)
    return squared


def matern(squared: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Matern-5/2 of squared distances in length-scales, and its derivative by them; shapes as given."""
    root = np.sqrt(5 * squared)
    decay = np.exp(-root)
    return (1 + root + root * root / 3) * decay, -5 / 6 * (1 + root) * decay


def _factor(theta: FloatArray, by_group: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Lower Cholesky factor of the covariance, the covariance without noise, its derivative by squared distance."""
    amplitude, lengths, noise = _split(theta)
    value, slope = matern(np.tensordot(lengths**-2, by_group, 1))
    covariance = amplitude * value
    noisy = covariance + (noise + _JITTER) * np.eye(len(covariance))
    return np.tril(cho_factor(noisy, lower=True, check_finite=False)[0]), covariance, amplitude * slope


def _loss(
    theta: FloatArray, by_group: FloatArray, values: FloatArray, prior: FloatArray, spread: FloatArray
) -> tuple[float, FloatArray]:
    """Negative log posterior of theta, up to a constant, and its gradient (Rasmussen & Williams, equation 5.9)."""
    factor, covariance, slope = _factor(theta, by_group)
    weights = cho_solve((factor, True), values, check_finite=False)
    inner = cho_solve((factor, True), np.eye(len(values)), check_finite=False) - np.outer(weights, weights)
    offset = (theta - prior) / spread
    loss = values @ weights / 2 + np.log(np.diag(factor)).sum() + (offset**2).sum() / 2
    along = inner * slope
    by_length = [
        -np.exp(-2 * length) * (along * squared).sum() for length, squared in zip(theta[1:-1], by_group, strict=True)
    ]
    by_noise = np.exp(2 * theta[-1]) * np.trace(inner)
    return float(loss), np.array([(inner * covariance).sum(), *by_length, by_noise]) + offset / spread
