"""Power-of-two fixed point: the number format in which every device of the FPGA family computes.

A `FixedPoint` holds the values `n * 2**-frac_bits` for the integers `n` of `bits` bits. Rounding is half up,
floor(x + 1/2), which hardware gets by adding half a step before it truncates; overflow saturates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray


class Format(Protocol):
    """A uniform grid: the values `n * step` for the integers low <= n <= high, among them 0."""

    @property
    def low(self) -> int: ...

    @property
    def high(self) -> int: ...

    @property
    def step(self) -> float: ...


@dataclass(frozen=True, slots=True)
class FixedPoint:
    """`bits` includes the sign; `frac_bits` may be negative or exceed `bits`."""

    signed: bool
    bits: int
    frac_bits: int

    def __post_init__(self) -> None:
        if self.bits < 1 + self.signed:
            raise NasError(f"fixed point needs at least {1 + self.signed} bits, got {self.bits}")

    @property
    def int_bits(self) -> int:
        """Bits left of the point, without the sign."""
        return self.bits - self.signed - self.frac_bits

    @property
    def low(self) -> int:
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        return (1 << (self.bits - self.signed)) - 1

    @property
    def step(self) -> float:
        return float(2.0**-self.frac_bits)


def quantize(values: FloatArray, fmt: Format) -> IntArray:
    """The integers nearest to real values, half up, saturated; any shape."""
    return np.clip(np.floor(values / fmt.step + 0.5), fmt.low, fmt.high).astype(np.int64)


def requantize(values: IntArray, frac_bits: IntArray | int, fmt: FixedPoint) -> IntArray:
    """Round integers with `frac_bits` fraction bits into `fmt`, in integer arithmetic alone.

    Args:
        values: Integers, any shape.
        frac_bits: Their fraction bits, broadcast against `values`.
        fmt: The format to round into: half up, saturated.
    """
    shift = np.asarray(frac_bits - fmt.frac_bits)
    down, up = np.maximum(shift, 0), np.maximum(-shift, 0)
    half = np.where(down > 0, 1 << np.maximum(down - 1, 0), 0)
    rounded: IntArray = ((values << up) + half) >> down
    return np.clip(rounded, fmt.low, fmt.high)
