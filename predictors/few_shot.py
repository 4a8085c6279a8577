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
import numpy.typing as npt

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from predictors import coordinates
from predictors.boosting import Arrays
from predictors.coordinates import Coordinates
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
_LEARNED = ("theta", "centre", "level", "weights", "covariance", "noise", "errors")


@dataclass(frozen=True)
class Known:
    """What is known of networks before a new device is seen.

    Attributes:
        values: Latencies of the known devices, each device in its unit; NaN where not measured, shape (networks,
            devices).
        unit: A device's unit, divided by its median latency: latencies spread by about 1.
        places: How features become columns of the basis.
        basis: For a new device.
        without: For each known device as if it were new, a basis from the others; none where there is only one.
        drawn: Ten values of each known device, time and again, beside the basis from the others.
        theta: What these say of the prior standard deviations, as logarithms.
    """

    values: FloatArray
    unit: float
    places: Coordinates
    basis: Basis
    without: tuple[Basis, ...]
    drawn: Samples | None
    theta: FloatArray


@dataclass(frozen=True)
class FewShot:
    """A new device.

    Attributes:
        places: What networks' columns are.
        learned: What was learned, in the device's unit.
        unit: That unit, in that of the measurements.
        scale: Calibrates the standard deviations.
        left_out: Of each measured network without itself; None where more than 20 are measured.
    """

    places: Coordinates
    learned: Posterior
    unit: float
    scale: float
    left_out: Prediction | None = None

    def predict(self, rows: IntArray) -> Prediction:
        """What a measurement of each of these networks would give, noise included, in the unit of the measurements."""
        return self._in_unit(self.learned.predict(rows))

    def predict_new(self, features: FloatArray) -> Prediction:
        """The same of networks with these features, shape (n, columns), known or not."""
        return self._in_unit(self.learned.of(self.places.of(features)))

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """What `restore` needs to predict by features."""
        own = {f"learned.{name}": np.asarray(getattr(self.learned, name)) for name in _LEARNED}
        return own | self.places.arrays() | {"unit": np.asarray(self.unit), "calibration": np.asarray(self.scale)}

    def _in_unit(self, told: Prediction) -> Prediction:
        mean = np.maximum(told.mean, _LEAST * self.learned.level)
        return Prediction(self.unit * mean, self.unit * self.scale * told.std)


def restore(arrays: Arrays) -> FewShot:
    """The learned device that `arrays` came from; it knows no rows."""
    places = coordinates.restore(arrays)
    own = {name: arrays[f"learned.{name}"] for name in _LEARNED}
    numbers = {name: float(own.pop(name)) for name in ("level", "noise")}
    nothing = Basis(np.empty((0, len(places.groups))), places.groups)
    learned = Posterior(nothing, **own, **numbers)  # type: ignore[arg-type]
    return FewShot(places, learned, float(arrays["unit"]), float(arrays["calibration"]))


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
    places, smooth = coordinates.learn(values, features, groups, seed)
    blocks, devices = places.blocks(features), range(values.shape[1] if values.shape[1] > 1 else 0)
    without = tuple(_without(smooth, device, blocks, places.groups) for device in devices)
    drawn = _draws(values, without, np.random.default_rng(seed)) if without else None
    theta = _most_evident(int(groups.max()) + 1, drawn)
    return Known(values, unit, places, Basis(places.of(features), places.groups), without, drawn, theta)


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
    if len(rows) > _REFITTED:
        return FewShot(known.places, learned, unit, _calibration(learned.errors, others))
    told = _without_each(known, rows, values, found)
    own = (values - told.mean) / told.std
    scales = np.array([_calibration(np.delete(own, place), others) for place in range(len(rows))])
    left_out = Prediction(unit * told.mean, unit * scales * told.std)
    return FewShot(known.places, learned, unit, _calibration(own, others), left_out)


def _without(smooth: FloatArray, device: int, blocks: FloatArray, groups: IntArray) -> Basis:
    """The basis of the other devices' latencies, one component fewer, beside the same features."""
    others = np.delete(smooth, device, axis=1)
    centre, scale, turn = coordinates.components(others)
    return Basis(np.hstack([(others - centre) / scale @ turn, blocks]), np.delete(groups, turn.shape[1]))


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


def _without_each(known: Known, rows: IntArray, values: FloatArray, found: FloatArray) -> Prediction:
    """What is told of each value by a fit without it, shape (rows,)."""
    told = []
    for place in range(len(rows)):
        others, left = np.delete(rows, place), np.delete(values, place)
        theta = _of_new(_with_own(known, samples(known.basis, others, left), found))
        told.append(posterior(known.basis, theta, others, left).predict(rows[[place]]))
    return Prediction(np.concatenate([one.mean for one in told]), np.concatenate([one.std for one in told]))


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
