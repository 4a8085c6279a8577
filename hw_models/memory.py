"""Peak activation memory by liveness: what must be held while each layer runs, batch 1, in topological order.

A tensor lives from the layer that writes it to its last reader, at the widest bits one of its readers asks for.
The logits, and what nobody reads, are of 32 bits. The peak is a maximum over layers and no sum over them.
"""

from __future__ import annotations

import math

from nas.network import FLOAT_BITS, Input, Layer, Network


def tensor_bytes(network: Network, layer: Layer) -> float:
    """Bytes of a layer's output as its readers need it."""
    bits = [reader.precision.act_bits for reader in network.consumers[layer.name] if not isinstance(reader, Input)]
    return math.prod(layer.out_shape) * max(bits, default=FLOAT_BITS) / 8


def live_bytes(network: Network) -> dict[str, float]:
    """For each layer's name, bytes alive while it runs: its output, and what it or a later layer reads."""
    order = {layer.name: index for index, layer in enumerate(network)}
    size = {layer.name: tensor_bytes(network, layer) for layer in network}
    last = {
        layer.name: max((order[reader.name] for reader in network.consumers[layer.name]), default=order[layer.name])
        for layer in network
    }
    return {
        now.name: sum(size[name] for name, written in order.items() if written <= order[now.name] <= last[name])
        for now in network
    }


def peak_memory_bytes(network: Network) -> float:
    """Largest number of activation bytes alive at once."""
    return max(live_bytes(network).values())
