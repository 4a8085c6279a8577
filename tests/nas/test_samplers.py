"""What every sampler keeps; a new line in SAMPLERS is tested without a change here."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from nas.errors import NasError
from nas.genotype import IntArray, active, canonical
from nas.problem import Constraint, Problem, sample
from nas.search import SAMPLERS, Hybrid, IntegerProgram, Nsga2, Nsga3, OptunaStudy
from nas.search.archive import Archive, Sampler

SMALL: dict[str, Sampler] = {
    "nsga2": Nsga2(population=20, generations=5),
    "nsga3": Nsga3(population=20, generations=5),
    "nsga2, every option": Nsga2(20, 5, 2.0, mutated_blocks=0.5, crossover="stage", lifetime=2, patience=2),
    "integer_program": IntegerProgram(budgets=3, samples=100),
    "integer_program, highs": IntegerProgram("highs", budgets=3, samples=100),
    "hybrid": Hybrid(population=20, generations=6, rounds=2, samples=40),
    "optuna": OptunaStudy(trials=40),
    "optuna, tpe": OptunaStudy(trials=25, sampler="tpe"),
}
MakeProblem = Callable[..., Problem]
Limited = Callable[[Problem, str, float], Constraint]


def test_every_sampler_is_covered() -> None:
    assert {type(sampler) for sampler in SMALL.values()} == set(SAMPLERS.values())
    assert all(settings.__pydantic_config__ == {"extra": "forbid"} for settings in SAMPLERS.values())


@pytest.fixture(params=SMALL)
def sampler(request: pytest.FixtureRequest) -> Sampler:
    return SMALL[request.param]


def same(a: Archive, b: Archive) -> bool:
    return np.array_equal(a.genotypes, b.genotypes) and a.found_by == b.found_by and a.proofs == b.proofs


def test_contract(sampler: Sampler, make_problem: MakeProblem, limited: Limited) -> None:
    problem = make_problem(5)
    problem = replace(problem, constraints=(limited(problem, "lut", 0.5),))
    calls: list[tuple[int, int]] = []
    archive = sampler.run(problem, 1, lambda done, total: calls.append((done, total)))

    assert np.array_equal(canonical(problem.space, archive.genotypes), archive.genotypes)
    effect = active(problem.space, archive.genotypes)
    for gene, allowed in enumerate(problem.allowed):
        assert set(archive.genotypes[effect[:, gene], gene].tolist()) <= set(allowed)
    assert len(np.unique(archive.genotypes, axis=0)) == len(archive) == len(archive.found_by)
    assert np.array_equal(problem.evaluate(archive.genotypes), archive.metrics)
    assert len(archive.front())
    assert (problem.violation(archive.metrics[archive.front()]) == 0).all()

    done, totals = [d for d, _ in calls], {t for _, t in calls}
    assert len(totals) == 1
    assert done == sorted(done)
    assert calls[-1][0] == calls[-1][1]


def test_same_seed_same_archive(sampler: Sampler, make_problem: MakeProblem) -> None:
    problem = make_problem(6, genes=12)
    assert same(sampler.run(problem, 3), sampler.run(problem, 3))
    assert not same(sampler.run(problem, 3), sampler.run(problem, 4))


def test_starts_come_first_and_are_checked(sampler: Sampler, make_problem: MakeProblem) -> None:
    problem = make_problem(7)
    starts = np.unique(sample(problem, 3, np.random.default_rng(0)), axis=0)
    archive = sampler.run(problem, 0, starts=starts)
    assert np.array_equal(archive.genotypes[: len(starts)], starts)
    assert archive.found_by[: len(starts)] == ["start"] * len(starts)
    assert "start" not in archive.found_by[len(starts) :]
    with pytest.raises(NasError, match="allowed choice indices"):
        sampler.run(problem, 0, starts=starts + 9)


def test_nothing_feasible_gives_an_empty_front(sampler: Sampler, make_problem: MakeProblem) -> None:
    problem = replace(make_problem(8), constraints=(Constraint("lut", 1.0), Constraint("error", 1e-3)))
    archive = sampler.run(problem, 0)
    assert not len(archive.front())


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        (Nsga2, {"population": 2}),
        (Nsga2, {"mutated_genes": 0.0}),
        (Nsga3, {"lifetime": -1}),
        (Nsga3, {"tolerance": -0.1}),
        (IntegerProgram, {"budgets": 0}),
        (IntegerProgram, {"effort": 0.0}),
        (Hybrid, {"rounds": -1}),
        (Hybrid, {"samples": 1}),
        (OptunaStudy, {"trials": 0}),
    ],
)
def test_settings_are_checked(settings: Callable[..., Sampler], values: dict[str, float]) -> None:
    with pytest.raises(NasError, match=str(next(iter(values.values())))):
        settings(**values)


def test_all_samplers_agree_on_a_small_space(make_problem: MakeProblem, every: Callable[..., IntArray]) -> None:
    """A front merged from all samplers is the front of everything."""
    problem = make_problem(9, genes=6)
    everything = Archive(problem)
    everything.add(every(problem.space, problem.allowed), "all")
    merged = Archive(problem)
    for sampler in SMALL.values():
        merged.absorb(sampler.run(problem, 0))
    expected = np.unique(everything.genotypes[everything.front()], axis=0)
    assert np.array_equal(np.unique(merged.genotypes[merged.front()], axis=0), expected)
