"""da4ml's costs of whole designs follow bits and zeros, and stand near the analytic model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
from designs import mlp_network, mobile_network, random_design, residual_network

from fpga.adders import adder_graph_cost
from hw_models.unrolled import RESOURCES, layer_cost, storage
from nas.design import Design, LayerNumbers
from nas.errors import NasError
from nas.fixed_point import FixedPoint
from nas.genotype import FloatArray
from nas.network import Activation, Add, Conv2d, Input, Layer, Linear, Mean, Network, Precision, Weighted

CLOCK_HZ = 200e6


def with_everywhere(network: Network, precision: Precision, sparsity: float) -> Network:
    def changed(layer: Layer) -> Layer:
        if isinstance(layer, Input):
            return layer
        if isinstance(layer, Weighted):
            return dataclasses.replace(layer, precision=precision, sparsity=sparsity)
        return dataclasses.replace(layer, precision=precision)

    return Network(tuple(changed(layer) for layer in network))


def lut(network: Network) -> float:
    return adder_graph_cost(random_design(network, 0), CLOCK_HZ).total()["lut"]


def linear_design(weights: FloatArray, act_bits: int = 4) -> Design:
    outputs, inputs = weights.shape
    layer = Linear("fc", ("in",), (inputs,), (outputs,), precision=Precision(8, act_bits))
    numbers = LayerNumbers(FixedPoint(False, act_bits, 0), weights, np.zeros(outputs), np.zeros(outputs, np.int64))
    return Design(Network((Input("in", (inputs,)), layer)), {"fc": numbers})


@pytest.mark.parametrize("network", [mobile_network(0), mlp_network(0)], ids=["mobile", "mlp"])
def test_fewer_bits_and_more_zeros_cost_less(network: Network) -> None:
    dense = lut(with_everywhere(network, Precision(8, 8), 0.0))
    assert lut(with_everywhere(network, Precision(8, 8), 0.75)) < 0.5 * dense
    assert lut(with_everywhere(network, Precision(4, 8), 0.0)) < 0.8 * dense
    assert lut(with_everywhere(network, Precision(8, 4), 0.0)) < 0.9 * dense


def test_powers_of_two_need_no_adder_and_a_sum_one() -> None:
    assert adder_graph_cost(linear_design(np.diag([1.0, 2.0, -4.0])), CLOCK_HZ).total()["lut"] <= 6
    one_adder = adder_graph_cost(linear_design(np.array([[1.0, 1.0]])), CLOCK_HZ).total()["lut"]
    assert 4 <= one_adder <= 6
    shared = adder_graph_cost(linear_design(np.array([[1.0, 1.0], [2.0, 2.0]])), CLOCK_HZ).total()["lut"]
    assert shared == one_adder


@pytest.mark.parametrize("seed", range(3))
def test_the_analytic_model_is_near_for_whole_networks(seed: int) -> None:
    network = mobile_network(seed)
    total = adder_graph_cost(random_design(network, seed), CLOCK_HZ).total()
    predicted = {name: sum(layer_cost(layer)[name] for layer in network) for name in (*RESOURCES, "cycles")}
    assert predicted["lut"] == pytest.approx(total["lut"], rel=0.2)
    assert predicted["ff"] == pytest.approx(total["ff"], rel=0.35)
    assert (predicted["dsp"], predicted["bram"]) == (total["dsp"], total["bram"]) == (0, 0)
    assert predicted["cycles"] / CLOCK_HZ == pytest.approx(total["latency_s"], rel=0.15)


def test_relu_after_a_sum_is_priced() -> None:
    def sums(activation: Activation) -> Mapping[str, float]:
        layers = (Input("x", (8,)), Add("sum", ("x", "x"), (8,), Precision(4, 4), activation))
        design = Design(Network(layers), {"sum": LayerNumbers(FixedPoint(True, 4, 0))})
        return adder_graph_cost(design, CLOCK_HZ).layers["sum"]

    assert sums("identity")["lut"] < sums("relu")["lut"] <= 1.5 * sums("identity")["lut"]


def test_the_analytic_model_prices_sums_as_da4ml_does() -> None:
    analytic, graphs = [], []
    for seed in range(3):
        network = residual_network(seed)
        costs = adder_graph_cost(random_design(network, seed), CLOCK_HZ).layers
        sums = [layer for layer in network if isinstance(layer, Add)]
        analytic += [layer_cost(layer) for layer in sums]
        graphs += [costs[layer.name] for layer in sums]
    model, estimate = (sum(cost["lut"] for cost in costs) for costs in (analytic, graphs))
    assert model == pytest.approx(estimate, rel=0.15)


def test_a_faster_clock_shortens_the_latency() -> None:
    design = random_design(mlp_network(0), 0)
    slow, fast = (adder_graph_cost(design, hertz).total() for hertz in (100e6, 200e6))
    assert slow["latency_s"] == pytest.approx(2 * fast["latency_s"])


def test_a_float_layer_is_refused_by_name() -> None:
    network = Network((Input("in", (2,)), Add("sum", ("in", "in"), (2,))))
    with pytest.raises(NasError, match="sum"):
        adder_graph_cost(Design(network, {"sum": LayerNumbers()}), CLOCK_HZ)


def test_parallel_positions_take_a_copy_each_and_a_mean_its_tree() -> None:
    source = Input("in", (4, 8, 1))
    phi = Conv2d("phi", ("in",), source.out_shape, (6, 8, 1), 1, precision=Precision(4, 4), norm=False)
    mean = Mean("mean", ("phi",), phi.out_shape, Precision(32, 6))
    design = random_design(Network((source, phi, mean)), 0)
    streamed, parallel = (adder_graph_cost(design, CLOCK_HZ, way).layers for way in ("streamed", "parallel"))
    assert parallel["phi"]["lut"] == 8 * streamed["phi"]["lut"] > 0
    assert parallel["phi"]["cycles"] == streamed["phi"]["cycles"]
    assert (streamed["in"]["cycles"], parallel["in"]["cycles"]) == (8, 0)
    read = streamed["mean"]["lut"] - storage(mean)["lut"]
    tree = 6 * (8 - 1) * 6 * 3  # for each channel as many adders, of operands of 6 bits, once per level
    assert parallel["mean"]["lut"] == 8 * read + tree
