"""A `Design` as an ONNX file: weights stored in few bits, activations float.

A quantized layer's weights are integers in the smallest ONNX type that holds them (2 bits: INT2; 3, 4: INT4;
5 to 8: INT8; 9 to 16: INT16), and a DequantizeLinear with one power-of-two scale per output channel turns
them into the very floats of the design. So the file shrinks with the bits, and the arithmetic stays float.
The batch dimension is free, so that one file serves single inputs and batches: against a fixed 1 that costs
1 to 3 % at batch 1, measured on six mobile networks of 25 to 45 us.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from nas.counts import weight_count
from nas.design import Design
from nas.errors import NasError
from nas.network import (
    FLOAT_BITS,
    Activation,
    Add,
    Conv2d,
    Input,
    Layer,
    Linear,
    Mean,
    PairSum,
    Pool,
    RowMean,
    Scale,
    Shape,
    Weighted,
)

_FORMATS = {2: (25, 13), 4: (21, 10), 8: (17, 8), 16: (21, 10), FLOAT_BITS: (17, 8)}
"""By storage bits, the opset and IR version whose DequantizeLinear reads them: a file asks for no newer engine than its
weights need, since those of boards are years old."""

_INTEGERS = {2: TensorProto.INT2, 4: TensorProto.INT4, 8: TensorProto.INT8, 16: TensorProto.INT16}


def to_onnx(design: Design) -> bytes:
    """The design as a checked ONNX model: "input" (n, *input shape) -> "output" (n, classes), both float32.

    Raises:
        NasError: A layer quantizes its activations; this format runs float activations only.
    """
    graph = _Graph(design)
    for layer in design.network:
        graph.add(layer)
    widths = {storage_bits(layer.precision.weight_bits) for layer in design.network.weighted}
    opset, ir_version = max(_FORMATS[bits] for bits in widths | {FLOAT_BITS})
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            f"hwnas-{design.network.key}",
            [_value("input", design.network.input.out_shape)],
            [_value("output", design.network.layers[-1].out_shape)],
            graph.initializers,
        ),
        producer_name="hwnas",
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=ir_version,
    )
    onnx.checker.check_model(model, full_check=True)
    serialized: bytes = model.SerializeToString(deterministic=True)
    return serialized


def stored_weight_bytes(model: bytes) -> int:
    """Bytes that weights, their scales and the biases really take in the file.

    Equal to the sum of `layer_bytes`. Against `nas.counts.weight_bytes` it is larger by 4 bytes a channel of each
    quantized layer (the scale), by the padding to whole bytes, and for widths other than 2, 4, 8 and 16 by the wider
    type.
    """
    return sum(len(tensor.raw_data) for tensor in onnx.load_from_string(model).graph.initializer)


def layer_bytes(layer: Layer) -> float:
    """Bytes of a layer's parameters in the file: weights in their storage type, float scales and biases."""
    if not isinstance(layer, Weighted):
        return 0.0
    bits = layer.precision.weight_bits
    floats = layer.out_shape[0] * (1 if bits == FLOAT_BITS else 2)
    return math.ceil(weight_count(layer) * storage_bits(bits) / 8) + 4.0 * floats


def storage_bits(weight_bits: int) -> int:
    """Bits one weight takes in the file: the smallest type that holds it."""
    return FLOAT_BITS if weight_bits == FLOAT_BITS else min(bits for bits in _INTEGERS if bits >= weight_bits)


@dataclass
class _Graph:
    """Nodes and initializers of the model while it grows; each layer's tensor bears the layer's name."""

    design: Design
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)

    def add(self, layer: Layer) -> None:
        if not isinstance(layer, Input) and layer.precision.act_bits != FLOAT_BITS:
            raise NasError(
                f"layer {layer.name}: act_bits must be {FLOAT_BITS} for an ONNX model with float activations, "
                f"got {layer.precision.act_bits}; restrict the space's act_bits for this device"
            )
        sources = [self._tensor(name) for name in layer.inputs]
        out = self._tensor(layer.name)
        match layer:
            case Input():
                pass
            case Conv2d():
                sources += self._weights(layer)
                kernel, pad = [layer.kernel] * 2, [layer.kernel // 2] * 4
                stride = [layer.stride] * 2
                node = helper.make_node(
                    "Conv", sources, [], kernel_shape=kernel, pads=pad, strides=stride, group=layer.groups
                )
                self._activated(node, out, layer.activation)
            case Linear():
                node = helper.make_node("Gemm", sources + self._weights(layer), [], transB=1)
                self._activated(node, out, layer.activation)
            case Add():
                self._activated(helper.make_node("Add", sources, []), out, layer.activation)
            case PairSum():
                row = f"{out}.row"
                self.nodes.append(helper.make_node("Transpose", [sources[1]], [row], perm=[0, 1, 3, 2]))
                self._activated(helper.make_node("Add", [sources[0], row], []), out, layer.activation)
            case Mean():
                self.nodes.append(helper.make_node("GlobalAveragePool", sources, [f"{out}.pooled"]))
                self.nodes.append(helper.make_node("Flatten", [f"{out}.pooled"], [out]))
            case RowMean():
                size = [1, layer.in_shape[2]]
                node = helper.make_node("AveragePool", sources, [out], kernel_shape=size, strides=size, pads=[0] * 4)
                self.nodes.append(node)
            case Pool():
                self.nodes.append(_pool(layer, sources, out))
            case Scale():
                self._scale(sources, out)

    def _tensor(self, name: str) -> str:
        layers = self.design.network.layers
        return {layers[0].name: "input", layers[-1].name: "output"}.get(name, name)

    def _activated(self, node: onnx.NodeProto, out: str, activation: Activation) -> None:
        wide = out if activation == "identity" else f"{out}.wide"
        node.output.append(wide)
        self.nodes.append(node)
        match activation:
            case "identity":
                pass
            case "relu":
                self.nodes.append(helper.make_node("Relu", [wide], [out]))
            case "hswish":
                self.nodes.append(helper.make_node("HardSwish", [wide], [out]))
            case "hsigmoid":
                self.nodes.append(helper.make_node("HardSigmoid", [wide], [out], alpha=1 / 6, beta=0.5))

    def _scale(self, sources: list[str], out: str) -> None:
        """The axes are a node, not an initializer: these hold the parameters, and what they take is counted."""
        axes, gates = f"{out}.axes", f"{out}.gates"
        self.nodes.append(helper.make_node("Constant", [], [axes], value_ints=[2, 3]))
        self.nodes.append(helper.make_node("Unsqueeze", [sources[1], axes], [gates]))
        self.nodes.append(helper.make_node("Mul", [sources[0], gates], [out]))

    def _weights(self, layer: Weighted) -> list[str]:
        """Store a layer's weights and bias; the names of both as floats."""
        name, numbers = layer.name, self.design.numbers[layer.name]
        weight, bias = f"{name}.weight", f"{name}.bias"
        if layer.precision.weight_bits == FLOAT_BITS:
            self._store(weight, np.asarray(numbers.weight, dtype=np.float32))
        else:
            assert numbers.steps is not None
            dtype = helper.tensor_dtype_to_np_dtype(_INTEGERS[storage_bits(layer.precision.weight_bits)])
            integers, scale = f"{weight}.integers", f"{weight}.scale"
            self._store(integers, self.design.weight_integers(name).astype(dtype))
            self._store(scale, numbers.steps.astype(np.float32))
            self.nodes.append(helper.make_node("DequantizeLinear", [integers, scale], [weight], axis=0))
        self._store(bias, np.asarray(numbers.bias, dtype=np.float32))
        return [weight, bias]

    def _store(self, name: str, values: npt.NDArray[np.generic]) -> None:
        self.initializers.append(numpy_helper.from_array(values, name))


def _pool(layer: Pool, sources: list[str], out: str) -> onnx.NodeProto:
    """Padded at the end as far as the last window reaches; neither a maximum nor a mean counts padding."""
    before, reach = (layer.kernel - 1) // 2, layer.kernel - layer.stride
    sides = zip(layer.in_shape[1:], layer.out_shape[1:], strict=True)
    after = [max(0, outs * layer.stride + reach - before - size) for size, outs in sides]
    return helper.make_node(
        "MaxPool" if layer.kind == "max" else "AveragePool", sources, [out],
        kernel_shape=[layer.kernel] * 2, strides=[layer.stride] * 2, pads=[before, before, *after],
    )  # fmt: skip


def _value(name: str, shape: Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", *shape))
