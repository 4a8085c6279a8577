"""Analytic cost models against numbers worked out by hand, and the bit-flexible one against APQ's table."""

import csv
import functools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from scipy.stats import spearmanr

from hw_models import bit_flexible, energy, memory, roofline, systolic
from hw_models.device import load_device
from hw_models.prices import layer_prices
from hw_models.work import kind, work
from nas.counts import weight_bytes
from nas.errors import NasError
from nas.network import Add, Conv2d, Input, Layer, Linear, Mean, Network, PairSum, Pool, Precision, RowMean, Scale

INT8 = Precision(8, 8)
FUSION = cast(bit_flexible.BitFlexible, load_device("bitfusion").array)
ARRAY = systolic.Systolic(1e6, 4, 4, 8, 1e12)
ROOF = roofline.Roofline({8: 1000.0, 32: 100.0}, 1000.0, 0.05)
TABLE = energy.EnergyTable({4: 1.0, 8: 3.0, 32: 50.0}, 0.5, 2.0, 100.0)
MODELS: dict[str, Callable[[Layer], float]] = {
    "bit-flexible": lambda layer: bit_flexible.layer_latency_s(layer, FUSION),
    "systolic": lambda layer: systolic.layer_time(layer, ARRAY).latency_s,
    "roofline": lambda layer: roofline.layer_time(layer, ROOF).latency_s,
    "energy": lambda layer: energy.layer_energy_j(layer, TABLE),
}


def conv(
    c: int, o: int, size: int, kernel: int = 1, groups: int = 1, bits: Precision = INT8, name: str = "conv"
) -> Conv2d:
    return Conv2d(name, ("image",), (c, size, size), (o, size, size), kernel, 1, groups, precision=bits)


def block(bits: Precision) -> Network:
    shape = (4, 4, 4)
    return Network(
        (
            Input("image", shape),
            Conv2d("stage1.expand", ("image",), shape, (8, 4, 4), 1, precision=bits),
            Conv2d("stage1.depth", ("stage1.expand",), (8, 4, 4), (8, 4, 4), 3, 1, 8, precision=bits),
            Conv2d("stage1.project", ("stage1.depth",), (8, 4, 4), shape, 1, precision=bits),
            Add("stage1.add", ("stage1.project", "image"), shape, bits),
            Pool("pool", ("stage1.add",), shape, 2, 2, "max", bits),
            Mean("squeeze", ("pool",), (4, 2, 2), bits),
            Linear("gates", ("squeeze",), (4,), (4,), "hsigmoid", precision=bits),
            Scale("scale", ("pool", "gates"), (4, 2, 2), bits),
            Mean("mean", ("scale",), (4, 2, 2), bits),
            Linear("head", ("mean",), (4,), (3,), precision=bits),
        )
    )


def test_work_by_hand() -> None:
    asked = work(conv(3, 5, 4, 3, bits=Precision(4, 8)))
    assert asked.macs == 16 * 5 * 3 * 9
    assert (asked.weight_bytes, asked.read_bytes, asked.written_bytes) == (5 * 27 / 2 + 20, 48, 80)
    assert work(Add("add", ("a", "b"), (2, 2, 2), INT8)).bytes == 24
    pairs, rows = PairSum("pairs", ("a", "b"), (3, 4, 1), INT8), RowMean("rows", ("pairs",), (3, 4, 4), INT8)
    assert (work(pairs).macs, work(pairs).bytes) == (3 * 16, 2 * 12 + 48)
    assert (work(rows).macs, work(rows).bytes) == (3 * 16, 48 + 12)
    assert work(Pool("pool", ("a",), (2, 4, 4), 3, 2, "max", INT8)).macs == 2 * 4 * 9
    assert kind(conv(4, 4, 4, 3, 4)) == "depthwise"


def test_a_dense_layer_on_the_bit_flexible_array_by_hand() -> None:
    layer = conv(40, 80, 14, 3)
    assert bit_flexible.layer_cycles(layer, FUSION) == 196 * 9 * 3 * 3
    halved = conv(40, 80, 14, 3, bits=Precision(4, 8))
    assert bit_flexible.layer_cycles(halved, FUSION) == 196 * 9 * 3 * 2
    wide = conv(16, 64, 112, bits=Precision(4, 4))
    assert bit_flexible.layer_cycles(wide, FUSION) == (4 * 16 * 12544 + 4 * 1024 + 64 * 64 * 12544) / 192
    depthwise = conv(96, 96, 56, 7, 96)
    assert bit_flexible.layer_cycles(depthwise, FUSION) == 96 * 49 * 3136 / 8


@pytest.mark.parametrize(("bits", "products"), [((2, 2), 16), ((3, 4), 4), ((6, 8), 1), ((4, 8), 2), ((16, 16), 0.25)])
def test_multipliers_fuse(bits: tuple[int, int], products: float) -> None:
    assert bit_flexible.fused(conv(1, 1, 1), *bits) == products


def test_the_systolic_array_by_hand_and_in_steps() -> None:
    assert systolic.folds(conv(4, 4, 2), ARRAY) == 1
    assert systolic.folds(conv(5, 4, 2), ARRAY) == 2
    assert systolic.folds(conv(4, 9, 2, 3), ARRAY) == 9 * 3
    assert systolic.folds(conv(6, 6, 2, 3, 6), ARRAY) == 6 * 3
    assert systolic.compute_s(conv(5, 4, 2), ARRAY) == pytest.approx(2 * (8 + 4 + 4 - 2) / 1e6)
    assert systolic.utilisation(conv(4, 4, 2), ARRAY) == 1
    assert systolic.utilisation(conv(5, 4, 2), ARRAY) == 20 / 32
    assert systolic.utilisation(conv(6, 6, 2, 3, 6), ARRAY) == 54 / (18 * 16)


def test_the_roofline_by_hand() -> None:
    time = roofline.layer_time(conv(10, 10, 1), ROOF)
    assert (time.compute_s, time.memory_s, time.bound) == (0.1, (100 + 40 + 20) / 1000, "memory")
    assert roofline.layer_time(conv(1, 1, 1), ROOF).bound == "launch"
    assert roofline.layer_time(conv(2, 2, 10, 3), ROOF).bound == "compute"
    assert roofline.layer_time(conv(10, 10, 1, bits=Precision(8, 32)), ROOF).compute_s == 1.0


def test_the_roofline_explains_what_binds() -> None:
    def explained(network: Network, device: roofline.Roofline) -> str:
        return roofline.explain(network, functools.partial(roofline.layer_time, device=device))

    slow_memory = roofline.Roofline({8: 1e12}, 1.0, 1e-9)
    assert explained(block(INT8), slow_memory) == "100 % of the time memory-bound, mostly convolution in stage1"
    two = Network((Input("image", (10, 1, 1)), conv(10, 10, 1, name="first"), conv(10, 1, 1, name="second")))
    assert explained(two, ROOF) == "76 % of the time memory-bound, mostly convolution first"
    assert "launch-bound" in explained(two, roofline.Roofline({8: 1e9}, 1e9, 1.0))


def test_zeros_pay_only_where_hardware_skips_them() -> None:
    """None do but those of whole channels, on every device, and 2:4 where it has rates for that."""
    layer, depthwise = conv(8, 9, 4, 3), conv(6, 6, 2, 3, 6)
    for price in (*MODELS.values(), weight_bytes):
        for pattern in ("unstructured", "n_of_m"):
            assert price(replace(layer, sparsity=0.75, pattern=pattern)) == price(layer)
        fewer, smaller = replace(layer, sparsity=5 / 9, pattern="channel"), conv(8, 4, 4, 3)
        assert work(fewer).macs == work(smaller).macs
        assert price(smaller) <= price(fewer) <= price(layer)
    assert weight_bytes(fewer) == weight_bytes(smaller)
    assert systolic.folds(fewer, ARRAY) == systolic.folds(smaller, ARRAY)
    assert systolic.folds(replace(depthwise, sparsity=0.5, pattern="channel"), ARRAY) == 3 * 3
    channels = replace(conv(40, 80, 14, 3), sparsity=0.45, pattern="channel")
    assert bit_flexible.layer_cycles(channels, FUSION) == 196 * 9 * 2 * 3


def test_sparse_rates_are_for_two_of_four_and_what_fits_them() -> None:
    device = roofline.Roofline({8: 1000.0, 32: 100.0}, 1e9, 0.0, {8: 2000.0})

    def factor(layer: Conv2d, **pruned: Any) -> float:
        dense, sparse = (roofline.layer_time(each, device).compute_s for each in (layer, replace(layer, **pruned)))
        return dense / sparse

    wide, floats = conv(8, 4, 4, 3), conv(8, 4, 4, 3, bits=Precision())
    assert [factor(wide, sparsity=s, pattern="n_of_m") for s in (0, 0.25, 0.5, 0.75)] == [1, 1, 2, 2]
    assert factor(wide, sparsity=0.5) == factor(floats, sparsity=0.5, pattern="n_of_m") == 1
    assert factor(conv(6, 4, 4, 3), sparsity=0.5, pattern="n_of_m") == 1
    assert factor(conv(8, 8, 4, 3, 8), sparsity=0.5, pattern="n_of_m") == 1
    for name in ("h200", "jetson-orin-nano"):
        found = load_device(name).roofline
        assert found is not None
        assert found.sparse_macs_per_s[8] == 2 * found.macs_per_s[8]


def test_energy_by_hand() -> None:
    layer = conv(2, 3, 1)
    assert energy.layer_energy_j(layer, TABLE) == 6 * 3.0 + 6 * 2 * 0.5 + (6 + 12 + 2 + 3) * 102


def test_the_peak_is_where_the_branch_is_still_alive() -> None:
    alive = memory.live_bytes(block(INT8))
    assert alive["stage1.expand"] == 64 + 128
    assert alive["stage1.depth"] == 64 + 128 + 128
    assert alive["stage1.add"] == 64 + 64 + 64
    assert alive["gates"] == 16 + 4 + 4
    assert alive["head"] == 4 + 12
    assert memory.peak_memory_bytes(block(INT8)) == 320
    assert memory.peak_memory_bytes(block(Precision(8, 4))) == 160


def test_a_networks_cost_is_the_sum_over_its_layers() -> None:
    network = block(INT8)
    totals = {
        "bit-flexible": bit_flexible.latency_s(network, FUSION),
        "systolic": systolic.latency_s(network, ARRAY),
        "roofline": roofline.latency_s(network, ROOF),
        "energy": energy.energy_j(network, TABLE),
    }
    for name, price in MODELS.items():
        assert totals[name] == pytest.approx(sum(map(price, network)))
        assert all(price(layer) > 0 for layer in network.layers[1:])
        assert price(network.input) == 0


@pytest.mark.parametrize("name", MODELS)
def test_cost_and_weights_never_grow_as_bits_fall(name: str) -> None:
    for layer in block(INT8).layers[1:]:
        for weight in range(3, 9):
            for act in range(3, 9):
                wide, fewer_w, fewer_a = (
                    _with_bits(layer, *bits) for bits in ((weight, act), (weight - 1, act), (weight, act - 1))
                )
                assert max(MODELS[name](fewer_w), MODELS[name](fewer_a)) <= MODELS[name](wide)
                assert weight_bytes(fewer_w) <= weight_bytes(wide)


def _with_bits(layer: Layer, weight: int, act: int) -> Layer:
    return block(Precision(weight, act)).by_name[layer.name]


@dataclass(frozen=True)
class Attention:
    name: str
    inputs: tuple[str, ...] = ("image",)
    in_shape: tuple[int, ...] = (4,)
    out_shape: tuple[int, ...] = (4,)
    precision: Precision = INT8


@pytest.mark.parametrize("name", MODELS)
def test_an_unknown_operation_is_named_and_costs_no_zero(name: str) -> None:
    with pytest.raises(NasError, match="layer mix: operation attention has no cost here"):
        MODELS[name](cast(Any, Attention("mix")))


def test_float_is_refused_where_there_is_none() -> None:
    for name in ("bit-flexible", "systolic"):
        with pytest.raises(NasError, match=r"layer conv: .*quantize it"):
            MODELS[name](conv(1, 1, 1, bits=Precision()))
    with pytest.raises(NasError, match="layer conv: the device computes up to 8 bits, not 32"):
        roofline.layer_time(conv(1, 1, 1, bits=Precision()), roofline.Roofline({8: 1.0}, 1.0, 1.0))
    with pytest.raises(NasError, match="layer conv: no energy for 32 bits"):
        energy.layer_energy_j(conv(1, 1, 1, bits=Precision()), energy.EnergyTable({8: 1.0}, 1, 1, 1))


def apq_rows() -> list[dict[str, float]]:
    path = Path(os.environ.get("NAS_DATA", "data")) / "apq-bitfusion-lut" / "bitfusion_lut.csv"
    if not path.exists():
        pytest.skip("NAS_DATA names no folder with apq-bitfusion-lut")
    with path.open(encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def apq_layer(row: dict[str, float]) -> Conv2d:
    size, kernel, stride = int(row["in_size"]), int(row["kernel"]), int(row["stride"])
    out, inputs, outputs = math.ceil(size / stride), int(row["in_ch"]), int(row["out_ch"])
    bits = Precision(int(row["w_bits"]), int(row["a_bits"]))
    shapes = (inputs, size, size), (outputs, out, out)
    return Conv2d("layer", ("image",), *shapes, kernel, stride, int(row["groups"]), precision=bits)


def test_the_bit_flexible_model_orders_apqs_table() -> None:
    rows = apq_rows()
    ours = np.array([bit_flexible.layer_latency_s(apq_layer(row), FUSION) for row in rows])
    theirs = np.array([row["latency"] / 1e3 for row in rows])
    assert spearmanr(ours, theirs).statistic >= 0.98
    assert np.median(abs(ours / theirs - 1)) < 0.12


def test_the_bit_flexible_energies_order_apqs_table() -> None:
    rows, device = apq_rows(), load_device("bitfusion")
    price = layer_prices(device)["energy_j"]
    ours = np.array([price(apq_layer(row)) for row in rows])
    theirs = np.array([row["energy"] / 1e3 for row in rows])
    assert spearmanr(ours, theirs).statistic >= 0.97
    assert np.median(abs(ours / theirs - 1)) < 0.13


def test_bit_flexible_energy_by_hand() -> None:
    """Four by four products at 4 x 8 bits, two for the price of one of 8 x 8; 16 inputs, 16 weights, 16 sums."""
    layer = conv(4, 4, 2, bits=Precision(4, 8))
    spent = bit_flexible.FusionEnergy(1.0, 2.0, 3.0)
    moved = 16 * 8 + 16 * 4 + 16 * FUSION.output_bits
    assert bit_flexible.traffic_bits(layer, FUSION) == moved
    seconds = bit_flexible.layer_latency_s(layer, FUSION)
    assert bit_flexible.layer_energy_j(layer, FUSION, spent) == pytest.approx(seconds + 2 * 64 / 2 + 3 * moved)
