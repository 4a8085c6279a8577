"""Fake quantization against the integers of `nas.fixed_point` and against exact arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from nas.fixed_point import FixedPoint, quantize
from nas.genotype import FloatArray
from supernet.quantize import act_format, quantize_act, quantize_bias, quantize_weight, weight_format

FORMATS = [FixedPoint(signed, bits, frac) for signed in (True, False) for bits in (2, 3, 8, 16) for frac in (-4, 0, 9)]
RNG = np.random.default_rng(0)


def spread(fmt: FixedPoint) -> FloatArray:
    """Values inside the range, far outside, on ties and on the borders."""
    inside = RNG.uniform(fmt.low - 0.5, fmt.high + 0.5, 300)
    ties = np.arange(-5, 6) + 0.5
    borders = np.array([fmt.low - 0.5, fmt.low, fmt.high, fmt.high + 0.499, fmt.high + 0.5, 1e6, -1e6, 0.0])
    return np.concatenate([inside, 3 * inside, ties, borders]) * fmt.step


@pytest.mark.parametrize("fmt", FORMATS)
def test_activations_are_the_integers_of_the_format(fmt: FixedPoint) -> None:
    values = spread(fmt)
    expected = quantize(values, fmt) * fmt.step
    assert len(set(expected)) > 3 - (fmt.bits == 2 and not fmt.signed)
    assert np.array_equal(quantize_act(torch.from_numpy(values), fmt).numpy(), expected)
    single = values.astype(np.float32)
    expected = quantize(single.astype(np.float64), fmt) * fmt.step
    assert np.array_equal(quantize_act(torch.from_numpy(single), fmt).numpy().astype(np.float64), expected)


@pytest.mark.parametrize("bits", [2, 3, 8, 16])
def test_weights_are_symmetric_integers_per_channel(bits: int) -> None:
    weight = RNG.normal(size=(7, 3, 5, 5)) * 2.0 ** np.arange(-3, 4).reshape(7, 1, 1, 1)
    frac = RNG.integers(bits - 4, bits + 2, 7)
    top = 2 ** (bits - 1) - 1
    scale = 2.0 ** frac.reshape(7, 1, 1, 1)
    expected = np.clip(np.floor(weight * scale + 0.5), -top, top)
    assert (expected == -top).any()
    assert (expected == top).any()
    rounded = quantize_weight(torch.from_numpy(weight), torch.from_numpy(frac), bits)
    assert np.array_equal(rounded.numpy() * scale, expected)


def test_biases_are_on_the_grid_of_the_products() -> None:
    bias, frac, act = RNG.normal(size=50) * 9, RNG.integers(-3, 9, 50), FixedPoint(True, 6, 2)
    integers = quantize_bias(torch.from_numpy(bias), torch.from_numpy(frac), act).numpy() * 2.0 ** (frac + 2)
    assert np.array_equal(integers, np.floor(bias * 2.0 ** (frac + 2) + 0.5))


def test_float_leaves_everything_alone() -> None:
    values = torch.randn(4, 3)
    assert act_format([values], 32) is None
    assert weight_format(values, 32) is None
    assert quantize_act(values, None) is values
    assert quantize_weight(values, None, 32) is values
    frac, act = torch.zeros(4, dtype=torch.int64), FixedPoint(True, 8, 0)
    assert all(quantize_bias(values[:, 0], *formats).equal(values[:, 0]) for formats in ((None, act), (frac, None)))


@pytest.mark.parametrize("fmt", FORMATS)
def test_activation_gradients_pass_inside_and_stop_where_saturated(fmt: FixedPoint) -> None:
    values = torch.from_numpy(spread(fmt)).requires_grad_()
    upstream = torch.from_numpy(RNG.normal(size=len(values)))
    (gradient,) = torch.autograd.grad(quantize_act(values, fmt), values, upstream)
    scaled = values.detach() / fmt.step
    inside = (scaled >= fmt.low) & (scaled <= fmt.high)
    assert 0 < inside.sum() < len(values)
    assert torch.equal(gradient, upstream * inside)


def test_weight_and_bias_gradients_pass_inside_and_stop_where_saturated() -> None:
    weight = torch.randn(4, 50, dtype=torch.float64, requires_grad=True)
    frac = torch.tensor([0, 1, 2, 3])
    (gradient,) = torch.autograd.grad(quantize_weight(weight, frac, 3).sum(), weight)
    assert torch.equal(gradient, ((weight.detach() * 2.0 ** frac[:, None]).abs() <= 3).double())
    assert 0 < gradient.mean() < 1
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(quantize_bias(bias, frac, FixedPoint(True, 8, 5)).sum(), bias)
    assert torch.equal(gradient, torch.ones(4, dtype=torch.float64))


def squared_error(values: FloatArray, fmt: FixedPoint) -> float:
    return float(np.square(quantize(values, fmt) * fmt.step - values).sum())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("tail", ["uniform", "normal", "heavy"])
@pytest.mark.parametrize("positive", [True, False])
def test_activation_format_has_the_least_squared_error(bits: int, tail: str, positive: bool) -> None:
    draws: dict[str, Callable[[int], FloatArray]] = {
        "uniform": RNG.random,
        "normal": RNG.standard_normal,
        "heavy": lambda n: RNG.standard_t(2, n),
    }
    draw = draws[tail]
    for scale in (1e-3, 0.7, 40.0):
        values = scale * draw(1000) - (tail == "uniform" and not positive) * scale / 2
        values = np.abs(values) if positive else values
        fmt = act_format([torch.from_numpy(values)], bits)
        assert fmt is not None
        assert (fmt.signed, fmt.bits) == (not positive, bits)
        reach = math.ceil(math.log2(np.abs(values).max()))
        candidates = [FixedPoint(fmt.signed, bits, bits - fmt.signed - reach + more) for more in range(3)]
        assert fmt == min(candidates, key=lambda candidate: squared_error(values, candidate))


def test_activation_format_of_a_large_tensor_is_judged_on_all_columns() -> None:
    """Blank borders, as images have them, must not hide what lies between."""
    images = torch.zeros(1024, 1, 8, 8)
    images[..., 3:5] = torch.rand(1024, 1, 8, 2, generator=torch.Generator().manual_seed(0))
    images[0, 0, 0, 3] = 7.9
    fmt = act_format([images], 4)
    assert fmt is not None
    candidates = [FixedPoint(False, 4, 1 + more) for more in range(3)]
    assert fmt == min(candidates, key=lambda candidate: squared_error(images.double().numpy(), candidate))
    assert fmt.frac_bits == 3


def test_one_format_fits_all_inputs() -> None:
    positive, signed = torch.rand(100), 8 * torch.randn(100)
    fmt = act_format([positive, signed], 8)
    assert fmt is not None
    assert fmt.signed
    assert fmt == act_format([signed, positive], 8) == act_format([torch.cat([positive, signed])], 8)


@pytest.mark.parametrize("values", [[0.0, 0.0], [float("inf"), 1.0], [float("nan"), 1.0], [1e-30], [1e30]])
def test_every_tensor_has_a_format(values: list[float]) -> None:
    fmt = act_format([torch.tensor(values)], 8)
    assert fmt is not None
    assert -20 <= fmt.frac_bits - 8 <= 22
    assert weight_format(torch.tensor([values]), 8) is not None


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_weight_formats_have_the_least_squared_error(bits: int) -> None:
    weight = np.concatenate([RNG.normal(size=(20, 40)), RNG.standard_t(2, (20, 40)), RNG.random((20, 40))])
    weight *= 2.0 ** RNG.uniform(-8, 8, (60, 1))
    weight[5] = 0
    chosen = weight_format(torch.from_numpy(weight), bits)
    assert chosen is not None
    top = 2 ** (bits - 1) - 1

    def error(row: FloatArray, frac: int) -> float:
        return float(np.square(np.clip(np.floor(row * 2.0**frac + 0.5), -top, top) / 2.0**frac - row).sum())

    moved = 0
    for row, frac in zip(weight, chosen.tolist(), strict=True):
        if not row.any():
            continue
        least = math.floor(math.log2(top / np.abs(row).max()))
        errors = [error(row, least + more) for more in (0, 1, 2)]
        assert frac == least + errors.index(min(errors))
        assert error(row, frac) <= min(error(row, coarser) for coarser in range(least - 6, least + 3))
        moved += frac > least
    assert 0 < moved < len(weight)
