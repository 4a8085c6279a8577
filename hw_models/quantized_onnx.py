"""A `Design` in int8, as an ONNX file: what CPUs with integer dot products run.

Post-training quantization in the format that engines fuse into integer kernels: every tensor passes a QuantizeLinear
and a DequantizeLinear (QDQ). Activations are unsigned with a zero point, one step a tensor; weights are signed and
symmetric, one step an output channel (signed activations are 4 times slower in ONNX Runtime on x86); biases are 32
bits on the grid of the products (Jacob et al. 2018, section 2.4). The logits stay float.

The file is the float model's, its nodes unchanged: so both compute the same network. A ReLU needs no format of its
own: what it reads is quantized with zero as the least code, behind it. On x86 without VNNI, ONNX Runtime adds pairs of
products in 16 bits, which saturates: there logits may differ, latency does not.
"""

from __future__ import annotations

import dataclasses
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
from nas.genotype import FloatArray
from nas.network import Input, Layer, Network, Precision, Weighted

BITS = 8
_BIAS_TOP = 2.0**30
_RANDOM_IMAGES = 4
_WEIGHTED = ("Conv", "Gemm")
_SAME_VALUES = ("Flatten", "Unsqueeze", "Transpose", "MaxPool")
"""Operations whose output holds values of their input, and so in its format."""


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
        design: Of any precision: its values are quantized anew.
        formats: Of each tensor, as `calibrated` gives them.

    Raises:
        NasError: A tensor has no format.
    """
    model = onnx.load_from_string(_float_model(design))
    graph = _Graph(formats, {tensor.name: tensor for tensor in model.graph.initializer}, _rectified(model.graph))
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


def _rectified(graph: onnx.GraphProto) -> frozenset[str]:
    """Tensors that a ReLU reads: nobody else does."""
    return frozenset(node.input[0] for node in graph.node if node.op_type == "Relu")


@dataclass
class _Graph:
    """The quantized model while it grows; `read` holds, by the float model's names, what the nodes read instead.

    New names have a slash, which those of layers have not.
    """

    formats: Mapping[str, Affine]
    floats: Mapping[str, onnx.TensorProto]
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
        weights, biases = (numpy_helper.to_array(self.floats[name]).astype(np.float64) for name in (weight, bias))
        steps = channel_steps(weights, biases, step)
        self._integers(weight, weight_integers(weights, steps, BITS).astype(np.int8), steps)
        grid = steps * np.float32(step).astype(np.float64)
        self._integers(bias, np.floor(biases / grid + 0.5).astype(np.int32), grid)
        return weight, bias

    def _integers(self, name: str, values: npt.NDArray[np.signedinteger[Any]], steps: FloatArray) -> None:
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
