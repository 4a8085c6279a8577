"""The integer reference against float64 arithmetic that shares no code with it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from designs import interaction_network, mlp_network, mobile_network, random_design, random_images, residual_network

from fpga import reference
from fpga.reference import integer_trace, run
from nas.design import Design, LayerNumbers
from nas.errors import NasError
from nas.fixed_point import FixedPoint
from nas.genotype import FloatArray
from nas.network import Add, Conv2d, Input, Linear, Mean, Network, PairSum, Precision, RowMean


def rounded(values: FloatArray, fmt: FixedPoint) -> FloatArray:
    scaled = np.floor(values * 2.0**fmt.frac_bits + 0.5)
    return np.minimum(np.maximum(scaled, fmt.low), fmt.high) * 2.0**-fmt.frac_bits


def naive(design: Design, images: FloatArray) -> FloatArray:
    """The same network in float64, where all these numbers are exact."""
    tensors = {design.network.input.name: images}
    for layer in design.network.layers[1:]:
        numbers = design.numbers[layer.name]
        assert numbers.act is not None
        reads = [torch.from_numpy(rounded(tensors[source], numbers.act)) for source in layer.inputs]
        if isinstance(layer, Conv2d | Linear):
            weight, bias = torch.from_numpy(numbers.weight), torch.from_numpy(numbers.bias)
            if isinstance(layer, Conv2d):
                out = torch.nn.functional.conv2d(
                    reads[0], weight, bias, layer.stride, layer.kernel // 2, 1, layer.groups
                )
            else:
                out = torch.nn.functional.linear(reads[0], weight, bias)
            out = out.relu() if layer.activation == "relu" else out
        elif isinstance(layer, Add):
            out = reads[0] + reads[1]
            out = out.clamp(min=0) if layer.activation == "relu" else out
        elif isinstance(layer, PairSum):
            rows = [reads[0][:, :, :, 0] + reads[1][:, :, sender] for sender in range(layer.in_shape[1])]
            out = torch.stack(rows, 3)
            out = out.clamp(min=0) if layer.activation == "relu" else out
        else:
            out = reads[0].mean(3, keepdim=True) if isinstance(layer, RowMean) else reads[0].mean((2, 3))
        tensors[layer.name] = out.numpy()
    return tensors[design.network.layers[-1].name]


@pytest.mark.parametrize("seed", range(6))
def test_mobile_equals_float64(seed: int) -> None:
    network = mobile_network(seed, depth=1 + seed % 2)
    design = random_design(network, seed)
    images = random_images(network, 20, seed + 100)
    logits = run(design, images)
    assert logits.std() > 0
    np.testing.assert_array_equal(logits, naive(design, images))


@pytest.mark.parametrize("seed", range(4))
def test_mlp_equals_float64(seed: int) -> None:
    network = mlp_network(seed)
    design = random_design(network, seed)
    images = random_images(network, 50, seed + 100)
    np.testing.assert_array_equal(run(design, images), naive(design, images))


@pytest.mark.parametrize("seed", range(6))
def test_interaction_equals_float64(seed: int) -> None:
    network = interaction_network(seed, particles=4 + 4 * (seed % 2))
    design = random_design(network, seed)
    images = random_images(network, 50, seed + 100)
    logits = run(design, images)
    assert logits.std() > 0
    np.testing.assert_array_equal(logits, naive(design, images))


@pytest.mark.parametrize("seed", range(6))
def test_sums_with_relu_equal_float64(seed: int) -> None:
    network = residual_network(seed)
    design = random_design(network, seed)
    images = random_images(network, 20, seed + 100)
    trace = integer_trace(design, images)
    for add, source in (("b1.add", "b1.second"), ("b2.add", "b2.restore")):
        assert (trace.outputs[add].integers >= 0).all()
        assert (sum(trace.reads[add]) < 0).any()  # there ReLU has something to do
        assert (trace.outputs[source].integers < 0).any()
    np.testing.assert_array_equal(run(design, images), naive(design, images))


@pytest.mark.parametrize(("kernel", "stride", "groups"), [(1, 2, 1), (3, 1, 2), (3, 3, 4), (5, 2, 1), (7, 1, 4)])
def test_every_kind_of_convolution(kernel: int, stride: int, groups: int) -> None:
    size = -(-7 // stride)
    shape = (8, size, -(-6 // stride))
    conv = Conv2d("conv", ("in",), (4, 7, 6), shape, kernel, stride, groups, precision=Precision(5, 5))
    network = Network((Input("in", (4, 7, 6)), conv))
    design = random_design(network, kernel)
    images = random_images(network, 3, 0)
    np.testing.assert_array_equal(run(design, images), naive(design, images))


def test_trace_is_what_layers_read_and_give() -> None:
    network = mobile_network(0)
    design = random_design(network, 0)
    trace = integer_trace(design, random_images(network, 10, 0))
    for layer in network.layers[1:]:
        act = design.numbers[layer.name].act
        assert act is not None
        for source, read in zip(layer.inputs, trace.reads[layer.name], strict=True):
            if source in trace.outputs:
                values = trace.outputs[source].values()
                np.testing.assert_array_equal(read * act.step, rounded(values, act))


@pytest.mark.parametrize("count", [1, 7, 8, 17])
def test_blocks_of_images_give_what_all_at_once_do(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network = mobile_network(0)
    design, images = random_design(network, 0), random_images(network, count, 1)
    largest = max(math.prod(layer.out_shape) for layer in network)
    monkeypatch.setattr(reference, "_BLOCK", 8 * largest + 1)
    whole = integer_trace(design, images).outputs[network.layers[-1].name].values()
    np.testing.assert_array_equal(run(design, images), whole)


def test_a_float_layer_is_refused_by_name() -> None:
    network = mlp_network(0)
    design = random_design(network, 0)
    numbers = {**design.numbers, "fc2": dataclasses.replace(design.numbers["fc2"], act=None)}
    with pytest.raises(NasError, match="fc2"):
        run(Design(network, numbers), random_images(network, 1, 0))


def test_a_mean_that_is_no_shift_is_refused() -> None:
    network = Network((Input("in", (2, 3, 4)), Mean("mean", ("in",), (2, 3, 4), Precision(8, 8))))
    with pytest.raises(NasError, match="mean"):
        run(Design(network, {"mean": LayerNumbers(FixedPoint(False, 8, 8))}), np.zeros((1, 2, 3, 4)))


def test_an_accumulator_beyond_int64_is_refused() -> None:
    linear = Linear("wide", ("in",), (4,), (1,), precision=Precision(16, 16))
    weight = np.full((1, 4), 2.0**50)
    numbers = LayerNumbers(FixedPoint(False, 16, 0), weight, np.zeros(1), np.zeros(1, np.int64))
    design = Design(Network((Input("in", (4,)), linear)), {"wide": numbers})
    with pytest.raises(NasError, match=r"wide.*2\^62"):
        run(design, np.zeros((1, 4)))


@pytest.mark.parametrize("weight_bits", [35, 36, 37, 38, 39, 44])
@pytest.mark.parametrize("kind", ["linear", "convolution", "depthwise"])
def test_sums_around_and_beyond_what_float64_holds_are_exact(kind: str, weight_bits: int) -> None:
    """Of odd products, one or three, so that float64 rounds every sum above 2^53."""
    rng, terms = np.random.default_rng(weight_bits), 1 if kind == "depthwise" else 3
    precision, largest = Precision(16, 16), 2 ** (weight_bits - 1)
    layer: Conv2d | Linear = (
        Linear("wide", ("in",), (3,), (3,), precision=precision)
        if kind == "linear"
        else Conv2d("wide", ("in",), (3, 1, 1), (3, 1, 1), 1, 1, 3 // terms, precision=precision)
    )
    weight = rng.integers(largest - 1000, largest, (3, terms)) | 1
    values = rng.integers(2**16 - 100, 2**16, (50, 3)) | 1
    numbers = LayerNumbers(
        FixedPoint(False, 16, 0), weight.reshape(layer.weight_shape).astype(float), np.zeros(3), np.zeros(3, np.int64)
    )
    design = Design(Network((Input("in", layer.in_shape), layer)), {"wide": numbers})
    found = integer_trace(design, values.reshape(-1, *layer.in_shape).astype(float)).outputs["wide"].integers
    reads = values[:, :, None] if kind == "depthwise" else np.repeat(values[:, None], 3, axis=1)
    exact = (reads.astype(object) * weight.astype(object)).sum(axis=2)  # Python's integers
    assert np.array_equal(found.reshape(-1, 3), exact)


def test_images_of_another_shape_are_refused() -> None:
    network = mlp_network(0)
    with pytest.raises(NasError, match="64"):
        run(random_design(network, 0), np.zeros((2, 63)))
