from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from nas.errors import NasError
from nas.genotype import IntArray, active, canonical
from nas.pareto import non_dominated
from nas.problem import Constraint, Problem, sample
from nas.search import surrogate
from nas.search.archive import Archive
from nas.search.epsilon import sweep
from nas.search.exact_front import exact_front
from nas.search.programs import Programs
from nas.tables import AdditiveCost, AdditiveTable, PipelinedCost

MakeProblem = Callable[..., Problem]
Every = Callable[..., IntArray]


def front_of(values: np.ndarray) -> np.ndarray:
    return np.unique(values[non_dominated(values)], axis=0)


@pytest.mark.parametrize("seed", range(40))
def test_exact_front_is_the_one_of_all_networks(seed: int, make_problem: MakeProblem, every: Every) -> None:
    problem = make_problem(seed, genes=int(np.random.default_rng(seed).integers(3, 10)))
    first, second = problem.additive["latency_s"], problem.additive["lut"]
    found = exact_front(problem, first, second)
    everything = every(problem.space, problem.allowed)
    expected = front_of(np.stack([first(everything), second(everything)], axis=1))
    assert found.values == pytest.approx(expected, rel=1e-12)
    assert (np.stack([first(found.genotypes), second(found.genotypes)], axis=1) == found.values).all()
    assert (problem.require_allowed(found.genotypes) == found.genotypes).all()


@pytest.mark.parametrize("seed", range(6))
def test_a_surrogate_is_an_objective_like_any_other(seed: int, make_problem: MakeProblem, every: Every) -> None:
    problem = make_problem(seed + 100)
    drawn = sample(problem, 300, np.random.default_rng(seed))
    stand_in = surrogate.fit(problem, drawn, problem.evaluate(drawn)[:, 0])
    cost, everything = stand_in.additive(problem), every(problem.space, problem.allowed)
    assert cost(everything) == pytest.approx(stand_in(problem, everything), abs=1e-12)
    found = exact_front(problem, cost, problem.additive["lut"])
    expected = front_of(np.stack([cost(everything).round(12), problem.additive["lut"](everything)], axis=1))
    assert found.values == pytest.approx(expected, abs=1e-9)


def test_tables_of_all_pairs_are_refused(make_problem: MakeProblem) -> None:
    problem, rng = make_problem(3, genes=30), np.random.default_rng(3)
    genes = problem.space.genes
    problem = replace(problem, allowed=tuple(tuple(range(len(gene.choices))) for gene in genes))
    pairs = [(i, j, len(genes[i].choices), len(genes[j].choices)) for j in range(30) for i in range(j)]
    cost = AdditiveCost(tuple(AdditiveTable((i, j), (m, 1), rng.random(n * m)) for i, j, n, m in pairs))
    with pytest.raises(NasError, match=r"all states of .* together; use an epsilon-constraint sweep"):
        exact_front(problem, cost, problem.additive["lut"])


@pytest.mark.parametrize("seed", range(8))
def test_a_sweep_of_two_objectives_is_the_whole_front(seed: int, make_problem: MakeProblem) -> None:
    problem = make_problem(seed + 200)
    programs = Programs(Archive(problem), 0)
    found = sweep(programs, ("lut", "latency_s"), (), 1000)
    assert found.complete
    expected = exact_front(problem, problem.additive["lut"], problem.additive["latency_s"])
    values = programs.archive.metrics[list(found.places)][:, [2, 1]]
    assert values == pytest.approx(expected.values, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_a_sweep_of_three_objectives_with_a_maximum_and_a_limit(
    seed: int, make_problem: MakeProblem, every: Every
) -> None:
    base = make_problem(seed + 300, genes=6)
    latency = base.additive["latency_s"]
    stages = PipelinedCost(tuple(AdditiveCost((table,), latency.constant) for table in latency.tables))
    size = replace(base.additive["lut"], tables=base.additive["lut"].tables[::-1][:3])
    metrics = ("error", "latency_s", "lut", "interval_s", "bytes")

    def evaluate(population: IntArray) -> np.ndarray:
        return np.column_stack([base.evaluate(population), stages(population), size(population)])

    everything = every(base.space, base.allowed)
    limit = Constraint("latency_s", float(np.quantile(latency(everything), 0.7)))
    sums = {**base.additive, "bytes": size}
    problem = replace(
        base,
        metrics=metrics,
        evaluate=evaluate,
        additive=sums,
        pipelined={"interval_s": stages},
        constraints=(limit,),
    )
    programs = Programs(Archive(problem), 0)
    objectives = ("lut", "interval_s", "bytes")
    found = sweep(programs, objectives, (limit,), 1000)
    values = evaluate(everything)
    inside = values[values[:, 1] <= limit.limit][:, problem.columns(objectives)]
    expected = front_of(inside.round(12))
    got = programs.archive.metrics[list(found.places)][:, problem.columns(objectives)]
    assert found.complete
    assert np.unique(got.round(12), axis=0) == pytest.approx(expected, rel=1e-6)
    assert (programs.archive.metrics[list(found.places), 1] <= limit.limit).all()
    cut_short = sweep(Programs(Archive(problem), 0), objectives, (limit,), 1)
    assert len(cut_short.places) == 1
    assert cut_short.complete == (len(expected) == 1)


@pytest.mark.parametrize("seed", range(12))
def test_the_k_best_are_those_of_all_networks(seed: int, make_problem: MakeProblem, every: Every) -> None:
    problem = make_problem(seed + 400)
    everything = every(problem.space, problem.allowed)
    latency, lut = problem.additive["latency_s"](everything), problem.additive["lut"](everything)
    limit = Constraint("lut", float(np.quantile(lut, 0.6)))
    programs = Programs(Archive(problem), 0)
    places = programs.best("latency_s", (limit,), 8)
    expected = np.sort(latency[lut <= limit.limit])[:8]
    assert programs.archive.metrics[places, 1] == pytest.approx(expected, rel=1e-7)
    assert len(set(places)) == len(expected)
    assert [proof.excluded for proof in programs.archive.proofs][: len(expected)] == list(range(len(expected)))
    for proof, value in zip(programs.archive.proofs, expected, strict=False):
        assert proof.bound is not None
        assert value * (1 - 1e-6) <= proof.bound <= value * (1 + 1e-6)
    again = Programs(Archive(problem), 0)
    again.best("latency_s", (limit,), 8)
    assert (again.archive.genotypes == programs.archive.genotypes).all()
    assert again.archive.proofs == programs.archive.proofs


def test_the_k_best_end_with_the_last_network(make_problem: MakeProblem, every: Every) -> None:
    problem = make_problem(7, genes=3)
    everything = every(problem.space, problem.allowed)
    programs = Programs(Archive(problem), 0)
    assert len(programs.best("lut", (), 1000)) == len(everything)
    assert programs.archive.proofs[-1].status == "infeasible"
    assert (
        np.unique(programs.archive.genotypes, axis=0) == np.unique(canonical(problem.space, everything), axis=0)
    ).all()
    assert active(problem.space, everything).any()
