from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from nas.genotype import IntArray
from nas.problem import Constraint, Problem
from nas.search.infeasible import explain

MakeProblem = Callable[..., Problem]
Every = Callable[..., IntArray]


def test_one_limit_below_everything_is_proved(make_problem: MakeProblem, every: Every) -> None:
    problem = make_problem(40)
    least = problem.additive["lut"](every(problem.space, problem.allowed)).min()
    limits = (Constraint("latency_s", 1.0), Constraint("lut", least - 1))
    answer = explain(replace(problem, constraints=limits), 0)
    assert answer.binding == limits[1:]
    assert answer.feasible is None
    assert answer.reaches[1].alone.value == least
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
    additive = replace(problem, constraints=limits)
    answer = explain(additive, 0)
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
