"""Regression with groups against the formulas that it shortens: contrasts, refits, and every candidate tried."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import null_space
from scipy.stats import multivariate_t

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from predictors import grouped_linear
from predictors.grouped_linear import SHAPE, Basis

THETA = np.array([0.3, -0.8, -1.0])


def problem(count: int, seed: int) -> tuple[Basis, IntArray, FloatArray]:
    rng = np.random.default_rng(seed)
    basis = Basis(rng.normal(size=(60, 6)), np.array([0, 0, 1, 1, 1, 1]))
    rows = rng.permutation(60)[:count]
    return basis, rows, rng.normal(size=count) + basis.columns[rows, 0]


def covariance(basis: Basis, rows: IntArray, theta: FloatArray) -> FloatArray:
    scaled = basis.scaled(theta, rows)
    noisy: FloatArray = scaled @ scaled.T + np.exp(2 * theta[-1]) * np.eye(len(rows))
    return noisy


@pytest.mark.parametrize("count", [4, 7, 25])
def test_the_evidence_is_students_t_of_what_does_not_depend_on_the_level(count: int) -> None:
    basis, rows, values = problem(count, count)
    contrasts = null_space(np.ones((1, count))).T

    def exact(theta: FloatArray) -> float:
        shape = contrasts @ covariance(basis, rows, theta) @ contrasts.T
        return float(multivariate_t(shape=shape, df=2 * SHAPE).logpdf(contrasts @ values))

    found, other = grouped_linear.samples(basis, rows, values), np.array([-0.5, 0.6, 0.2])
    gain = grouped_linear.evidence(THETA, found) - grouped_linear.evidence(other, found)
    assert gain == pytest.approx(exact(THETA) - exact(other), abs=1e-9)


def test_stacked_sets_have_their_own_evidences() -> None:
    sets = [grouped_linear.samples(*problem(8, seed)) for seed in range(3)]
    together = grouped_linear.evidence(THETA, grouped_linear.stacked(sets))
    assert together == pytest.approx([float(grouped_linear.evidence(THETA, one)) for one in sets])


@pytest.mark.parametrize("count", [4, 25])
def test_the_mean_is_that_of_a_gaussian_process_with_a_level_of_any_size(count: int) -> None:
    basis, rows, values = problem(count, 1)
    every, far = np.arange(60), 1e5
    between = basis.scaled(THETA, every) @ basis.scaled(THETA, rows).T + far
    exact = between @ np.linalg.solve(covariance(basis, rows, THETA) + far, values)
    told = grouped_linear.posterior(basis, THETA, rows, values)
    assert told.predict(every).mean == pytest.approx(exact, abs=1e-4)
    solved = np.linalg.solve(covariance(basis, rows, THETA) + far, between.T)
    prior = (basis.scaled(THETA, every) ** 2).sum(axis=1) + np.exp(2 * THETA[-1]) + far
    ratio = told.predict(every).std ** 2 / (prior - (between * solved.T).sum(axis=1))
    assert ratio == pytest.approx(np.full(60, ratio[0]), rel=1e-4)


def test_errors_are_those_of_refits_without_the_value() -> None:
    basis, rows, values = problem(12, 2)
    told = grouped_linear.posterior(basis, THETA, rows, values)
    for left in range(12):
        rest = np.delete(np.arange(12), left)
        refit = grouped_linear.posterior(basis, THETA, rows[rest], values[rest])
        prediction = refit.predict(rows[[left]])
        scale = np.sqrt(told.noise / refit.noise)
        assert told.errors[left] == pytest.approx((values[left] - prediction.mean[0]) / prediction.std[0] / scale)


def test_each_row_chosen_leaves_the_least_variance() -> None:
    basis, pool = problem(60, 3)[:2]
    columns = np.column_stack([np.full(60, 3.0), basis.scaled(THETA, pool)])
    chosen = grouped_linear.least_variance(basis, THETA, 4, pool)
    precision = np.eye(7)
    for row in chosen:
        tried = [precision + np.outer(one, one) / np.exp(2 * THETA[-1]) for one in columns]
        left = [float(np.trace(columns @ np.linalg.inv(each) @ columns.T)) for each in tried]
        best = int(np.argmin(left))
        assert pool[best] == row
        precision = tried[best]
    assert len(set(chosen)) == 4


def test_too_small_a_pool_is_refused() -> None:
    basis = problem(5, 4)[0]
    with pytest.raises(NasError, match="3 rows out of 2"):
        grouped_linear.least_variance(basis, THETA, 3, np.arange(2))
