from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from nas.genotype import FloatArray, IntArray, active
from nas.problem import Constraint, Problem, sample
from nas.search import IntegerProgram, surrogate
from nas.search.archive import Archive
from nas.search.integer_program import SolverName, solver
from nas.search.program import build
from nas.tables import AdditiveCost

MakeProblem = Callable[..., Problem]
Every = Callable[..., IntArray]
Limited = Callable[[Problem, str, float], Constraint]
CoupledCost = Callable[[Problem, np.random.Generator, bool], AdditiveCost]
both_solvers = pytest.mark.parametrize("name", ["cp-sat", "highs"])


@both_solvers
@pytest.mark.parametrize("seed", range(24))
def test_optimum_is_the_exhaustive_one(
    seed: int, name: SolverName, make_problem: MakeProblem, every: Every, limited: Limited
) -> None:
    """A genewise loss under limits on both costs: never met, met by few, met by all."""
    problem = make_problem(seed)
    everything = every(problem.space, problem.allowed)
    latency, lut = problem.additive["latency_s"](everything), problem.additive["lut"](everything)
    weights = np.random.default_rng(seed).normal(size=(7, 3)) * 0.1
    loss = 0.3 + (weights[np.arange(7), everything] * active(problem.space, everything)).sum(axis=1)
    program = build(problem, ("latency_s", "lut"))
    for share in (0.2, 0.6, 1.0):
        limits = [limited(problem, "latency_s", share).limit, limited(problem, "lut", share).limit]
        feasible = (latency <= limits[0] * (1 + 1e-12)) & (lut <= limits[1])
        pairs = [(program.costs["latency_s"], limits[0]), (program.costs["lut"], limits[1])]
        found = solver(name)(program, program.genewise(weights, 0.3), pairs, 10.0, 0)
        if not feasible.any():
            assert found.status == "infeasible"
            assert found.value is None
            continue
        assert found.status == "optimal"
        assert found.value == pytest.approx(loss[feasible].min(), abs=1e-9)
        assert found.bound == pytest.approx(loss[feasible].min(), abs=1e-7)
        assert found.chosen is not None
        genotype = program.genotype(found.chosen)
        place = int(np.flatnonzero((everything == genotype).all(axis=1))[0])
        assert feasible[place]
        assert loss[place] == pytest.approx(loss[feasible].min(), abs=1e-9)


@both_solvers
@pytest.mark.parametrize("metric", ["latency_s", "lut"])
@pytest.mark.parametrize("seed", range(5))
def test_a_cost_has_its_true_minimum(
    seed: int, metric: str, name: SolverName, make_problem: MakeProblem, every: Every
) -> None:
    problem = make_problem(seed + 50)
    program = build(problem, (metric,))
    found = solver(name)(program, program.costs[metric], [], 10.0, 0)
    assert found.chosen is not None
    least = problem.additive[metric](every(problem.space, problem.allowed)).min()
    assert found.value == pytest.approx(least, rel=1e-9)
    assert problem.additive[metric](program.genotype(found.chosen)[None])[0] == pytest.approx(least, rel=1e-9)


def test_out_of_effort_is_not_infeasible(make_problem: MakeProblem, coupled: CoupledCost) -> None:
    """Programs with a solution, given too little effort for a proof."""
    seen = set()
    for seed, genes, share, name, effort in (
        (2, 40, 1.05, "cp-sat", 1e-9),
        (2, 40, 1.05, "cp-sat", 0.1),
        (2, 60, 0.9, "highs", 1e-9),
    ):
        problem, rng = make_problem(seed, genes=genes), np.random.default_rng(seed)
        whole = tuple(tuple(range(len(gene.choices))) for gene in problem.space.genes)
        costs = {metric: coupled(problem, rng, metric == "lut") for metric in ("latency_s", "lut")}
        problem = replace(problem, allowed=whole, additive=costs)
        drawn = sample(problem, 2000, rng)
        program, weights = build(problem, ("latency_s", "lut")), rng.normal(size=(genes, 3))
        pairs = [(program.costs[metric], float(cost(drawn).min() * share)) for metric, cost in costs.items()]
        found = solver(name)(program, program.genewise(weights, 0.0), pairs, effort, 0)
        assert found.status in ("unknown", "feasible")
        seen.add((name, found.status))
        if found.status == "feasible":
            assert found.value is not None
            assert found.bound is not None
            assert found.chosen is not None
            assert found.bound < found.value
            assert all(cost(found.chosen) <= limit * (1 + 1e-8) for cost, limit in pairs)
    assert seen == {("cp-sat", "unknown"), ("cp-sat", "feasible"), ("highs", "feasible")}


def test_surrogate_recovers_a_genewise_metric(make_problem: MakeProblem) -> None:
    problem = make_problem(4)
    drawn = sample(problem, 3000, np.random.default_rng(0))
    weights = np.random.default_rng(1).normal(size=(7, 3))

    def loss(population: IntArray) -> FloatArray:
        return 5.0 + (weights[np.arange(7), population] * active(problem.space, population)).sum(axis=1)

    fitted = surrogate.fit(problem, drawn, loss(drawn))
    fresh = sample(problem, 100, np.random.default_rng(2))
    predicted = fitted(problem, fresh)
    assert predicted == pytest.approx(loss(fresh), abs=0.01)


@both_solvers
def test_a_sweep_holds_every_budget_and_proves_it(name: SolverName, make_problem: MakeProblem, every: Every) -> None:
    problem = make_problem(11, genes=8)
    archive = IntegerProgram(name, budgets=5, samples=400).run(problem, 0)
    everything = every(problem.space, problem.allowed)
    sweeps = [proof for proof in archive.proofs if proof.minimised == "error" and proof.limits]
    assert {limit.metric for proof in sweeps for limit in proof.limits} == {"latency_s", "lut"}
    for proof in archive.proofs:
        assert proof.status == "optimal"
        assert proof.gap == pytest.approx(0, abs=1e-7)
        assert proof.member is not None
        metrics = dict(zip(problem.metrics, archive.metrics[proof.member], strict=True))
        for limit in proof.limits:
            assert metrics[limit.metric] <= limit.limit * (1 + 1e-9)
    for metric in ("latency_s", "lut"):
        least = problem.additive[metric](everything).min()
        budgets = [limit.limit for proof in sweeps for limit in proof.limits if limit.metric == metric]
        assert min(budgets) == pytest.approx(least)
        assert budgets == sorted(budgets)
        values = [proof.value for proof in sweeps if proof.limits[0].metric == metric]
        assert values == sorted(values, reverse=True)


def test_an_additive_first_objective_needs_no_surrogate(make_problem: MakeProblem, every: Every) -> None:
    problem = replace(make_problem(12), objectives=("lut", "error"))
    archive = IntegerProgram().run(problem, 0)
    assert set(archive.found_by) == {"integer_program"}
    assert archive.metrics[:, 2].min() == problem.additive["lut"](every(problem.space, problem.allowed)).min()


def test_constraints_hold_in_every_program(make_problem: MakeProblem, limited: Limited) -> None:
    problem = make_problem(13, genes=8)
    problem = replace(problem, constraints=(limited(problem, "lut", 0.3),))
    archive = IntegerProgram(budgets=4, samples=200).run(problem, 0)
    members = [proof.member for proof in archive.proofs if proof.member is not None]
    assert members
    assert (archive.metrics[members, 2] <= problem.constraints[0].limit).all()


def test_an_infeasible_problem_ends_with_the_proof(make_problem: MakeProblem) -> None:
    problem = replace(make_problem(14), constraints=(Constraint("lut", 1.0),))
    archive: Archive = IntegerProgram(samples=50).run(problem, 0)
    assert [proof.status for proof in archive.proofs] == ["infeasible"]
    assert archive.proofs[0].member is None
