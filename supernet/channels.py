"""Sort channels by importance, so that a narrower layer keeps the channels that matter (Once-for-All, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nas.network import Conv2d, Layer, Network, Weighted
from supernet.elastic import Supernet


@torch.no_grad()
def sort_channels(supernet: Supernet, maximal: Sequence[Network]) -> None:
    """Reorder channels by the L1 norm of the weights that read them; every network keeps its function.

    Sorted are the outputs of dense layers all of whose readers, in all networks, read nothing else: depthwise
    convolutions, which pass the order on, and dense layers. A tensor of a skip connection keeps its order.
    """
    for name in {layer.name: None for network in maximal for layer in network.weighted}:
        readers = _readers(name, maximal)
        if readers is None:
            continue
        passing, reading = readers
        order = torch.argsort(_importance(supernet, reading), descending=True, stable=True)
        for producer in (name, *passing):
            shared = supernet.layer(producer)
            for parameter in (shared.weight, shared.gain, shared.bias):
                parameter.copy_(parameter[order])
        for reader in reading:
            weight = supernet.layer(reader).weight
            weight.copy_(weight[:, order])


def _importance(supernet: Supernet, reading: Sequence[str]) -> Tensor:
    """Sum of the magnitudes of all weights that read each channel, shape (channels,)."""
    weights = [supernet.layer(name).weight for name in reading]
    norms = [weight.abs().reshape(*weight.shape[:2], -1).sum((0, 2)) for weight in weights]
    return torch.stack(norms).sum(0)


def _readers(name: str, maximal: Sequence[Network]) -> tuple[list[str], list[str]] | None:
    """What reads a dense layer's output: depthwise layers that pass its order on, and dense layers at the end.

    None where anything else reads it, where nothing does, or for a depthwise layer: its order is its input's.
    """
    passing: dict[str, None] = {}  # in order, so that sums do not depend on hashes
    reading: dict[str, None] = {}
    for network in maximal:
        producer = network.by_name.get(name)
        if producer is None:
            continue
        if isinstance(producer, Conv2d) and producer.depthwise:
            return None
        pending: list[Layer] = list(network.consumers[name])
        while pending:
            layer = pending.pop()
            if not isinstance(layer, Weighted):
                return None
            if isinstance(layer, Conv2d) and layer.depthwise:
                passing[layer.name] = None
                pending += network.consumers[layer.name]
            else:
                reading[layer.name] = None
    return (list(passing), list(reading)) if reading else None
