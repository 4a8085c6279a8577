"""Sort channels by importance, so that a narrower layer keeps the channels that matter (Once-for-All, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nas.network import Add, Conv2d, Input, Layer, Linear, Mean, Network, PairSum, Pool, RowMean, Scale
from supernet.elastic import Supernet


@dataclass(frozen=True)
class Group:
    """Tensors whose channels are tied, by the layers that hold weights for them.

    Attributes:
        producers: Layers that have these channels as outputs.
        readers: Dense layers that read them; beside a skip connection, a layer does both.
    """

    producers: tuple[str, ...]
    readers: tuple[str, ...]


@torch.no_grad()
def sort_channels(supernet: Supernet, maximal: Sequence[Network]) -> None:
    """Reorder channels by the L1 norm of the weights that read them; networks of full width keep their functions."""
    groups = channel_groups(maximal)
    orders = [torch.argsort(_importance(supernet, group), descending=True, stable=True) for group in groups]
    for group, order in zip(groups, orders, strict=True):
        for name in group.producers:
            shared = supernet.layer(name)
            for parameter in (shared.weight, shared.gain, shared.bias):
                parameter.copy_(parameter[order])
        for name in group.readers:
            weight = supernet.layer(name).weight
            weight.copy_(weight[:, order])


def channel_groups(maximal: Sequence[Network]) -> list[Group]:
    """The groups of channels that can be put in any order: those of the input and of the logits cannot."""
    tied: dict[str, list[str]] = {}
    for layer in _distinct_layers(maximal):
        members = tied.setdefault(layer.name, [layer.name])
        for source in _passed_on(layer):
            if tied[source] is not members:
                members += tied[source]
                tied.update(dict.fromkeys(tied[source], members))
    fixed = [tied[name] for network in maximal for name in (network.input.name, network.layers[-1].name)]
    free = {id(members): members for members in tied.values() if not any(members is other for other in fixed)}
    return [_group(set(members), maximal) for members in free.values()]


def _distinct_layers(maximal: Sequence[Network]) -> list[Layer]:
    return list({layer: None for network in maximal for layer in network})


def _passed_on(layer: Layer) -> tuple[str, ...]:
    """The inputs whose channels are the layer's outputs, one for one."""
    match layer:
        case Add() | PairSum() | Mean() | RowMean() | Pool() | Scale():
            return layer.inputs
        case Conv2d():
            return layer.inputs if layer.depthwise else ()
        case Linear() | Input():
            return ()


def _group(members: set[str], maximal: Sequence[Network]) -> Group:
    producers: dict[str, None] = {}  # in order, so that sums do not depend on hashes
    readers: dict[str, None] = {}
    for network in maximal:
        for layer in network.weighted:
            if layer.name in members:
                producers[layer.name] = None
            if members.intersection(layer.inputs) and not _passed_on(layer):
                readers[layer.name] = None
    return Group(tuple(producers), tuple(readers))


def _importance(supernet: Supernet, group: Group) -> Tensor:
    """Sum of the magnitudes of all weights that read each channel, shape (channels,)."""
    weights = [supernet.layer(name).weight for name in group.readers]
    return torch.stack([weight.abs().transpose(0, 1).flatten(1).sum(1) for weight in weights]).sum(0)
