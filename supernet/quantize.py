"""Fake quantization and its straight-through gradients.

Forward values lie on the grid of a `nas.fixed_point.Format`, exactly where its step is a power of two; weights have
such a step per output channel. How gradients come back is a choice:

- `clipped`: they pass where nothing saturates. Yin et al., "Understanding straight-through estimator in training
  activation quantized neural nets" (2019): the coarse gradient of a clipped ReLU descends where the identity may not.
- `identity`: they pass everywhere (Bengio et al. 2013).
- A `LearnedStep` passes them as `clipped` does and learns its step as well: LSQ, Esser et al. (2020).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from nas.affine import symmetric_top
from nas.errors import NasError
from nas.fixed_point import Format
from supernet.settings import Gradient

_LEAST = 2.0**-20


def round_half_up(values: Tensor) -> Tensor:
    """floor(x + 1/2), as the hardware rounds; the gradient is the identity."""
    rounded: Tensor = _RoundHalfUp.apply(values)  # type: ignore[no-untyped-call]
    return rounded


def fake_quantize(values: Tensor, step: Tensor | float, low: int, high: int, gradient: Gradient = "clipped") -> Tensor:
    """The nearest of n * step, low <= n <= high, half up; `step` broadcasts against `values`, of any shape.

    Where a step wants a gradient, `clipped` gives it that of LSQ (eq. 3): round(v / step) - v / step inside, `low` or
    `high` outside.
    """
    rounded = round_half_up(torch.clamp(values / step, low, high)) * step
    return rounded if gradient == "clipped" else values - values.detach() + rounded.detach()


def quantize_act(values: Tensor, fmt: Format | LearnedStep | None, gradient: Gradient = "clipped") -> Tensor:
    """Round activations to a format; any shape. None leaves them alone; a learned step has a gradient of its own."""
    if isinstance(fmt, LearnedStep):
        learned: Tensor = fmt(values)
        return learned
    return values if fmt is None else fake_quantize(values, fmt.step, fmt.low, fmt.high, gradient)


def quantize_weight(weight: Tensor, steps: Tensor | None, bits: int, gradient: Gradient = "clipped") -> Tensor:
    """Round weights of shape (out, ...) to `bits`-bit symmetric integers times steps of shape (out,)."""
    if steps is None:
        return weight
    top = symmetric_top(bits)
    return fake_quantize(weight, _per_channel(steps, weight), -top, top, gradient)


def quantize_bias(bias: Tensor, steps: Tensor | None, act: Format | LearnedStep | None) -> Tensor:
    """Round a bias of shape (out,) to the steps of its channels' products, so that accumulators are exact.

    Args:
        bias: What to round.
        steps: Of the weights, shape (out,); None for float.
        act: The format in which the layer reads.
    """
    if steps is None or act is None:
        return bias
    step = act.used() if isinstance(act, LearnedStep) else act.step
    products = steps * step
    return round_half_up(bias / products) * products


class _RoundHalfUp(torch.autograd.Function):
    """One node in place of the sum with a detached difference, which reads and writes memory twice as often."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return (values + 0.5).floor_()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class LearnedStep(nn.Module):
    """A quantizer that learns its step: Esser et al., "Learned step size quantization" (2020).

    The step's gradient (eq. 3) is scaled by 1 / sqrt(count * high), where `count` values share the step (section 2.2).
    Steps are free: powers of two nearest to learned steps gained nothing over those that stay (digits, 2 to 4 bits).
    """

    def __init__(self, step: Tensor, low: int, high: int) -> None:
        """Start to learn.

        Args:
            step: Where to start, such as a calibrated format's: shape (1,) for activations, (out,) for weights.
            low: The least integer.
            high: The largest integer, at least 1.

        Raises:
            NasError: A step is not positive, or there is no integer above 0.
        """
        super().__init__()
        if not bool((step > 0).all()) or high < 1:
            raise NasError(
                f"learned step: steps must be positive and high at least 1; got {float(step.min()):g} and {high}; "
                "start from a calibrated format of at least 2 bits"
            )
        self.step = nn.Parameter(step.detach().clone())
        self.low, self.high = low, high

    def used(self) -> Tensor:
        """The step in use, without a gradient, of single precision, in the shape of `step`."""
        return self._positive().detach().float().to(self.step.dtype)

    def forward(self, values: Tensor) -> Tensor:
        """Quantize activations of shape (n, ...) by one step, or weights of shape (out, ...) by (out,) of them.

        Either way, the size of `values[0]` is the count of values that share a step: of one image, as in the paper.
        """
        share = 1 / math.sqrt(values[0].numel() * self.high)
        step = self._positive()
        step = self.used() + share * (step - step.detach())
        return fake_quantize(values, _per_channel(step, values), self.low, self.high)

    def _positive(self) -> Tensor:
        """A step that a long stride of the optimizer took below zero works on, and comes back, as its mirror image."""
        return self.step.abs().clamp_min(_LEAST)


def _per_channel(values: Tensor, weight: Tensor) -> Tensor:
    return values.view(-1, *(1,) * (weight.dim() - 1))
