"""The integer reference: what a design computes, exactly, in numpy.

Only the input is real; it is quantized by the layers that read it. From there on everything is an integer, so the
result is the one that any correct implementation of the design has to give, bit for bit. Products are summed in float64
where no sum can leave the integers that it holds exactly, which is faster, and in int64 elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hw_models.unrolled import Unrolled, averaged, unrollable
from nas.design import Design
from nas.errors import NasError
from nas.fixed_point import FixedPoint, quantize, requantize
from nas.genotype import FloatArray, IntArray
from nas.network import Activated, Add, Conv2d, Layer, Linear, Mean, PairSum, RowMean

_Number = TypeVar("_Number", np.float64, np.int64)

LARGEST = 2**62
"""No integer may exceed this, so that rounding never overflows int64."""

_EXACT_DOUBLE = 2**53
"""Integers up to here are exact in float64, and so is any sum whose terms' magnitudes add up to no more."""

_BLOCK = 1 << 18
"""Integers of the largest tensor of images that go through at a time."""


@dataclass(frozen=True)
class WideTensor:
    """A layer's exact output: integers of shape (n, channels, ...), with fraction bits per channel."""

    integers: IntArray
    frac_bits: IntArray

    def values(self) -> FloatArray:
        """The real numbers the integers stand for."""
        result: FloatArray = self.integers * 2.0 ** -_along_channels(self.frac_bits, self.integers.ndim)
        return result


@dataclass(frozen=True)
class Trace:
    """Every tensor of one run.

    Attributes:
        reads: For each layer, the integers of each of its inputs in the layer's own format `numbers.act`.
        outputs: For each layer but the input, its exact output.
    """

    reads: Mapping[str, tuple[IntArray, ...]]
    outputs: Mapping[str, WideTensor]


def run(design: Design, images: FloatArray) -> FloatArray:
    """The exact logits of images of shape (n, *input shape), shape (n, classes); some at a time, within little memory.

    Raises:
        NasError: A layer is not quantized or of no operation that a design has, or an accumulator could exceed 2^62.
    """
    last, largest = design.network.layers[-1].name, max(math.prod(layer.out_shape) for layer in design.network)
    count = max(1, _BLOCK // largest)
    parts = [images[start : start + count] for start in range(0, max(1, len(images)), count)]
    return np.concatenate([integer_trace(design, part).outputs[last].values() for part in parts])


def integer_trace(design: Design, images: FloatArray) -> Trace:
    """Run the design and keep what every layer reads and gives; shapes and errors as in `run`."""
    shape = design.network.input.out_shape
    if images.shape[1:] != shape:
        raise NasError(f"images have shape {images.shape}; this design reads (n, {', '.join(map(str, shape))})")
    reads: dict[str, tuple[IntArray, ...]] = {}
    outputs: dict[str, WideTensor] = {}
    for layer in map(unrollable, design.network.layers[1:]):
        fmt = act_format(design, layer)
        reads[layer.name] = tuple(
            _read(outputs[source], fmt, layer.name) if source in outputs else quantize(images, fmt)
            for source in layer.inputs
        )
        outputs[layer.name] = _apply(design, layer, fmt, reads[layer.name])
    return Trace(reads, outputs)


def act_format(design: Design, layer: Layer) -> FixedPoint:
    """The format in which a layer reads its inputs."""
    act = design.numbers[layer.name].act
    if not isinstance(act, FixedPoint):
        raise NasError(f"layer {layer.name}: reads {act}; an FPGA design needs fixed point, act_bits below 32")
    return act


def mean_shift(layer: Mean | RowMean) -> int:
    """By how many bits a mean over positions shifts; of an unrollable mean, which has a power of two of them."""
    return averaged(layer).bit_length() - 1


def accumulator_bound(design: Design, layer: Conv2d | Linear) -> int:
    """The largest magnitude any accumulator of a layer can take, whatever the input."""
    fmt = act_format(design, layer)
    weights = np.abs(design.weight_integers(layer.name)).reshape(layer.out_shape[0], -1)
    largest = weights.astype(object).sum(axis=1) * max(-fmt.low, fmt.high)  # Python's integers do not overflow
    return int((largest + np.abs(design.bias_integers(layer.name))).max())


def _along_channels(per_channel: IntArray, ndim: int) -> IntArray:
    return per_channel.reshape(1, -1, *(1,) * (ndim - 2))


def _read(tensor: WideTensor, fmt: FixedPoint, layer: str) -> IntArray:
    frac_bits = _along_channels(tensor.frac_bits, tensor.integers.ndim)
    up = max(0, int((fmt.frac_bits - frac_bits).max()))
    _require_fits(int(np.abs(tensor.integers).max(initial=0)) << up, layer)
    return requantize(tensor.integers, frac_bits, fmt)


def _require_fits(bound: int, layer: str) -> None:
    if bound > LARGEST:
        raise NasError(
            f"layer {layer}: integers can reach 2^{math.log2(bound):.1f}, above 2^62; "
            "use fewer weight or activation bits"
        )


def _apply(design: Design, layer: Unrolled, fmt: FixedPoint, reads: tuple[IntArray, ...]) -> WideTensor:
    frac_bits = np.full(layer.out_shape[0], fmt.frac_bits, dtype=np.int64)
    match layer:
        case Conv2d() | Linear():
            return _weighted(design, layer, reads[0])
        case Add():
            return WideTensor(_activated(layer, reads[0] + reads[1]), frac_bits)
        case PairSum():
            return WideTensor(_activated(layer, reads[0] + reads[1].transpose(0, 1, 3, 2)), frac_bits)
        case Mean():
            return WideTensor(reads[0].sum(axis=(2, 3)), frac_bits + mean_shift(layer))
        case RowMean():
            return WideTensor(reads[0].sum(axis=3, keepdims=True), frac_bits + mean_shift(layer))


def _activated(layer: Activated, integers: IntArray) -> IntArray:
    return np.maximum(integers, 0) if layer.activation == "relu" else integers


def _weighted(design: Design, layer: Conv2d | Linear, x: IntArray) -> WideTensor:
    bound = accumulator_bound(design, layer)
    _require_fits(bound, layer.name)
    weights, bias = design.weight_integers(layer.name), design.bias_integers(layer.name)
    if bound <= _EXACT_DOUBLE:
        product = _product(layer, weights.astype(np.float64), x.astype(np.float64)).astype(np.int64)
    else:
        product = _product(layer, weights, x)
    integers = product + _along_channels(bias, product.ndim)
    return WideTensor(_activated(layer, integers), design.product_frac(layer.name))


def _product(layer: Conv2d | Linear, weights: NDArray[_Number], x: NDArray[_Number]) -> NDArray[_Number]:
    """Of weights and inputs, shape (n, *out_shape); a convolution's is the sum of one for each place of its kernel."""
    if isinstance(layer, Linear):
        return x @ weights.T
    channels, height, width = layer.out_shape
    groups, pad, stride = layer.groups, layer.kernel // 2, layer.stride
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    kernels = weights.reshape(groups, channels // groups, -1, layer.kernel, layer.kernel)
    depthwise = kernels.shape[1] == kernels.shape[2] == 1
    total = np.zeros((len(x), groups, channels // groups, height * width), dtype=x.dtype)
    for row in range(layer.kernel):
        for column in range(layer.kernel):
            rows = slice(row, row + stride * (height - 1) + 1, stride)
            columns = slice(column, column + stride * (width - 1) + 1, stride)
            window = padded[:, :, rows, columns].reshape(len(x), groups, -1, height * width)
            kernel = kernels[..., row, column]
            total += kernel * window if depthwise else kernel @ window
    return total.reshape(len(x), *layer.out_shape)
