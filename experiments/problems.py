"""A device's search problem: predictors and cost models put behind the callables that the search sees."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Protocol

import numpy as np

from experiments.context import Context
from experiments.stages.fit import ACCURACY, LATENCY
from experiments.targets import Target
from fpga.folded import FOLDED, folded_costs
from hw_models import unrolled
from hw_models.device import Device, load_device
from hw_models.memory import peak_cost
from hw_models.onnx_model import layer_bytes
from hw_models.prices import Price, layer_prices
from hw_models.rtl_cost import parallel_cost
from nas.counts import weight_bytes
from nas.genotype import BoolArray, FloatArray, Gene, IntArray, SearchSpace, active
from nas.network import FLOAT_BITS, Input, Layer, Weighted
from nas.problem import Constraint, Problem
from nas.tables import AdditiveCost, PipelinedCost, additive, stacked
from predictors import accuracy, latency


def problem(context: Context, target: Target, fit_folder: Path, measure_folder: Path | None) -> Problem:
    """The problem of one device: errors predicted, costs summed over layers, what the device holds as constraints.

    Args:
        context: Config and space.
        target: The device, its objectives and limits.
        fit_folder: Where the accuracy predictor is.
        measure_folder: Where the device's latency predictor is, for a device that is measured.
    """
    predictor = accuracy.load(context.space, fit_folder / ACCURACY)
    return on_device(context, load_device(target.name), target, predictor, measure_folder)


class Errors(Protocol):
    """Where predicted errors come from."""

    def mean(self, population: IntArray) -> FloatArray:
        """The error of each canonical genotype, shapes (n, genes) and (n,)."""
        ...


def on_device(context: Context, device: Device, target: Target, errors: Errors, measure_folder: Path | None) -> Problem:
    """The problem of a device under a target's objectives and limits, with errors that devices may share."""
    costs = _costs(context, device, measure_folder)
    asked, metrics = _predicted(limits(target, device), target, measure_folder), device.metrics
    peaks, nested = _peaks(context, device), _nested(context.space, device)
    evaluate, choices = evaluation(errors, {**costs, **peaks}, metrics, nested), allowed(context.space, device)
    return Problem(context.space, metrics, evaluate, target.objectives, asked, choices, costs, peaks)


@dataclass(frozen=True)
class Nested:
    """Costs that are found network by network: their names, and canonical genotypes to shape (n, names)."""

    names: tuple[str, ...]
    costs: Callable[[IntArray], FloatArray]


NONE = Nested((), lambda population: np.zeros((len(population), 0)))


def evaluation(
    predictor: Errors,
    costs: Mapping[str, AdditiveCost | PipelinedCost],
    metrics: tuple[str, ...],
    nested: Nested = NONE,
) -> Callable[[IntArray], FloatArray]:
    """Canonical genotypes, shape (n, genes), to `error` and the costs, the columns as in `metrics`."""
    sums = {name: cost for name, cost in costs.items() if isinstance(cost, AdditiveCost)}
    peaks = {name: cost for name, cost in costs.items() if isinstance(cost, PipelinedCost)}
    joined, columns = stacked(list(sums.values())), ("error", *sums, *peaks, *nested.names)
    order = [columns.index(name) for name in metrics]

    def evaluate(population: IntArray) -> FloatArray:
        largest = [cost(population) for cost in peaks.values()]
        found = [predictor.mean(population), joined(population), *largest, nested.costs(population)]
        return np.column_stack(found)[:, order]

    return evaluate


def limits(target: Target, device: Device) -> tuple[Constraint, ...]:
    """The config's constraints, and what the device holds where the config asks for no less."""
    wanted = {metric: limit.max for metric, limit in target.constraints.items()}
    for name, most in device.holds.items():
        wanted[name] = min(wanted.get(name, math.inf), most)
    return tuple(Constraint(metric, limit) for metric, limit in wanted.items())


def _predicted(asked: Sequence[Constraint], target: Target, measure_folder: Path | None) -> tuple[Constraint, ...]:
    """Limits on predicted values, so much lower that the true ones stay within with the confidence that is asked for.

    The predictor's relative error is normal: mean * (1 + z * spread) <= limit, z the quantile of the confidence.
    """
    margins = dict[str, float]()
    for metric, limit in target.constraints.items():
        if limit.confidence is not None:
            assert measure_folder is not None
            margins[metric] = 1 + NormalDist().inv_cdf(limit.confidence) * latency.load(measure_folder / LATENCY).spread
    return tuple(replace(one, limit=one.limit / margins.get(one.metric, 1.0)) for one in asked)


def dense_8bit(problem: Problem) -> Problem | None:
    """The same problem without pruning and with 8 bits everywhere, float activations where the device has no others.

    None where the space has no such networks.
    """
    allowed = tuple(
        _dense_8bit(gene, indices) for gene, indices in zip(problem.space.genes, problem.allowed, strict=True)
    )
    if not all(allowed):
        return None
    return replace(problem, allowed=allowed)


def are_dense_8bit(problem: Problem, population: IntArray) -> BoolArray:
    """Mark the canonical genotypes, shape (n, genes), that are unpruned and 8-bit, as `dense_8bit` allows; shape (n,).

    Only genes that have an effect are asked.
    """
    dense = np.ones(len(population), dtype=bool)
    counts = active(problem.space, population)
    for gene, indices, column, used in zip(problem.space.genes, problem.allowed, population.T, counts.T, strict=True):
        dense &= ~used | np.isin(column, _dense_8bit(gene, indices))
    return dense


def _dense_8bit(gene: Gene, indices: tuple[int, ...]) -> tuple[int, ...]:
    match gene.kind:
        case "sparsity":
            return tuple(i for i in indices if gene.choices[i] == 0)
        case "weight_bits":
            return tuple(i for i in indices if gene.choices[i] == 8)
        case "act_bits":
            at_8 = tuple(i for i in indices if gene.choices[i] == 8)
            return at_8 or tuple(i for i in indices if gene.choices[i] == FLOAT_BITS)
        case _:
            return indices


def allowed(space: SearchSpace, device: Device) -> tuple[tuple[int, ...], ...]:
    """For each gene, the indices of the choices that a device supports."""
    supported = {"weight_bits": device.weight_bits, "act_bits": device.act_bits}
    return tuple(
        tuple(i for i, choice in enumerate(gene.choices) if choice in supported.get(gene.kind, gene.choices))
        for gene in space.genes
    )


def _costs(context: Context, device: Device, measure_folder: Path | None) -> Mapping[str, AdditiveCost]:
    def table(price: Price, constant: float = 0.0) -> AdditiveCost:
        return additive(context.space, context.tables, price, constant)

    match device.family:
        case "onnxruntime":
            assert measure_folder is not None
            predictor = latency.load(measure_folder / LATENCY)
            latencies = table(predictor.layer_latency, predictor.constant)
            return {"latency_s": latencies, "weight_bytes": table(layer_bytes)}
        case "unrolled-fpga":
            assert device.clock_hz is not None
            clock_hz, priced = device.clock_hz, functools.cache(functools.partial(_unrolled, device))
            costs = {name: table(lambda layer, name=name: priced(layer)[name]) for name in unrolled.RESOURCES}  # type: ignore[misc]
            cycles = table(lambda layer: priced(layer)["cycles"] / clock_hz)
            return {**costs, "latency_s": cycles, "weight_bytes": table(weight_bytes)}
        case "folded-fpga":
            return {"weight_bytes": table(weight_bytes)}
        case "bit-flexible" | "roofline" | "systolic" | "microcontroller" | "fitted":
            prices = layer_prices(device)
            return {name: table(functools.partial(_charged, device, price)) for name, price in prices.items()}


def _peaks(context: Context, device: Device) -> Mapping[str, PipelinedCost]:
    """The costs that are the largest of several sums."""
    if "peak_bytes" in device.metrics:
        return {"peak_bytes": peak_cost(context.space, context.tables)}
    return {}


def _nested(space: SearchSpace, device: Device) -> Nested:
    """The costs of each network's best folding, on a device that folds."""
    if device.family != "folded-fpga":
        return NONE
    cost = folded_costs(device)

    def costs(population: IntArray) -> FloatArray:
        found = [cost(space.lower(genotype)) for genotype in population.tolist()]
        return np.array([[one[name] for name in FOLDED] for one in found]).reshape(-1, len(FOLDED))

    return Nested(FOLDED, costs)


def _unrolled(device: Device, layer: Layer) -> Mapping[str, float]:
    """The layer's cost; a form whose widths the device lacks costs NaN, which no archive takes in."""
    if _has_widths(device, layer):
        return parallel_cost(layer) if device.positions == "parallel" else unrolled.layer_cost(layer)
    return dict.fromkeys((*unrolled.RESOURCES, "cycles"), math.nan)


def _charged(device: Device, price: Price, layer: Layer) -> float:
    """The layer's price, NaN as in `_unrolled`."""
    return price(layer) if _has_widths(device, layer) else math.nan


def _has_widths(device: Device, layer: Layer) -> bool:
    return isinstance(layer, Input) or (
        layer.precision.act_bits in device.act_bits
        and (not isinstance(layer, Weighted) or layer.precision.weight_bits in device.weight_bits)
    )
