from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray, active, canonical
from nas.problem import Constraint, Problem, sample, sample_sizes
from nas.search.archive import Archive, Proof

MakeProblem = Callable[..., Problem]


@pytest.mark.parametrize("draw", [sample, sample_sizes])
@pytest.mark.parametrize("seed", range(5))
def test_samples_are_allowed_and_canonical(draw: Callable[..., IntArray], seed: int, make_problem: MakeProblem) -> None:
    problem = make_problem(seed)
    drawn = draw(problem, 500, np.random.default_rng(seed))
    effect = active(problem.space, drawn)
    assert np.array_equal(canonical(problem.space, drawn), drawn)
    for gene, allowed in enumerate(problem.allowed):
        assert set(drawn[effect[:, gene], gene].tolist()) <= set(allowed)
    assert np.array_equal(drawn, draw(problem, 500, np.random.default_rng(seed)))


def test_samples_reach_every_genotype(make_problem: MakeProblem, every: Callable[..., IntArray]) -> None:
    problem = make_problem(0, genes=4)
    expected = every(problem.space, problem.allowed)
    drawn = np.unique(sample(problem, 5000, np.random.default_rng(0)), axis=0)
    assert np.array_equal(drawn, expected)


def test_sizes_run_from_the_smallest_to_the_largest(make_problem: MakeProblem) -> None:
    problem = make_problem(1)
    drawn = sample_sizes(problem, 10, np.random.default_rng(0))
    assert np.array_equal(drawn[[0]], problem.genotypes(np.zeros_like(problem.allowed_counts)[None]))
    assert np.array_equal(drawn[[-1]], problem.genotypes(problem.allowed_counts[None] - 1))


def test_ranks_undo_genotypes(make_problem: MakeProblem) -> None:
    problem = make_problem(2)
    drawn = sample(problem, 200, np.random.default_rng(0))
    assert np.array_equal(problem.genotypes(problem.ranks(drawn)), drawn)


def test_violation_is_the_normalised_sum(make_problem: MakeProblem) -> None:
    problem = replace(make_problem(0), constraints=(Constraint("error", 0.1), Constraint("lut", 200)))
    metrics = np.array([[0.05, 9.0, 200.0], [0.2, 9.0, 300.0], [0.05, 9.0, 250.0]])
    assert problem.violation(metrics) == pytest.approx([0.0, 1.0 + 0.5, 0.25])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objectives": ("accuracy",)}, "'accuracy' is not a metric"),
        ({"objectives": ()}, "at least one objective"),
        ({"constraints": (Constraint("ram", 1.0),)}, "'ram' is not a metric"),
        ({"allowed": ((0,),)}, "7 genes, got 1"),
    ],
)
def test_a_problem_is_checked(change: dict[str, object], message: str, make_problem: MakeProblem) -> None:
    with pytest.raises(NasError, match=message):
        replace(make_problem(0), **change)  # type: ignore[arg-type]


def test_allowed_choices_are_checked(make_problem: MakeProblem) -> None:
    problem = make_problem(0)
    for bad in ((), (9,)):
        with pytest.raises(NasError, match="gene d1: allowed choice indices"):
            replace(problem, allowed=(problem.allowed[0], bad, *problem.allowed[2:]))


def test_foreign_genotypes_are_refused(make_problem: MakeProblem) -> None:
    problem = make_problem(0)
    only_first = replace(problem, allowed=((0,), *problem.allowed[1:]))
    good = sample(only_first, 3, np.random.default_rng(0))
    assert np.array_equal(only_first.require_allowed(good), good)
    good[0, 0] = 1
    with pytest.raises(NasError, match=r"gene d0: allowed choice indices are \[0\], got 1"):
        only_first.require_allowed(good)
    with pytest.raises(NasError, match=r"shape \(n, 7\)"):
        only_first.require_allowed(good[:, :3])


def test_an_archive_evaluates_each_genotype_once(make_problem: MakeProblem) -> None:
    problem, calls = make_problem(0), []

    def counting(population: IntArray) -> FloatArray:
        calls.append(len(population))
        return problem.evaluate(population)

    archive = Archive(replace(problem, evaluate=counting))
    drawn = sample(problem, 300, np.random.default_rng(0))
    places = archive.add(drawn, "a")
    assert np.array_equal(archive.genotypes[places], drawn)
    assert np.array_equal(archive.metrics[places], problem.evaluate(drawn))
    assert np.array_equal(np.sort(np.unique(places, return_index=True)[1]), np.unique(places, return_index=True)[1])
    archive.add(drawn[::-1], "b")
    assert sum(calls) == len(archive) == len(np.unique(drawn, axis=0))
    assert set(archive.found_by) == {"a"}
    assert archive.seen(drawn).all()


def test_the_front_is_feasible_and_non_dominated(make_problem: MakeProblem, limited: Callable[..., Constraint]) -> None:
    problem = make_problem(3)
    problem = replace(problem, constraints=(limited(problem, "lut", 0.3),))
    archive = Archive(problem)
    archive.add(sample(problem, 200, np.random.default_rng(0)), "random")
    feasible = archive.metrics[:, 2] <= problem.constraints[0].limit
    expected = [
        place
        for place, row in enumerate(archive.metrics)
        if feasible[place] and not any((o <= row).all() and (o < row).any() for o in archive.metrics[feasible])
    ]
    assert 0 < feasible.sum() < len(feasible)
    assert archive.front().tolist() == expected


def test_absorbing_keeps_finders_and_moves_proofs(make_problem: MakeProblem) -> None:
    problem = make_problem(0)
    first, second = Archive(problem), Archive(problem)
    drawn = np.unique(sample(problem, 50, np.random.default_rng(0)), axis=0)
    first.add(drawn[:6], "a")
    second.add(drawn[3:7], "b")
    second.add(drawn[3:9], "c")
    second.proofs.append(Proof("error", (), "optimal", 0.3, 0.2, 5))
    first.absorb(second)
    assert np.array_equal(first.genotypes, drawn[:9])
    assert first.found_by == ["a"] * 6 + ["b"] + ["c"] * 2
    assert first.proofs[0].member == 8
    assert first.proofs[0].gap == pytest.approx(0.1)


def test_what_evaluate_returns_is_checked(make_problem: MakeProblem) -> None:
    problem = make_problem(0)
    drawn = sample(problem, 5, np.random.default_rng(0))
    for bad in (np.zeros((5, 2)), np.full((5, 3), np.nan)):
        archive = Archive(replace(problem, evaluate=lambda population, bad=bad: bad[: len(population)]))
        with pytest.raises(NasError, match="error, latency_s, lut"):
            archive.add(drawn, "a")
