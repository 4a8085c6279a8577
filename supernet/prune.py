"""Pruning by magnitude: masks of single weights, of N:M groups and of channels, and the schedule of a rising sparsity.

Every mask is of zeros and ones in the shape and type of its weight. Ties fall to the earlier weights, so masks are
nested: what a sparser one keeps, a denser one keeps too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nas.errors import NasError


def cubic_sparsity(step: int, start: int, every: int, count: int, initial: float, final: float) -> float:
    """The sparsity of one training step: Zhu & Gupta, "To prune, or not to prune" (2017), eq. 1.

    s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))^3 with t_0 = `start`, dt = `every` steps and n = `count`.
    It is `initial` before, changes once every `every` steps and is `final` from start + count * every on.
    Raises NasError unless every >= 1, count >= 1 and 0 <= initial <= final < 1.
    """
    for name, value in (("every", every), ("count", count)):
        if value < 1:
            raise NasError(f"pruning schedule: {name} must be at least 1; got {value}, take 1 or more")
    if not 0 <= initial <= final < 1:
        raise NasError(
            f"pruning schedule: sparsities must satisfy 0 <= initial <= final < 1; "
            f"got initial {initial:g}, final {final:g}; raise it from a smaller one to a larger one below 1"
        )
    changes = min((step - start) // every, count)
    return initial if changes <= 0 else final + (initial - final) * (1 - changes / count) ** 3


def prune_mask(weight: Tensor, keep: int) -> Tensor:
    """Mark the `keep` weights of largest magnitude, exactly; any shape."""
    mask = torch.zeros(weight.numel(), dtype=weight.dtype, device=weight.device)
    order = torch.argsort(weight.detach().abs().flatten(), descending=True, stable=True)
    mask[order[:keep]] = 1
    return mask.view_as(weight)


def n_of_m_mask(weight: Tensor, n: int, m: int) -> Tensor:
    """Mark the `n` largest magnitudes of each group of `m` consecutive inputs of an output channel.

    `weight` has shape (out, inputs, ...); the inputs are grouped at each kernel position by itself, which is the
    pattern that sparse matrix units skip. Raises NasError unless 1 <= n <= m and m divides the inputs.
    """
    if not 1 <= n <= m:
        raise NasError(f"{n}:{m} pruning: n must be 1..m; got n {n}, m {m}; take 2:4")
    inputs = weight.shape[1]
    if inputs % m:
        raise NasError(
            f"{n}:{m} pruning: the inputs must be a multiple of {m}; got {inputs} in a weight of shape "
            f"{tuple(weight.shape)}; take {inputs + -inputs % m} inputs, or leave this layer unstructured"
        )
    groups = weight.detach().abs().reshape(len(weight), inputs // m, m, *weight.shape[2:])
    best = groups.argsort(dim=2, descending=True, stable=True).narrow(2, 0, n)
    return torch.zeros_like(groups).scatter_(2, best, 1).flatten(1, 2)


def channel_mask(weight: Tensor, keep: int) -> Tensor:
    """Mark all weights of the `keep` output channels of largest L1 norm; `weight` has shape (out, ...).

    Raises NasError unless keep is 1..out.
    """
    channels = weight.shape[0]
    if not 1 <= keep <= channels:
        raise NasError(f"channel pruning: keep must be 1..{channels}, the output channels; got {keep}, take {channels}")
    kept = prune_mask(weight.detach().abs().flatten(1).sum(1), keep)
    return kept.view(-1, *(1,) * (weight.dim() - 1)).expand_as(weight)
