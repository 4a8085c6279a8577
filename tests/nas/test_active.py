"""Expected hypervolume improvement against Monte Carlo, batches against plain recomputation, budgets kept."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import norm

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from nas.pareto import hypervolume, non_dominated
from nas.search.active import ActiveSearch, Dear, Measured, Predict, choose, expected_improvement


def scene(seed: int, others: int, size: int, points: int) -> tuple[FloatArray, ...]:
    """Mean, std, known, points, reference; some points and candidates lie outside the reference."""
    rng = np.random.default_rng(seed)
    mean, std = rng.uniform(0, 1.2, size), rng.uniform(0.01, 0.3, size)
    return (
        mean,
        std,
        rng.uniform(0, 1.2, (size, others)),
        rng.uniform(0, 1.2, (points, 1 + others)),
        np.ones(1 + others),
    )


@pytest.mark.parametrize("others", [0, 1, 2])
@pytest.mark.parametrize("points", [0, 1, 12])
def test_expected_improvement_is_the_mean_over_sampled_errors(others: int, points: int) -> None:
    mean, std, known, front, reference = scene(points, others, 6, points)
    before, draws = hypervolume(front, reference), norm.ppf((np.arange(500) + 0.5) / 500)
    for row, expected in enumerate(expected_improvement(mean, std, known, front, reference)):
        errors = mean[row] + std[row] * draws
        grown = [hypervolume(np.vstack([front, [error, *known[row]]]), reference) - before for error in errors]
        assert expected == pytest.approx(np.mean(grown), rel=0.01, abs=1e-4)


def test_what_is_certain_improves_by_exactly_its_volume() -> None:
    mean, _, known, points, reference = scene(3, 1, 40, 10)
    expected = expected_improvement(mean, np.full(40, 1e-12), known, points, reference)
    before = hypervolume(points, reference)
    exact = [hypervolume(np.vstack([points, [m, *k]]), reference) - before for m, k in zip(mean, known, strict=True)]
    np.testing.assert_allclose(expected, exact, atol=1e-11)


def test_many_candidates_are_worked_off_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = scene(4, 2, 100, 8)
    whole = expected_improvement(*asked)
    monkeypatch.setattr("nas.search.active._CELLS", 1000)
    np.testing.assert_array_equal(expected_improvement(*asked), whole)


@pytest.mark.parametrize("others", [1, 2])
def test_a_batch_is_greedy(others: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.search.active._REFRESHED", 5)
    mean, std, known, points, reference = scene(5, others, 300, 10)
    left, believed, expected = np.arange(300), points, []
    for _ in range(12):
        gain = expected_improvement(mean[left], std[left], known[left], believed, reference)
        best = left[np.argmax(gain)]
        expected.append(best)
        believed = np.vstack([believed, [mean[best], *known[best]]])
        left = left[left != best]
    assert choose(mean, std, known, points, reference, 12).tolist() == expected


def test_a_batch_holds_no_more_than_the_candidates() -> None:
    mean, std, known, points, reference = scene(6, 1, 5, 3)
    assert sorted(choose(mean, std, known, points, reference, 9).tolist()) == [0, 1, 2, 3, 4]


ALL = np.array(np.unravel_index(np.arange(4**4), (4,) * 4)).T
REFERENCE = np.array([1.1, 20.0])


def error(networks: IntArray) -> FloatArray:
    return 1 / (1 + networks @ np.array([1.0, 3.0, 0.5, 2.0]))


def cost(networks: IntArray) -> FloatArray:
    return networks @ np.array([[1.0], [1.5], [2.0], [1.0]])


def nearest(networks: IntArray, errors: FloatArray) -> Predict:
    """The error of the nearest measured network, the less certain the farther."""

    def predict(wanted: IntArray) -> tuple[FloatArray, FloatArray]:
        distance = np.abs(wanted[:, None] - networks[None]).sum(axis=2)
        return errors[distance.argmin(axis=1)], 0.05 * (0.1 + distance.min(axis=1))

    return predict


class Asked:
    """The toy problem, and every network it was asked to measure."""

    def __init__(self, candidates: Callable[[Predict, np.random.Generator], IntArray]) -> None:
        self.networks: list[tuple[int, ...]] = []
        self.problem = Dear(self.measure, cost, nearest, candidates, REFERENCE)

    def measure(self, networks: IntArray) -> FloatArray:
        self.networks += [tuple(row) for row in networks.tolist()]
        return error(networks)


def some(predict: Predict, rng: np.random.Generator) -> IntArray:
    """Candidates with repetitions, many of them measured before."""
    return ALL[rng.integers(len(ALL), size=300)]


def every(predict: Predict, rng: np.random.Generator) -> IntArray:
    return ALL


def searched(budget: int, batch: int, seed: int) -> tuple[Asked, Measured]:
    asked, rng = Asked(some), np.random.default_rng(seed)
    first = ALL[rng.integers(len(ALL), size=6)]
    return asked, ActiveSearch(budget, batch).run(asked.problem, np.concatenate([first, first]), rng)


@pytest.mark.parametrize(("budget", "batch"), [(6, 4), (7, 4), (30, 4), (31, 1), (40, 100)])
def test_the_budget_is_kept_and_nothing_is_measured_twice(budget: int, batch: int) -> None:
    asked, measured = searched(budget, batch, seed=0)
    assert len(asked.networks) == len(set(asked.networks)) == budget
    assert [tuple(row) for row in measured.genotypes.tolist()] == asked.networks
    np.testing.assert_array_equal(
        measured.costs, np.column_stack([error(measured.genotypes), cost(measured.genotypes)])
    )


def test_a_search_ends_where_the_candidates_do() -> None:
    asked = Asked(lambda predict, rng: ALL[:20])
    measured = ActiveSearch(50).run(asked.problem, ALL[:3], np.random.default_rng(0))
    assert sorted(asked.networks) == [tuple(row) for row in ALL[:20].tolist()]
    assert len(measured.costs) == 20


def test_same_seed_same_search() -> None:
    runs = [searched(40, 4, seed)[1].genotypes for seed in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


@pytest.mark.parametrize("batch", [1, 7])
def test_a_predictor_that_knows_leads_to_the_front_and_to_nothing_else(batch: int) -> None:
    points = np.column_stack([error(ALL), cost(ALL)])
    inside = points[(points < REFERENCE).all(axis=1)]
    front = np.unique(inside[non_dominated(inside)], axis=0)
    problem = Dear(
        error, cost, lambda *measured: lambda wanted: (error(wanted), np.full(len(wanted), 1e-9)), every, REFERENCE
    )
    beaten = ALL[~non_dominated(points)][:2]
    measured = ActiveSearch(2 + len(front), batch).run(problem, beaten, np.random.default_rng(0))
    np.testing.assert_allclose(np.unique(measured.costs[2:], axis=0), front)


@pytest.mark.parametrize(("budget", "batch"), [(0, 1), (1, 0)])
def test_impossible_settings_are_refused(budget: int, batch: int) -> None:
    with pytest.raises(NasError, match="budget >= 1 and batch >= 1"):
        ActiveSearch(budget, batch)


@pytest.mark.parametrize("first", [1, 5])
def test_first_networks_must_suffice_for_a_fit_and_keep_the_budget(first: int) -> None:
    asked = Asked(some)
    with pytest.raises(NasError, match=rf"needs 2\.\.4 \(its budget\) networks first, got {first}"):
        ActiveSearch(4).run(asked.problem, ALL[:first], np.random.default_rng(0))
    assert not asked.networks
