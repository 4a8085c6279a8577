"""Fake quantization against the integers of `nas.fixed_point` and against exact arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nas.affine import Affine, affine_over, multipliers, rescale, weight_integers
from nas.errors import NasError
from nas.fixed_point import FixedPoint, quantize
from nas.genotype import FloatArray, IntArray
from supernet.quantize import (
    Gradient,
    LearnedStep,
    Range,
    act_affine,
    act_format,
    fake_quantize,
    quantize_act,
    quantize_bias,
    quantize_bias_by,
    quantize_weight,
    quantize_weight_by,
    weight_format,
    weight_steps,
)

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


@pytest.mark.parametrize("fmt", FORMATS)
def test_the_identity_changes_gradients_alone(fmt: FixedPoint) -> None:
    for dtype in (torch.float32, torch.float64):
        values = torch.from_numpy(spread(fmt)).to(dtype).requires_grad_()
        upstream = torch.from_numpy(RNG.normal(size=len(values))).to(dtype)
        rounded = quantize_act(values, fmt, "identity")
        assert torch.equal(rounded, quantize_act(values, fmt))
        (gradient,) = torch.autograd.grad(rounded, values, upstream)
        assert torch.equal(gradient, upstream)
    weight, frac = torch.randn(4, 50, requires_grad=True), torch.tensor([0, 1, 2, 3])
    rounded = quantize_weight(weight, frac, 3, "identity")
    assert torch.equal(rounded, quantize_weight(weight, frac, 3))
    (gradient,) = torch.autograd.grad(rounded.sum(), weight)
    assert torch.equal(gradient, torch.ones_like(gradient))


def lsq_gradient(values: FloatArray, step: float, low: int, high: int, upstream: FloatArray, count: int) -> float:
    """Esser et al. (2020), eq. 3 and section 2.2, written out."""
    total = 0.0
    for value, weight in zip((values / step).ravel(), upstream.ravel(), strict=True):
        inside = math.floor(value + 0.5) - value
        total += weight * (low if value <= low else high if value >= high else inside)
    return total / math.sqrt(count * high)


@pytest.mark.parametrize(("bits", "signed"), [(2, True), (3, False), (4, True), (8, False)])
def test_a_learned_step_has_the_gradient_of_the_paper(bits: int, signed: bool) -> None:
    fmt = FixedPoint(signed, bits, 0)
    values, upstream = RNG.normal(size=(6, 5, 4)) * fmt.high, RNG.normal(size=(6, 5, 4))
    learned = LearnedStep(torch.tensor([0.7], dtype=torch.float64), fmt.low, fmt.high, power_of_two=False)
    read = torch.from_numpy(values).requires_grad_()
    rounded = learned(read)
    assert torch.equal(rounded, fake_quantize(read, 0.7, fmt.low, fmt.high))
    gradient, passed = torch.autograd.grad(rounded, [learned.step, read], torch.from_numpy(upstream))
    assert gradient.item() == pytest.approx(lsq_gradient(values, 0.7, fmt.low, fmt.high, upstream, 20), rel=1e-12)
    inside = (values / 0.7 >= fmt.low) & (values / 0.7 <= fmt.high)
    np.testing.assert_allclose(passed.numpy(), upstream * inside, rtol=1e-15)


def test_each_channel_learns_a_step_of_its_own() -> None:
    weight, upstream = RNG.normal(size=(3, 2, 3, 3)), RNG.normal(size=(3, 2, 3, 3))
    steps = torch.tensor([0.1, 0.3, 0.9], dtype=torch.float64)
    learned = LearnedStep(steps, -3, 3, power_of_two=False)
    (gradient,) = torch.autograd.grad(learned(torch.from_numpy(weight)), learned.step, torch.from_numpy(upstream))
    for row, slopes, step, found in zip(weight, upstream, steps.tolist(), gradient.tolist(), strict=True):
        assert found == pytest.approx(lsq_gradient(row, step, -3, 3, slopes, 18), rel=1e-12)


def test_a_learned_power_of_two_is_the_nearest_and_learns_as_the_free_step_does_there() -> None:
    steps = torch.tensor([0.18, 0.7, 0.72, 1.0, 5.6], dtype=torch.float64)
    learned = LearnedStep(steps, -3, 3, power_of_two=True)
    assert learned.used().tolist() == [0.125 * 2 ** (0.18 > 2**-2.5), 0.5, 1.0, 1.0, 4.0]
    weight = torch.randn(5, 40, dtype=torch.float64)
    frac = -torch.log2(learned.used()).to(torch.int64)
    assert torch.equal(learned(weight), quantize_weight(weight, frac, 3))
    free = LearnedStep(learned.used(), -3, 3, power_of_two=False)
    slopes = [torch.autograd.grad(one(weight).square().sum(), one.step)[0] for one in (learned, free)]
    assert torch.equal(*slopes)


@pytest.mark.parametrize("power_of_two", [True, False])
def test_a_learned_step_finds_the_least_error(power_of_two: bool) -> None:
    """From a step four times too large; brute force over steps, or over powers of two."""
    values = torch.randn(64, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def loss(step: float) -> float:
        return float((fake_quantize(values, step, -4, 3) - values).square().mean())

    options = [2.0**-k for k in range(8)] if power_of_two else np.geomspace(0.01, 4, 2000).tolist()
    learned = LearnedStep(torch.tensor([2.4], dtype=torch.float64), -4, 3, power_of_two)
    optimizer = torch.optim.Adam(learned.parameters(), 0.05)
    seen = []
    for _ in range(150):
        optimizer.zero_grad()
        torch.autograd.backward((learned(values) - values).square().mean())
        optimizer.step()
        seen.append(float(learned.used()))
    assert min(map(loss, seen[-50:])) <= 1.001 * min(map(loss, options))


def test_steps_below_zero_work_as_their_mirror_image_and_others_are_refused() -> None:
    values = torch.randn(8, 9)
    learned = LearnedStep(torch.tensor([0.5]), -4, 3, power_of_two=True)
    before = learned(values)
    with torch.no_grad():
        learned.step.neg_()
    assert torch.equal(learned(values), before)
    with pytest.raises(NasError, match="steps must be positive and high at least 1; got 0 and 3"):
        LearnedStep(torch.tensor([0.0, 1.0]), -4, 3, power_of_two=False)
    with pytest.raises(NasError, match="got 1 and 0; start from a calibrated format of at least 2 bits"):
        LearnedStep(torch.tensor([1.0]), -1, 0, power_of_two=False)


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


def holds(fmt: FixedPoint, low: float, high: float) -> bool:
    """Whether the range lies on or between the ends of the format, in exact arithmetic."""
    step = Fraction(2) ** -fmt.frac_bits
    return fmt.low * step <= Fraction(low) and Fraction(high) <= fmt.high * step


def finest(low: float, high: float, bits: int) -> FixedPoint:
    formats = [FixedPoint(low < 0, bits, frac) for frac in range(-16, 24)]
    return max((fmt for fmt in formats if holds(fmt, low, high)), key=lambda fmt: fmt.frac_bits)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("positive", [True, False])
def test_the_whole_range_is_held_as_finely_as_can_be(bits: int, positive: bool) -> None:
    cases = [RNG.standard_t(2, 1000) * scale for scale in (1e-3, 0.7, 40.0)]
    cases += [np.array([-3.0, 1.0]), np.array([-4.0, 3.0]), np.array([-4.0, 3.1]), np.array([0.875, 7.0]), np.ones(1)]
    for case in cases:
        values = np.abs(case) if positive else case
        fmt = act_format([torch.from_numpy(values)], bits, "minmax")
        assert fmt == finest(min(0.0, values.min()), values.max(), bits)
        assert np.abs(quantize(values, fmt) * fmt.step - values).max() <= fmt.step / 2


@pytest.mark.parametrize("share", [0.9, 0.999, 1.0])
@pytest.mark.parametrize("positive", [True, False])
def test_a_percentile_is_held_as_finely_as_can_be(share: float, positive: bool) -> None:
    for scale in (1e-3, 0.7, 40.0):
        values = RNG.standard_t(2, 8000) * scale
        values = np.abs(values) if positive else values
        ends = np.quantile(values, [(1 - share) / 2, (1 + share) / 2])
        for bits in (3, 8):
            fmt = act_format([torch.from_numpy(values)], bits, "percentile", share)
            assert fmt == finest(min(0.0, ends[0]), ends[1], bits)
            saturated = (values < fmt.low * fmt.step) | (values > fmt.high * fmt.step)
            assert saturated.mean() <= 1 - share + 1e-9
    whole = act_format([torch.from_numpy(values)], 4, "percentile", 1.0)
    assert whole == act_format([torch.from_numpy(values)], 4, "minmax")
    with pytest.raises(NasError, match=r"share must lie in \(0, 1\]; got 0, take 0.999"):
        act_format([torch.from_numpy(values)], 4, "percentile", 0.0)


@pytest.mark.parametrize("method", ["minmax", "mse", "percentile"])
@pytest.mark.parametrize("values", [[0.0, 0.0], [float("inf"), 1.0], [float("nan"), 1.0], [1e-30], [1e30]])
def test_every_tensor_has_a_format(values: list[float], method: Range) -> None:
    fmt = act_format([torch.tensor(values)], 8, method)
    assert fmt is not None
    assert -20 <= fmt.frac_bits - 8 * (method == "mse") <= 22
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


@pytest.mark.parametrize("method", ["minmax", "mse", "percentile"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_affine_ranges_against_brute_force(bits: int, method: Range) -> None:
    for shift, scale in ((0.0, 1e-3), (0.7, 3.0), (-9.0, 2.0), (5.0, 1.0)):
        values = RNG.standard_t(3, 6000) * scale + shift * scale
        low, high = min(0.0, values.min()), max(0.0, values.max())
        options = {
            "minmax": [affine_over(low, high, bits)],
            "mse": [affine_over(low * part / 64, high * part / 64, bits) for part in range(1, 65)],
            "percentile": [affine_over(min(0.0, np.quantile(values, 0.01)), max(0.0, np.quantile(values, 0.99)), bits)],
        }
        errors = [affine_error(values, option) for option in options[method]]
        fmt = act_affine([torch.from_numpy(values[:1000]), torch.from_numpy(values[1000:])], bits, method, 0.98)
        expected = options[method][errors.index(min(errors))]
        assert fmt is not None
        assert (fmt.bits, fmt.low) == (bits, expected.low)
        assert fmt.step == pytest.approx(expected.step, rel=1e-12)
        if method == "mse":  # against both ends moved independently, which is another, larger set of ranges
            ends = [i / 12 for i in range(1, 13)]
            every = [affine_over(low * one, high * other, bits) for one in ends for other in ends]
            assert min(errors) <= 1.25 * min(affine_error(values, option) for option in every)


def affine_error(values: FloatArray, fmt: Affine) -> float:
    return float(np.square(quantize(values, fmt) * fmt.step - values).sum())


@pytest.mark.parametrize("values", [[0.0, 0.0], [float("inf"), 1.0], [float("nan"), 1.0], [1e-30], [-1e30]])
def test_every_tensor_has_an_affine_format(values: list[float]) -> None:
    for method in ("minmax", "mse", "percentile"):
        assert act_affine([torch.tensor(values)], 8, method) is not None
    assert weight_steps(torch.tensor([values]), 8) is not None
    assert act_affine([torch.tensor(values)], 32) is None
    assert weight_steps(torch.tensor([values]), 32) is None


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_weight_steps_have_the_least_squared_error(bits: int) -> None:
    weight = np.concatenate([RNG.normal(size=(20, 40)), RNG.standard_t(2, (20, 40)), RNG.random((20, 40))])
    weight *= 2.0 ** RNG.uniform(-8, 8, (60, 1))
    steps, fracs = weight_steps(torch.from_numpy(weight), bits), weight_format(torch.from_numpy(weight), bits)
    assert steps is not None
    assert fracs is not None
    top, found = 2 ** (bits - 1) - 1, np.zeros(2)

    def errors(row: FloatArray, options: FloatArray) -> FloatArray:
        scaled = np.clip(np.floor(row / options[:, None] + 0.5), -top, top) * options[:, None]
        return np.asarray(np.square(scaled - row).sum(1))

    for row, step, frac in zip(weight, steps.tolist(), fracs.tolist(), strict=True):
        reach = np.abs(row).max() / top
        among = errors(row, reach * np.arange(1, 65) / 64)
        assert step == pytest.approx(reach * (among.argmin() + 1) / 64, rel=1e-12)
        finer = errors(row, reach * np.linspace(0.01, 1.2, 2000)).min()
        found += errors(row, np.array([step, 2.0**-frac])) / finer
    mine, power_of_two = found / len(weight)
    assert mine < (1.05 if bits < 8 else 1.3)  # of 40 weights in 8 bits, the errors are those of chance
    assert mine < power_of_two


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
    rounded = quantize_weight_by(weight, steps, bits), quantize_bias_by(bias, products)
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
        (found,) = torch.autograd.grad(quantize_weight_by(weight, steps, 3, gradient).sum(), weight)
        inside = ((weight.detach() / steps[:, None]).abs() <= 3).double()
        torch.testing.assert_close(found, inside if gradient == "clipped" else torch.ones_like(inside))
