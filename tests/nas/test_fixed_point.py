import math
from fractions import Fraction

import numpy as np
import pytest

from nas.errors import NasError
from nas.fixed_point import FixedPoint, quantize, requantize

FORMATS = [
    FixedPoint(signed, bits, frac) for signed in (True, False) for bits in (2, 4, 8, 16) for frac in (-3, 0, 1, 7, 12)
]


def exact(value: Fraction, fmt: FixedPoint) -> int:
    """floor(x + 1/2) in rational arithmetic, saturated."""
    rounded = math.floor(value * Fraction(2) ** fmt.frac_bits + Fraction(1, 2))
    magnitude = fmt.bits - 1 if fmt.signed else fmt.bits
    return min(max(rounded, -(2**magnitude) if fmt.signed else 0), 2**magnitude - 1)


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("frac_bits", [-2, 0, 3, 10, 18])
def test_requantize_is_exact_rational_arithmetic(fmt: FixedPoint, frac_bits: int) -> None:
    values = np.concatenate([np.arange(-70, 70), np.random.default_rng(0).integers(-(2**24), 2**24, size=200)])
    expected = [exact(Fraction(int(value)) / Fraction(2) ** frac_bits, fmt) for value in values]
    assert requantize(values, frac_bits, fmt).tolist() == expected


def test_requantize_takes_fraction_bits_per_channel() -> None:
    values, frac_bits = np.arange(-20, 20).reshape(2, 20), np.array([[3], [0]])
    fmt = FixedPoint(True, 6, 1)
    expected = np.stack([requantize(row, int(frac), fmt) for row, frac in zip(values, frac_bits[:, 0], strict=True)])
    assert np.array_equal(requantize(values, frac_bits, fmt), expected)


@pytest.mark.parametrize("fmt", FORMATS)
def test_quantize_agrees_with_requantize(fmt: FixedPoint) -> None:
    integers = np.random.default_rng(1).integers(-(2**20), 2**20, size=500)
    assert np.array_equal(quantize(integers / 2.0**11, fmt), requantize(integers, 11, fmt))


@pytest.mark.parametrize("fmt", FORMATS)
def test_representable_values_stay(fmt: FixedPoint) -> None:
    integers = np.arange(fmt.low, fmt.high + 1)
    assert np.array_equal(quantize(integers * fmt.step, fmt), integers)
    assert len(integers) == 2**fmt.bits


def test_halves_round_up() -> None:
    assert quantize(np.array([-1.5, -0.5, 0.5, 1.5]), FixedPoint(True, 4, 0)).tolist() == [-1, 0, 1, 2]


def test_bits_are_sign_integer_and_fraction() -> None:
    assert FixedPoint(True, 8, 5).int_bits == 2
    assert FixedPoint(False, 8, 10).int_bits == -2
    for signed in (True, False):
        with pytest.raises(NasError, match=f"at least {1 + signed} bits, got {int(signed)}"):
            FixedPoint(signed, int(signed), 0)
