"""What a layer asks of any hardware: arithmetic and traffic, from its record alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nas.counts import macs, weight_bytes
from nas.errors import NasError
from nas.network import Add, Conv2d, Input, Layer, Linear, Mean, PairSum, Pool, RowMean, Scale


@dataclass(frozen=True, slots=True)
class Work:
    """Of one layer and one input.

    Attributes:
        macs: Multiply-accumulates; of an op without weights, its element-wise operations.
        weight_bits: Width of one operand.
        act_bits: Width of the other, the activations.
        weight_bytes: Weights and bias.
        read_bytes: Activations read.
        written_bytes: Activations written, at the width of those read: the record does not know its readers.
    """

    macs: int
    weight_bits: int
    act_bits: int
    weight_bytes: float
    read_bytes: float
    written_bytes: float

    @property
    def bytes(self) -> float:
        return self.weight_bytes + self.read_bytes + self.written_bytes


def work(layer: Layer) -> Work:
    """The work of a layer; an input costs nothing.

    Raises:
        NasError: The op is unknown: it never costs 0.
    """
    match layer:
        case Input():
            return Work(0, 2, 2, 0.0, 0.0, 0.0)
        case Conv2d() | Linear():
            weights = layer.precision.weight_bits
            return _work(layer, macs(layer), math.prod(layer.in_shape), weights, layer.precision.act_bits)
        case Add() | PairSum():
            count, act = math.prod(layer.out_shape), layer.precision.act_bits
            return _work(layer, count, 2 * math.prod(layer.in_shape), act, act)
        case Scale():
            count, act = math.prod(layer.out_shape), layer.precision.act_bits
            return _work(layer, count, count + layer.in_shape[0], act, act)
        case Mean() | RowMean():
            count, act = math.prod(layer.in_shape), layer.precision.act_bits
            return _work(layer, count, count, act, act)
        case Pool():
            operations, act = math.prod(layer.out_shape) * layer.kernel**2, layer.precision.act_bits
            return _work(layer, operations, math.prod(layer.in_shape), act, act)
        case _:
            raise NasError(
                f"layer {layer.name}: operation {type(layer).__name__.lower()} has no cost here; add it to "
                "hw_models/work.py, or choose a space without it"
            )


def _work(layer: Layer, operations: int, read: int, weight: int, act: int) -> Work:
    written = math.prod(layer.out_shape)
    return Work(operations, weight, act, weight_bytes(layer), read * act / 8, written * act / 8)


def kind(layer: Layer) -> str:
    """The layer's op as people call it; a depthwise or grouped convolution has a name of its own."""
    if isinstance(layer, Conv2d):
        return "depthwise" if layer.depthwise else "convolution"
    return type(layer).__name__.lower()
