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


def ranks(fitted: transfer.Transferred, seed: int) -> tuple[float, float]:
    """Pairwise accuracy on unseen networks of the transfer and of the prior alone."""
    unseen, word, truth = networks(400, 1000 + seed)
    return pairwise_accuracy(fitted.predict(unseen, word).mean, truth), pairwise_accuracy(word, truth)


@pytest.mark.parametrize("count", [6, 20, 60, 200])
def test_it_ranks_no_worse_than_the_prior_alone_nor_than_a_fit_from_scratch(count: int) -> None:
    """On average over draws; that from scratch is the stack's own member."""
    gains = []
    for seed in range(3):
        features, prior, error = networks(count, seed)
        groups = np.arange(features.shape[1])
        chosen, alone = ranks(transfer.fit("gp", features, error, groups, prior, 0), seed)
        scratch = alone
        if count >= regressors.FEWEST_ROWS:
            fitted = regressors.fit("gp", features, transfer.normal_scores(error), groups, 0)
            unseen, _, truth = networks(400, 1000 + seed)
            scratch = pairwise_accuracy(fitted.predict(unseen).mean, truth)
        gains.append((chosen - alone, chosen - scratch))
    assert np.mean(gains, axis=0)[0] >= -0.002
    assert np.mean(gains, axis=0)[1] >= -0.005


def test_monotone_values_give_the_same_order() -> None:
    """Only the order of the values counts, so networks that collapse do not count more for how far off they are."""
    features, prior, error = networks(40, 2)
    unseen, word, _ = networks(100, 3)
    plain, far = (transfer.fit("boosting", features, v, np.arange(9), prior, 0) for v in (error, np.exp(9 * error)))
    first, second = (np.argsort(one.predict(unseen, word).mean) for one in (plain, far))
    assert np.array_equal(first, second)


def test_the_trend_is_a_ridge_regression_on_the_means_of_groups() -> None:
    """Where groups have one column each, by the textbook's formula."""
    features, _, error = networks(30, 4)
    groups = np.arange(9)
    found = transfer._trend(features, error, groups)
    scaled = (features - features.mean(0)) / features.std(0)
    slopes = np.linalg.solve(scaled.T @ scaled + np.eye(9), scaled.T @ (error - error.mean()))
    assert found[0] + features @ found[1:] == pytest.approx(error.mean() + scaled @ slopes)


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


@pytest.mark.parametrize("weight", [None, 0.0, 0.4])
@pytest.mark.parametrize("kind", ["gp", "boosting"])
def test_restored_predicts_identically(kind: str, weight: float | None) -> None:
    features, prior, error = networks(40, 8)
    fitted = transfer._fit(weight, kind, features, error, np.arange(9), prior, 0)
    again = transfer.restore(fitted.way, kind, fitted.arrays())
    first, second = fitted.predict(features, prior), again.predict(features, prior)
    assert np.array_equal(first.mean, second.mean)
    assert np.array_equal(first.std, second.std)
    assert again.way == fitted.way == ("prior" if weight is None else "stack")


def test_too_few_rows_are_refused() -> None:
    features, prior, error = networks(3, 9)
    with pytest.raises(NasError, match="at least 4 rows"):
        transfer.fit("gp", features, error, np.arange(9), prior, 0)
