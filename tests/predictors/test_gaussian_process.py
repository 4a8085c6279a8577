"""The process against the textbook's formulas and against scikit-learn; gradients against differences."""

import numpy as np
import pytest
from scipy.optimize import check_grad
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from predictors.gaussian_process import _loss, _prior, _squared, fit

GROUPS = np.array([0, 0, 1, 1, 1, 2])


def data(seed: int, size: int = 40) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(size, len(GROUPS)))
    return features, np.sin(features[:, 0]) + 0.5 * features[:, 5] + 0.1 * rng.normal(size=size) + 3


def by_group(features: FloatArray, groups: IntArray) -> FloatArray:
    return np.stack([_squared(features[:, groups == g], features[:, groups == g]) for g in range(groups.max() + 1)])


def test_predictions_are_those_of_scikit_learn_with_the_same_kernel() -> None:
    features, values = data(0)
    theta = np.array([0.3, 0.5, 0.5, 0.5, -1.5])
    process = fit(features, values, GROUPS, theta, steps=0)
    kernel = ConstantKernel(np.exp(0.6)) * Matern(np.exp(0.5), nu=2.5) + WhiteKernel(np.exp(-3.0))
    peer = GaussianProcessRegressor(kernel, alpha=1e-6, normalize_y=True, optimizer=None).fit(features, values)
    new = data(1)[0]
    mean, std = peer.predict(new, return_std=True)
    predicted = process.predict(new)
    np.testing.assert_allclose(predicted.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(predicted.std, std, rtol=1e-5)


def test_the_gradient_is_that_of_the_loss() -> None:
    features, values = data(2, 15)
    prior, spread = _prior(3)
    arguments = (by_group(features, GROUPS), values - values.mean(), prior, spread)
    for theta in (prior, prior + np.array([0.4, -0.3, 0.8, 0.1, 1.0])):
        wrong = check_grad(lambda t: _loss(t, *arguments)[0], lambda t: _loss(t, *arguments)[1], theta)
        assert wrong < 1e-4 * (1 + np.abs(_loss(theta, *arguments)[1]).max())


def test_a_fit_finds_which_group_counts_and_how_noisy_values_are() -> None:
    features, values = data(3, 150)
    process = fit(features, values, GROUPS)
    lengths = process.theta[1:-1]
    assert lengths[1] > lengths[0] + 1
    assert 0.05 < process.scale * np.exp(process.theta[-1]) < 0.2
    new, truth = data(4, 200)
    predicted = process.predict(new)
    assert np.sqrt(np.mean((predicted.mean - truth) ** 2)) < 0.5 * truth.std()
    assert 0.8 < np.mean(np.abs(truth - predicted.mean) < 1.645 * predicted.std) < 0.98


def test_a_fit_goes_on_from_an_earlier_one() -> None:
    features, values = data(5)
    process = fit(features, values, GROUPS)
    np.testing.assert_array_equal(fit(features, values, GROUPS, process.theta, steps=0).theta, process.theta)
    again = fit(features, values, GROUPS, process.theta)
    np.testing.assert_allclose(again.theta, process.theta, atol=0.05)


@pytest.mark.parametrize("values", [np.ones(1), np.ones(5)])
def test_values_without_difference_are_refused(values: FloatArray) -> None:
    with pytest.raises(NasError, match="at least 2 differing values"):
        fit(np.zeros((len(values), 6)), values, GROUPS)
