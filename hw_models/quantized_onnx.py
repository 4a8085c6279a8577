"""A `Design` in int8, as an ONNX file: what CPUs with integer dot products run.

In the format that engines fuse into integer kernels: every tensor passes a QuantizeLinear and a DequantizeLinear (QDQ).
Activations are unsigned with a zero point, one step a tensor; weights are signed and symmetric, one step an output
channel (signed activations are 4 times slower in ONNX Runtime on x86); biases are 32 bits on the grid of the products
(Jacob et al. 2018, section 2.4). The logits stay float. All these numbers are the design's own where it has them, and
found on samples where it is float.

The file is the float model's, its nodes unchanged: so both compute the same network. A ReLU needs no format of its
own: what it reads is quantized with zero as the least code, behind it, or else in the format of what it gives. On x86
without VNNI, ONNX Runtime adds pairs of products in 16 bits, which saturates: there logits may differ, latency does
not.

Beside a design's own roundings there are two without which engines do not fuse: of a scale's gates, and of what a hard
swish or sigmoid reads, over all that it may: from -3 on. In small random networks, which read less, that moves logits
by up to 16 % of their spread.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from hw_models import onnx_runtime
from hw_models.onnx_model import to_onnx
from hw_models.reference import random_design
from nas.affine import Affine, affine_over, symmetric_top, weight_integers
from nas.design import Design
from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from nas.network import Add, Conv2d, Input, Layer, Linear, Mean, Network, PairSum, Precision, Scale, Weighted

BITS = 8
_BIAS_TOP = 2.0**30
_RANDOM_IMAGES = 4
_WEIGHTED = ("Conv", "Gemm")
_SAME_VALUES = ("Flatten", "Unsqueeze", "Transpose", "MaxPool")
"""Operations whose output holds values of their input, and so in its format."""


def engine_model(design: Design) -> bytes:
    """The file that an engine runs: in integers where all layers read 8 bits, else with float activations.

    Raises:
        NasError: Some layers read 8 bits and some do not, or a tensor is read in two formats.
    """
    if all(numbers.act is None for numbers in design.numbers.values()):
        return to_onnx(design)
    return to_int8_onnx(design, own_formats(design))


def own_formats(design: Design) -> dict[str, Affine]:
    """The format of each tensor of the ONNX model: that in which the design's layers read it; errors as above."""
    network, formats = design.network, dict[str, Affine]()
    for layer in network.layers[1:]:
        act = design.numbers[layer.name].act
        if not isinstance(act, Affine) or act.bits != BITS:
            law = f"reads {act}; in an int8 model all layers read affine numbers of {BITS} bits"
            raise NasError(f"layer {layer.name}: {law}, so restrict the space's act_bits to {BITS} for this device")
        assert not isinstance(layer, Input)
        for source in layer.inputs[:1] if isinstance(layer, Scale) else layer.inputs:
            name = "input" if source == network.input.name else source
            if formats.setdefault(name, act) != act:
                raise NasError(f"layer {layer.name}: reads {source} in {act}, another layer in {formats[name]}")
    for layer in network.layers[1:-1]:
        formats |= _between(layer, formats.get(layer.name))
    return formats


def _between(layer: Layer, out: Affine | None) -> dict[str, Affine]:
    """Formats of the tensors on the way to a layer's output, and of gates, given the one that it is read in."""
    wide = f"{layer.name}.wide"
    match layer:
        case Conv2d() | Linear() | Add() | PairSum():
            match layer.activation:
                case "hsigmoid":
                    return {layer.name: out or affine_over(0.0, 1.0, BITS), wide: affine_over(-3.0, 3.0, BITS)}
                case "hswish" if out is not None:
                    top = out.high * out.step
                    return {wide: affine_over(-3.0, top if top >= 3 else (math.sqrt(9 + 24 * top) - 3) / 2, BITS)}
                case "relu" if out is not None:
                    return {wide: out}
        case Mean() if out is not None:
            return {f"{layer.name}.pooled": out}
    return {}


def int8_network(network: Network) -> Network:
    """The architecture with all weights and activations in 8 bits; its key is that of the int8 model."""
    return Network(tuple(_int8_layer(layer) for layer in network.as_float()))


def _int8_layer(layer: Layer) -> Layer:
    if isinstance(layer, Input):
        return layer
    return dataclasses.replace(layer, precision=Precision(BITS if isinstance(layer, Weighted) else 32, BITS))


def random_int8_model(network: Network, seed: int) -> bytes:
    """The int8 model of random weights, its ranges those of random images: for latency, which depends on neither."""
    images = np.random.default_rng(seed).normal(size=(_RANDOM_IMAGES, *network.input.out_shape))
    design = random_design(network, seed)
    return to_int8_onnx(design, calibrated(design, images))


def calibrated(design: Design, images: FloatArray) -> dict[str, Affine]:
    """The format of each tensor of the ONNX model: from its least to its largest value over images (n, ...)."""
    model = onnx.load_from_string(_float_model(design))
    names = ["input", *(name for node in model.graph.node if node.op_type != "Constant" for name in node.output)]
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    tensors = onnx_runtime.tensors(model.SerializeToString(), images)
    return {
        name: affine_over(min(0.0, float(values.min())), max(0.0, float(values.max())), BITS)
        for name, values in tensors.items()
    }


def to_int8_onnx(design: Design, formats: Mapping[str, Affine]) -> bytes:
    """The design's real numbers in int8, as a checked ONNX model with the float model's input and output.

    Args:
        design: Float, or with the weights of each layer in steps of its own.
        formats: Of each tensor, as `calibrated` or `own_formats` gives them.

    Raises:
        NasError: A tensor has no format.
    """
    model = onnx.load_from_string(_float_model(design))
    own = [layer.name for layer in design.network.weighted if design.numbers[layer.name].act]
    weights = {f"{name}.weight": _integers(design, name) for name in own}
    floats = {tensor.name: tensor for tensor in model.graph.initializer}
    graph = _Graph(formats, floats, weights, _rectified(model.graph, formats))
    graph.quantize("input", "input")
    for node in model.graph.node:
        graph.add(node)
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(graph.nodes)
    model.graph.initializer.extend(graph.initializers)
    onnx.checker.check_model(model, full_check=True)
    serialized: bytes = model.SerializeToString(deterministic=True)
    return serialized


def _float_model(design: Design) -> bytes:
    return to_onnx(Design(design.network.as_float(), design.numbers))


def _rectified(graph: onnx.GraphProto, formats: Mapping[str, Affine]) -> frozenset[str]:
    """Tensors that a ReLU reads, and nobody else, whose output has a format with zero as its least code, or none."""
    pairs = ((node.input[0], formats.get(node.output[0])) for node in graph.node if node.op_type == "Relu")
    return frozenset(name for name, fmt in pairs if fmt is None or fmt.low == 0)


@dataclass(frozen=True, eq=False)
class Integers:
    """A layer's weights of 8 bits, their steps, one a channel, and its bias in steps of the products."""

    weight: IntArray
    bias: IntArray
    steps: FloatArray


def _integers(design: Design, name: str) -> Integers:
    weight, bias, steps = design.weight_integers(name), design.bias_integers(name), design.numbers[name].steps
    assert steps is not None
    for what, values, bits in (("weights", weight, BITS), ("biases", bias, 32)):
        if np.abs(values).max() > symmetric_top(bits):
            raise NasError(f"layer {name}: {what} must have {bits} bits in an int8 model; got {np.abs(values).max()}")
    return Integers(weight, bias, steps)


@dataclass
class _Graph:
    """The quantized model while it grows; `read` holds, by the float model's names, what the nodes read instead.

    New names have a slash, which those of layers have not.
    """

    formats: Mapping[str, Affine]
    floats: Mapping[str, onnx.TensorProto]
    integers: Mapping[str, Integers]
    rectified: frozenset[str]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    read: dict[str, str] = field(default_factory=dict)
    used: dict[str, Affine] = field(default_factory=dict)

    def add(self, node: onnx.NodeProto) -> None:
        """A node that reads quantized tensors, and the quantization of what it gives."""
        source, out = (node.input[0] if node.input else ""), node.output[0]
        read = [self.read.get(name, name) for name in node.input]
        if node.op_type in _WEIGHTED:
            read[1:] = self._parameters(self.used[source].step, *node.input[1:])
        quantized = helper.make_node(node.op_type, read, [out])
        quantized.attribute.extend(node.attribute)
        self.nodes.append(quantized)
        if out != "output" and out not in self.rectified and node.op_type != "Constant":
            self.quantize(out, source if node.op_type in _SAME_VALUES else out)

    def quantize(self, name: str, like: str) -> None:
        """Pass a tensor through the format of the tensor `like`, which is its own or one used before."""
        fmt = self.used.get(like) or self.formats.get(like)
        if fmt is None:
            raise NasError(f"int8 model: tensor {name} has no format; calibrate the same design")
        self.used[name] = fmt
        scale, zero, codes, values = (f"{name}/{part}" for part in ("scale", "zero", "codes", "values"))
        self._store(scale, np.float32(fmt.step))
        self._store(zero, np.uint8(fmt.zero))
        self.nodes.append(helper.make_node("QuantizeLinear", [name, scale, zero], [codes]))
        self.nodes.append(helper.make_node("DequantizeLinear", [codes, scale, zero], [values]))
        self.read[name] = values

    def _parameters(self, step: float, weight: str, bias: str) -> tuple[str, str]:
        """Weights and bias of a node whose input has this step, as integers; the names of both as floats."""
        known = self.integers.get(weight) or self._rounded(weight, bias, step)
        self._store_integers(weight, known.weight.astype(np.int8), known.steps)
        self._store_integers(bias, known.bias.astype(np.int32), known.steps * np.float32(step).astype(np.float64))
        return weight, bias

    def _rounded(self, weight: str, bias: str, step: float) -> Integers:
        weights, biases = (numpy_helper.to_array(self.floats[name]).astype(np.float64) for name in (weight, bias))
        steps = channel_steps(weights, biases, step)
        grid = steps * np.float32(step).astype(np.float64)
        return Integers(weight_integers(weights, steps, BITS), np.floor(biases / grid + 0.5).astype(np.int64), steps)

    def _store_integers(self, name: str, values: npt.NDArray[np.signedinteger[Any]], steps: FloatArray) -> None:
        """Zero points of 0 are written out: without them ONNX Runtime does not fuse a Gemm."""
        parts = [f"{name}/integers", f"{name}/scale", f"{name}/zero"]
        for part, array in zip(
            parts, (values, steps.astype(np.float32), np.zeros(len(steps), values.dtype)), strict=True
        ):
            self._store(part, array)
        self.nodes.append(helper.make_node("DequantizeLinear", parts, [name], axis=0))

    def _store(self, name: str, values: npt.NDArray[np.generic] | np.generic) -> None:
        self.initializers.append(numpy_helper.from_array(np.asarray(values), name))


def channel_steps(weights: FloatArray, biases: FloatArray, input_step: float) -> FloatArray:
    """Steps of weights (out, ...), shape (out,): the largest weight is the largest integer.

    A channel with little but its bias gets a step so wide that the bias, in steps of the products, has 32 bits.
    """
    largest = np.abs(weights).reshape(len(weights), -1).max(axis=1)
    steps = np.maximum(largest / symmetric_top(BITS), np.abs(biases) / (input_step * _BIAS_TOP))
    return np.where(steps > 0, steps, 1.0).astype(np.float32).astype(np.float64)
