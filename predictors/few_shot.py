"""Latency on a new device from ten measurements and what devices already known say of the same networks.

Latencies of layers add up, on every device with prices of its own. So the new device's latency is modelled as linear in
the principal components of the known devices' latencies, freed from noise, and in features of the networks for what no
known device prices alike (a one-hot encoding, multiplications). How far to trust the components, each group of features
and the measurements is what makes the known devices' latencies most likely, ten at a time, each given the others, and
with them the new device's own: where these are few the known devices decide, where they are many they do.
Intervals are as wide as the errors on known devices and of left-out measurements ask for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from predictors.grouped_linear import (
    Basis,
    Posterior,
    Samples,
    evidence,
    least_variance,
    most_evident,
    posterior,
    samples,
    stacked,
)
from predictors.prediction import Prediction

FEWEST = 4
"""Measurements of a new device that a fit needs."""
FEWEST_KNOWN = 20
"""Latencies that a known device needs."""

_SHOTS, _DRAWS, _REPEATS = 10, 20, 3
_POOL = 1000
_LEAST, _MOST = 0.01, 4.0
"""Latencies of more times the median are failed measurements; none of fewer times is predicted."""
_LATENT, _FEATURES, _NOISE = (0.0, -0.5), -1.5, -1.5
"""Means of the prior standard deviations' logarithms, themselves normal."""
_NOISES = 0.5
"""How much devices differ in the logarithm of their noise, as a share of the priors' width."""
_REFITTED = 20
"""Up to so many measurements each counts in how far others are trusted, and is left out of that, too."""
_OTHERS = 20
"""Left-out measurements that the errors on known devices count as much as."""
_QUANTILE90 = 1.6449


@dataclass(frozen=True)
class Known:
    """What is known of networks before a new device is seen.

    Attributes:
        values: Latencies of the known devices, each device in its unit; NaN where not measured, shape (networks,
            devices).
        unit: A device's unit, divided by its median latency: latencies spread by about 1.
        basis: For a new device.
        without: For each known device as if it were new, a basis from the others; none where there is only one.
        drawn: Ten values of each known device, time and again, beside the basis from the others.
        theta: What these say of the prior standard deviations, as logarithms.
    """

    values: FloatArray
    unit: float
    basis: Basis
    without: tuple[Basis, ...]
    drawn: Samples | None
    theta: FloatArray


@dataclass(frozen=True)
class FewShot:
    """A new device: what was learned of it, in its unit, and what calibrates the standard deviations."""

    learned: Posterior
    unit: float
    scale: float

    def predict(self, rows: IntArray) -> Prediction:
        """What a measurement of each of these networks would give, noise included, in the unit of the measurements."""
        told = self.learned.predict(rows)
        mean = np.maximum(told.mean, _LEAST * self.learned.level)
        return Prediction(self.unit * mean, self.unit * self.scale * told.std)


def learn(latencies: FloatArray, features: FloatArray, groups: IntArray, seed: int) -> Known:
    """Gather what known devices say.

    Args:
        latencies: In any unit, NaN where not measured, shape (networks, devices).
        features: Of the networks, shape (networks, columns).
        groups: Group of each column, from 0, shape (columns,); groups count alike, however many columns they have.
        seed: Of the draws and of the smoothing.

    Raises:
        NasError: A device has fewer than 20 latencies, or one that is not positive.
    """
    measured = np.isfinite(latencies)
    counts = measured.sum(axis=0)
    if (counts < FEWEST_KNOWN).any() or (latencies[measured] <= 0).any():
        raise NasError(
            f"a known device needs at least {FEWEST_KNOWN} latencies, all above 0, got {counts.tolist()} latencies of "
            f"at least {latencies[measured].min(initial=np.inf):g}; measure more, or leave the device out"
        )
    relative = np.minimum(latencies / np.nanmedian(latencies, axis=0), _MOST)
    unit = float(np.sqrt(np.nanvar(relative, axis=0).mean()))
    values: FloatArray = relative / unit
    smooth = np.stack([_smoothed(column, features, seed) for column in values.T], axis=1)
    blocks = [_alike(features[:, groups == group]) for group in range(int(groups.max()) + 1)]
    devices = range(values.shape[1] if values.shape[1] > 1 else 0)
    without = tuple(_basis(np.delete(smooth, device, axis=1), blocks) for device in devices)
    drawn = _draws(values, without, np.random.default_rng(seed)) if without else None
    return Known(values, unit, _basis(smooth, blocks), without, drawn, _most_evident(len(blocks), drawn))


def choose(known: Known, count: int, among: IntArray, seed: int) -> IntArray:
    """Networks to measure on a new device, shape (count,), chosen out of up to 1000 drawn from the rows `among`."""
    pool = np.random.default_rng(seed).permutation(among)[: max(_POOL, count)]
    return least_variance(known.basis, known.theta, count, pool)


def fit(known: Known, rows: IntArray, latencies: FloatArray, seed: int) -> FewShot:
    """Learn a new device.

    Args:
        known: What is known.
        rows: The networks that were measured, shape (n,).
        latencies: What was measured, in any unit, shape (n,).
        seed: Of the draws that calibrate the intervals.

    Raises:
        NasError: Fewer than four measurements, or one that is not positive.
    """
    if len(rows) < FEWEST or not (latencies > 0).all():
        raise NasError(
            f"a new device needs at least {FEWEST} latencies above 0, got {latencies}; measure more networks"
        )
    unit = float(np.median(latencies)) * known.unit
    values = np.minimum(latencies / unit, _MOST / known.unit)
    found = _with_own(known, samples(known.basis, rows, values), None)
    theta = _of_new(found)
    learned = posterior(known.basis, theta, rows, values)
    others = _errors_on_known(known, theta, len(rows), np.random.default_rng(seed))
    own = _own_errors(known, rows, values, found) if len(rows) <= _REFITTED else learned.errors
    return FewShot(learned, unit, _calibration(own, others))


def _smoothed(values: FloatArray, features: FloatArray, seed: int) -> FloatArray:
    """Values without noise, also where they are missing: a linear model, and boosted trees of what it leaves."""
    known = np.isfinite(values)
    design = np.column_stack([np.ones(len(features)), _standardised(features)])
    normal = design[known].T @ design[known] + np.eye(design.shape[1])
    linear: FloatArray = design @ np.linalg.solve(normal, design[known].T @ values[known])
    trees = HistGradientBoostingRegressor(
        learning_rate=0.08, max_iter=250, max_leaf_nodes=15, l2_regularization=1.0, early_stopping=True,
        random_state=seed,
    )  # fmt: skip
    trees.fit(features[known], (values - linear)[known])
    return linear + np.asarray(trees.predict(features), np.float64)


def _basis(smooth: FloatArray, blocks: list[FloatArray]) -> Basis:
    """Principal components of the devices' values, the first a group and the others one, then blocks of features."""
    left, lengths, _ = np.linalg.svd(_standardised(smooth), full_matrices=False)
    latent = left * lengths / np.sqrt(smooth.shape[1])
    parts = [latent[:, :1], latent[:, 1:], *blocks]
    groups = np.repeat(np.arange(len(parts)), [part.shape[1] for part in parts])
    return Basis(np.concatenate(parts, axis=1), groups)


def _draws(values: FloatArray, without: tuple[Basis, ...], rng: np.random.Generator) -> Samples:
    drawn = []
    for own, basis in zip(values.T, without, strict=True):
        measured = np.flatnonzero(np.isfinite(own))
        for _ in range(_DRAWS):
            rows = rng.choice(measured, _SHOTS, replace=False)
            drawn.append(samples(basis, rows, own[rows]))
    return stacked(drawn)


def _most_evident(blocks: int, drawn: Samples | None) -> FloatArray:
    """Prior standard deviations, as logarithms, under which ten values of each known device are likely."""
    return most_evident(_prior(blocks), lambda theta: _on_known(theta, drawn))[0]


def _with_own(known: Known, own: Samples, start: FloatArray | None) -> FloatArray:
    """The same under which all values of the new device are likely, too, and how its noise differs."""

    def likely(found: FloatArray) -> float:
        return _on_known(found[:-1], known.drawn) + float(evidence(_of_new(found), own))

    return most_evident(np.append(_prior(len(known.theta) - 3), 0.0), likely, start)[0]


def _of_new(found: FloatArray) -> FloatArray:
    """The new device's: all are shared but the noise."""
    return np.append(found[:-2], found[-2] + _NOISES * found[-1])


def _prior(blocks: int) -> FloatArray:
    return np.array([*_LATENT, *[_FEATURES] * blocks, _NOISE])


def _on_known(theta: FloatArray, drawn: Samples | None) -> float:
    return 0.0 if drawn is None else float(evidence(theta, drawn).sum()) / _DRAWS


def _own_errors(known: Known, rows: IntArray, values: FloatArray, found: FloatArray) -> FloatArray:
    """What each value misses when the fit is made without it, in standard deviations, shape (rows,)."""
    errors = np.empty(len(rows))
    for place in range(len(rows)):
        others, left = np.delete(rows, place), np.delete(values, place)
        theta = _of_new(_with_own(known, samples(known.basis, others, left), found))
        told = posterior(known.basis, theta, others, left).predict(rows[[place]])
        errors[place] = (values[place] - told.mean[0]) / told.std[0]
    return errors


def _errors_on_known(known: Known, theta: FloatArray, count: int, rng: np.random.Generator) -> FloatArray:
    """Errors, in standard deviations, on each known device learned from `count` values as if it were new."""
    errors = [np.empty(0)]
    for values, basis in zip(known.values.T, known.without, strict=False):
        measured = np.flatnonzero(np.isfinite(values))
        for _ in range(_REPEATS if len(measured) >= 2 * count else 0):
            pool = rng.permutation(measured)
            rows = least_variance(basis, theta, count, pool[:_POOL])
            rest = np.setdiff1d(pool[-_POOL:], rows)
            told = posterior(basis, theta, rows, values[rows]).predict(rest)
            errors.append((values[rest] - told.mean) / told.std)
    return np.concatenate(errors)


def _calibration(own: FloatArray, others: FloatArray) -> float:
    """What standard deviations must be multiplied by for 90 % intervals to hold 90 % of the errors.

    Own errors, each of a left-out measurement, count one each, those on known devices 20 in all; one more, unseen, lies
    outside (Lei et al., 2018, section 2.2).
    """
    ratios = np.abs(np.concatenate([own, others]))
    weights = np.concatenate([np.ones(len(own)), np.full(len(others), _OTHERS / max(len(others), 1))])
    order = np.argsort(ratios)
    share = np.cumsum(weights[order]) / (weights.sum() + 1)
    place = min(int(np.searchsorted(share, 0.9)), len(ratios) - 1)
    return float(ratios[order[place]]) / _QUANTILE90


def _standardised(columns: FloatArray) -> FloatArray:
    scale = columns.std(axis=0)
    standardised: FloatArray = (columns - columns.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    return standardised


def _alike(block: FloatArray) -> FloatArray:
    """Centred, and divided by one number so that a row's squared length is 1 on average."""
    centred: FloatArray = block - block.mean(axis=0)
    length = float(np.sqrt((centred**2).sum(axis=1).mean()))
    return centred / (length or 1.0)
