"""A device's problem, on the finished run's predictors."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny_runs import Finished, tiny_config

from experiments.config import config_from
from experiments.context import Context
from experiments.problems import are_dense_8bit, dense_8bit, limits, problem
from experiments.stages.fit import LATENCY
from experiments.targets import Target
from hw_models.device import load_device
from hw_models.onnx_model import layer_bytes
from hw_models.unrolled import RESOURCES, layer_cost
from nas.genotype import largest
from nas.network import FLOAT_BITS, Weighted
from nas.problem import Problem, sample
from nas.search.evolution import Nsga2
from predictors import accuracy, latency

pytestmark = [pytest.mark.hls]
Ask = Callable[[str, Context], Problem]


@pytest.fixture
def ask(finished: Finished) -> Ask:
    opened = finished.open()
    at = opened.context.run.stage_dir

    def build(device: str, context: Context) -> Problem:
        stages = opened.plan.device(device)
        target = next(target for target in context.config.devices if target.name == device)
        return problem(context, target, at(opened.plan.fit), at(stages.measure) if stages.measure else None)

    return build


def allowed_values(asked: Problem, kind: str) -> set[tuple[float, ...]]:
    genes = zip(asked.space.genes, asked.allowed, strict=True)
    return {tuple(gene.choices[i] for i in indices) for gene, indices in genes if gene.kind == kind}


def test_a_device_is_allowed_exactly_what_it_supports(finished: Finished, ask: Ask) -> None:
    context = finished.open().context
    cpu, fpga = ask("local-cpu", context), ask("zu3eg", context)
    assert allowed_values(cpu, "weight_bits") == {(4, 8)}
    assert allowed_values(cpu, "act_bits") == {(32,)}
    assert allowed_values(fpga, "weight_bits") == {(3, 4, 8)}
    assert allowed_values(fpga, "act_bits") == {(4, 8)}
    for asked in (cpu, fpga):
        assert allowed_values(asked, "sparsity") == {(0.5, 0)}
        assert allowed_values(asked, "width") == {(8, 16, 24)}


def test_dense_8bit_leaves_architecture_free_and_nothing_else(finished: Finished, ask: Ask) -> None:
    context = finished.open().context
    for device, act in (("local-cpu", FLOAT_BITS), ("zu3eg", 8)):
        dense = dense_8bit(ask(device, context))
        assert dense is not None
        assert allowed_values(dense, "weight_bits") == {(8,)}
        assert allowed_values(dense, "act_bits") == {(act,)}
        assert allowed_values(dense, "sparsity") == {(0,)}
        assert allowed_values(dense, "width") == {(8, 16, 24)}
        for row in sample(dense, 50, np.random.default_rng(0)).tolist():
            for layer in context.space.lower(row).weighted:
                assert (layer.precision.weight_bits, layer.precision.act_bits, layer.sparsity) == (8, act, 0)


def test_dense_8bit_networks_are_told_by_their_genes(finished: Finished, ask: Ask) -> None:
    context = finished.open().context
    for device, act in (("local-cpu", FLOAT_BITS), ("zu3eg", 8)):
        asked = ask(device, context)
        dense = dense_8bit(asked)
        assert dense is not None
        rng = np.random.default_rng(0)
        population = np.concatenate([sample(asked, 300, rng), sample(dense, 30, rng)])
        marked = are_dense_8bit(asked, population)
        for row, mark in zip(population.tolist(), marked, strict=True):
            layers = context.space.lower(row).weighted
            forms = {(layer.precision.weight_bits, layer.precision.act_bits, layer.sparsity) for layer in layers}
            assert mark == (forms == {(8, act, 0)})
        assert 30 <= marked.sum() < 200


@pytest.mark.parametrize(
    "change",
    [{"weight_bits": [3, 4]}, {"act_bits": [4, 6, 32]}, {"sparsity": [0.25, 0.5]}],
    ids=["no 8-bit weights", "no 8-bit activations", "nothing dense"],
)
def test_a_space_without_8bit_dense_networks_has_no_such_problem(change: dict[str, Any], tmp_path: Path) -> None:
    context = Context(tiny_config(lambda entries: entries["space"]["precision"].update(change)), tmp_path)
    space, device = context.space, load_device("zu3eg")
    supported = {"weight_bits": device.weight_bits, "act_bits": device.act_bits}
    allowed = tuple(
        tuple(i for i, c in enumerate(gene.choices) if c in supported.get(gene.kind, gene.choices))
        for gene in space.genes
    )
    asked = Problem(space, ("error",), lambda p: np.zeros((len(p), 1)), ("error",), (), allowed, {})
    assert dense_8bit(asked) is None


def test_limits_are_the_tighter_of_config_and_device() -> None:
    device = load_device("zu3eg")
    assert device.resources is not None
    asked = limits(
        Target.model_validate({"name": "zu3eg", "constraints": {"lut": 1000.0, "ff": 1e9, "error": 0.1}}), device
    )
    assert {c.metric: c.limit for c in asked} == {
        "lut": 1000.0, "ff": device.resources.ff, "error": 0.1, "dsp": device.resources.dsp,
        "bram": device.resources.bram,
    }  # fmt: skip
    cpu = limits(
        Target.model_validate({"name": "local-cpu", "constraints": {"latency_s": 1e-3}}), load_device("local-cpu")
    )
    assert {c.metric: c.limit for c in cpu} == {"latency_s": 1e-3}


@pytest.mark.parametrize("device_name", ["local-cpu", "zu3eg"])
def test_metrics_are_those_of_the_lowered_network(device_name: str, finished: Finished, ask: Ask) -> None:
    opened = finished.open()
    context, device = opened.context, load_device(device_name)
    asked = ask(device_name, context)
    population = sample(asked, 60, np.random.default_rng(3))
    found = asked.evaluate(population)
    at = context.run.stage_dir
    predicted = accuracy.load(context.space, at(opened.plan.fit) / "accuracy.npz").predict(population).mean
    for row, genotype, error in zip(found, population.tolist(), predicted, strict=True):
        network = context.space.lower(genotype)
        if device.clock_hz is None:
            measure = opened.plan.device(device_name).measure
            assert measure is not None
            timed = latency.load(at(measure) / "latency.json").predict([network]).mean[0]
            expected = [error, timed, sum(map(layer_bytes, network))]
        else:
            costs = [layer_cost(layer) for layer in network]
            packed = [layer for layer in network if isinstance(layer, Weighted)]
            weight = sum(np.prod(w.weight_shape) * w.precision.weight_bits / 8 + 4 * w.out_shape[0] for w in packed)
            cycles = sum(cost["cycles"] for cost in costs) / device.clock_hz
            expected = [error, cycles, weight, *(sum(cost[name] for cost in costs) for name in RESOURCES)]
        np.testing.assert_allclose(row, expected, rtol=1e-9)


def test_forms_a_device_lacks_cost_nan_and_no_sampler_reaches_them(finished: Finished, ask: Ask) -> None:
    asked = ask("zu3eg", finished.open().context)
    float_everywhere = largest(asked.space)[None]
    assert math.isnan(asked.evaluate(float_everywhere)[0, asked.metrics.index("lut")])
    archive = Nsga2(40, 10).run(asked, 1)
    for sampler in finished.open().context.config.search.samplers.values():
        archive.absorb(sampler.run(asked, 1))
    assert len(archive) > 300
    assert np.isfinite(archive.metrics).all()
    for row in archive.genotypes.tolist():
        for layer in asked.space.lower(row).weighted:
            assert layer.precision.act_bits in (4, 8)
            assert layer.precision.weight_bits in (3, 4, 8)


def test_a_limit_with_confidence_is_held_by_that_quantile_of_the_prediction(finished: Finished, ask: Ask) -> None:
    """The largest latency allowed is the one whose 95 % quantile, under the predictor's spread, is the limit."""

    def edit(entries: dict[str, Any]) -> None:
        entries["devices"][0]["constraints"] = {"error": "60 %", "latency_s": {"max": "1 ms", "confidence": 0.95}}

    config = tiny_config(edit)
    assert config_from(yaml.safe_load(config.to_yaml()), "again") == config
    opened = finished.open()
    asked = ask("local-cpu", Context(config, finished.runs))
    (limit,) = (one.limit for one in asked.constraints if one.metric == "latency_s")
    measured = opened.plan.device("local-cpu").measure
    assert measured is not None
    spread = latency.load(opened.context.run.stage_dir(measured) / LATENCY).spread
    drawn = limit * (1 + spread * np.random.default_rng(0).normal(size=200_000))
    assert np.mean(drawn <= 1e-3) == pytest.approx(0.95, abs=2e-3)
    (plain,) = (one.limit for one in limits(config.devices[0], load_device("local-cpu")) if one.metric == "latency_s")
    assert plain == 1e-3  # what is measured is held to the limit itself
