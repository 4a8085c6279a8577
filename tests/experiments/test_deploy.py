"""Many devices and budgets in one go, against every network of small spaces."""

import csv
import io
import json
import os
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from tiny_runs import TINY, Finished, small_problem, small_search
from typer.testing import CliRunner

from experiments.bench.programs import every
from experiments.cli import app
from experiments.deploy import SharedErrors, deploy, deploy_together, limits, problems
from experiments.workers import parallel
from nas.errors import NasError
from nas.genotype import IntArray
from nas.problem import Constraint, Problem
from nas.search.devices import joined


def two_devices() -> dict[str, Problem]:
    """One space; the second device is slower, has other shapes of costs, fewer choices and a limit on bytes."""
    phone = small_problem(0)
    other = small_problem(1)
    costs = {name: other.additive[name] for name in ("latency_s", "bytes")}

    def evaluate(population: IntArray) -> np.ndarray:
        return np.stack([phone.evaluate(population)[:, 0], *(cost(population) for cost in costs.values())], axis=1)

    allowed = tuple(indices[:-1] if len(indices) > 2 else indices for indices in phone.allowed)
    sizes = costs["bytes"](every(replace(phone, allowed=allowed)))
    limit = Constraint("bytes", float(np.quantile(sizes, 0.5)))
    chip = replace(phone, evaluate=evaluate, additive=costs, allowed=allowed, constraints=(limit,))
    return {"phone": phone, "chip": chip}


def optimum(problem: Problem, budgets: dict[str, float]) -> float | None:
    values = problem.evaluate(every(problem))
    within = problem.violation(values) == 0
    for metric, budget in budgets.items():
        within &= values[:, problem.metrics.index(metric)] <= budget
    return float(values[within, 0].min()) if within.any() else None


def test_the_best_of_every_device_and_budget_is_that_of_all_networks() -> None:
    asked = two_devices()
    answers = deploy(asked, "latency_s", 6, 0)
    assert [one.device for one in answers] == ["phone"] * 6 + ["chip"] * 6
    for one in answers:
        (budget,) = one.budgets.values()
        assert one.genotype is not None
        assert one.metrics["error"] == optimum(asked[one.device], {"latency_s": budget})
        assert one.bound is not None
        assert one.bound <= one.metrics["error"]
        assert one.gap == one.metrics["error"] - one.bound
        metrics = asked[one.device].evaluate(np.array([one.genotype]))[0]
        assert dict(zip(asked[one.device].metrics, metrics, strict=True)) == one.metrics


def test_budgets_below_everything_have_no_network_and_given_ones_are_kept() -> None:
    asked = two_devices()
    latency = asked["phone"].additive["latency_s"](every(asked["phone"]))
    budgets = [float(latency.min()) * 0.99, float(latency.min()), float(np.median(latency))]
    none, *found = deploy({"phone": asked["phone"]}, "latency_s", budgets, 0)
    assert (none.genotype, none.metrics, none.bound, none.gap) == (None, {}, None, None)
    assert [list(one.budgets.values()) for one in (none, *found)] == [[budget] for budget in budgets]
    for one, budget in zip(found, budgets[1:], strict=True):
        assert one.metrics["error"] == optimum(asked["phone"], {"latency_s": budget})


def test_one_network_for_both_devices_holds_both_budgets() -> None:
    asked = two_devices()
    together = joined(asked)
    for one in deploy_together(asked, "latency_s", 4, 0):
        assert one.device == "phone+chip"
        assert one.genotype is not None
        assert one.bound is not None
        best = optimum(together, {f"latency_s@{device}": budget for device, budget in one.budgets.items()})
        assert one.metrics["error"] == best
        assert one.bound <= one.metrics["error"]


def test_bounds_lie_below_the_optimum_of_all_networks() -> None:
    """On a space that is searched whole; see `lower_stand_in`."""
    asked = two_devices()
    for one in deploy(asked, "bytes", 5, 1):
        best = optimum(asked[one.device], {"bytes": next(iter(one.budgets.values()))})
        assert one.bound is not None
        assert best is not None
        assert one.bound <= best


def test_errors_are_asked_for_once() -> None:
    counted: list[int] = []
    problem = small_problem(0)

    class Errors:
        def mean(self, population: IntArray) -> np.ndarray:
            counted.append(len(population))
            return problem.evaluate(population)[:, 0]

    shared = SharedErrors(problem.space, Errors())
    everything = every(problem)
    np.testing.assert_array_equal(shared.mean(everything[:100]), problem.evaluate(everything[:100])[:, 0])
    np.testing.assert_array_equal(shared.mean(everything[50:200]), problem.evaluate(everything[50:200])[:, 0])
    assert counted == [100, 100]


@pytest.mark.parametrize("sampler", ["hybrid", "nsga2", "integer_program"])
def test_searches_give_the_same_on_any_number_of_workers(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds, found = [0, 1, 2, 3], {}
    for workers in (1, 3):
        monkeypatch.setattr(os, "cpu_count", lambda workers=workers: workers)
        found[workers] = dict(parallel(partial(small_search, sampler), seeds))
    here = {seed: small_search(sampler, seed) for seed in seeds}
    assert found[1] == found[3] == here
    assert len({str(front) for front in here.values()}) == len(seeds)


def test_budgets_are_a_count_or_limits() -> None:
    assert limits("10", "latency_s") == 10
    assert limits("5 us,10us", "latency_s") == [5e-6, 1e-5]
    assert limits("3000,", "lut") == [3000.0]
    with pytest.raises(NasError, match="at least 1"):
        limits("0", "lut")
    with pytest.raises(NasError, match="5 MB"):
        limits("5 MB", "latency_s")


@pytest.mark.hls
def test_the_command_answers_for_devices_the_run_was_not_made_for(finished: Finished) -> None:
    command = ["deploy", str(TINY), "--runs", str(finished.runs), "--devices", "local-cpu,zcu102", "--budgets", "3"]
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 0, result.output
    answers = json.loads(result.stdout)
    assert [one["device"] for one in answers] == ["local-cpu"] * 3 + ["zcu102"] * 3
    for one in answers:
        assert one["bound"] <= one["metrics"]["error"]
        assert one["metrics"]["latency_s"] <= one["budgets"][one["device"]]
    rows = list(csv.DictReader(io.StringIO(CliRunner().invoke(app, [*command, "--csv"]).stdout)))
    assert [float(row["error"]) for row in rows] == [one["metrics"]["error"] for one in answers]
    table = CliRunner().invoke(app, command)
    assert table.exit_code == 0
    assert "zcu102" in table.stdout


@pytest.mark.hls
def test_tiny_spaces_are_deployed_as_brute_force_would(finished: Finished) -> None:
    """On the predictors of a real run: 2 layers at most, so that all networks can be listed."""
    asked = problems(finished.open().context.config, ["zu3eg"], finished.runs, print)
    for one in deploy(asked, "lut", 4, 0):
        assert one.metrics["error"] == pytest.approx(optimum(asked["zu3eg"], {"lut": one.budgets["zu3eg"]}), rel=1e-12)


def test_no_budget_on_what_is_no_sum() -> None:
    with pytest.raises(NasError, match="no budget on 'error'"):
        deploy({"phone": small_problem(0)}, "error", 2, 0)
