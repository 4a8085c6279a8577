import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from nas.genotype import IntArray
from nas.problem import Constraint, Problem
from nas.search.devices import joined
from nas.search.infeasible import explain
from nas.tables import AdditiveCost, PipelinedCost

MakeProblem = Callable[..., Problem]
Every = Callable[..., IntArray]


def test_one_limit_below_everything_is_proved(make_problem: MakeProblem, every: Every) -> None:
    problem = make_problem(40)
    least = problem.additive["lut"](every(problem.space, problem.allowed)).min()
    limits = (Constraint("latency_s", 1.0), Constraint("lut", least - 1))
    answer = explain(replace(problem, constraints=limits), 0)
    assert answer.binding == limits[1:]
    assert answer.feasible is None
    assert answer.reaches[0].alone.value == least
    assert answer.conflicts[0].proved
    assert answer.message.startswith(f"no network satisfies the constraints: lut <= {least - 1:g}")
    assert f"least reachable lut is {least:g} (proved)" in answer.message


def test_limits_in_conflict_name_each_other(make_problem: MakeProblem, every: Every) -> None:
    """Each limit by itself can be met; the bystander is not blamed."""
    for seed in range(40, 60):
        problem = make_problem(seed)
        values = problem.evaluate(every(problem.space, problem.allowed))
        latency, lut = values[:, 1], values[:, 2]
        limits = (Constraint("latency_s", latency.min() * 1.001), Constraint("lut", lut.min()))
        if not ((latency <= limits[0].limit) & (lut <= limits[1].limit)).any():
            break
    problem = replace(problem, constraints=(*limits, Constraint("error", 9.0)))
    answer = explain(replace(problem, constraints=limits), 0)
    assert set(answer.binding) == set(limits)
    assert all(reach.kept.proved for reach in answer.reaches)
    assert answer.reaches[0].kept.value == pytest.approx(latency[lut <= limits[1].limit].min())
    assert answer.reaches[1].kept.value == pytest.approx(lut[latency <= limits[0].limit].min())
    assert "exclude each other" in answer.message
    assert set(explain(problem, 0).binding) == set(limits)


def test_what_is_not_additive_is_the_best_found(make_problem: MakeProblem, every: Every) -> None:
    problem = make_problem(41)
    least = problem.evaluate(every(problem.space, problem.allowed))[:, 0].min()
    answer = explain(replace(problem, constraints=(Constraint("error", least * 0.9),)), 0)
    assert answer.reaches[0].alone.value == pytest.approx(least)
    assert not answer.reaches[0].alone.proved
    assert answer.message.startswith("found no network")
    assert "(best found)" in answer.message


def test_a_feasible_network_is_handed_over(make_problem: MakeProblem) -> None:
    problem = replace(make_problem(42), constraints=(Constraint("lut", 1e6), Constraint("latency_s", 1.0)))
    answer = explain(problem, 0)
    assert answer.binding == ()
    assert answer.feasible is not None
    metrics = problem.evaluate(np.array([answer.feasible]))
    assert problem.violation(metrics)[0] == 0


@pytest.mark.parametrize("seed", range(16))
def test_conflicts_over_devices_are_irreducible_and_complete(
    seed: int, make_problem: MakeProblem, every: Every, limited: Callable[[Problem, str, float], Constraint]
) -> None:
    """Two devices, sums and a maximum each, random limits: every claim is checked against all networks."""
    rng = np.random.default_rng(seed)
    base = make_problem(seed, genes=7)
    devices = {name: _pipelined(base, rng) for name in ("phone", "fpga")}
    problem = joined(devices)
    names = [name for name in problem.priced if rng.random() < 0.8] or list(problem.priced)
    limits = tuple(limited(problem, name, float(rng.choice([0.02, 0.1, 0.3]))) for name in names)
    problem = replace(problem, constraints=limits)
    values = problem.evaluate(every(problem.space, problem.allowed))

    def possible(constraints: tuple[Constraint, ...]) -> bool:
        columns = problem.columns(tuple(c.metric for c in constraints))
        return bool((values[:, columns] <= [c.limit for c in constraints]).all(axis=1).any())

    answer = explain(problem, 0)
    if possible(limits):
        assert answer.binding == ()
        assert answer.feasible is not None
        return
    for conflict in answer.conflicts:
        held = tuple(reach.constraint for reach in conflict.reaches)
        assert conflict.proved
        assert not possible(held)
        assert all(possible(part) for part in itertools.combinations(held, len(held) - 1))
        for reach in conflict.reaches:
            others = tuple(c for c in held if c != reach.constraint)
            raised = replace(reach.constraint, limit=reach.kept.value or 0.0)
            assert possible((*others, raised))
            assert not possible((*others, replace(raised, limit=raised.limit * (1 - 1e-6))))
    assert len(set(answer.binding)) == len(answer.binding)
    assert possible(tuple(c for c in limits if c not in answer.binding))
    assert problem.violation(problem.evaluate(np.array([answer.nearest])))[0] == pytest.approx(
        problem.violation(values).min(), rel=1e-6
    )


def _pipelined(problem: Problem, rng: np.random.Generator) -> Problem:
    """A device with a sum of its own, and the slowest of its layers."""
    latency = problem.additive["latency_s"]
    tables = tuple(
        replace(table, values=table.values * rng.uniform(0.5, 2, table.values.shape)) for table in latency.tables
    )
    sums = {"latency_s": AdditiveCost(tables, latency.constant)}
    slowest = {"interval_s": PipelinedCost(tuple(AdditiveCost((table,)) for table in tables))}

    def evaluate(population: IntArray) -> np.ndarray:
        own = [sums["latency_s"](population), slowest["interval_s"](population)]
        return np.stack([problem.evaluate(population)[:, 0], *own], axis=1)

    metrics = ("error", "latency_s", "interval_s")
    return Problem(problem.space, metrics, evaluate, metrics, (), problem.allowed, sums, slowest)


@pytest.mark.parametrize("seed", range(8))
def test_conflicts_with_a_predicted_error_are_irreducible_and_leave_out_what_is_never_exceeded(
    seed: int, make_problem: MakeProblem, every: Every, limited: Callable[[Problem, str, float], Constraint]
) -> None:
    """Two limits that nothing meets together, beside one that everything meets."""
    problem = make_problem(seed, genes=7)
    values = problem.evaluate(every(problem.space, problem.allowed))
    limits = (limited(problem, "error", 0.03), Constraint("latency_s", 1.0), limited(problem, "lut", 0.03))
    problem = replace(problem, constraints=limits)
    columns = problem.columns(tuple(c.metric for c in limits))
    possible = bool((values[:, columns] <= [c.limit for c in limits]).all(axis=1).any())
    answer = explain(problem, seed)
    assert possible == (answer.feasible is not None)
    assert set(answer.binding) == (set() if possible else {limits[0], limits[2]})
