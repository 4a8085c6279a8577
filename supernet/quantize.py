"""Fake quantization to power-of-two fixed point, with straight-through gradients.

Forward values lie exactly on the grid of `nas.fixed_point`; gradients pass where nothing saturates
(the clipped straight-through estimator of coarse-gradient training).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nas.fixed_point import FixedPoint
from nas.network import FLOAT_BITS

_CANDIDATES = 3
_SAMPLE = 8192
_LEAST, _MOST = 2.0**-20, 2.0**20


def round_half_up(values: Tensor) -> Tensor:
    """floor(x + 1/2), as the hardware rounds; the gradient is the identity."""
    return values + (torch.floor(values + 0.5) - values).detach()


def quantize_act(values: Tensor, fmt: FixedPoint | None) -> Tensor:
    """Round activations to a format; any shape. None leaves them alone."""
    if fmt is None:
        return values
    return round_half_up(torch.clamp(values / fmt.step, fmt.low, fmt.high)) * fmt.step


def quantize_weight(weight: Tensor, frac_bits: Tensor | None, bits: int) -> Tensor:
    """Round weights of shape (out, ...) to `bits`-bit symmetric integers times 2**-frac_bits, frac_bits (out,)."""
    if frac_bits is None:
        return weight
    scale, top = _per_channel(torch.exp2(frac_bits.to(weight.dtype)), weight), 2 ** (bits - 1) - 1
    return round_half_up(torch.clamp(weight * scale, -top, top)) / scale


def quantize_bias(bias: Tensor, frac_bits: Tensor | None, act: FixedPoint | None) -> Tensor:
    """Round a bias of shape (out,) to the grid of its channel's products, so that accumulators are exact."""
    if frac_bits is None or act is None:
        return bias
    scale = torch.exp2((frac_bits + act.frac_bits).to(bias.dtype))
    return round_half_up(bias * scale) / scale


@torch.no_grad()
def act_format(inputs: Sequence[Tensor], bits: int) -> FixedPoint | None:
    """The format of `bits` bits with the least squared error on all inputs of a layer; signed if any is negative."""
    if bits == FLOAT_BITS:
        return None
    flat = torch.cat([values.detach().flatten() for values in inputs])
    low, high = (float(v) for v in torch.aminmax(flat))
    signed = low < 0
    reach = min(_MOST, max(_LEAST, -low, high))  # in this order NaN falls out, for the loss to report
    frac = bits - signed - math.ceil(math.log2(reach))
    sample = flat[:: len(flat) // _SAMPLE | 1]  # an even step would see only some columns of the images
    formats = [FixedPoint(signed, bits, frac + more) for more in range(_CANDIDATES)]
    errors = [float((quantize_act(sample, fmt) - sample).square().sum()) for fmt in formats]
    return formats[errors.index(min(errors))]


@torch.no_grad()
def weight_format(weight: Tensor, bits: int) -> Tensor | None:
    """Fraction bits of each output channel, shape (out,), with the least squared error."""
    if bits == FLOAT_BITS:
        return None
    top = 2 ** (bits - 1) - 1
    reach = weight.detach().flatten(1).abs().amax(1).clamp(_LEAST, _MOST)
    least = torch.floor(torch.log2(top / reach)).to(torch.int64)
    options = torch.stack([least + more for more in range(_CANDIDATES)])
    errors = torch.stack(
        [(quantize_weight(weight, frac, bits) - weight).square().flatten(1).sum(1) for frac in options]
    )
    best: Tensor = options.gather(0, errors.argmin(0, keepdim=True))[0]
    return best


def _per_channel(values: Tensor, weight: Tensor) -> Tensor:
    return values.view(-1, *(1,) * (weight.dim() - 1))
