"""Scores against their definitions, worked out pair by pair."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import norm

from nas.errors import NasError
from nas.genotype import FloatArray
from predictors.prediction import Prediction, score


def tau_b(first: FloatArray, second: FloatArray) -> float:
    pairs = list(itertools.combinations(range(len(first)), 2))
    signs = [(np.sign(first[i] - first[j]), np.sign(second[i] - second[j])) for i, j in pairs]
    untied = [sum(sign[side] != 0 for sign in signs) for side in (0, 1)]
    return float(sum(a * b for a, b in signs) / math.sqrt(untied[0] * untied[1]))


def ranks(values: FloatArray) -> FloatArray:
    return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])


@pytest.mark.parametrize("ties", [False, True])
def test_score_is_its_definitions(ties: bool) -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=60)
    mean = truth + 0.5 * rng.normal(size=60)
    if ties:
        truth, mean = np.round(truth), np.round(mean)
    std = rng.uniform(0.1, 1, 60)
    result = score(Prediction(mean, std), truth)
    assert result.kendall_tau == pytest.approx(tau_b(mean, truth))
    assert result.spearman == pytest.approx(np.corrcoef(ranks(mean), ranks(truth))[0, 1])
    assert result.rmse == pytest.approx(math.sqrt(sum((m - t) ** 2 for m, t in zip(mean, truth, strict=True)) / 60))
    probability = [2 * norm.cdf(abs(t - m) / s) - 1 for m, s, t in zip(mean, std, truth, strict=True)]
    assert result.coverage90 == pytest.approx(np.mean(np.array(probability) <= 0.9))
    assert 0 < result.coverage90 < 1
    assert result.n == 60


def test_coverage_of_a_calibrated_prediction() -> None:
    rng = np.random.default_rng(1)
    std = rng.uniform(0.1, 2, 20000)
    result = score(Prediction(np.zeros(20000), std), std * rng.normal(size=20000))
    assert result.coverage90 == pytest.approx(0.9, abs=0.01)


def test_perfect_and_reversed_orders() -> None:
    truth = np.array([3.0, 1.0, 2.0, 5.0])
    perfect, reversed_ = (score(Prediction(sign * truth, np.ones(4)), truth) for sign in (1, -1))
    assert (perfect.kendall_tau, perfect.spearman, perfect.rmse, perfect.coverage90) == pytest.approx((1, 1, 0, 1))
    assert (reversed_.kendall_tau, reversed_.spearman) == pytest.approx((-1, -1))


@pytest.mark.parametrize("flat", [0, 1])
def test_what_is_constant_has_no_order(flat: int) -> None:
    values = [np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0])]
    values[flat] = np.full(3, 2.0)
    result = score(Prediction(values[0], np.ones(3)), values[1])
    assert (result.kendall_tau, result.spearman) == (0.0, 0.0)


def test_two_values_are_too_few() -> None:
    with pytest.raises(NasError, match="at least 3 samples, got 2"):
        score(Prediction(np.ones(2), np.ones(2)), np.ones(2))
