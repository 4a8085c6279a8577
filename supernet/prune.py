"""Pruning by magnitude: masks of single weights, of N:M groups and of channels.

Every mask is of zeros and ones in the shape and type of its weight. Ties fall to the earlier weights, so masks are
nested: what a sparser one keeps, a denser one keeps too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nas.errors import NasError
from nas.network import Weighted
from nas.pruning import GROUP, parts, pattern


def layer_mask(layer: Weighted, weight: Tensor, importance: Tensor) -> Tensor:
    """Mark the weights that a layer keeps, exactly `nonzeros(layer)`, by its pattern.

    Of a layer that is pruned already, its `channel_norm` the importance, it marks all weights that are not zero:
    scaling a channel, as folding BatchNorm does, takes nothing from them.

    Args:
        layer: What to prune.
        weight: Of which single weights are pruned by magnitude, shape `layer.weight_shape`.
        importance: Of output channels, shape (out,), where whole ones are pruned.
    """
    kept, count = parts(layer)
    if kept == count:
        return torch.ones_like(weight)
    match pattern(layer):
        case "unstructured":
            return prune_mask(weight, kept)
        case "n_of_m":
            return n_of_m_mask(weight, kept, GROUP)
        case "channel":
            return channel_mask(weight, importance, kept)


def mask_bias(layer: Weighted, bias: Tensor, mask: Tensor) -> Tensor:
    """The bias of a layer with this mask, shape (out,): a channel that is pruned whole has none, so its output is 0."""
    return bias * mask.flatten(1)[:, 0] if pattern(layer) == "channel" else bias


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


def channel_norm(weight: Tensor, bias: Tensor) -> Tensor:
    """L1 norm of all that makes an output channel, shape (out,): 0 where it gives nothing (Li et al. 2017)."""
    return weight.detach().abs().flatten(1).sum(1) + bias.detach().abs()


def channel_mask(weight: Tensor, importance: Tensor, keep: int) -> Tensor:
    """Mark all weights, shape (out, ...), of the `keep` output channels of largest importance, shape (out,).

    Raises NasError unless keep is 1..out.
    """
    channels = weight.shape[0]
    if not 1 <= keep <= channels:
        raise NasError(f"channel pruning: keep must be 1..{channels}, the output channels; got {keep}, take {channels}")
    kept = prune_mask(importance, keep).to(weight.dtype)
    return kept.view(-1, *(1,) * (weight.dim() - 1)).expand_as(weight)
