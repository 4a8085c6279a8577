"""Batch normalisation (Ioffe & Szegedy 2015): by the batch at hand, by that of all processes, or by given statistics.

Nothing here keeps running statistics. Variances are those of the population: the mean squared deviation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-5

Moments = tuple[Tensor, Tensor]
"""Mean and variance of each channel, both of shape (channels,)."""

Statistics = Mapping[str, Moments]
"""By the name of each layer with BatchNorm, the moments it normalises by."""


def normalise(y: Tensor, gain: Tensor, bias: Tensor, given: Moments | None, synchronised: bool) -> Tensor:
    """BatchNorm of y, shape (n, channels, ...).

    Args:
        y: What to normalise.
        gain: What each normalised channel is multiplied by, shape (channels,).
        bias: What is added to it then, shape (channels,).
        given: Moments to normalise by; None for those of the batch.
        synchronised: Whether the batch is that of all processes.
    """
    if given is not None:
        return F.batch_norm(y, *given, gain, bias, False, 0.0, EPS)
    if not (synchronised and _several_processes()):
        return F.batch_norm(y, None, None, gain, bias, True, 0.0, EPS)
    wide = y.to(gain.dtype)  # under autocast, y is narrower
    mean, variance = moments(wide, synchronised)
    scale = gain * torch.rsqrt(variance + EPS)
    return torch.addcmul(_along(bias - mean * scale, y), wide, _along(scale, y)).to(y.dtype)


def measure(y: Tensor, gain: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Moments]:
    """BatchNorm of y by its own moments, and these; they carry no gradient."""
    dtype = torch.promote_types(y.dtype, torch.float32)
    mean, variance = torch.zeros((2, y.shape[1]), dtype=dtype, device=y.device)
    count = y.numel() // len(mean)
    output = F.batch_norm(y, mean, variance, gain, bias, True, 1.0, EPS)  # eight times as fast as torch.var_mean
    return output, (mean, variance * ((count - 1) / count))


def moments(y: Tensor, synchronised: bool) -> Moments:
    """Mean and variance of each channel of y, shape (n, channels, ...), over the batch or that of all processes."""
    found: Moments = _Moments.apply(y, synchronised and _several_processes())  # type: ignore[no-untyped-call]
    return found


def fold(weight: Tensor, gain: Tensor, bias: Tensor, by: Moments) -> tuple[Tensor, Tensor]:
    """Weight, shape (channels, ...), and bias of a product with BatchNorm folded in (Jacob et al. 2018, 3.2)."""
    mean, variance = by
    scale = gain * torch.rsqrt(variance + EPS)
    return weight * scale.view(-1, *(1,) * (weight.dim() - 1)), bias - mean * scale


class _Moments(torch.autograd.Function):
    """Mean and variance; `everywhere`, those of the batches of all processes, which may differ in size.

    The gradient is then that of the sum of all processes' losses, so that the mean of the parameters' gradients
    over processes is that of the mean loss.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, everywhere: bool) -> Moments:
        mean, variance = measure(y, None, None)[1]
        count = torch.full_like(mean[:1], y.numel() // len(mean))
        if everywhere:
            rows = _gather(torch.cat([count, mean, variance]))
            counts, means, variances = torch.split(rows, [1, len(mean), len(mean)], 1)
            count = counts.sum(0)
            mean = (counts / count * means).sum(0)
            variance = (counts / count * (variances + (means - mean).square())).sum(0)
        ctx.save_for_backward(y, mean, count)
        ctx.everywhere = everywhere
        return mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        y, mean, count = ctx.saved_tensors
        both = torch.stack(gradients)
        if ctx.everywhere:
            dist.all_reduce(both)
        by_mean, by_variance = both / count
        slope = 2 * by_variance
        return torch.addcmul(_along(by_mean - slope * mean, y), y, _along(slope, y)), None


def _gather(row: Tensor) -> Tensor:
    """The rows of all processes, shape (processes, len(row))."""
    rows = [torch.empty_like(row) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, row)
    return torch.stack(rows)


def _several_processes() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _along(per_channel: Tensor, y: Tensor) -> Tensor:
    return per_channel.view(1, -1, *(1,) * (y.dim() - 2))
