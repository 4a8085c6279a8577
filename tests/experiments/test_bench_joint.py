"""The laws of `nas bench joint`: its metrics by hand, what each search may choose, equal budgets, a run to its end."""

import json
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from joint_runs import Sizes, everything, tiny
from tiny_runs import tiny_config

from experiments.bench import joint as bench
from experiments.bench.fronts import front, points_at_equal_cost, ratio_at_equal_accuracy
from experiments.bench.joint_stages import budget, parts, run, sampler, step
from experiments.bench.sequential import STEPS, Opened, committed, opened, sequential
from experiments.bench.sizes import LEAST, SIZES, sparse_minus_dense
from experiments.context import Context
from experiments.problems import dense_8bit, on_device
from experiments.targets import require_operations
from hw_models.device import load_device
from nas.errors import NasError
from nas.genotype import IntArray, canonical, count_networks, distinct
from nas.pareto import non_dominated
from nas.problem import Problem, sample
from nas.search.evolution import Nsga2

CONFIGS = ("fashion-joint", "cifar10-joint")
DEVICES = ("alveo-u250", "bitfusion")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    return Context(tiny(), tmp_path_factory.mktemp("joint"))


def asked(context: Context, device: str) -> Problem:
    target = next(target for target in context.config.devices if target.name == device)
    return on_device(context, load_device(device), target, Sizes(), None)


def test_a_front_by_hand() -> None:
    points = np.array([[4.0, 0.1], [1.0, 0.3], [2.0, 0.3], [3.0, 0.2], [4.0, 0.1], [5.0, 0.1]])
    assert front(points).tolist() == [[1.0, 0.3], [3.0, 0.2], [4.0, 0.1]]


def test_accuracy_at_equal_cost_by_hand() -> None:
    """At cost 2 our error is half way in the logarithm; at 8 it stays; 0.5 is below our least."""
    ours = np.array([[1.0, 0.3], [4.0, 0.1]])
    theirs = np.array([[0.5, 0.6], [2.0, 0.25], [8.0, 0.13]])
    assert points_at_equal_cost(ours, theirs) == pytest.approx(100 * (0.05 + 0.03) / 2)


def test_cost_at_equal_accuracy_by_hand() -> None:
    """At error 0.2 we cost 2 and they 8; at 0.5 our least, 1, and they 0.5; 0.05 is below our least error."""
    ours = np.array([[1.0, 0.3], [4.0, 0.1]])
    theirs = np.array([[0.5, 0.5], [8.0, 0.2], [20.0, 0.05]])
    assert ratio_at_equal_accuracy(ours, theirs) == pytest.approx(np.sqrt(2 / 8 * 1 / 0.5))


def test_a_front_beside_itself_is_equal_and_fronts_apart_are_refused() -> None:
    points = np.random.default_rng(0).random((30, 2)) + 0.1
    assert points_at_equal_cost(points, points) == pytest.approx(0, abs=1e-9)
    assert ratio_at_equal_accuracy(points, points) == pytest.approx(1)
    half_cost = points * (0.5, 1.0)
    assert ratio_at_equal_accuracy(half_cost, points) == pytest.approx(0.5)
    with pytest.raises(NasError, match="cost less than any of ours"):
        points_at_equal_cost(points + np.array([5.0, 0.0]), points)
    with pytest.raises(NasError, match="err less than any of ours"):
        ratio_at_equal_accuracy(points + np.array([0.0, 5.0]), points)


def test_metrics_agree_with_a_search_over_a_fine_grid() -> None:
    """Our front as a curve of 200,000 points, looked up instead of interpolated."""
    rng = np.random.default_rng(1)
    for _ in range(5):
        ours, theirs = (rng.random((12, 2)) + 0.2 for _ in range(2))
        mine, other = front(ours), front(theirs)
        if len(mine) < 2:
            continue
        share = np.linspace(0, 1, 200_000)
        places = share * (len(mine) - 1)
        log_cost = np.interp(places, range(len(mine)), np.log(mine[:, 0]))
        error = np.interp(places, range(len(mine)), mine[:, 1])
        gains = [
            other_error - error[log_cost <= np.log(cost) + 1e-12][-1]
            for cost, other_error in other
            if cost >= mine[0, 0]
        ]
        if gains:
            assert points_at_equal_cost(ours, theirs) == pytest.approx(100 * np.mean(gains), abs=0.01)
        logs = [log_cost[error <= e + 1e-12][0] - np.log(cost) for cost, e in other if e >= mine[-1, 1]]
        if logs:
            assert ratio_at_equal_accuracy(ours, theirs) == pytest.approx(np.exp(np.mean(logs)), rel=1e-3)


@pytest.mark.parametrize("kinds", [("sparsity",), ("weight_bits", "act_bits")])
def test_an_opened_space_holds_the_given_networks_with_other_choices_of_its_kinds(
    context: Context, kinds: tuple[Any, ...]
) -> None:
    problem = asked(context, "bitfusion")
    members = distinct(sample(problem, 4, np.random.default_rng(3)))
    made = opened(problem, members, kinds)
    assert isinstance(made.space, Opened)
    assert np.array_equal(made.space.whole(made.space.own()), members)
    population = sample(made, 40, np.random.default_rng(4))
    whole = made.space.whole(population)
    assert np.array_equal(whole, canonical(context.space, whole))
    kept = [place for place, gene in enumerate(context.space.genes) if gene.kind not in kinds]
    assert np.array_equal(whole[:, kept], members[population[:, 0]][:, kept])
    assert np.array_equal(made.evaluate(population), problem.evaluate(whole))
    assert made.space.lower(population[0].tolist()) == context.space.lower(whole[0].tolist())


@pytest.mark.parametrize("device", DEVICES)
def test_a_search_in_sequence_finds_the_front_of_its_steps(context: Context, device: str) -> None:
    """Every step by brute force over its few networks: those of 8 bits, then the zeros of the front, then its bits."""
    problem = asked(context, device)
    dense = dense_8bit(problem)
    assert dense is not None
    whole = everything(dense)
    for kinds in STEPS:
        members = best(problem, whole)
        made = opened(problem, members, kinds)
        assert isinstance(made.space, Opened)
        whole = made.space.whole(everything(made))
    found = sequential(problem, Nsga2(60, 60), 0, dense.genotypes(dense.allowed_counts[None] - 1)[:0])
    ours = problem.costs(found.metrics[found.front()])
    expected = problem.costs(problem.evaluate(best(problem, whole)))
    near = [any((point <= other * (1 + 1e-9)).all() for point in ours) for other in expected]
    assert np.mean(near) > 0.9
    assert not any((point < other * (1 - 1e-9)).all() for point in ours for other in expected)


def test_a_search_in_sequence_begins_with_what_each_step_may_decide_of_given_networks(context: Context) -> None:
    """Without a generation, next to nothing but the beginnings is evaluated."""
    problem = asked(context, "bitfusion")
    dense = dense_8bit(problem)
    assert dense is not None
    given = distinct(sample(problem, 30, np.random.default_rng(8)))
    found = sequential(problem, Nsga2(4, 0), 0, given)
    evaluated = {row.tobytes() for row in found.genotypes}
    kinds = [gene.kind for gene in context.space.genes]
    at_8 = [choices[0] for choices in dense.allowed]
    architectures = set[bytes]()
    for row in given.tolist():
        free = [g if kind in ("kernel", "width", "depth") else c for g, c, kind in zip(row, at_8, kinds, strict=True)]
        whole = canonical(context.space, np.array([free]))
        assert whole.astype(found.genotypes.dtype).tobytes() in evaluated
        architectures.add(whole.tobytes())
    assert len(architectures) > 1
    kept = [row for row in given if row.astype(found.genotypes.dtype).tobytes() in evaluated]
    assert 0 < len(kept) < len(given)


@pytest.mark.parametrize("kinds", [("sparsity",), ("weight_bits", "act_bits")])
def test_networks_of_an_opened_space_by_brute_force(context: Context, kinds: tuple[Any, ...]) -> None:
    problem = asked(context, "bitfusion")
    members = distinct(sample(problem, 4, np.random.default_rng(3)))
    made = opened(problem, members, kinds)
    assert isinstance(made.space, Opened)
    inside = made.space.whole(sample(made, 20, np.random.default_rng(4)))
    outside = sample(problem, 20, np.random.default_rng(5))
    closed = [place for place, gene in enumerate(context.space.genes) if gene.kind not in kinds]
    stated = [row for row in [*inside, *outside] if any((row[closed] == m[closed]).all() for m in members)]
    found = made.space.those(np.concatenate([inside, outside]))
    assert np.array_equal(made.space.whole(found), stated)
    assert made.space.those(outside[:0]).shape == (0, len(made.space.genes))


def test_a_committed_search_keeps_the_middle_architecture(context: Context) -> None:
    """All it answers is that architecture pruned and quantized; given networks of one keep theirs."""
    problem = asked(context, "bitfusion")
    dense = dense_8bit(problem)
    assert dense is not None
    front = best(problem, everything(dense))
    errors = np.sort(problem.evaluate(front)[:, 0])
    found = committed(problem, Nsga2(60, 60), 0, front[:0])
    opens = [place for place, gene in enumerate(context.space.genes) if gene.kind in chain(*STEPS)]
    architecture = found.genotypes.copy()
    architecture[:, opens] = found.genotypes[0, opens]
    assert len(distinct(canonical(context.space, architecture))) == 1 < len(found)
    assert found.metrics[0, 0] == pytest.approx(errors[len(errors) - 1 - len(errors) // 2])
    other = next(row for row in front if (row != found.genotypes[0]).any())
    again = committed(problem, Nsga2(20, 3), 0, other[None])
    assert np.array_equal(again.genotypes[0], other)


def best(problem: Problem, population: IntArray) -> IntArray:
    population = distinct(population)
    rows: IntArray = population[non_dominated(problem.costs(problem.evaluate(population)))]
    return rows


def test_a_search_in_sequence_predicts_as_many_and_some_to_spare() -> None:
    for name, quick in product(CONFIGS, (False, True)):
        evolution = sampler(Context(bench.joint_config(name, 0, quick), Path()))
        steps = 3 * evolution.population * (step(evolution).generations + 1)
        assert budget(evolution) == 2 * evolution.population * (evolution.generations + 1)
        assert 1.12 * budget(evolution) < steps < 1.18 * budget(evolution)


def test_a_budget_is_counted_in_candidates_of_one_sampler() -> None:
    with pytest.raises(NasError, match="nsga2 alone"):
        sampler(Context(tiny_config(), Path()))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_shipped_space_suits_both_devices(name: str) -> None:
    config = bench.joint_config(name, 1, False)
    space = config.build_space()
    require_operations(config.devices, space)
    assert [target.name for target in config.devices] == list(DEVICES)
    assert count_networks(space) > 1e50
    context = Context(config, Path())
    for device in DEVICES:
        dense = dense_8bit(
            on_device(context, load_device(device), config.devices[DEVICES.index(device)], Sizes(), None)
        )
        assert dense is not None
        largest = dense.genotypes(dense.allowed_counts[None] - 1)
        metrics = dict(zip(dense.metrics, dense.evaluate(largest)[0], strict=True))
        assert all(metrics[name] <= most for name, most in load_device(device).holds.items()), "unpruned networks fit"


@pytest.mark.slow
def test_a_small_run_to_its_end(tmp_path: Path) -> None:
    """Each search's finalists are of its kind and tested; what is done stays done, and figures come from them."""
    context, said = Context(tiny(), tmp_path), list[str]()
    run([context], said.append)
    found = {(part.kind, part.target.name): part.members() for part in parts(context)}
    assert set(found) == {(kind, name) for kind in bench.COMPARED for name in DEVICES} | {("sizes", "bitfusion")}
    for (kind, name), members in found.items():
        assert all(0 <= m["measured"]["error"] <= 1 and m["measured"].keys() >= {"latency_s"} for m in members)
        assert len(members) == (4 * SIZES if kind == "sizes" else 3), (kind, name)
    made = bench.figures(context.config.devices, [found])
    for hv in ("joint_hv_over_sequential", "joint_hv_over_committed"):
        assert made[hv].value == min(made[f"{hv}[{name}]"].value for name in DEVICES)
    assert {"joint_minus_sequential_points", "joint_minus_committed_points[bitfusion]"} <= made.keys()
    for cost, rival in product(("latency", "energy", "lut"), ("", "_to_committed")):
        assert f"joint_{cost}_ratio{rival}_at_equal_accuracy" in made
    points = sparse_minus_dense(found["sizes", "bitfusion"], "bytes")
    assert made["sparse_minus_dense_points[bytes]"].value == pytest.approx(np.mean(points))
    assert bench.picture(context.config.devices, [found]).startswith(b"\x89PNG")
    summaries = {(part.kind, part.target.name): context.run.summary(part.search) for part in parts(context)}
    assert {summary["evaluations"] for summary in summaries.values()} == {12}
    for m in found["sizes", "bitfusion"]:
        assert LEAST * m["most"] <= m["predicted"]["size"] <= m["most"]
    counted = bench._stage_figures([context])
    assert {name for name in counted if "candidates" in name} == {
        f"candidates[{kind}, {name}]" for kind in ("joint", "sequential") for name in DEVICES
    }
    for (kind, name), summary in summaries.items():
        if (kind, name) in product(("joint", "sequential"), DEVICES):
            off = [counted[f"{word}_batch_rmse[{kind}, {name}]"].value for word in ("first", "last")]
            assert off == [pytest.approx(100 * summary["rmse_by_batch"][place]) for place in (0, -1)]
    before = {path: path.stat().st_mtime_ns for path in context.run.path.rglob("members.json")}
    run([context], said.append)
    assert {path: path.stat().st_mtime_ns for path in context.run.path.rglob("members.json")} == before
    records = [json.loads(path.read_text()) for path in context.run.path.glob("sequential-*/finalists.json")]
    assert [len(each) for each in records] == [3, 3]
