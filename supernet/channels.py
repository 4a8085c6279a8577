"""Sort channels by importance, so that a narrower layer keeps the channels that matter (Once-for-All, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nas.network import Conv2d, Layer, Network, Weighted
from supernet.elastic import Supernet


@torch.no_grad()
def sort_channels(supernet: Supernet, maximal: Sequence[Network]) -> None:
    """Reorder channels by the L1 norm of the weights that read them; every network keeps its function.

    Sorted are the outputs of dense layers all of whose readers, in all networks, read nothing else: depthwise
    convolutions, which pass the order on, and dense layers. A tensor of a skip connection keeps its order.
    """
    for name in {layer.name: None for network in maximal for layer in network.weighted}:
        group = _readers(name, maximal)
        if group is None:
            continue
        passing, reading = group
        importance = torch.stack(
            [
                supernet.layer(r).weight.abs().flatten(2).sum((0, 2))
                if supernet.layer(r).weight.dim() == 4
                else supernet.layer(r).weight.abs().sum(0)
                for r in reading
            ]
        ).sum(0)
        order = torch.argsort(importance, descending=True, stable=True)
        for producer in (name, *passing):
            shared = supernet.layer(producer)
            for parameter in (shared.weight, shared.gain, shared.bias):
                parameter.copy_(parameter[order])
        for reader in reading:
            weight = supernet.layer(reader).weight
            weight.copy_(weight[:, order])


def _readers(name: str, maximal: Sequence[Network]) -> tuple[set[str], set[str]] | None:
    """Depthwise and dense layers fed by a dense layer's output; None where anything else reads it."""
    passing: set[str] = set()
    reading: set[str] = set()
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
                passing.add(layer.name)
                pending += network.consumers[layer.name]
            else:
                reading.add(layer.name)
    return (passing, reading) if reading else None
