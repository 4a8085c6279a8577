"""Affine grids against exact rational arithmetic and brute force."""

import math
from fractions import Fraction

import numpy as np
import pytest

from nas.affine import (
    Affine,
    affine_over,
    multipliers,
    one_per_tensor,
    reading_together,
    rescale,
    symmetric_top,
    weight_integers,
)
from nas.errors import NasError
from nas.fixed_point import FixedPoint, quantize, requantize
from nas.network import Add, Conv2d, Input, Linear, Mean, Network, Pool, Precision, Scale

RNG = np.random.default_rng(0)
FORMATS = [
    Affine(bits, low, step) for bits in (2, 4, 8) for low in (0, -1, 1 - 2**bits) for step in (0.37, 2.0**-3, 11.0)
]


@pytest.mark.parametrize("fmt", FORMATS)
def test_values_go_to_the_nearest_of_the_grid(fmt: Affine) -> None:
    grid = np.arange(fmt.low, fmt.high + 1)
    assert len(grid) == 2**fmt.bits
    assert 0 in grid
    values = np.concatenate([RNG.uniform(fmt.low - 2, fmt.high + 2, 500), grid]) * fmt.step
    nearest = grid[np.abs(values[:, None] - grid * fmt.step).argmin(1)]
    assert np.array_equal(quantize(values, fmt), nearest)
    codes = quantize(values, fmt) + fmt.zero
    assert codes.min() == 0
    assert codes.max() == 2**fmt.bits - 1
    assert quantize(np.zeros(1), fmt) == 0


@pytest.mark.parametrize("signed", [True, False])
def test_fixed_point_is_the_case_of_a_step_that_is_a_power_of_two(signed: bool) -> None:
    fixed = FixedPoint(signed, 6, 3)
    affine = Affine(6, fixed.low, fixed.step)
    assert affine.high == fixed.high
    values = RNG.normal(size=500) * 5
    assert np.array_equal(quantize(values, affine), quantize(values, fixed))
    integers, frac = RNG.integers(-(2**20), 2**20, 500), RNG.integers(2, 18, 500)
    rescaled = rescale(integers, multipliers(np.exp2(fixed.frac_bits - frac.astype(np.float64))), affine)
    assert np.array_equal(rescaled, requantize(integers, frac, fixed))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_ends_of_a_range_are_met_to_half_a_step(bits: int) -> None:
    for low, high in [(0.0, 3.0), (-3.0, 0.0), (-0.375, 6.0), *(-RNG.random((50, 2)) * [[1, -9]]).tolist()]:
        fmt = affine_over(low, high, bits)
        assert fmt.step == np.float32((high - low) / (2**bits - 1))
        assert abs(fmt.low * fmt.step - low) <= 0.5 * fmt.step * (1 + 1e-6 * 2**bits)
        assert abs(fmt.high * fmt.step - high) <= 0.5 * fmt.step * (1 + 1e-6 * 2**bits)
    assert affine_over(0.0, 0.0, bits) == Affine(bits, 0, 1.0)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_go_to_the_nearest_symmetric_integer_of_their_channel(bits: int) -> None:
    weight, steps = RNG.normal(size=(5, 3, 2, 2)), 2.0 ** RNG.uniform(-6, 1, 5)
    integers = weight_integers(weight, steps, bits)
    grid = np.arange(-symmetric_top(bits), symmetric_top(bits) + 1)
    assert len(grid) == 2**bits - 1
    for row, step, found in zip(weight, steps, integers, strict=True):
        assert np.array_equal(found, grid[np.abs(row[..., None] - grid * step).argmin(-1)])
    assert np.array_equal(weight_integers(-weight, steps, bits), -integers)


def test_rescaling_is_exact_rational_arithmetic() -> None:
    factors = np.concatenate(
        [2.0 ** RNG.uniform(-32, 0, 60), 2.0 ** RNG.uniform(0, 28, 5), [2.0**-32, 0.5, 1 - 2**-52, 1.0]]
    )
    by = multipliers(factors)
    fmt = Affine(8, -100, 0.3)
    for factor, mantissa, shift in zip(factors.tolist(), by.mantissa.tolist(), by.shift.tolist(), strict=True):
        exact = Fraction(mantissa, 2**shift)
        assert abs(exact / Fraction(factor) - 1) <= Fraction(1, 2**31)
        reach = min(2**31 - 1, math.ceil(300 / factor))
        sums = np.concatenate([RNG.integers(-reach, reach + 1, 50), [-reach, reach, 0]])
        expected = [min(max(math.floor(int(value) * exact + Fraction(1, 2)), fmt.low), fmt.high) for value in sums]
        assert rescale(sums, multipliers(np.array([factor])), fmt).tolist() == expected


def test_what_is_out_of_range_is_refused() -> None:
    for factor in (2.0**-33, 2.0**30, 0.0, -1.0, math.inf, math.nan):
        with pytest.raises(NasError, match="factors between steps must lie in"):
            multipliers(np.array([1.0, factor]))
    with pytest.raises(NasError, match=r"bits must be 2..16, got 1"):
        Affine(1, 0, 1.0)
    for low in (1, -16):
        with pytest.raises(NasError, match=rf"low must be -15..0, so that 0 has a code; got {low}"):
            Affine(4, low, 1.0)
    for step in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(NasError, match="step must be positive and finite"):
            Affine(4, 0, step)
    for least, most in ((0.1, 1.0), (-1.0, -0.1), (math.nan, 1.0)):
        with pytest.raises(NasError, match="a range must hold 0"):
            affine_over(least, most, 8)


def test_layers_that_read_a_tensor_read_it_in_one_format() -> None:
    """A residual stream through two sums, a squeeze, a largest pool; another width, and float, stand alone."""
    eight, shape = Precision(8, 8), (2, 4, 4)
    network = Network(
        (
            Input("input", shape),
            Conv2d("a", ("input",), shape, shape, 1, precision=eight),
            Conv2d("b", ("a",), shape, shape, 1, precision=eight),
            Add("first", ("a", "b"), shape, eight),
            Conv2d("narrow", ("first",), shape, shape, 1, precision=Precision(8, 4)),
            Add("second", ("first", "narrow"), shape, eight),
            Conv2d("single", ("second",), shape, shape, 1),
            Pool("pool", ("second",), shape, 2, 2, "max", eight),
            Mean("squeeze", ("pool",), (2, 2, 2), eight),
            Linear("gates", ("squeeze",), (2,), (2,), precision=eight),
            Scale("scale", ("pool", "gates"), (2, 2, 2), eight),
        )
    )
    together = reading_together(network)
    assert together == {
        "a": "a", "b": "b", "first": "b", "narrow": "narrow", "second": "second", "single": "single",
        "pool": "pool", "squeeze": "pool", "gates": "gates", "scale": "pool",
    }  # fmt: skip
    assert "second" not in (together["first"], together["narrow"])  # the first sum gives a tensor of its own
    formats = {name: Affine(8, -index, 0.1 * index + 0.1) for index, name in enumerate(together)} | {"single": None}
    tied = one_per_tensor(network, formats)
    assert tied["single"] is None
    for name, first in together.items():
        fmt, own = tied[name], formats[name]
        assert fmt == tied[first]
        if own is not None and fmt is not None:
            assert fmt.low * fmt.step <= own.low * own.step + fmt.step / 2
            assert fmt.high * fmt.step >= own.high * own.step - fmt.step
