from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from nas.genotype import parts
from nas.problem import Problem
from nas.search.variation import cross, mutate_blocks, mutate_genes
from nas.spaces.mobile import MobileChoices, Stage
from nas.spaces.precision import PrecisionChoices

MakeProblem = Callable[..., Problem]
SPACE = MobileChoices(
    8, (Stage(12, 1, (1, 2)), Stage(16, 2, (1, 2))), (3, 5), (2, 3), PrecisionChoices((2, 4, 8), (4, 8))
).build((1, 8, 8), 10)


@pytest.fixture
def mobile(make_problem: MakeProblem) -> Problem:
    allowed = tuple(tuple(range(len(gene.choices))) for gene in SPACE.genes)
    return replace(make_problem(0), space=SPACE, allowed=allowed, additive={})


def test_parts_are_stages_and_blocks_by_name() -> None:
    for depth, expected in ((1, {"stem", "head", "s1", "s2"}), (2, {"stem", "head", "s1", "s2", "s1.b1", "s2.b2"})):
        groups: dict[int, set[str]] = {}
        for gene, part in zip(SPACE.genes, parts(SPACE, depth).tolist(), strict=True):
            groups.setdefault(part, set()).add(".".join(gene.name.split(".")[:-1][:depth]))
        assert all(len(names) == 1 for names in groups.values())
        names = [next(iter(group)) for group in groups.values()]
        assert len(set(names)) == len(names)
        assert expected <= set(names)


def test_stage_crossover_keeps_whole_stages(mobile: Problem) -> None:
    members, rng = np.repeat([[0], [1]], len(SPACE.genes), axis=1), np.random.default_rng(0)
    whole = cross(mobile, members, np.zeros(2), 500, "stage", rng)
    stages = parts(SPACE, 1)
    for stage in range(stages.max() + 1):
        assert (np.ptp(whole[:, stages == stage], axis=1) == 0).all()
    assert (np.ptp(whole, axis=1) == 1).mean() > 0.3
    uniform = cross(mobile, members, np.zeros(2), 500, "uniform", rng)
    assert np.ptp(uniform[:, stages == stages[0]], axis=1).any()
    assert 0.4 < uniform.mean() < 0.6


def test_tournaments_are_won_by_the_preferred(mobile: Problem) -> None:
    members = np.repeat(np.arange(4)[:, None], len(SPACE.genes), axis=1)
    drawn = cross(mobile, members, np.array([3.0, 2.0, 1.0, 0.0]), 20_000, "stage", np.random.default_rng(0))
    shares = np.bincount(drawn[:, 0], minlength=4) / len(drawn)
    assert shares == pytest.approx(np.array([1, 3, 5, 7]) / 16, abs=0.02)


@pytest.mark.parametrize("expected", [0.5, 3.0, 1000.0])
def test_genes_mutate_as_often_as_expected_and_always_change(mobile: Problem, expected: float) -> None:
    rng, counts = np.random.default_rng(0), mobile.allowed_counts
    ranks = rng.integers(0, counts, (4000, len(counts)))
    mutated = mutate_genes(mobile, ranks, expected, rng)
    changed = (mutated != ranks).mean(axis=0)[counts > 1]
    assert changed == pytest.approx(min(1.0, expected / len(counts)), abs=0.02)
    assert (mutated >= 0).all()
    assert (mutated < counts).all()


def test_blocks_are_drawn_anew_as_a_whole(mobile: Problem) -> None:
    rng, counts, blocks = np.random.default_rng(0), mobile.allowed_counts, parts(SPACE, 2)
    ranks = np.full((4000, len(counts)), -1)
    mutated = mutate_blocks(mobile, ranks, 1.0, rng)
    hit = np.stack([(mutated >= 0)[:, blocks == block].all(axis=1) for block in range(blocks.max() + 1)], axis=1)
    assert np.array_equal(hit[:, blocks], mutated >= 0)
    assert hit.mean(axis=0) == pytest.approx(1 / hit.shape[1], abs=0.02)
    assert (mutated < counts).all()
    assert mutate_blocks(mobile, ranks, 0.0, rng) is ranks
