"""A weight-stationary systolic array: whole tiles only, so utilisation moves in steps of rows and columns.

SCALE-Sim (Samajdar et al., arXiv 1811.02883), runtime of one fold: 2 rows + columns + positions - 2 cycles, which are
loading a tile's weights, then streaming the positions in and the sums out. A layer with
`reduction` weights per output has ceil(reduction / rows) * ceil(outputs / columns) folds, in each of its groups; so a
depthwise layer, a group per channel, uses one column at a time. Ops without weights take one lane per column. Zeros
take as long as any weight, but those of whole channels: these have no column.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hw_models.roofline import LayerTime
from hw_models.work import work
from nas.errors import NasError
from nas.network import Conv2d, Input, Layer, Linear, Network
from nas.pruning import dense_count, filters


@dataclass(frozen=True, slots=True)
class Systolic:
    """An array of `rows` x `columns` multipliers of `bits` x `bits`, behind `bytes_per_s` of main memory."""

    clock_hz: float
    rows: int
    columns: int
    bits: int
    bytes_per_s: float


def folds(layer: Layer, device: Systolic) -> int:
    """How many tiles of weights the array loads for a layer; 0 where there are no weights."""
    match layer:
        case Conv2d() | Linear():
            outputs = filters(layer)
            groups = min(layer.groups, outputs) if isinstance(layer, Conv2d) else 1
            reduction = math.prod(layer.weight_shape[1:])
            columns = math.ceil(math.ceil(outputs / groups) / device.columns)
            return groups * math.ceil(reduction / device.rows) * columns
        case _:
            return 0


def utilisation(layer: Conv2d | Linear, device: Systolic) -> float:
    """Share of multipliers that hold a weight, over the layer's tiles, in (0, 1]."""
    return dense_count(layer) / (folds(layer, device) * device.rows * device.columns)


def compute_s(layer: Layer, device: Systolic) -> float:
    """Seconds of arithmetic.

    Raises:
        NasError: The op is unknown, or its operands are wider than the multipliers.
    """
    if isinstance(layer, Input):
        return 0.0
    asked = work(layer)
    bits = max(asked.weight_bits, asked.act_bits)
    if bits > device.bits:
        raise NasError(f"layer {layer.name}: the array computes with {device.bits} bits, not {bits}; quantize it")
    if isinstance(layer, Conv2d | Linear):
        fold = 2 * device.rows + device.columns + layer.positions - 2
        return folds(layer, device) * fold / device.clock_hz
    return math.ceil(asked.macs / device.columns) / device.clock_hz


def layer_time(layer: Layer, device: Systolic) -> LayerTime:
    """Times of one layer, of which the larger counts: its weights and activations stream while the array computes."""
    return LayerTime(compute_s(layer, device), work(layer).bytes / device.bytes_per_s, 0.0)


def latency_s(network: Network, device: Systolic) -> float:
    """Seconds for one input, the sum over layers."""
    return sum(layer_time(layer, device).latency_s for layer in network)
