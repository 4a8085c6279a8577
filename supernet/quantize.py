"""Fake quantization, its straight-through gradients, and the formats that suit what is quantized.

Forward values lie on the grid of a `nas.fixed_point.Format`, exactly where its step is a power of two. Weights have
such a step per output channel: `quantize_weight` for fixed point, `quantize_weight_by` for the free steps of
`nas.affine`. How gradients come back is a choice:

- `clipped`: they pass where nothing saturates. Yin et al., "Understanding straight-through estimator in training
  activation quantized neural nets" (2019): the coarse gradient of a clipped ReLU descends where the identity may not.
- `identity`: they pass everywhere (Bengio et al. 2013).
- A `LearnedStep` passes them as `clipped` does and learns its step as well: LSQ, Esser et al. (2020).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from nas.affine import Affine, affine_over, symmetric_top
from nas.errors import NasError
from nas.fixed_point import FixedPoint, Format
from nas.network import FLOAT_BITS
from supernet.settings import Gradient

Range = Literal["minmax", "mse", "percentile"]
"""What activations a format is to hold: all, as many as give the least squared error, or all but the largest."""

PERCENTILE = 0.999
"""The share of activations that the range `percentile` holds; what is left out is halved between both ends."""

_CANDIDATES = 3
_PARTS = tuple(part / 64 for part in range(1, 65))
_SAMPLE = 8192
_LEAST, _MOST = 2.0**-20, 2.0**20


def round_half_up(values: Tensor) -> Tensor:
    """floor(x + 1/2), as the hardware rounds; the gradient is the identity."""
    return values + (torch.floor(values + 0.5) - values).detach()


def fake_quantize(values: Tensor, step: Tensor | float, low: int, high: int, gradient: Gradient = "clipped") -> Tensor:
    """The nearest of n * step, low <= n <= high, half up; `step` broadcasts against `values`, of any shape.

    Where a step wants a gradient, `clipped` gives it that of LSQ (eq. 3): round(v / step) - v / step inside, `low` or
    `high` outside.
    """
    rounded = round_half_up(torch.clamp(values / step, low, high)) * step
    return rounded if gradient == "clipped" else values - values.detach() + rounded.detach()


def quantize_act(values: Tensor, fmt: Format | None, gradient: Gradient = "clipped") -> Tensor:
    """Round activations to a format; any shape. None leaves them alone."""
    return values if fmt is None else fake_quantize(values, fmt.step, fmt.low, fmt.high, gradient)


def quantize_weight(weight: Tensor, frac_bits: Tensor | None, bits: int, gradient: Gradient = "clipped") -> Tensor:
    """Round weights of shape (out, ...) to `bits`-bit symmetric integers times 2**-frac_bits, frac_bits (out,)."""
    if frac_bits is None:
        return weight
    return quantize_weight_by(weight, torch.exp2(-frac_bits.to(weight.dtype)), bits, gradient)


def quantize_weight_by(weight: Tensor, steps: Tensor, bits: int, gradient: Gradient = "clipped") -> Tensor:
    """Round weights of shape (out, ...) to `bits`-bit symmetric integers times steps of shape (out,)."""
    top = symmetric_top(bits)
    return fake_quantize(weight, _per_channel(steps, weight), -top, top, gradient)


def quantize_bias(bias: Tensor, frac_bits: Tensor | None, act: FixedPoint | None) -> Tensor:
    """Round a bias of shape (out,) to the grid of its channel's products, so that accumulators are exact."""
    if frac_bits is None or act is None:
        return bias
    return quantize_bias_by(bias, torch.exp2(-(frac_bits + act.frac_bits).to(bias.dtype)))


def quantize_bias_by(bias: Tensor, steps: Tensor) -> Tensor:
    """Round a bias of shape (out,) to the steps of its channels' products, shape (out,): weight step * input step."""
    return round_half_up(bias / steps) * steps


class LearnedStep(nn.Module):
    """A quantizer that learns its step: Esser et al., "Learned step size quantization" (2020).

    The step's gradient (eq. 3) is scaled by 1 / sqrt(count * high), where `count` values share the step (section 2.2).
    Fixed point uses the power of two nearest to the learned step in the logarithm, straight through.
    """

    def __init__(self, step: Tensor, low: int, high: int, power_of_two: bool) -> None:
        """Start to learn.

        Args:
            step: Where to start, such as a calibrated format's: shape (1,) for activations, (out,) for weights.
            low: The least integer.
            high: The largest integer, at least 1.
            power_of_two: Whether the step in use is a power of two; free otherwise.

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
        self.low, self.high, self.power_of_two = low, high, power_of_two

    def used(self) -> Tensor:
        """The step in use, without a gradient, in the shape of `step`."""
        step = self._positive().detach()
        return torch.exp2(torch.floor(torch.log2(step) + 0.5)) if self.power_of_two else step

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


@torch.no_grad()
def act_format(
    inputs: Sequence[Tensor], bits: int, method: Range = "mse", share: float = PERCENTILE
) -> FixedPoint | None:
    """The fixed-point format of `bits` bits that suits all inputs of a layer; signed if any that it holds is negative.

    Args:
        inputs: Samples of what the layer reads, of any shapes.
        bits: The bits, the sign included; `FLOAT_BITS` gives None.
        method: The finest format that holds the whole range (`minmax`), or its `percentile`, and saturates nothing of
            it; or that of the least squared error (`mse`).
        share: Of the values, in (0, 1], that `percentile` holds.
    """
    if bits == FLOAT_BITS:
        return None
    flat = torch.cat([values.detach().flatten() for values in inputs])
    low, high = _held(flat, method, share)
    signed = low < 0
    if method != "mse":
        whole = FixedPoint(signed, bits, 0)
        return FixedPoint(signed, bits, -_ceil_log2(max(low / whole.low if signed else 0.0, high / whole.high)))
    frac, sample = bits - signed - _ceil_log2(max(-low, high)), _sample(flat)
    formats = [FixedPoint(signed, bits, frac + more) for more in range(_CANDIDATES)]
    errors = [float((quantize_act(sample, fmt) - sample).square().sum()) for fmt in formats]
    return formats[errors.index(min(errors))]


@torch.no_grad()
def weight_format(weight: Tensor, bits: int) -> Tensor | None:
    """Fraction bits of each output channel, shape (out,), with the least squared error."""
    if bits == FLOAT_BITS:
        return None
    top, reach = symmetric_top(bits), _reach(weight)
    least = torch.floor(torch.log2(top / reach)).to(torch.int64)
    options = torch.stack([least + more for more in range(_CANDIDATES)])
    errors = torch.stack(
        [(quantize_weight(weight, frac, bits) - weight).square().flatten(1).sum(1) for frac in options]
    )
    best: Tensor = options.gather(0, errors.argmin(0, keepdim=True))[0]
    return best


@torch.no_grad()
def act_affine(inputs: Sequence[Tensor], bits: int, method: Range = "mse", share: float = PERCENTILE) -> Affine | None:
    """The affine format of `bits` bits that suits all inputs of a layer, arguments as of `act_format`.

    `mse` chooses among ranges that are 1/64, 2/64, ... of the whole one.
    """
    if bits == FLOAT_BITS:
        return None
    flat = torch.cat([values.detach().flatten() for values in inputs])
    low, high = (min(_MOST, max(-_MOST, end)) for end in _held(flat, method, share))
    if method != "mse":
        return affine_over(low, high, bits)
    sample, formats = _sample(flat), [affine_over(low * part, high * part, bits) for part in _PARTS]
    errors = [float((quantize_act(sample, fmt) - sample).square().sum()) for fmt in formats]
    return formats[errors.index(min(errors))]


@torch.no_grad()
def weight_steps(weight: Tensor, bits: int) -> Tensor | None:
    """Free steps of each output channel, shape (out,), with the least squared error among 64 of each."""
    if bits == FLOAT_BITS:
        return None
    options = torch.stack([_reach(weight) * part / symmetric_top(bits) for part in _PARTS])
    errors = torch.stack(
        [(quantize_weight_by(weight, steps, bits) - weight).square().flatten(1).sum(1) for steps in options]
    )
    best: Tensor = options.gather(0, errors.argmin(0, keepdim=True))[0]
    return best


def _reach(weight: Tensor) -> Tensor:
    return weight.detach().flatten(1).abs().amax(1).clamp(_LEAST, _MOST)


def _held(flat: Tensor, method: Range, share: float) -> tuple[float, float]:
    """The range that a format is to hold, or to choose within, widened to 0."""
    if method != "percentile":
        low, high = (float(end) for end in torch.aminmax(flat))
    else:
        if not 0 < share <= 1:
            raise NasError(f"percentile: share must lie in (0, 1]; got {share:g}, take {PERCENTILE}")
        ends = torch.tensor([(1 - share) / 2, (1 + share) / 2], dtype=flat.dtype, device=flat.device)
        low, high = torch.quantile(_sample(flat), ends).tolist()
    return min(0.0, low), max(0.0, high)


def _ceil_log2(value: float) -> int:
    """Bounded, so that every tensor has a format: NaN, which compares as false, counts as the least."""
    return math.ceil(math.log2(min(_MOST, max(_LEAST, value))))


def _sample(flat: Tensor) -> Tensor:
    return flat[:: len(flat) // _SAMPLE | 1]  # an even step would see only some columns of the images


def _per_channel(values: Tensor, weight: Tensor) -> Tensor:
    return values.view(-1, *(1,) * (weight.dim() - 1))
