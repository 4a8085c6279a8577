"""A neural processor whose multipliers split into narrower ones, so every bit less is faster.

BitFusion (Sharma et al., ISCA 2018): a systolic array of fusion units, each of sixteen 2-bit multipliers, multiplies
(8 / w) * (8 / a) pairs of w- and a-bit operands per cycle, with w and a rounded up to 2, 4 or 8. 16 bits take several
cycles by the same formula. A layer takes the larger of

    compute = positions * kernel^2 * ceil(out / columns) * ceil(in / (rows * fused))
    memory  = (act_bits * inputs + weight_bits * weights + output_bits * outputs) / bits_per_cycle

A depthwise layer fills only `depthwise_macs` lanes, as it has one input channel to sum over.
Zeros take as long as any weight, but those of whole channels: these are not computed.
The table of APQ (Wang et al., CVPR 2020), 6567 simulated layers, shows the rates of its array, and the energies:

    energy = power_w * latency + product_j * macs / ((8 / w) * (8 / a)) + bit_j * (bits that `memory` moves)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hw_models.work import work
from nas.errors import NasError
from nas.network import FLOAT_BITS, Conv2d, Input, Layer, Linear, Network
from nas.pruning import dense_count, filters

WIDTHS = (2, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class BitFlexible:
    """An array of fusion units.

    Attributes:
        clock_hz: Its clock.
        rows: Input channels summed per cycle at 8 bits.
        columns: Output channels per cycle.
        depthwise_macs: Multiply-accumulates per cycle of a depthwise layer at 8 bits.
        bits_per_cycle: Bandwidth of memory.
        output_bits: Traffic per output: the wide sum.
    """

    clock_hz: float
    rows: int
    columns: int
    depthwise_macs: int
    bits_per_cycle: int
    output_bits: int


@dataclass(frozen=True, slots=True)
class FusionEnergy:
    """Joules of an array of fusion units.

    Attributes:
        power_w: Of all of it, whatever it does.
        product_j: Of a product of 8 x 8 bits.
        bit_j: Of a bit that crosses memory.
    """

    power_w: float
    product_j: float
    bit_j: float


def fused(layer: Layer, weight_bits: int, act_bits: int) -> float:
    """Products of one fusion unit per cycle, 16 at 2 x 2 bits and 1 at 8 x 8.

    Raises:
        NasError: Wider than 16 bits, such as float.
    """
    if FLOAT_BITS in (weight_bits, act_bits):
        raise NasError(
            f"layer {layer.name}: a bit-flexible array computes with 2..16 bits, not with float; quantize it"
        )
    weight, act = (next(width for width in WIDTHS if width >= bits) for bits in (weight_bits, act_bits))
    return 64 / (weight * act)


def layer_cycles(layer: Layer, device: BitFlexible) -> float:
    """Cycles of one layer.

    Raises:
        NasError: The op is unknown, or the layer is not quantized.
    """
    if isinstance(layer, Input):
        return 0.0
    asked = work(layer)
    products = fused(layer, asked.weight_bits, asked.act_bits)
    if isinstance(layer, Linear) or (isinstance(layer, Conv2d) and layer.groups == 1):
        window = layer.kernel**2 if isinstance(layer, Conv2d) else 1
        columns = math.ceil(filters(layer) / device.columns)
        compute = float(layer.positions * window * columns * math.ceil(layer.in_shape[0] / (device.rows * products)))
    else:
        compute = asked.macs / (device.depthwise_macs * products)
    return max(compute, traffic_bits(layer, device) / device.bits_per_cycle)


def traffic_bits(layer: Layer, device: BitFlexible) -> float:
    """Bits that a layer moves between the array and memory.

    Raises:
        NasError: The op is unknown.
    """
    asked = work(layer)
    weights = asked.weight_bits * (dense_count(layer) if isinstance(layer, Conv2d | Linear) else 0)
    return 8 * asked.read_bytes + weights + math.prod(layer.out_shape) * device.output_bits


def layer_energy_j(layer: Layer, device: BitFlexible, energy: FusionEnergy) -> float:
    """Joules of one layer.

    Raises:
        NasError: The op is unknown, or the layer is not quantized.
    """
    if isinstance(layer, Input):
        return 0.0
    asked = work(layer)
    products = asked.macs / fused(layer, asked.weight_bits, asked.act_bits)
    moved = energy.bit_j * traffic_bits(layer, device)
    return energy.power_w * layer_latency_s(layer, device) + energy.product_j * products + moved


def layer_latency_s(layer: Layer, device: BitFlexible) -> float:
    """Seconds of one layer."""
    return layer_cycles(layer, device) / device.clock_hz


def latency_s(network: Network, device: BitFlexible) -> float:
    """Seconds for one input, the sum over layers."""
    return sum(layer_latency_s(layer, device) for layer in network)
