"""Evolution between programs, against every network of small spaces."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from nas.genotype import FloatArray, IntArray
from nas.pareto import non_dominated
from nas.problem import Constraint, Problem
from nas.search.archive import Archive
from nas.search.hybrid import Hybrid, _neighbours
from nas.search.stand_in import lower_stand_in, stand_in, weighted

MakeProblem = Callable[..., Problem]
Every = Callable[..., IntArray]
Limited = Callable[[Problem, str, float], Constraint]

SMALL = Hybrid(population=40, generations=40, rounds=4, samples=100)


@pytest.mark.parametrize("seed", range(6))
def test_the_front_is_that_of_all_networks(
    seed: int, make_problem: MakeProblem, every: Every, limited: Limited
) -> None:
    problem = make_problem(seed, genes=7)
    problem = replace(problem, constraints=(limited(problem, "lut", 0.6), limited(problem, "error", 0.7)))
    values = problem.evaluate(every(problem.space, problem.allowed))
    costs = problem.costs(values[problem.violation(values) == 0])
    archive = SMALL.run(problem, seed)
    found = problem.costs(archive.metrics[archive.front()])
    assert np.array_equal(np.unique(found, axis=0), np.unique(costs[non_dominated(costs)], axis=0))


def test_nothing_evaluated_dominates_the_front_and_programs_gave_some_of_it(make_problem: MakeProblem) -> None:
    problem, seen = make_problem(3, genes=14), list[FloatArray]()

    def evaluate(population: IntArray) -> FloatArray:
        seen.append(problem.evaluate(population))
        return seen[-1]

    archive = SMALL.run(replace(problem, evaluate=evaluate), 0)
    front = archive.metrics[archive.front()]
    everything = np.concatenate(seen)
    assert np.array_equal(
        np.unique(front, axis=0), np.unique(everything[non_dominated(problem.costs(everything))], axis=0)
    )
    assert "integer_program" in {archive.found_by[place] for place in archive.front()}


@pytest.mark.parametrize("seed", range(6))
def test_bounds_hold_where_all_networks_were_seen(
    seed: int, make_problem: MakeProblem, every: Every, limited: Limited
) -> None:
    problem = make_problem(seed, genes=7)
    problem = replace(problem, constraints=(limited(problem, "lut", 0.6),))
    everything = every(problem.space, problem.allowed)
    values = problem.evaluate(everything)
    archive = SMALL.run(problem, seed, starts=everything)
    assert {c.metric for proof in archive.proofs for c in proof.limits} == {"latency_s", "lut"}
    for proof in archive.proofs:
        limits, columns = [c.limit for c in proof.limits], problem.columns(tuple(c.metric for c in proof.limits))
        optimum = values[(values[:, columns] <= limits).all(axis=1), 0].min()
        assert proof.bound is not None
        assert proof.value is not None
        assert proof.bound <= optimum * (1 + 1e-9)
        assert proof.value == optimum
        assert proof.status == ("optimal" if proof.gap == 0 else "feasible")


def test_a_lowered_stand_in_is_below_all_it_saw_and_touches_one(make_problem: MakeProblem) -> None:
    problem = make_problem(4, genes=12)
    archive = SMALL.run(problem, 0)
    below = lower_stand_in(archive, "error")
    assert below.genewise is not None
    rest = np.log(archive.metrics[:, 0]) - below.genewise(problem, archive.genotypes) + below.slack
    assert rest.min() == pytest.approx(0, abs=1e-12)
    assert below.logarithmic


def test_bounds_by_budget_are_the_least_of_the_front_that_fits(make_problem: MakeProblem, every: Every) -> None:
    problem = make_problem(5)
    everything, archive = every(problem.space, problem.allowed), Archive(problem)
    archive.add(everything, "all")
    below = lower_stand_in(archive, "error")
    front = below.front(problem.additive["lut"])
    lut = problem.additive["lut"](everything)
    sums = np.exp(below.additive(everything) - below.slack)
    budgets = np.array([lut.min() - 1, *np.quantile(lut, [0, 0.1, 0.5, 1])])
    expected = [sums[lut <= budget].min(initial=np.inf) for budget in budgets]
    np.testing.assert_allclose(below.bounds(front, budgets), expected)


def test_a_sum_stands_for_itself_and_mixes_are_sums(make_problem: MakeProblem, every: Every) -> None:
    problem = make_problem(6)
    archive = SMALL.run(replace(problem, objectives=("lut", "latency_s")), 0)
    itself = stand_in(archive, "lut")
    everything = every(problem.space, problem.allowed)
    assert np.array_equal(itself.additive(everything), problem.additive["lut"](everything))
    mix = weighted([problem.additive["lut"], problem.additive["latency_s"]], np.array([2.0, 1e6]))
    expected = 2 * problem.additive["lut"](everything) + 1e6 * problem.additive["latency_s"](everything)
    np.testing.assert_allclose(mix(everything), expected)


def test_neighbours_are_all_networks_one_gene_away(make_problem: MakeProblem, every: Every) -> None:
    problem = make_problem(1)
    archive, whole = Archive(problem), every(problem.space, problem.allowed)
    archive.add(whole[::7], "some")
    front = archive.front()
    ranks, own = problem.ranks(whole), problem.ranks(archive.genotypes[front])
    found = {tuple(row) for row in _neighbours(archive, front, len(archive)).tolist()}
    near = {
        tuple(problem.genotypes(np.array([[*row[:gene], rank, *row[gene + 1 :]]]))[0].tolist())
        for row in own.tolist()
        for gene, count in enumerate(problem.allowed_counts.tolist())
        for rank in range(count)
        if rank != row[gene]
    }
    assert found == near
    assert found <= {tuple(row) for row in problem.genotypes(ranks).tolist()}
