"""What a layer costs for each way to fold it: cycles, LUTs, flip-flops, DSP blocks and block RAMs.

A folding takes divisors of a layer's loop bounds, as HAO does (Dong et al., FCCM 2021, arXiv 2104.12766): so many
input channels, output channels and kernel positions are multiplied at once, so many cycles does an output position
take. HAO's program chooses DSP blocks or LUTs for each layer's products; so does this one:

    multipliers = inputs * outputs * kernel
    cycles      = positions * weights / multipliers
    dsp         = multipliers, halved where two products share a block
    lut         = tree, plus multipliers * act_bits * weight_bits where the products are made of LUTs
    tree        = multipliers * (act_bits + weight_bits + log2(1 + inputs * kernel)): adders and accumulators

A DSP48E2 multiplies one activation by two weights of up to 8 bits (AMD WP486), so by the weights of two output
channels that read it; a depthwise convolution has none such. The array multiplier takes one LUT per bit of its two
operands' product, without the savings of synthesis. Weights come from LUTs (RAM64) up to a depth of 64, from block
RAM beyond. A folded layer multiplies zeros, too; one that is not folded at all may have a piece of hardware for each
weight that is not zero, priced by `hw_models.unrolled`, which is also the source of line buffers, of reading a tensor
and of the output's ReLU. Like every number before synthesis these are estimates. Control, FIFOs and the cycles to
fill the pipeline are not counted.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hw_models.unrolled import (
    BRAM18_DEPTH,
    BRAM18_WIDTH,
    RESOURCES,
    layer_cost,
    storage,
    unrollable,
)
from nas.counts import weight_count
from nas.errors import NasError
from nas.network import Add, Conv2d, Layer, Linear, Mean, PairSum, RowMean, Weighted
from nas.pareto import non_dominated

Multiplier = Literal["dsp", "lut", "constant", "none"]
"""What makes the products: `constant` is hardware for each weight that is not zero, `none` a layer without weights."""

PACKED_BITS = 8
"""Widest operands of two products in one DSP block (AMD WP486)."""

READ_LUT_PER_BIT = 0.3
"""To round and saturate what is read, per bit of the result; rough: the cost depends on the format of what is read."""

OUTPUT_LUT_PER_BIT = 0.5
"""ReLU takes half a LUT per bit of the sum: a LUT6 holds two functions of 5 inputs (UG574)."""

DEEPEST_LUT_MEMORY = 64
"""Words of one bit in a LUT (RAM64, UG574)."""


@dataclass(frozen=True, slots=True)
class Option:
    """One way to fold a layer.

    Attributes:
        inputs: Input channels, of one group, that are read at once.
        outputs: Output channels that are computed at once.
        kernel: Kernel positions that are computed at once.
        multiplier: What makes the products.
        cycles: Cycles per input of the network.
        lut: Lookup tables.
        ff: Flip-flops.
        dsp: DSP blocks.
        bram: Block RAMs of 18 Kbit.
    """

    inputs: int
    outputs: int
    kernel: int
    multiplier: Multiplier
    cycles: int
    lut: int
    ff: int
    dsp: int
    bram: int

    def __post_init__(self) -> None:
        if min(self.inputs, self.outputs, self.kernel, self.cycles) < 1 or min(self.resources) < 0:
            raise NasError(f"a folding option needs parallelism and cycles >= 1 and resources >= 0; got {self}")

    @property
    def resources(self) -> tuple[int, ...]:
        """In the order of `RESOURCES`."""
        return self.lut, self.ff, self.dsp, self.bram


def layer_options(layer: Layer) -> tuple[Option, ...]:
    """Every folding of a layer that no other one beats, fewest cycles first.

    Raises:
        NasError: The layer is not quantized, or it is one that no design can hold.
    """
    known = unrollable(layer)
    layer_cost(known)  # refuses float
    match known:
        case Conv2d() | Linear():
            return pruned(_weighted(known))
        case Add() | PairSum() | Mean() | RowMean():
            return pruned([_plain(known, channels) for channels in _divisors(known.in_shape[0])])


def pruned(options: list[Option]) -> tuple[Option, ...]:
    """Without the options that another one equals or beats in cycles and all resources: no optimum is lost."""
    first = {(option.cycles, *option.resources): option for option in reversed(options)}
    kept = non_dominated(np.array(list(first), dtype=np.float64))
    best = [option for option, keep in zip(first.values(), kept, strict=True) if keep]
    return tuple(sorted(best, key=lambda option: (option.cycles, *option.resources)))


def _weighted(layer: Weighted) -> list[Option]:
    outputs, inputs = layer.weight_shape[:2]
    window = layer.kernel**2 if isinstance(layer, Conv2d) else 1
    bounds = itertools.product(_divisors(inputs), _divisors(outputs), _divisors(window))
    folded = [_folded(layer, *bound, multiplier) for bound in bounds for multiplier in _MULTIPLIERS]
    cost = layer_cost(layer)
    lut, ff, dsp, bram = (math.ceil(cost[name]) for name in RESOURCES)
    return [*folded, Option(inputs, outputs, window, "constant", layer.positions, lut, ff, dsp, bram)]


_MULTIPLIERS: tuple[Multiplier, ...] = ("dsp", "lut")


def _folded(layer: Weighted, inputs: int, outputs: int, kernel: int, multiplier: Multiplier) -> Option:
    act, weight, held = layer.precision.act_bits, layer.precision.weight_bits, storage(layer)
    multipliers, terms = inputs * outputs * kernel, inputs * kernel
    depth, sums = weight_count(layer) // multipliers, act + weight + math.log2(1 + terms)
    read, in_dsp = _channels_read(layer, inputs, outputs) * act, multiplier == "dsp"
    memory_lut, memory_bram = _memory(multipliers * weight, depth)
    products = 0 if in_dsp else multipliers * act * weight
    lut = held["lut"] + products + multipliers * sums + outputs * sums * OUTPUT_LUT_PER_BIT + READ_LUT_PER_BIT * read
    ff = held["ff"] + multipliers * (act + weight) + outputs * sums + read
    dsp = _blocks(layer, terms, outputs) if in_dsp else 0
    return Option(
        inputs, outputs, kernel, multiplier, layer.positions * depth,
        math.ceil(lut + memory_lut), math.ceil(ff), dsp, int(held["bram"]) + memory_bram,
    )  # fmt: skip


def _channels_read(layer: Weighted, inputs: int, outputs: int) -> int:
    """Channels that are rounded at once: those of all groups that the outputs read."""
    grouped = isinstance(layer, Conv2d) and layer.groups > 1
    per_group = layer.out_shape[0] // layer.groups if isinstance(layer, Conv2d) else layer.out_shape[0]
    return inputs * math.ceil(outputs / per_group) if grouped else inputs


def _blocks(layer: Weighted, terms: int, outputs: int) -> int:
    """DSP blocks of `terms` products for each of some outputs: pairs of outputs that read one input share them."""
    per_group = layer.weight_shape[0] // (layer.groups if isinstance(layer, Conv2d) else 1)
    low = max(layer.precision.act_bits, layer.precision.weight_bits) <= PACKED_BITS
    if not low or per_group == 1:
        return terms * outputs
    together = math.gcd(outputs, per_group)
    return terms * math.ceil(together / 2) * (outputs // together)


def _memory(width: int, depth: int) -> tuple[int, int]:
    """LUTs and block RAMs of the weights; what never changes is wired."""
    if depth == 1:
        return 0, 0
    if depth <= DEEPEST_LUT_MEMORY:
        return width, 0
    return 0, math.ceil(width / BRAM18_WIDTH) * math.ceil(depth / BRAM18_DEPTH)


def _plain(layer: Add | PairSum | Mean | RowMean, channels: int) -> Option:
    """So many channels at once; what a mean holds is there for all of them."""
    cost, held, share = layer_cost(layer), storage(layer), channels / layer.in_shape[0]
    lut, ff, dsp, bram = (math.ceil(held[name] + (cost[name] - held[name]) * share) for name in RESOURCES)
    positions = math.prod((layer.out_shape if isinstance(layer, PairSum) else layer.in_shape)[1:])
    return Option(channels, channels, 1, "none", positions * layer.in_shape[0] // channels, lut, ff, dsp, bram)


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
