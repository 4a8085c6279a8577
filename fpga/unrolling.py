"""A whole design as one piece of combinational logic, traced with da4ml: the origin of the RTL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from da4ml.trace import FixedVariableArray, HWConfig, comb_trace, to_pipeline
from da4ml.types import CombLogic, Pipeline

from fpga.reference import act_format, mean_shift
from hw_models.unrolled import LEVELS_PER_CYCLE, Unrolled, unrollable
from nas.design import Design
from nas.errors import NasError
from nas.fixed_point import FixedPoint
from nas.network import Activated, Add, Conv2d, Linear, Mean, PairSum, RowMean, Shape

LARGEST_PRODUCTS = 100_000
"""Most non-zero weights, each counted once per position; beyond, tracing takes minutes and synthesis hours."""

HARDWARE = HWConfig(1, -1, -1)
"""One LUT per bit of an adder, one level of delay per adder."""

SOLVER = {"search_all_decompose_dc": False}
"""The full search is 8 times slower and at most 1 % better."""


@dataclass(frozen=True)
class Logic:
    """From the input to some layers' outputs.

    Tensors are arrays of da4ml's variables, which know their ranges, in the shape of a layer's output.

    Attributes:
        comb: Its inputs are the image, flattened, once per format; its outputs the layers', flattened.
        formats: The formats in which layers read the input.
    """

    comb: CombLogic
    formats: tuple[FixedPoint, ...]


def unroll(design: Design, outputs: Sequence[str]) -> Logic:
    """Trace every position of every layer; a second for each few thousand products.

    Args:
        design: Quantized in every layer.
        outputs: The layers whose outputs the logic gives.

    Raises:
        NasError: A layer is not quantized or of no operation that a design has, or there are too many products.
    """
    _require_small(design)
    images: dict[FixedPoint, FixedVariableArray] = {}
    tensors: dict[str, FixedVariableArray] = {}
    reads: dict[tuple[str, FixedPoint], FixedVariableArray] = {}

    def read(source: str, fmt: FixedPoint) -> FixedVariableArray:
        if source not in tensors:
            return images.setdefault(fmt, _image(design.network.input.out_shape, fmt))
        if (source, fmt) not in reads:
            reads[source, fmt] = tensors[source].quantize(fmt.signed, fmt.int_bits, fmt.frac_bits, "SAT", "RND")
        return reads[source, fmt]

    for layer in map(unrollable, design.network.layers[1:]):
        fmt = act_format(design, layer)
        tensors[layer.name] = _apply(design, layer, [read(source, fmt) for source in layer.inputs])
    inputs = np.concatenate([image._vars.ravel() for image in images.values()])
    results = np.concatenate([tensors[name]._vars.ravel() for name in outputs])
    return Logic(comb_trace(inputs, results, keep_dead_inputs=True), tuple(images))


def pipelined(comb: CombLogic) -> Pipeline:
    """The logic with registers after every `LEVELS_PER_CYCLE` adders."""
    return to_pipeline(comb, LEVELS_PER_CYCLE, retiming=False, verbose=False)


def products(design: Design) -> int:
    """Non-zero weights, each counted once per position: what unrolling makes hardware of."""
    return sum(design.nonzeros(layer.name) * _positions(layer.out_shape) for layer in design.network.weighted)


def _require_small(design: Design) -> None:
    count = products(design)
    if count > LARGEST_PRODUCTS:
        raise NasError(
            f"the network has {count} non-zero weights, each counted once per position, above {LARGEST_PRODUCTS}: "
            "too many to unroll; take fewer channels or positions, or prune more"
        )


def _positions(shape: Shape) -> int:
    return int(np.prod(shape[1:], dtype=np.int64))


def _image(shape: Shape, fmt: FixedPoint) -> FixedVariableArray:
    low, high, step = (np.full(shape, value * fmt.step) for value in (fmt.low, fmt.high, 1))
    return FixedVariableArray.from_lhs(low, high, step, HARDWARE, 0.0, SOLVER)


def _apply(design: Design, layer: Unrolled, reads: list[FixedVariableArray]) -> FixedVariableArray:
    match layer:
        case Conv2d():
            return _activated(layer, _convolved(design, layer, reads[0]))
        case Linear():
            return _activated(layer, _product(reads[0], *_weights(design, layer)))
        case Add():
            return _activated(layer, reads[0] + reads[1])
        case PairSum():
            return _activated(layer, reads[0] + reads[1].transpose((0, 2, 1)))
        case Mean():
            return np.sum(reads[0], axis=(1, 2)) * 2.0 ** -mean_shift(layer)
        case RowMean():
            return np.sum(reads[0], axis=2, keepdims=True) * 2.0 ** -mean_shift(layer)


def _activated(layer: Activated, sums: FixedVariableArray) -> FixedVariableArray:
    return sums.relu() if layer.activation == "relu" else sums


def _weights(design: Design, layer: Conv2d | Linear) -> tuple[Any, Any]:
    """Weights and bias as real numbers, which are on their grids."""
    numbers = design.numbers[layer.name]
    design.weight_integers(layer.name), design.bias_integers(layer.name)  # refuses what is off its grid
    return numbers.weight, numbers.bias


def _product(values: FixedVariableArray, weights: Any, bias: Any) -> FixedVariableArray:
    return values @ weights.T + bias


def _convolved(design: Design, layer: Conv2d, read: FixedVariableArray) -> FixedVariableArray:
    """Each position from those of its taps that lie inside the image."""
    weights, bias = _weights(design, layer)
    outputs, inputs = layer.out_shape[0] // layer.groups, layer.in_shape[0] // layer.groups
    sums = np.empty(layer.out_shape, dtype=object)
    for row, column in np.ndindex(*layer.out_shape[1:]):
        rows, taps_down = _window(row, layer, layer.in_shape[1])
        columns, taps_right = _window(column, layer, layer.in_shape[2])
        for group in range(layer.groups):
            out, into = (slice(group * size, (group + 1) * size) for size in (outputs, inputs))
            taps = weights[out, :, taps_down, taps_right].reshape(outputs, -1)
            sums[out, row, column] = _product(read[into, rows, columns].ravel(), taps, bias[out])._vars
    return FixedVariableArray(sums, SOLVER, HARDWARE)


def _window(position: int, layer: Conv2d, size: int) -> tuple[slice, slice]:
    """Along one axis: the inputs that a position sees, and the kernel's taps on them."""
    start = position * layer.stride - layer.kernel // 2
    first, last = max(start, 0), min(start + layer.kernel, size)
    return slice(first, last), slice(first - start, last - start)
