"""Fake quantization against the integers of `nas.fixed_point` and against exact arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nas.affine import multipliers, rescale, weight_integers
from nas.fixed_point import FixedPoint, quantize
from nas.genotype import FloatArray, IntArray
from supernet.formats import act_affine, act_format, weight_format, weight_steps
from supernet.quantize import quantize_act, quantize_bias, quantize_weight
from supernet.settings import Gradient

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
    rounded = quantize_weight(torch.from_numpy(weight), torch.from_numpy(1 / scale.ravel()), bits)
    assert np.array_equal(rounded.numpy() * scale, expected)


def test_biases_are_on_the_grid_of_the_products() -> None:
    bias, frac, act = RNG.normal(size=50) * 9, RNG.integers(-3, 9, 50), FixedPoint(True, 6, 2)
    integers = quantize_bias(torch.from_numpy(bias), torch.from_numpy(2.0**-frac), act).numpy() * 2.0 ** (frac + 2)
    assert np.array_equal(integers, np.floor(bias * 2.0 ** (frac + 2) + 0.5))


def test_float_leaves_everything_alone() -> None:
    values = torch.randn(4, 3)
    assert act_format([values], 32) is None
    assert weight_format(values, 32) is None
    assert quantize_act(values, None) is values
    assert quantize_weight(values, None, 32) is values
    steps, act = torch.ones(4), FixedPoint(True, 8, 0)
    assert all(quantize_bias(values[:, 0], *formats).equal(values[:, 0]) for formats in ((None, act), (steps, None)))


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
    steps = torch.tensor([1, 0.5, 0.25, 0.125], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(quantize_weight(weight, steps, 3).sum(), weight)
    assert torch.equal(gradient, ((weight.detach() / steps[:, None]).abs() <= 3).double())
    assert 0 < gradient.mean() < 1
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(quantize_bias(bias, steps, FixedPoint(True, 8, 5)).sum(), bias)
    assert torch.equal(gradient, torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize("fmt", FORMATS)
def test_the_identity_changes_gradients_alone(fmt: FixedPoint) -> None:
    for dtype in (torch.float32, torch.float64):
        values = torch.from_numpy(spread(fmt)).to(dtype).requires_grad_()
        upstream = torch.from_numpy(RNG.normal(size=len(values))).to(dtype)
        rounded = quantize_act(values, fmt, "identity")
        assert torch.equal(rounded, quantize_act(values, fmt))
        (gradient,) = torch.autograd.grad(rounded, values, upstream)
        assert torch.equal(gradient, upstream)
    weight, steps = torch.randn(4, 50, requires_grad=True), torch.tensor([1, 0.3, 0.25, 0.1])
    rounded = quantize_weight(weight, steps, 3, "identity")
    torch.testing.assert_close(rounded, quantize_weight(weight, steps, 3), rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(rounded.sum(), weight)
    assert torch.equal(gradient, torch.ones_like(gradient))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("groups", [1, 3])
def test_affine_fake_quantization_is_integer_arithmetic(bits: int, groups: int) -> None:
    """Two layers: the integers of a convolution in int64 alone, and the same in torch, rounded to the formats."""
    generator = torch.Generator().manual_seed(bits + groups)
    x = torch.randn(5, 6, 9, 9, generator=generator, dtype=torch.float64) + 0.5
    weight = torch.randn(12, 6 // groups, 3, 3, generator=generator, dtype=torch.float64) * torch.logspace(
        -1, 1, 12, dtype=torch.float64
    ).view(-1, 1, 1, 1)
    bias = torch.randn(12, generator=generator, dtype=torch.float64)
    act, steps = act_affine([x], 8), weight_steps(weight, bits)
    assert act is not None
    assert steps is not None
    products = steps * act.step
    rounded = quantize_weight(weight, steps, bits), quantize_bias(bias, steps, act)
    fake = F.conv2d(quantize_act(x, act), *rounded, padding=1, groups=groups)

    reads, weights = quantize(x.numpy(), act), weight_integers(weight.numpy(), steps.numpy(), bits)
    biases = np.floor(bias.numpy() / products.numpy() + 0.5).astype(np.int64)
    assert np.abs(weights).max() == 2 ** (bits - 1) - 1
    sums = integer_convolution(reads, weights, groups) + biases.reshape(1, -1, 1, 1)
    scale = products.numpy().reshape(1, -1, 1, 1)
    np.testing.assert_allclose(fake.numpy() / scale, sums, rtol=0, atol=1e-8)

    out = act_affine([torch.relu(fake)], 8)
    assert out is not None
    assert out.low == 0
    exact = sums * scale / out.step
    far_from_ties = np.abs(exact - np.floor(exact) - 0.5) > 1e-6
    integers = rescale(sums, multipliers(scale / out.step), out)
    assert far_from_ties.mean() > 0.999
    assert np.array_equal(integers[far_from_ties], quantize(fake.numpy(), out)[far_from_ties])
    assert len(np.unique(integers)) > 100


def integer_convolution(x: IntArray, weight: IntArray, groups: int) -> IntArray:
    """3x3, padding 1, shape (n, out, height, width)."""
    n, channels, height, width = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))).reshape(n, groups, channels // groups, height + 2, width + 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (3, 4))
    kernels = weight.reshape(groups, -1, channels // groups, 3, 3)
    result: IntArray = np.einsum("ngchwij,gocij->ngohw", windows, kernels).reshape(n, -1, height, width)
    return result


def test_affine_gradients_pass_inside_and_stop_where_saturated() -> None:
    weight = torch.randn(4, 50, dtype=torch.float64, requires_grad=True)
    steps = torch.tensor([0.1, 0.2, 0.3, 0.5], dtype=torch.float64)
    gradients: tuple[Gradient, ...] = ("clipped", "identity")
    for gradient in gradients:
        (found,) = torch.autograd.grad(quantize_weight(weight, steps, 3, gradient).sum(), weight)
        inside = ((weight.detach() / steps[:, None]).abs() <= 3).double()
        torch.testing.assert_close(found, inside if gradient == "clipped" else torch.ones_like(inside))
