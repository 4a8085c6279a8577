"""A design as hls4ml's list of layers, channels last.

A tensor's format belongs to the layer that reads it, so a quantizer stands before every read; hls4ml fuses it
into the producer where there is only one reader.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from fpga import pair_sum
from fpga.build import Io
from fpga.quantizer import CLASS_NAME
from fpga.reference import act_format
from hw_models.unrolled import Unrolled, unrollable
from nas.design import Design
from nas.errors import NasError
from nas.fixed_point import FixedPoint
from nas.network import Activated, Add, Conv2d, Input, Layer, Linear, Mean, Network, PairSum, RowMean, Shape

Entry = dict[str, Any]


@dataclass(frozen=True)
class LayerList:
    """What hls4ml converts.

    Attributes:
        entries: One dictionary per hls4ml layer, in topological order.
        reads: For each (layer, index of its input), hls4ml's layers whose output may be that quantized tensor:
            the quantizer, or the producer it is fused into. Empty for a read of the input.
        results: The result types that hls4ml is to keep, by the name of its layer.
        names: hls4ml's name of each layer.
    """

    entries: tuple[Entry, ...]
    reads: dict[tuple[str, int], tuple[str, ...]]
    results: dict[str, str]
    names: dict[str, str]


def layer_list(design: Design, io: Io = "parallel") -> LayerList:
    """Convert every layer.

    hls4ml's quantizer works on wires. In a stream it has to be fused into its producer, which it is where nobody else
    reads that; elsewhere the identity with a declared result stands for it.

    Raises:
        NasError: A layer is not quantized, or has no exact counterpart in hls4ml.
    """
    network = design.network
    names = _identifiers(network)
    entries = [_input(names[network.input.name], network.input)]
    produced: dict[str, tuple[str, ...]] = {network.input.name: ()}
    tensor = {network.input.name: names[network.input.name]}
    reads: dict[tuple[str, int], tuple[str, ...]] = {}
    results: dict[str, str] = {}
    shared = {name for name, readers in network.consumers.items() if sum(r.inputs.count(name) for r in readers) > 1}
    for layer in map(unrollable, network.layers[1:]):
        quantizers = [f"{names[layer.name]}_read{index}" for index in range(len(layer.inputs))]
        for index, (source, quantizer) in enumerate(zip(layer.inputs, quantizers, strict=True)):
            fmt = act_format(design, layer)
            if io == "stream" and source in shared:
                entries.append(_identity(quantizer, tensor[source], network.by_name[source].out_shape))
                results[quantizer] = f"{'' if fmt.signed else 'u'}fixed<{fmt.bits},{fmt.bits - fmt.frac_bits},RND,SAT>"
            else:
                entries.append(_quantizer(quantizer, tensor[source], layer, fmt))
            reads[layer.name, index] = (quantizer, *produced[source]) if produced[source] else ()
        added = _layer(design, layer, names[layer.name], quantizers)
        entries += added
        tensor[layer.name] = added[-1]["name"]
        produced[layer.name] = tuple(entry["name"] for entry in reversed(added))
    return LayerList(tuple(entries), reads, results, names)


def _identifiers(network: Network) -> dict[str, str]:
    """C++ names; the index keeps them distinct and clear of hls4ml's reserved words."""
    return {layer.name: f"l{index}_{re.sub(r'[^0-9a-zA-Z]', '_', layer.name)}" for index, layer in enumerate(network)}


def _channels_last(shape: Shape) -> list[int]:
    return [*shape[1:], shape[0]]


def _input(name: str, layer: Input) -> Entry:
    shape = _channels_last(layer.out_shape)
    return {"class_name": "InputLayer", "name": name, "input_shape": shape, "data_format": "channels_last"}


def _quantizer(name: str, source: str, layer: Layer, fmt: FixedPoint) -> Entry:
    assert not isinstance(layer, Input)
    ones = (1,) * (1 + len(layer.in_shape))
    mask = tuple(np.full(ones, value, dtype=np.int16) for value in (fmt.signed, fmt.bits, fmt.bits - fmt.frac_bits))
    return {
        "class_name": CLASS_NAME, "name": name, "inputs": [source], "outputs": [name],
        "mask_kbi": mask, "SAT": "SAT", "RND": "RND", "fusible": True, "overrides": {},
    }  # fmt: skip


def _identity(name: str, source: str, shape: Shape) -> Entry:
    """Values in a declared result type; the capital keeps hls4ml from dropping a linear activation."""
    return {
        "class_name": "Activation", "activation": "Linear", "name": name, "inputs": [source], "outputs": [name],
        "n_in": int(np.prod(shape)), "trusted": True,
    }  # fmt: skip


def _layer(design: Design, layer: Unrolled, name: str, inputs: list[str]) -> list[Entry]:
    entry: Entry = {"name": name, "inputs": inputs, "outputs": [name]}
    match layer:
        case Conv2d():
            added = [entry | _conv(design, layer)]
        case Linear():
            sizes = {"n_in": layer.in_shape[0], "n_out": layer.out_shape[0]}
            added = [entry | _weights(design, layer, (1, 0)) | sizes | {"class_name": "Dense"}]
        case Add():
            added = [entry | {"class_name": "Merge", "op": "add"}]
        case PairSum():
            sizes = {"n_rows": layer.in_shape[1], "n_chan": layer.in_shape[0]}
            added = [entry | sizes | {"class_name": pair_sum.CLASS_NAME}]
        case RowMean():
            added = [entry | _pool(layer.in_shape, 1)]
        case Mean():
            added = _mean(layer, entry)
    if isinstance(layer, Activated) and layer.activation == "relu":
        relu = {"class_name": "Activation", "activation": "relu", "n_in": int(np.prod(layer.out_shape))}
        added.append(relu | {"name": f"{name}_relu", "inputs": [name], "outputs": [f"{name}_relu"]})
    return added


def _weights(design: Design, layer: Conv2d | Linear, order: tuple[int, ...]) -> Entry:
    numbers = design.numbers[layer.name]
    design.weight_integers(layer.name), design.bias_integers(layer.name)  # refuses what is off its grid
    assert numbers.weight is not None
    return {"weight_data": numbers.weight.transpose(order).copy(), "bias_data": numbers.bias, "use_bias": True}


def _conv(design: Design, layer: Conv2d) -> Entry:
    depthwise = layer.groups == layer.in_shape[0] == layer.out_shape[0] and layer.depthwise
    if layer.depthwise and not depthwise:
        raise NasError(
            f"layer {layer.name}: hls4ml has no convolution with {layer.groups} groups over {layer.in_shape[0]} "
            "channels; use 1 group, or one per channel"
        )
    sides = _sides(layer) | {"filt_height": layer.kernel, "filt_width": layer.kernel}
    if not depthwise:
        return _weights(design, layer, (2, 3, 1, 0)) | sides | {"class_name": "Conv2D"}
    entry = _weights(design, layer, (2, 3, 0, 1)) | sides | {"class_name": "DepthwiseConv2D", "depth_multiplier": 1}
    return entry | {"depthwise_data": entry["weight_data"].copy()}


def _sides(layer: Conv2d) -> Entry:
    """Sizes, strides and padding; the far padding is what the last window reaches."""
    before = layer.kernel // 2
    entry: Entry = {"data_format": "channels_last", "n_chan": layer.in_shape[0], "n_filt": layer.out_shape[0]}
    for side, near, far, axis in (("height", "top", "bottom", 1), ("width", "left", "right", 2)):
        size, out = layer.in_shape[axis], layer.out_shape[axis]
        entry |= {f"in_{side}": size, f"out_{side}": out, f"stride_{side}": layer.stride}
        beyond = max(0, (out - 1) * layer.stride + layer.kernel - size - before)
        entry |= {f"pad_{near}": before, f"pad_{far}": beyond}
    return entry


def _mean(layer: Mean, entry: Entry) -> list[Entry]:
    """A pooling window over the whole image; hls4ml's exactness pass refuses the global pooling layer."""
    flat = f"{entry['name']}_flat"
    reshape = {"class_name": "Reshape", "name": flat, "inputs": [entry["name"]], "outputs": [flat]}
    return [entry | _pool(layer.in_shape, layer.in_shape[1]), reshape | {"target_shape": [layer.in_shape[0]]}]


def _pool(shape: Shape, rows: int) -> Entry:
    """The mean of each window of so many whole rows."""
    channels, height, width = shape
    return {
        "class_name": "AveragePooling2D", "data_format": "channels_last", "n_filt": channels, "count_pad": False,
        "in_height": height, "in_width": width, "out_height": height // rows, "out_width": 1,
        "pool_height": rows, "pool_width": width, "stride_height": rows, "stride_width": width,
        "pad_top": 0, "pad_bottom": 0, "pad_left": 0, "pad_right": 0,
    }  # fmt: skip
