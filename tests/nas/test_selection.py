"""Survival against slow, literal readings of the papers."""

import itertools

import numpy as np
import pytest

from nas.genotype import FloatArray, IntArray
from nas.search.directions import associate, normalised, reference_directions, simplex
from nas.search.selection import by_crowding, by_niches, constrained_ranks, fill_niches


def dominates(a: int, b: int, costs: FloatArray, violation: FloatArray) -> bool:
    """Definition 1 of Deb et al., 2002."""
    if violation[a] > 0 or violation[b] > 0:
        return bool(violation[a] < violation[b])
    return bool((costs[a] <= costs[b]).all() and (costs[a] < costs[b]).any())


def constrained(seed: int, n: int, m: int, share: float) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    costs = rng.integers(0, 6, (n, m)).astype(float) if seed % 2 else rng.random((n, m))
    return costs, np.where(rng.random(n) < share, 0.0, rng.integers(1, 9, n) / 4)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_ranks_are_fronts_peeled_by_the_definition(seed: int, share: float) -> None:
    costs, violation = constrained(seed, 90, 2 + seed % 3, share)
    rest, level, expected = list(range(90)), 0, np.zeros(90, dtype=int)
    while rest:
        front = [b for b in rest if not any(dominates(a, b, costs, violation) for a in rest)]
        expected[front], level = level, level + 1
        rest = [member for member in rest if member not in front]
    found = constrained_ranks(costs, violation, 90)
    assert np.array_equal(np.unique(found, return_inverse=True)[1], expected)
    early = constrained_ranks(costs, violation, 20)
    kept = np.argsort(expected, kind="stable")[:20]
    assert np.array_equal(np.unique(early[kept], return_inverse=True)[1], expected[kept])


def test_crowding_keeps_fronts_first_and_extremes_of_the_last() -> None:
    costs, violation = constrained(2, 80, 2, 0.7)
    ranks = constrained_ranks(costs, violation, 80)
    chosen = by_crowding(costs, violation, 30)
    last = ranks[chosen.kept].max()
    assert set(np.flatnonzero(ranks < last)) <= set(chosen.kept)
    assert (np.diff(ranks[chosen.kept]) >= 0).all()
    assert len(set(chosen.kept.tolist())) == 30


@pytest.mark.parametrize(("m", "p"), [(2, 5), (3, 4), (5, 3)])
def test_the_simplex_holds_all_multiples(m: int, p: int) -> None:
    grid = [point for point in itertools.product(range(p + 1), repeat=m) if sum(point) == p]
    assert sorted(map(tuple, np.rint(simplex(m, p) * p).astype(int).tolist())) == sorted(grid)


@pytest.mark.parametrize(
    ("m", "size", "count"), [(3, 92, 91), (5, 212, 210), (8, 156, 156), (10, 276, 275), (15, 136, 135)]
)
def test_directions_are_as_many_as_in_the_paper(m: int, size: int, count: int) -> None:
    """Table I of Deb & Jain, 2014."""
    directions = reference_directions(m, size)
    assert len(directions) == count
    assert directions.sum(axis=1) == pytest.approx(1.0)
    assert len(np.unique(directions.round(9), axis=0)) == count


def test_points_belong_to_the_nearest_line() -> None:
    rng = np.random.default_rng(0)
    points, directions = rng.random((60, 4)), reference_directions(4, 40)
    niche, distance = associate(points, directions)
    for point, own, far in zip(points, niche, distance, strict=True):
        away = [np.linalg.norm(point - (w @ point) * w / (w @ w)) for w in directions]
        assert far == pytest.approx(min(away))
        assert away[own] == pytest.approx(min(away))


def test_normalised_extremes_span_the_unit_simplex() -> None:
    front = simplex(3, 6) * np.array([2.0, 30.0, 0.5]) + np.array([1.0, -4.0, 7.0])
    scaled = normalised(front, front.min(axis=0))
    assert scaled == pytest.approx(simplex(3, 6), abs=1e-5)
    flat = np.array([[0.0, 1.0], [0.0, 3.0]])
    assert np.isfinite(normalised(flat, flat.min(axis=0))).all()


def replay(held: IntArray, niche: IntArray, distance: FloatArray, chosen: IntArray) -> None:
    """Algorithm 4 step by step: each choice must be one that it may make."""
    count = np.bincount(held, minlength=20)
    left = set(range(len(niche)))
    for member in chosen.tolist():
        open_niches = {niche[other] for other in left}
        assert count[niche[member]] == min(count[j] for j in open_niches)
        rivals = [other for other in left if niche[other] == niche[member]]
        if count[niche[member]] == 0:
            assert distance[member] == min(distance[other] for other in rivals)
        count[niche[member]] += 1
        left.remove(member)


@pytest.mark.parametrize("seed", range(30))
def test_niches_are_filled_as_the_algorithm_may(seed: int) -> None:
    rng = np.random.default_rng(seed)
    held, niche = rng.integers(0, 12, rng.integers(0, 30)), rng.integers(0, 12, 40)
    distance = rng.integers(0, 5, 40) / 4
    chosen = fill_niches(held, niche, distance, 25, rng)
    assert len(set(chosen.tolist())) == 25
    replay(held, niche, distance, chosen)


def literal(held: IntArray, niche: IntArray, distance: FloatArray, size: int, rng: np.random.Generator) -> list[int]:
    """Algorithm 4 as written."""
    count, left = np.bincount(held, minlength=20), list(range(len(niche)))
    chosen: list[int] = []
    while len(chosen) < size:
        open_niches = sorted({int(niche[k]) for k in left})
        least = min(count[j] for j in open_niches)
        own = rng.choice([j for j in open_niches if count[j] == least])
        rivals = [k for k in left if niche[k] == own]
        member = min(rivals, key=lambda k: distance[k]) if not count[own] else int(rng.choice(rivals))
        chosen.append(member)
        left.remove(member)
        count[own] += 1
    return chosen


def test_niches_are_filled_as_often_as_by_the_algorithm() -> None:
    held, niche = np.array([0, 0, 1, 3]), np.array([0, 1, 1, 1, 2, 2, 3, 4, 4])
    distance, tries = np.arange(9) / 9, 4000
    often = np.zeros((2, 9))
    for seed in range(tries):
        rng = np.random.default_rng(seed)
        often[0, fill_niches(held, niche, distance, 4, rng)] += 1
        often[1, literal(held, niche, distance, 4, rng)] += 1
    assert np.abs(often[0] - often[1]).max() / tries < 0.04


def test_niching_keeps_whole_fronts_and_the_least_violating() -> None:
    costs, violation = constrained(4, 80, 3, 0.7)
    ranks = constrained_ranks(costs, violation, 80)
    directions, rng = reference_directions(3, 30), np.random.default_rng(0)
    ideal = costs[violation == 0].min(axis=0)
    chosen = by_niches(costs, violation, 30, directions, ideal, rng)
    last = ranks[chosen.kept].max()
    assert len(set(chosen.kept.tolist())) == 30
    assert set(np.flatnonzero(ranks < last)) <= set(chosen.kept)
    few = np.where(np.arange(80) < 5, 0.0, violation + 0.1)
    chosen = by_niches(costs, few, 30, directions, costs[:5].min(axis=0), rng)
    assert np.sort(few[chosen.kept]) == pytest.approx(np.sort(few)[:30])
    assert np.array_equal(chosen.preference, few[chosen.kept])
