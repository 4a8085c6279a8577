"""Affine grids: integers times a free step, the format of CPUs and NPUs.

An `Affine` is a `nas.fixed_point.Format` as a `FixedPoint` is, so `nas.fixed_point.quantize` rounds into both. Its
integers are those that get multiplied: the stored codes less the zero point (Jacob et al., "Quantization and training
of neural networks for efficient integer-arithmetic-only inference", 2018, eq. 1). Weights are symmetric, with a step
for each output channel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nas.errors import NasError
from nas.fixed_point import FixedPoint, Format
from nas.genotype import FloatArray, IntArray
from nas.network import FLOAT_BITS, Input, Network, Pool, Scale

_MANTISSA_BITS = 31
_LEAST, _BEYOND = 2.0**-32, 2.0**29


@dataclass(frozen=True, slots=True)
class Affine:
    """The 2**bits values n * step, n >= low; 0 is among them, so that padding is exact."""

    bits: int
    low: int
    step: float

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise NasError(f"affine format: bits must be 2..16, got {self.bits}")
        if not self.low <= 0 <= self.high:
            raise NasError(f"affine format: low must be {1 - 2**self.bits}..0, so that 0 has a code; got {self.low}")
        if not 0 < self.step < math.inf:
            raise NasError(f"affine format: step must be positive and finite, got {self.step:g}")

    @property
    def high(self) -> int:
        return self.low + (1 << self.bits) - 1

    @property
    def zero(self) -> int:
        """The zero point: the unsigned code of 0; that of n is n + zero."""
        return -self.low


def affine_over(low: float, high: float, bits: int) -> Affine:
    """The format whose ends are nearest to those of a range around 0: off by half a step at most, for 0 to be exact.

    The step has single precision, as engines keep it. A range of no length gets the step 1. Raises NasError unless
    low <= 0 <= high.
    """
    if not low <= 0 <= high:
        raise NasError(f"affine format: a range must hold 0; got {low:g} to {high:g}, widen it to 0")
    step = float(np.float32((high - low) / ((1 << bits) - 1))) or 1.0
    return Affine(bits, math.floor(low / step + 0.5), step)


def reading_together(network: Network) -> dict[str, str]:
    """Layers that read one tensor in equally many bits, each by the name of the first of them; float ones alone.

    A layer with several inputs reads all of them so, but the gates of a scale as they come; and those behind a largest
    pool read what the pool reads. So a device that holds each tensor once, in one format, has one for each such group.
    """
    first: dict[str, str] = {}
    readers: dict[tuple[str, int], str] = {}

    def join(name: str, other: str) -> None:
        ends = sorted((first[name], first[other]), key=list(first).index)
        first.update({reader: ends[0] for reader, end in first.items() if end == ends[1]})

    for layer in network.layers[1:]:
        assert not isinstance(layer, Input)
        first[layer.name], bits = layer.name, layer.precision.act_bits
        if bits == FLOAT_BITS:
            continue
        for source in layer.inputs[:1] if isinstance(layer, Scale) else layer.inputs:
            join(layer.name, readers.setdefault((source, bits), layer.name))
        if isinstance(layer, Pool) and layer.kind == "max":
            readers[layer.name, bits] = layer.name
    return first


def one_per_tensor(
    network: Network, formats: Mapping[str, FixedPoint | Affine | None]
) -> dict[str, FixedPoint | Affine | None]:
    """The formats in which layers read, by their names, where those that read together get one over all their ranges.

    Formats are affine, or None for float.
    """
    ranges: dict[str, tuple[float, float, int]] = {}
    together = reading_together(network)
    for name, fmt in formats.items():
        if fmt is not None:
            low, high, bits = ranges.get(together[name], (0.0, 0.0, fmt.bits))
            ranges[together[name]] = min(low, fmt.low * fmt.step), max(high, fmt.high * fmt.step), bits
    return {name: None if fmt is None else affine_over(*ranges[together[name]]) for name, fmt in formats.items()}


def symmetric_top(bits: int) -> int:
    """The largest weight of `bits` bits, whose least is its negative."""
    return (1 << (bits - 1)) - 1


def weight_integers(weight: FloatArray, steps: FloatArray, bits: int) -> IntArray:
    """The symmetric integers nearest to weights of shape (out, ...), half up, by steps of shape (out,)."""
    scaled = weight / steps.reshape(-1, *(1,) * (weight.ndim - 1))
    top = symmetric_top(bits)
    return np.clip(np.floor(scaled + 0.5), -top, top).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Multipliers:
    """Positive factors as `mantissa * 2**-shift` with mantissas of 31 bits, so that integers are rescaled by integers.

    Jacob et al. 2018, eq. 5 and 6; both of the factors' shape.
    """

    mantissa: IntArray
    shift: IntArray


def multipliers(factors: FloatArray) -> Multipliers:
    """The multipliers nearest to factors, relative error at most 2**-31.

    Args:
        factors: What accumulators times their step are in steps of the output: weight step * input step / output step,
            one per channel, any shape.

    Raises:
        NasError: A factor is outside 2**-32 .. 2**29, where a shift would be out of what 64 bits hold.
    """
    if not ((factors >= _LEAST) & (factors < _BEYOND)).all():
        raise NasError(
            f"affine format: factors between steps must lie in 2^-32 .. 2^29; got {factors.min():g} to "
            f"{factors.max():g}; calibrate the output on samples of its own"
        )
    mantissas, exponents = np.frexp(factors)
    mantissa = np.floor(mantissas * 2.0**_MANTISSA_BITS + 0.5).astype(np.int64)
    return Multipliers(mantissa, _MANTISSA_BITS - exponents.astype(np.int64))


def rescale(accumulators: IntArray, by: Multipliers, fmt: Format) -> IntArray:
    """Round accumulators, |n| < 2**31, into a format, in integer arithmetic alone: half up, saturated.

    Args:
        accumulators: Integers, any shape.
        by: Multipliers, broadcast against them.
        fmt: The format of the output.
    """
    product = accumulators * by.mantissa + (np.int64(1) << (by.shift - 1))
    rounded: IntArray = np.clip(product >> by.shift, fmt.low, fmt.high)
    return rounded
