"""What a layer holds and does: weights, multiply-accumulates, bytes."""

from __future__ import annotations

import math

from nas.network import Layer, Weighted
from nas.pruning import dense_count, filters, parts


def weight_count(layer: Layer) -> int:
    """Number of weights, zeros included, without the bias."""
    return math.prod(layer.weight_shape) if isinstance(layer, Weighted) else 0


def nonzeros(layer: Layer) -> int:
    """Number of weights that pruning keeps: exact to one weight, and never none."""
    kept, count = parts(layer) if isinstance(layer, Weighted) else (0, 1)
    return weight_count(layer) // count * kept


def macs(layer: Layer) -> int:
    """Multiply-accumulates for one input, zeros included but those of whole channels."""
    return dense_count(layer) * layer.positions if isinstance(layer, Weighted) else 0


def weight_bytes(layer: Layer) -> float:
    """Bytes of the densely packed weights and the 32-bit bias of the channels that are computed."""
    bits = dense_count(layer) * layer.precision.weight_bits + 32 * filters(layer) if isinstance(layer, Weighted) else 0
    return bits / 8
