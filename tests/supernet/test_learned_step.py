"""Steps that are learned (LSQ) against the paper's equations and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nas.errors import NasError
from nas.fixed_point import FixedPoint
from nas.genotype import FloatArray
from supernet.quantize import LearnedStep, fake_quantize

RNG = np.random.default_rng(0)


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
    learned = LearnedStep(torch.tensor([0.6875], dtype=torch.float64), fmt.low, fmt.high)
    read = torch.from_numpy(values).requires_grad_()
    rounded = learned(read)
    assert torch.equal(rounded, fake_quantize(read, 0.6875, fmt.low, fmt.high))
    gradient, passed = torch.autograd.grad(rounded, [learned.step, read], torch.from_numpy(upstream))
    assert gradient.item() == pytest.approx(lsq_gradient(values, 0.6875, fmt.low, fmt.high, upstream, 20), rel=1e-12)
    inside = (values / 0.6875 >= fmt.low) & (values / 0.6875 <= fmt.high)
    np.testing.assert_allclose(passed.numpy(), upstream * inside, rtol=1e-15)


def test_each_channel_learns_a_step_of_its_own() -> None:
    weight, upstream = RNG.normal(size=(3, 2, 3, 3)), RNG.normal(size=(3, 2, 3, 3))
    steps = torch.tensor([0.109375, 0.3125, 0.90625], dtype=torch.float64)
    learned = LearnedStep(steps, -3, 3)
    (gradient,) = torch.autograd.grad(learned(torch.from_numpy(weight)), learned.step, torch.from_numpy(upstream))
    for row, slopes, step, found in zip(weight, upstream, steps.tolist(), gradient.tolist(), strict=True):
        assert found == pytest.approx(lsq_gradient(row, step, -3, 3, slopes, 18), rel=1e-12)


def test_a_learned_step_finds_the_least_error() -> None:
    """From a step four times too large; brute force over steps."""
    values = torch.randn(64, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def loss(step: float) -> float:
        return float((fake_quantize(values, step, -4, 3) - values).square().mean())

    options = np.geomspace(0.01, 4, 2000).tolist()
    learned = LearnedStep(torch.tensor([2.4], dtype=torch.float64), -4, 3)
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
    learned = LearnedStep(torch.tensor([0.5]), -4, 3)
    before = learned(values)
    with torch.no_grad():
        learned.step.neg_()
    assert torch.equal(learned(values), before)
    with pytest.raises(NasError, match="steps must be positive and high at least 1; got 0 and 3"):
        LearnedStep(torch.tensor([0.0, 1.0]), -4, 3)
    with pytest.raises(NasError, match="got 1 and 0; start from a calibrated format of at least 2 bits"):
        LearnedStep(torch.tensor([1.0]), -1, 0)
