"""Transfer on synthetic quantized networks, some of which collapse at low bits."""

from __future__ import annotations

import numpy as np
import pytest

from nas.errors import NasError
from nas.genotype import FloatArray
from predictors import regressors, transfer
from predictors.prediction import pairwise_accuracy


def networks(count: int, seed: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Features with bits last, the float predictor's word on them, and the quantized error."""
    rng = np.random.default_rng(seed)
    shape, bits = rng.uniform(size=(count, 8)), rng.choice([2.0, 4.0, 8.0], count, p=[0.2, 0.4, 0.4])
    prior = shape @ np.arange(1, 9) / 100 + 0.01 * rng.normal(size=count)
    error = shape @ np.arange(1, 9) / 100 + 0.1 / bits + 0.6 * (bits == 2)
    return np.column_stack([shape, bits]), prior, error


def ranks(way: transfer.Way | None, count: int, seed: int) -> float:
    features, prior, error = networks(count, seed)
    groups = np.arange(features.shape[1])
    if way is None:
        fitted = transfer.fit("gp", features, error, groups, prior, 0)
    else:
        fitted = transfer._fit(way, "gp", features, error, groups, prior, 0)
    unseen, word, truth = networks(400, 1000 + seed)
    return pairwise_accuracy(fitted.predict(unseen, word).mean, truth)


@pytest.mark.parametrize("count", [6, 20, 60, 200])
def test_the_safeguard_ranks_about_as_well_as_the_better_of_prior_and_scratch(count: int) -> None:
    def mean(way: transfer.Way | None) -> float:
        return float(np.mean([ranks(way, count, seed) for seed in range(3)]))

    chosen = mean(None)
    assert chosen >= mean("prior") - 0.002
    if count >= 20:
        assert chosen >= mean("scratch") - 0.005


def test_a_worthless_prior_is_not_followed() -> None:
    features, _, error = networks(150, 3)
    noise = np.random.default_rng(4).normal(size=150)
    fitted = transfer.fit("gp", features, error, np.arange(9), noise, 0)
    unseen, _, truth = networks(300, 5)
    assert pairwise_accuracy(fitted.predict(unseen, np.random.default_rng(6).normal(size=300)).mean, truth) > 0.85


def test_the_prior_alone_keeps_its_order_beyond_the_seen() -> None:
    features, prior, error = networks(8, 7)
    fitted = transfer.fit("gp", features, error, np.arange(9), prior, 0)
    assert fitted.way == "prior"
    words = np.linspace(-3, 3, 50)
    assert (np.diff(fitted.predict(np.zeros((50, 9)), words).mean) > 0).all()


@pytest.mark.parametrize("way", ["prior", "residual", "scratch"])
@pytest.mark.parametrize("kind", ["gp", "boosting"])
def test_restored_predicts_identically(kind: str, way: transfer.Way) -> None:
    features, prior, error = networks(40, 8)
    fitted = transfer._fit(way, kind, features, error, np.arange(9), prior, 0)
    again = transfer.restore(way, kind, fitted.arrays())
    first, second = fitted.predict(features, prior), again.predict(features, prior)
    assert np.array_equal(first.mean, second.mean)
    assert np.array_equal(first.std, second.std)
    assert regressors.calibration(first, error) >= 0


def test_too_few_rows_are_refused() -> None:
    features, prior, error = networks(3, 9)
    with pytest.raises(NasError, match="at least 4 rows"):
        transfer.fit("gp", features, error, np.arange(9), prior, 0)
