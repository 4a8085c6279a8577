"""The formats that suit samples, against brute force over formats."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch

from nas.affine import Affine, affine_over
from nas.errors import NasError
from nas.fixed_point import FixedPoint, quantize
from nas.genotype import FloatArray
from supernet.formats import act_affine, act_format, weight_format, weight_steps
from supernet.settings import Range

RNG = np.random.default_rng(0)


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


def held(values: FloatArray, share: float) -> tuple[float, float]:
    """The ends of what is left where the half of `1 - share` of all values goes from each end, widened to 0."""
    ranked = np.sort(values)[math.floor(len(values) * (1 - share) / 2 + 1e-9) :]
    return min(0.0, ranked[0]), max(0.0, np.sort(values)[len(ranked) - 1])


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
        ends = held(values, share)
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
    for row, step in zip(weight, chosen.tolist(), strict=True):
        if not row.any():
            continue
        frac = -math.log2(step)
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
            "percentile": [affine_over(*held(values, 0.98), bits)],
        }
        errors = [affine_error(values, option) for option in options[method]]
        fmt = act_affine([torch.from_numpy(values[:1000]), torch.from_numpy(values[1000:])], bits, method, 0.98)
        expected = options[method][errors.index(min(errors))]
        assert fmt is not None
        assert fmt.bits == bits
        if method != "mse":
            assert fmt == expected
            continue
        assert affine_error(values, fmt) <= min(errors) * (1 + 1e-6)
        ends = [i / 12 for i in range(1, 13)]
        every = [affine_over(low * one, high * other, bits) for one in ends for other in ends]
        least = min(affine_error(values, option) for option in every)
        assert affine_error(values, fmt) <= (1.05 if bits > 2 else 1.2) * least


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
    steps, powers = weight_steps(torch.from_numpy(weight), bits), weight_format(torch.from_numpy(weight), bits)
    assert steps is not None
    assert powers is not None
    top, found = 2 ** (bits - 1) - 1, np.zeros(2)

    def errors(row: FloatArray, options: FloatArray) -> FloatArray:
        scaled = np.clip(np.floor(row / options[:, None] + 0.5), -top, top) * options[:, None]
        return np.asarray(np.square(scaled - row).sum(1))

    for row, step, power in zip(weight, steps.tolist(), powers.tolist(), strict=True):
        reach = np.abs(row).max() / top
        among = errors(row, reach * np.arange(1, 65) / 64)
        assert step == pytest.approx(reach * (among.argmin() + 1) / 64, rel=1e-7)
        finer = errors(row, reach * np.linspace(0.01, 1.2, 2000)).min()
        found += errors(row, np.array([step, power])) / finer
    mine, power_of_two = found / len(weight)
    assert mine < (1.05 if bits < 8 else 1.3)  # of 40 weights in 8 bits, the errors are those of chance
    assert mine < power_of_two
