import itertools

import numpy as np
import pytest

from nas.errors import NasError
from nas.genotype import BoolArray, FloatArray
from nas.pareto import crowding_distance, dominated_share, hypervolume, non_dominated, rank, spread_subset


def brute_front(points: FloatArray) -> BoolArray:
    dominated = [((points <= point).all(axis=1) & (points < point).any(axis=1)).any() for point in points]
    return ~np.array(dominated, dtype=bool)


def inclusion_exclusion(points: FloatArray, reference: FloatArray) -> float:
    total = 0.0
    for size in range(1, len(points) + 1):
        for some in itertools.combinations(points, size):
            total -= (-1) ** size * float(np.prod(np.maximum(reference - np.max(some, axis=0), 0)))
    return total


def cloud(seed: int, n: int, m: int, coarse: bool) -> FloatArray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 5, size=(n, m)).astype(float) if coarse else rng.random((n, m))


@pytest.mark.parametrize("coarse", [True, False])
@pytest.mark.parametrize("m", [1, 2, 3, 4])
@pytest.mark.parametrize("n", [0, 1, 7, 300])
def test_non_dominated_is_the_definition(n: int, m: int, coarse: bool) -> None:
    points = cloud(n + m, n, m, coarse)
    assert np.array_equal(non_dominated(points), brute_front(points))


def test_non_dominated_over_several_blocks() -> None:
    points = np.random.default_rng(0).normal(size=(2000, 3))
    points[:1000] /= np.linalg.norm(points[:1000], axis=1)[:, None]
    points = np.abs(points)
    points[:1000] = 1 - points[:1000]
    assert np.array_equal(non_dominated(points), brute_front(points))


@pytest.mark.parametrize("coarse", [False, True])
def test_non_dominated_of_more_points_than_are_looked_at_together(coarse: bool) -> None:
    points = np.random.default_rng(1).random((9000, 2))
    points = np.round(points, 2) if coarse else points
    points = points[points.sum(axis=1) > 0.5]
    assert np.array_equal(non_dominated(points), brute_front(points))


def test_equal_points_are_all_kept() -> None:
    assert non_dominated(np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 2.0]])).tolist() == [True, True, False]


@pytest.mark.parametrize("m", [1, 2, 3])
def test_ranks_are_the_fronts_peeled_one_by_one(m: int) -> None:
    points = cloud(m, 120, m, coarse=True)
    expected, rest, level = np.full(120, -1), np.arange(120), 0
    while len(rest):
        front = brute_front(points[rest])
        expected[rest[front]] = level
        rest, level = rest[~front], level + 1
    assert np.array_equal(rank(points), expected)


def test_crowding_distance_by_hand() -> None:
    points = np.array([[0.0, 10.0], [1.0, 6.0], [4.0, 1.0], [10.0, 0.0]])
    expected = [np.inf, 4 / 10 + 9 / 10, 9 / 10 + 6 / 10, np.inf]
    assert crowding_distance(points) == pytest.approx(expected)
    assert crowding_distance(points[:, :1]) == pytest.approx([np.inf, 4 / 10, 9 / 10, np.inf])


def test_crowding_distance_ignores_a_constant_column() -> None:
    points = np.array([[0.0, 3.0], [1.0, 3.0], [2.0, 3.0]])
    assert crowding_distance(points)[1] == pytest.approx(1.0)


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("coarse", [True, False])
def test_hypervolume_equals_inclusion_exclusion(m: int, coarse: bool) -> None:
    for seed in range(5):
        points = cloud(seed, 9, m, coarse)
        reference = np.full(m, 4.0 if coarse else 0.9)
        assert hypervolume(points, reference) == pytest.approx(inclusion_exclusion(points, reference))


def test_hypervolume_of_a_large_front_is_close_to_the_ball() -> None:
    points = np.abs(np.random.default_rng(1).normal(size=(5000, 3)))
    points /= np.linalg.norm(points, axis=1)[:, None]
    assert hypervolume(1 - points, np.ones(3)) == pytest.approx(np.pi / 6, rel=0.03)


def test_points_beyond_the_reference_add_nothing() -> None:
    assert hypervolume(np.array([[2.0, 0.0], [0.5, 0.5]]), np.ones(2)) == 0.25
    assert hypervolume(np.zeros((0, 3)), np.ones(3)) == 0.0


def front_of(seed: int, n: int) -> FloatArray:
    points = cloud(seed, n, 3, coarse=False)
    return points[non_dominated(points)]


def test_spread_subset_is_the_plain_greedy_choice() -> None:
    points = front_of(3, 400)
    chosen = spread_subset(points, 10)
    assert len(set(chosen.tolist())) == 10
    assert set(points.argmin(axis=0).tolist()) <= set(chosen.tolist())
    scaled, reference = (points - points.min(0)) / np.ptp(points, axis=0), np.full(3, 1.1)
    greedy = sorted(set(points.argmin(axis=0).tolist()))
    while len(greedy) < 10:
        volumes = [-1.0 if i in greedy else hypervolume(scaled[[*greedy, i]], reference) for i in range(len(points))]
        greedy.append(int(np.argmax(volumes)))
    assert chosen.tolist() == sorted(greedy)


def test_spread_subset_edges() -> None:
    points = front_of(4, 200)
    assert np.array_equal(spread_subset(points, len(points) + 1), np.arange(len(points)))
    with pytest.raises(NasError, match="at least 3"):
        spread_subset(points, 2)
    assert len(spread_subset(np.ones((9, 2)), 4)) == 4


@pytest.mark.parametrize("objectives", [2, 4, 5])
def test_the_share_of_points_dominated_estimates_the_hypervolume(objectives: int) -> None:
    points = cloud(5, 60, objectives, coarse=False)
    least, most = points.min(axis=0), points.max(axis=0) + 0.1
    drawn = np.random.default_rng(0).uniform(least, most, size=(20_000, objectives))
    exact = hypervolume(points, most) / np.prod(most - least)
    assert dominated_share(points, drawn) == pytest.approx(exact, abs=5 * (exact * (1 - exact) / 20_000) ** 0.5)
