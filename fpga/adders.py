"""What a design's own weights cost as adder graphs: da4ml's estimate, to stand beside the analytic prediction.

da4ml (arXiv 2507.04535) turns each constant matrix into shifts and adds and shares partial sums; its count of LUTs is
within a few per cent of synthesis. Each layer is traced for one output position, which the stream computes per
cycle; line buffers and the mean's accumulators are sequential, so their cost is that of `hw_models.unrolled`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from da4ml.trace import FixedVariableArray, comb_trace, to_pipeline
from da4ml.types import minimal_kif

from fpga.reference import act_format, mean_shift
from fpga.unrolling import HARDWARE, SOLVER
from hw_models.families import Positions
from hw_models.rtl_cost import mean_tree, times
from hw_models.unrolled import LEVELS_PER_CYCLE, RESOURCES, Unrolled, fill_cycles, storage, summed, unrollable
from nas.design import Design
from nas.fixed_point import FixedPoint
from nas.genotype import FloatArray
from nas.network import Activated, Add, Conv2d, Input, Linear, Mean, PairSum, RowMean


@dataclass(frozen=True)
class AdderGraphs:
    """Cost of each layer: `lut`, `ff`, `dsp`, `bram` and `cycles`, as in `hw_models.unrolled.layer_cost`."""

    layers: Mapping[str, Mapping[str, float]]
    clock_hz: float

    def total(self) -> dict[str, float]:
        """Resources and `latency_s` of the whole design."""
        total = {name: sum(cost[name] for cost in self.layers.values()) for name in RESOURCES}
        return total | {"latency_s": sum(cost["cycles"] for cost in self.layers.values()) / self.clock_hz}


@dataclass(frozen=True)
class _Range:
    """Per channel: the least and the largest value, and the step between values."""

    low: FloatArray
    high: FloatArray
    step: FloatArray

    def variables(self) -> FixedVariableArray:
        return FixedVariableArray.from_lhs(self.low, self.high, self.step, HARDWARE, 0.0, SOLVER)


def adder_graph_cost(design: Design, clock_hz: float, positions: Positions = "streamed") -> AdderGraphs:
    """Solve every layer's integer weights; a second or so for a small network.

    Each layer is solved for one position. Streamed, it takes that, and storage; in parallel, as often as it has
    positions, and a mean an adder tree.

    Raises:
        NasError: A layer is not quantized, or of no operation that a design has.
    """
    ranges: dict[str, _Range] = {}
    costs: dict[str, Mapping[str, float]] = {}
    for layer in design.network:
        if isinstance(layer, Input):
            waits = fill_cycles(layer) if positions == "streamed" else 0.0
            costs[layer.name] = dict.fromkeys(RESOURCES, 0.0) | {"cycles": waits}
        else:
            costs[layer.name], ranges[layer.name] = _layer_cost(design, unrollable(layer), ranges, positions)
    return AdderGraphs(costs, clock_hz)


def _layer_cost(
    design: Design, layer: Unrolled, ranges: Mapping[str, _Range], positions: Positions
) -> tuple[dict[str, float], _Range]:
    fmt, reads, read_costs = act_format(design, layer), [], []
    channels = layer.in_shape[0]
    for source in layer.inputs:
        read, cost = _quantize(ranges[source], fmt) if source in ranges else (_whole(fmt, channels), {})
        reads.append(read)
        read_costs.append(cost)
    output, computed = _compute(design, layer, reads)
    if positions == "parallel":
        copies = [*(times(layer.in_shape, cost) for cost in read_costs), times(layer.out_shape, computed)]
        return summed([*copies, mean_tree(layer)]), output
    return summed([storage(layer), {"cycles": fill_cycles(layer)}, *read_costs, computed]), output


def _whole(fmt: FixedPoint, channels: int) -> _Range:
    """What arrives at the network's input: already in the format of its reader."""
    bounds = (np.full(channels, value * fmt.step) for value in (fmt.low, fmt.high, 1))
    return _Range(*bounds)


def _quantize(tensor: _Range, fmt: FixedPoint) -> tuple[_Range, dict[str, float]]:
    wide = tensor.variables()
    narrow = wide.quantize(fmt.signed, fmt.int_bits, fmt.frac_bits, overflow_mode="SAT", round_mode="RND")
    return _trace(wide, narrow)


def _compute(design: Design, layer: Unrolled, reads: list[_Range]) -> tuple[_Range, dict[str, float]]:
    match layer:
        case Conv2d() | Linear():
            return _weighted(design, layer, reads[0])
        case Add() | PairSum():
            first, second = (read.variables() for read in reads)
            return _trace(np.concatenate([first._vars, second._vars]), _activated(layer, first + second))
        case Mean() | RowMean():
            shift = mean_shift(layer)
            return _Range(reads[0].low, reads[0].high, reads[0].step / 2**shift), {}


def _activated(layer: Activated, sums: FixedVariableArray) -> FixedVariableArray:
    return sums.relu() if layer.activation == "relu" else sums


def _weighted(design: Design, layer: Conv2d | Linear, read: _Range) -> tuple[_Range, dict[str, float]]:
    """One group of output channels at a time; a padded window may also hold zeros."""
    groups, window = (layer.groups, layer.kernel**2) if isinstance(layer, Conv2d) else (1, 1)
    scale = 2.0 ** -design.product_frac(layer.name)[:, None]
    step = act_format(design, layer).step
    weights = design.weight_integers(layer.name).reshape(layer.out_shape[0], -1) * scale / step
    bias = design.bias_integers(layer.name) * scale[:, 0]
    outputs, costs = [], []
    size, fan_in = layer.out_shape[0] // groups, read.low.size // groups
    for group in range(groups):
        inputs, rows = slice(group * fan_in, (group + 1) * fan_in), slice(group * size, (group + 1) * size)
        arrays = (read.low[inputs], read.high[inputs], read.step[inputs])
        low, high, steps = (np.repeat(array, window) for array in arrays)
        x = _Range(np.minimum(low, 0.0), np.maximum(high, 0.0), steps).variables()
        total = x @ weights[rows].T + bias[rows]
        output, cost = _trace(x, _activated(layer, total))
        outputs.append(output)
        costs.append(cost)
    joined = _Range(*(np.concatenate([getattr(out, name) for out in outputs]) for name in ("low", "high", "step")))
    deepest = max(cost["cycles"] for cost in costs)
    return joined, {name: sum(cost[name] for cost in costs) for name in ("lut", "ff")} | {"cycles": deepest}


def _trace(inputs: Any, outputs: FixedVariableArray) -> tuple[_Range, dict[str, float]]:
    """Cost of the logic between them, and the outputs' ranges; a register wherever a cycle ends."""
    variables = outputs._vars.ravel()
    ranges = _Range(*(np.array([float(getattr(v, name)) for v in variables]) for name in ("low", "high", "step")))
    logic = comb_trace(inputs, outputs)
    depth = max((op.latency for op in logic.ops), default=0.0)
    stages = to_pipeline(logic, LEVELS_PER_CYCLE, retiming=False, verbose=False)
    registers = sum(sum(minimal_kif(q)) for stage in stages.solutions for q in stage.out_qint)
    return ranges, {"lut": logic.cost, "ff": float(registers), "cycles": depth / LEVELS_PER_CYCLE}
