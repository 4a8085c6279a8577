"""Energy of a layer: per multiply-accumulate by bits, and per byte by memory level.

    energy = operations * mac_j(bits) + operand bytes of all operations * register_j_per_byte
             + (weights + activations read and written) * (buffer_j_per_byte + dram_j_per_byte)

Every tensor crosses main memory and the buffer once: a layer's tensors fit the buffer (Horowitz, ISSCC 2014, for the
numbers; the accounting by level is Eyeriss's, Chen et al., ISCA 2016).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hw_models.work import work
from nas.errors import NasError
from nas.network import Input, Layer, Network


@dataclass(frozen=True, slots=True)
class EnergyTable:
    """Joules.

    Attributes:
        mac_j: Of a multiply-accumulate by operand width in bits; 32 stands for float.
        register_j_per_byte: Of a byte read next to the multiplier.
        buffer_j_per_byte: Of a byte through on-chip memory.
        dram_j_per_byte: Of a byte through main memory.
    """

    mac_j: Mapping[int, float]
    register_j_per_byte: float
    buffer_j_per_byte: float
    dram_j_per_byte: float


def layer_energy_j(layer: Layer, table: EnergyTable) -> float:
    """Joules of one layer; operands go to the thriftiest multiplier that is at least as wide as both.

    Raises:
        NasError: The op is unknown, or no multiplier is wide enough.
    """
    if isinstance(layer, Input):
        return 0.0
    asked = work(layer)
    bits = max(asked.weight_bits, asked.act_bits)
    wide_enough = [joules for width, joules in table.mac_j.items() if width >= bits]
    if not wide_enough:
        raise NasError(f"layer {layer.name}: no energy for {bits} bits; the table goes up to {max(table.mac_j)}")
    operands = asked.macs * (asked.weight_bits + asked.act_bits) / 8
    moved = asked.bytes * (table.buffer_j_per_byte + table.dram_j_per_byte)
    return asked.macs * min(wide_enough) + operands * table.register_j_per_byte + moved


def energy_j(network: Network, table: EnergyTable) -> float:
    """Joules for one input, the sum over layers."""
    return sum(layer_energy_j(layer, table) for layer in network)
