"""Costs that a device's model charges: gathered from tables, and summed over the layers of lowered networks."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import TINY, tiny_config

from experiments.context import Context
from experiments.problems import limits, on_device
from experiments.targets import Target
from hw_models.device import Device, device_names, load_device, parse_device
from hw_models.memory import peak_memory_bytes
from hw_models.prices import layer_prices, layer_times
from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from nas.network import Input, Layer, Network
from nas.problem import Problem, sample
from nas.search.integer_program import IntegerProgram

PRICED = [
    name
    for name in device_names()
    if load_device(name).family in ("bit-flexible", "roofline", "systolic", "microcontroller")
]
ENERGY = """
  mac_j: {int8: {value: 3.0e-13, source: "a test"}, float32: {value: 4.6e-12, source: "a test"}}
  register_j_per_byte: {value: 1.0e-13, source: "a test"}
  buffer_j_per_byte: {value: 1.0e-12, source: "a test"}
  dram_j_per_byte: {value: 1.0e-10, source: "a test"}
"""


class NoErrors:
    def mean(self, population: IntArray) -> FloatArray:
        return np.zeros(len(population))


BITS = {"weight_bits": [4, 8], "act_bits": [4, 8, 16, 32], "sparsity": [0, 0.5]}
STAGES = [{"width": 8, "stride": 1, "depth": [1, 2]}, {"width": 12, "stride": 2, "depth": [1, 2]}]
SPACES: dict[str, dict[str, Any]] = {
    "mobile": {
        "name": "mobile", "stem": 4, "stages": [STAGES[0] | {"squeeze": True}, STAGES[1]], "kernel": [3, 5],
        "expand": [1, 2], "precision": BITS,
    },
    "resnet": {
        "name": "resnet", "stem": 8, "stem_depth": [0, 1], "stages": STAGES, "expand": [0.5, 1],
        "width": [0.5, 1], "divisor": 1, "precision": BITS,
    },
}  # fmt: skip


@functools.cache
def context(space: str) -> Context:
    """Of the tiny config, its space perhaps another."""

    def edit(entries: dict[str, Any]) -> None:
        entries["space"] = SPACES.get(space, entries["space"])
        entries["supernet"]["epochs"] = {"full": 1}

    return Context(tiny_config(edit if space in SPACES else lambda entries: None), Path("runs"))


def priced(space: str, device: Device) -> Problem:
    of = context(space)
    target = Target(name=device.name, objectives=("error", "latency_s"))
    return on_device(of, device, target, NoErrors(), None)


def with_energy(name: str) -> Device:
    text = (TINY.parents[2] / "hw_models" / "devices" / f"{name}.yaml").read_text()
    return parse_device(name, f"{text}energy:{ENERGY}")


def charged(device: Device, network: Network) -> dict[str, float]:
    costs = {name: sum(map(price, network)) for name, price in layer_prices(device).items()}
    return costs | ({"peak_bytes": peak_memory_bytes(network)} if "peak_bytes" in device.metrics else {})


@pytest.mark.parametrize("space", ["tiny", "mobile", "resnet"])
@pytest.mark.parametrize("name", PRICED)
def test_tables_charge_what_the_layers_of_the_network_do(name: str, space: str) -> None:
    device = load_device(name)
    asked = priced(space, device)
    population = sample(asked, 40, np.random.default_rng(5))
    found = asked.evaluate(population)
    assert asked.metrics == device.metrics
    for row, genotype in zip(found, population.tolist(), strict=True):
        costs = charged(device, context(space).space.lower(genotype))
        assert dict(zip(asked.metrics, row.tolist(), strict=True)) == pytest.approx({"error": 0.0, **costs}, rel=1e-9)


def test_energy_is_told_where_the_devices_file_has_it() -> None:
    device = with_energy("raspberry-pi-4")
    assert "energy_j" not in load_device("raspberry-pi-4").metrics
    asked = priced("tiny", device)
    assert asked.metrics == ("error", "latency_s", "weight_bytes", "energy_j")
    population = sample(asked, 20, np.random.default_rng(6))
    for joules, genotype in zip(asked.evaluate(population)[:, 3], population.tolist(), strict=True):
        assert joules == pytest.approx(charged(device, context("tiny").space.lower(genotype))["energy_j"], rel=1e-9)


def test_what_a_microcontroller_holds_is_a_limit_and_the_peak_one_for_programs() -> None:
    asked = priced("mobile", load_device("stm32f746"))
    assert {one.metric: one.limit for one in asked.constraints} == {"weight_bytes": 2**20, "peak_bytes": 320 * 1024}
    assert set(asked.priced) == {"latency_s", "weight_bytes", "peak_bytes"}
    target = Target(name="stm32f746", constraints={"peak_bytes": 2048, "weight_bytes": 2**30})
    assert {one.metric: one.limit for one in limits(target, load_device("stm32f746"))} == {
        "peak_bytes": 2048, "weight_bytes": 2**20,
    }  # fmt: skip
    tight = on_device(context("mobile"), load_device("stm32f746"), target, NoErrors(), None)
    archive = IntegerProgram(budgets=2, samples=50, rounds=1).run(tight, 0)
    peaks = archive.metrics[archive.front(), tight.metrics.index("peak_bytes")]
    assert 0 < len(peaks) < len(archive)
    assert (peaks <= 2048).all()


@dataclass(frozen=True)
class Attention:
    name: str = "attend"
    inputs: tuple[str, ...] = ("image",)
    in_shape: tuple[int, ...] = (4,)
    out_shape: tuple[int, ...] = (4,)


@pytest.mark.parametrize("name", PRICED)
def test_an_unknown_operation_is_an_error_that_names_it(name: str) -> None:
    device, strange = load_device(name), Attention()
    for metric, price in layer_prices(device).items():
        if metric != "weight_bytes":
            with pytest.raises(NasError, match="layer attend: operation attention has no cost"):
                price(strange)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name in PRICED if load_device(name).family != "bit-flexible"])
def test_times_are_the_latencys_parts(name: str) -> None:
    device = load_device(name)
    times, price = layer_times(device), layer_prices(device)["latency_s"]
    asked = priced("mobile", device)
    layers: list[Layer] = [
        layer
        for genotype in sample(asked, 10, np.random.default_rng(7)).tolist()
        for layer in context("mobile").space.lower(genotype)
    ]
    for layer in layers:
        time = times(layer)
        assert price(layer) == max(time.compute_s, time.memory_s, time.launch_s)
        assert (price(layer) == 0) == isinstance(layer, Input)


def test_a_device_without_a_cost_model_is_refused() -> None:
    for name in ("local-cpu", "zu3eg"):
        with pytest.raises(NasError, match=f"device {name} is of family"):
            layer_prices(load_device(name))
    with pytest.raises(NasError, match="device bitfusion is of family"):
        layer_times(load_device("bitfusion"))
