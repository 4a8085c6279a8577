"""What few-shot transfer is compared with: regressors that know of no other device, PLS, and HAT's perceptron."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from nas.genotype import FloatArray, IntArray
from predictors.regressors import REGRESSORS

Learn = Callable[[FloatArray, IntArray, FloatArray, FloatArray, int], FloatArray]
"""From features (networks, columns), groups (columns,), features of what is asked, values (networks,) and a seed."""

HAT_STEPS = 5000
_BATCH, _RATE, _HIDDEN = 128, 1e-5, (400, 400, 400)
_PENALTY = 1.0


def ridge(features: FloatArray, groups: IntArray, asked: FloatArray, values: FloatArray, seed: int) -> FloatArray:
    """Least squares of standardised features with a penalty of 1."""
    kernel = features @ features.T + _PENALTY * np.eye(len(values))
    told: FloatArray = values.mean() + asked @ features.T @ np.linalg.solve(kernel, values - values.mean())
    return told


def from_scratch(kind: str) -> Learn:
    """One of `REGRESSORS`, which may refuse few rows to users, but not here."""

    def learn(features: FloatArray, groups: IntArray, asked: FloatArray, values: FloatArray, seed: int) -> FloatArray:
        mean, spread = values.mean(), values.std()
        regressor = REGRESSORS[kind].fit(features, (values - mean) / spread, groups, seed)
        return np.asarray(mean + spread * regressor.predict(asked).mean, np.float64)

    return learn


def pls(features: FloatArray, groups: IntArray, asked: FloatArray, values: FloatArray, seed: int) -> FloatArray:
    """Partial least squares on two components (Wold et al., 2001, appendix), here of known devices' latencies."""
    centre, left = features.mean(axis=0), values - values.mean()
    own, other, told = features - centre, asked - centre, np.full(len(asked), values.mean())
    for _ in range(2):
        weight = own.T @ left
        weight /= np.linalg.norm(weight) or 1.0
        score, outside = own @ weight, other @ weight
        length = score @ score or 1.0
        loading, slope = own.T @ score / length, float(left @ score) / length
        told, left = told + slope * outside, left - slope * score
        own, other = own - np.outer(score, loading), other - np.outer(outside, loading)
    return told


SCRATCH: Mapping[str, Learn] = {
    "ridge": ridge, "gp": from_scratch("gp"), "boosting": from_scratch("boosting"), "mlp": from_scratch("mlp"),
}  # fmt: skip


def hat_perceptron(features: FloatArray, values: FloatArray, asked: FloatArray, steps: int, seed: int) -> FloatArray:
    """HAT's predictor (Wang et al., ACL 2020): ten features, three layers of 400, Adam at 1e-5, batches of 128.

    Args:
        features: In HAT's units, about 1, shape (networks, 10).
        values: Latencies in HAT's units, about 1, shape (networks,).
        asked: Features of the networks to predict.
        steps: HAT trains 5000.
        seed: Of weights and batches.
    """
    rng, sizes = np.random.default_rng(seed), (features.shape[1], *_HIDDEN, 1)
    weights: list[npt.NDArray[np.float32]] = []
    for inputs, outputs in pairwise(sizes):
        bound = 1 / np.sqrt(inputs)  # torch's, which HAT trains with
        weights += [_uniform(rng, bound, (inputs, outputs)), _uniform(rng, bound, (outputs,))]
    first, second = ([np.zeros_like(weight) for weight in weights] for _ in range(2))
    inputs32, values32 = features.astype(np.float32), values.astype(np.float32)
    for step in range(1, steps + 1):
        rows = rng.choice(len(values), _BATCH, replace=False)
        for place, slope in enumerate(_slopes(weights, inputs32[rows], values32[rows])):
            first[place] += np.float32(0.1) * (slope - first[place])
            second[place] += np.float32(0.001) * (slope * slope - second[place])
            scale = np.float32(_RATE * np.sqrt(1 - 0.999**step) / (1 - 0.9**step))
            weights[place] -= scale * first[place] / (np.sqrt(second[place]) + np.float32(1e-8))
    return _layers(weights, asked.astype(np.float32))[-1][:, 0].astype(np.float64)


def _uniform(rng: np.random.Generator, bound: float, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    return rng.uniform(-bound, bound, shape).astype(np.float32)


def _layers(weights: list[npt.NDArray[np.float32]], batch: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
    """The batch, and what each layer makes of it."""
    made = [batch]
    for place in range(0, len(weights), 2):
        linear = made[-1] @ weights[place] + weights[place + 1]
        made.append(linear if place + 2 == len(weights) else np.maximum(linear, 0))
    return made


def _slopes(
    weights: list[npt.NDArray[np.float32]], batch: npt.NDArray[np.float32], values: npt.NDArray[np.float32]
) -> list[npt.NDArray[np.float32]]:
    """Gradient of the mean squared error by each weight and bias."""
    made = _layers(weights, batch)
    behind = (made[-1] - values[:, None]) * np.float32(2 / len(values))
    slopes: list[npt.NDArray[np.float32]] = []
    for place in range(len(weights) - 2, -1, -2):
        inputs = made[place // 2]
        slopes[:0] = [inputs.T @ behind, behind.sum(axis=0)]
        behind = (behind @ weights[place].T) * (inputs > 0)
    return slopes
