from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from nas.counts import nonzeros, weight_bytes
from nas.genotype import FloatArray, IntArray, choice_counts, count_networks
from nas.problem import Constraint, Problem, sample
from nas.search.archive import Archive
from nas.search.evolution import Evolution, Nsga2, Nsga3, Survival
from nas.search.integer_program import solver
from nas.search.program import build
from nas.search.selection import Survivors
from nas.spaces.mobile import MobileChoices, Stage
from nas.spaces.precision import PrecisionChoices
from nas.tables import additive, layer_tables

MakeProblem = Callable[..., Problem]


def front(archive: Archive) -> FloatArray:
    return np.unique(archive.problem.costs(archive.metrics[archive.front()]), axis=0)


@pytest.mark.parametrize("sampler", [
    Nsga2(60, 40), Nsga2(60, 40, mutated_blocks=0.3, crossover="stage"), Nsga2(60, 40, lifetime=3),
])  # fmt: skip
@pytest.mark.parametrize("seed", range(4))
def test_reaches_the_exact_front(
    seed: int, sampler: Evolution, make_problem: MakeProblem, every: Callable[..., IntArray]
) -> None:
    """Of a space five times as large as what the search may look at."""
    problem = replace(make_problem(seed + 20, genes=12), objectives=("error", "lut"))
    problem = replace(problem, allowed=tuple(tuple(range(len(g.choices))) for g in problem.space.genes))
    everything = Archive(problem)
    everything.add(every(problem.space), "all")
    archive = sampler.run(problem, 0)
    assert len(archive) < len(everything)
    assert np.array_equal(front(archive), front(everything))


@pytest.mark.parametrize("seed", range(4))
def test_niches_reach_the_exact_front_of_a_smaller_space(
    seed: int, make_problem: MakeProblem, every: Callable[..., IntArray]
) -> None:
    problem = replace(make_problem(seed + 20, genes=9), objectives=("error", "lut"))
    problem = replace(problem, allowed=tuple(tuple(range(len(g.choices))) for g in problem.space.genes))
    everything = Archive(problem)
    everything.add(every(problem.space), "all")
    archive = Nsga3(40, 20).run(problem, 0)
    assert len(archive) < len(everything)
    assert np.array_equal(front(archive), front(everything))


def test_ends_early_once_everything_is_known(make_problem: MakeProblem, every: Callable[..., IntArray]) -> None:
    problem = make_problem(1, genes=5)
    calls: list[int] = []
    archive = Nsga2(population=40, generations=10_000).run(problem, 0, lambda done, total: calls.append(done))
    assert np.array_equal(np.unique(archive.genotypes, axis=0), every(problem.space, problem.allowed))
    assert len(calls) < 20


@pytest.fixture(scope="module")
def mobile() -> Problem:
    """75 genes, 6e35 networks; the error falls with every gene, so every limit hurts."""
    precision = PrecisionChoices((2, 4, 8), (4, 6, 8, 32), (0.0, 0.5, 0.75))
    stages = (Stage(12, 1, (1, 2)), Stage(16, 2, (1, 2)), Stage(24, 2, (1, 2)))
    space = MobileChoices(8, stages, (3, 5), (2, 3, 4), precision).build((1, 8, 8), 10)
    assert count_networks(space) > 1e35
    tables = layer_tables(space)
    lut = additive(space, tables, lambda layer: float(nonzeros(layer)))
    size = additive(space, tables, weight_bytes)

    def evaluate(population: IntArray) -> FloatArray:
        error = 1 - population.sum(axis=1) / (choice_counts(space) - 1).sum()
        return np.stack([error, lut(population), size(population)], axis=1)

    allowed = tuple(tuple(range(len(gene.choices))) for gene in space.genes)
    return Problem(
        space,
        ("error", "lut", "weight_bytes"),
        evaluate,
        ("error", "lut"),
        (),
        allowed,
        {"lut": lut, "weight_bytes": size},
    )


def test_finds_the_best_of_a_barely_feasible_corner(mobile: Problem) -> None:
    """Limits a fiftieth above the smallest network: a random genotype never meets them. The optimum is proved."""
    smallest = mobile.evaluate(np.zeros((1, len(mobile.allowed)), dtype=np.int64))[0]
    limits = (Constraint("lut", smallest[1] * 1.02), Constraint("weight_bytes", smallest[2] * 1.02))
    problem = replace(mobile, constraints=limits)
    random = sample(problem, 5000, np.random.default_rng(0))
    assert problem.violation(mobile.evaluate(random)).min() > 0
    program, total = build(problem, ("lut", "weight_bytes")), (choice_counts(problem.space) - 1).sum()
    weights = np.tile(-np.arange(program.choices.shape[1]) / total, (len(program.choices), 1))
    pairs = [(program.costs[limit.metric], limit.limit) for limit in limits]
    best = solver("highs")(program, program.genewise(weights, 1.0), pairs, 10.0, 0)
    assert best.status == "optimal"
    assert best.value is not None
    archive = Nsga2(population=100, generations=60).run(problem, 0)
    assert best.value <= archive.metrics[archive.front(), 0].min() + 1e-9
    assert archive.metrics[archive.front(), 0].min() <= best.value + 0.02


def test_finds_a_corner_no_start_lies_in(mobile: Problem) -> None:
    """An error limit and a size limit that neither the first population nor its ends meet."""
    limits = (Constraint("error", 0.35), Constraint("weight_bytes", 4500.0))
    problem = replace(mobile, constraints=limits)
    first = Nsga2(population=100, generations=0).run(problem, 0)
    assert not len(first.front())
    archive = Nsga2(population=100, generations=60).run(problem, 0)
    assert len(archive.front())


def test_progresses_with_generations(mobile: Problem) -> None:
    archive = Nsga2(population=50, generations=40).run(mobile, 0)
    error, lut = archive.metrics[:, 0], archive.metrics[:, 1]
    early, late = slice(0, 50), slice(50, None)
    cheap = lut < np.quantile(lut[early], 0.5)
    assert error[late][cheap[late]].min() < error[early][cheap[early]].min()
    assert len(archive) == pytest.approx(50 + 40 * 50, abs=5)


class Watched(Nsga2):
    """Notes, in each generation, whether one known member is a candidate for survival."""

    def survival(self, archive: Archive, rng: np.random.Generator) -> Survival:
        survive, best = super().survival(archive, rng), archive.metrics[0, 0]

        def watched(costs: FloatArray, violation: FloatArray) -> Survivors:
            NOTES.append(bool((costs[:, 0] == best).any()))
            return survive(costs, violation)

        return watched


NOTES: list[bool] = []


@pytest.mark.parametrize("lifetime", [0, 1, 3])
def test_the_best_leaves_when_its_time_is_over(
    lifetime: int, make_problem: MakeProblem, every: Callable[..., IntArray]
) -> None:
    problem = replace(make_problem(21, genes=12), objectives=("error",))
    everything = every(problem.space, problem.allowed)
    best = everything[[problem.evaluate(everything)[:, 0].argmin()]]
    NOTES.clear()
    archive = Watched(12, 9, lifetime=lifetime).run(problem, 3, starts=best)
    there = lifetime + 1 if lifetime else 10
    assert [generation < there for generation in range(10)] == NOTES
    assert archive.front().tolist() == [0]


def test_stagnation_ends_a_search_and_growth_does_not(mobile: Problem) -> None:
    endless = Nsga2(40, 30).run(mobile, 0)
    growing = Nsga2(40, 30, patience=5, tolerance=0.0).run(mobile, 0)
    assert np.array_equal(growing.genotypes, endless.genotypes)
    calls: list[int] = []
    stopped = Nsga2(40, 30, patience=5, tolerance=1e9).run(mobile, 0, lambda done, total: calls.append(done))
    assert calls == [*range(10), 30]
    assert np.array_equal(stopped.genotypes, endless.genotypes[: len(stopped)])
