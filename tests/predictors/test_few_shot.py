"""Few-shot transfer on made-up devices, on which each operation has a price."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from predictors import few_shot, regressors

NETWORKS = 1200
GROUPS = np.array([0] * 24 + [1])
EVERY = np.arange(NETWORKS)


def world(devices: int, seed: int, noise: float = 0.03) -> tuple[FloatArray, FloatArray]:
    """One-hot features of six choices out of four, with a sum last; and latencies on devices, the last one new.

    Prices on a device are those of one of two families, with a fifth of their own.
    """
    rng = np.random.default_rng(seed)
    one_hot = np.eye(4)[rng.integers(4, size=(NETWORKS, 6))].reshape(NETWORKS, 24)
    families = rng.exponential(size=(24, 2))
    mixed = families @ rng.dirichlet([1, 1], devices).T
    prices = mixed * np.exp(0.2 * rng.normal(size=mixed.shape)) * rng.uniform(0.5, 5, devices)
    latencies = (one_hot @ prices) * np.exp(noise * rng.normal(size=(NETWORKS, devices)))
    return np.column_stack([one_hot, one_hot @ families[:, 0]]), latencies


def learned(seed: int, count: int = 10) -> tuple[few_shot.Known, IntArray, FloatArray]:
    features, latencies = world(6, seed)
    known = few_shot.learn(latencies[:, :5], features, GROUPS, seed)
    return known, few_shot.choose(known, count, EVERY, seed), latencies[:, 5]


def test_ten_networks_tell_more_than_without_the_known_devices() -> None:
    transferred, scratch, inside = [], [], []
    for seed in range(4):
        known, rows, truth = learned(seed)
        rest = np.setdiff1d(EVERY, rows)
        told = few_shot.fit(known, rows, truth[rows], seed).predict(rest)
        features = world(6, seed)[0]
        alone = regressors.fit("gp", features[rows], truth[rows], GROUPS, seed).predict(features[rest])
        transferred.append(spearmanr(told.mean, truth[rest]).statistic)
        scratch.append(spearmanr(alone.mean, truth[rest]).statistic)
        inside.append(np.mean(np.abs(told.mean - truth[rest]) <= 1.6449 * told.std))
    assert min(transferred) > 0.9
    assert np.mean(transferred) > np.mean(scratch) + 0.1
    assert 0.8 < np.mean(inside) <= 1


@pytest.mark.parametrize("count", [60, 300])
def test_many_measurements_reach_the_noise_and_intervals_hold_what_they_say(count: int) -> None:
    known, rows, truth = learned(5, count)
    rest = np.setdiff1d(EVERY, rows)
    told = few_shot.fit(known, rows, truth[rows], 0).predict(rest)
    assert np.median(np.abs(told.mean / truth[rest] - 1)) < 0.03
    assert 0.84 < np.mean(np.abs(told.mean - truth[rest]) <= 1.6449 * told.std) < 0.96


def test_the_unit_is_that_of_the_measurements() -> None:
    features, latencies = world(6, 6)
    rows = few_shot.choose(few_shot.learn(latencies[:, :5], features, GROUPS, 0), 10, EVERY, 0)
    plain, scaled = (
        few_shot.fit(few_shot.learn(factor * latencies[:, :5], features, GROUPS, 0), rows, unit * latencies[rows, 5], 0)
        for factor, unit in ((1.0, 1.0), (1e-3, 8.0))
    )
    first, second = plain.predict(EVERY), scaled.predict(EVERY)
    assert second.mean == pytest.approx(8 * first.mean, rel=1e-6)
    assert second.std == pytest.approx(8 * first.std, rel=1e-6)


def test_devices_that_measured_different_networks_tell_as_much() -> None:
    features, latencies = world(6, 7)
    apart = latencies[:, :5].copy()
    for device in range(5):
        apart[np.arange(NETWORKS) % 6 != device, device] = np.nan
    own = EVERY[EVERY % 6 == 5]
    ranks = []
    for measured in (latencies[:, :5], apart):
        known = few_shot.learn(measured, features, GROUPS, 0)
        rows = few_shot.choose(known, 10, own, 0)
        assert np.isin(rows, own).all()
        told = few_shot.fit(known, rows, latencies[rows, 5], 0).predict(own)
        ranks.append(spearmanr(told.mean, latencies[own, 5]).statistic)
    assert ranks[1] > ranks[0] - 0.03


def test_one_known_device_is_enough() -> None:
    features, latencies = world(2, 8)
    known = few_shot.learn(latencies[:, :1], features, GROUPS, 0)
    rows = few_shot.choose(known, 10, EVERY, 0)
    told = few_shot.fit(known, rows, latencies[rows, 1], 0).predict(EVERY)
    assert spearmanr(told.mean, latencies[:, 1]).statistic > 0.7
    assert (told.std > 0).all()


def test_a_group_of_noise_is_given_up() -> None:
    features, latencies = world(6, 9)
    noise = np.random.default_rng(0).normal(size=(NETWORKS, 1))
    known = few_shot.learn(latencies[:, :5], np.hstack([features, noise]), np.append(GROUPS, 2), 0)
    assert known.theta[4] < known.theta[2] - 0.3


def test_the_same_seed_gives_the_same() -> None:
    (known, rows, truth), (again, same, _) = learned(10), learned(10)
    assert np.array_equal(rows, same)
    first, second = (few_shot.fit(one, rows, truth[rows], 3).predict(EVERY) for one in (known, again))
    assert np.array_equal(first.mean, second.mean)
    assert np.array_equal(first.std, second.std)


def test_what_is_no_latency_is_refused() -> None:
    features, latencies = world(3, 11)
    few = latencies.copy()
    few[15:, 1] = np.nan
    for wrong in (few, -latencies):
        with pytest.raises(NasError, match="at least 20 latencies, all above 0"):
            few_shot.learn(wrong, features, GROUPS, 0)
    known = few_shot.learn(latencies[:, :2], features, GROUPS, 0)
    for measured in ([1.0, 2.0, 3.0], [1.0, 2.0, 0.0, 3.0], [1.0, 2.0, np.nan, 3.0]):
        with pytest.raises(NasError, match="at least 4 latencies above 0"):
            few_shot.fit(known, np.arange(len(measured)), np.array(measured), 0)
