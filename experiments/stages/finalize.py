"""Stage `finalize`: extract the finalists, fine-tune them, and measure what was only predicted.

Here the test split is read for the first time, and nothing is decided by it: the schedule of fine-tuning is fixed, and
the front and the winner are chosen by errors on the validation split.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.context import Context
from experiments.problems import limits
from experiments.progress import percent, progress
from experiments.rundir import atomic_write
from experiments.stages.search import load_finalists
from experiments.targets import Target
from experiments.workers import parallel
from fpga import folded as folding
from fpga.adders import AdderGraphs, adder_graph_cost
from hw_models.device import Device, load_device
from hw_models.latency import measured_models
from hw_models.memory import peak_memory_bytes
from hw_models.onnx_model import layer_bytes, stored_weight_bytes
from hw_models.onnx_runtime import predict
from hw_models.prices import layer_prices
from hw_models.quantized_onnx import engine_model
from hw_models.unrolled import RESOURCES
from nas.counts import weight_bytes
from nas.design import Design, load_design, save_design
from nas.errors import NasError
from nas.network import Network
from nas.pareto import non_dominated
from supernet.data.split import Split
from supernet.evaluate import all_images, design_logits, error, fine_tune
from supernet.train import SupernetTraining

MEMBERS = "members.json"
ERRORS = "errors.json"
DESIGN = "design.npz"
LAYERS = "layers.json"


@dataclass(frozen=True)
class Task:
    """The finalist of an index in its stage, and its folder."""

    home: Path
    genotype: tuple[int, ...]
    index: int


def finalize(context: Context, target: Target, train_folder: Path, search_folder: Path, folder: Path) -> dict[str, Any]:
    """Finalize the finalists of one device, those that an interrupted run finished left as they are."""
    finalists, device = load_finalists(search_folder), load_device(target.name)
    homes = [folder / f"{index:02d}" for index in range(len(finalists))]
    tasks = tasks_left(search_folder, folder)
    with progress(f"fine-tune for {target.name}", len(homes), len(homes) - len(tasks)) as advance:
        for _ in parallel(partial(finalize_one, context, device, train_folder), tasks, context.workers):
            advance()
    designs = [member_design(context, home, finalist) for home, finalist in zip(homes, finalists, strict=True)]
    costs = _measured(context, device, designs, [load_layer_costs(home) for home in homes])
    members = [
        _member(target, index, finalist, json.loads((home / ERRORS).read_text()), cost)
        for index, (home, finalist, cost) in enumerate(zip(homes, finalists, costs, strict=True))
    ]
    _mark_front(members, target, device)
    if not any(member["on_front"] for member in members):
        decided = [_decided(member) for member in members]
        least = {name: min(values[name] for values in decided) for name in decided[0]}
        raise NasError(
            f"device {target.name}: no finalist satisfies the constraints as measured; least measured values are "
            f"{', '.join(f'{name} {value:g}' for name, value in least.items())}, the error on the validation split. "
            "Loosen the constraints"
        )
    atomic_write(folder / MEMBERS, json.dumps(members, indent=1))
    front = [member for member in members if member["on_front"]]
    return {
        "front": len(front),
        "best_error": min(member["measured"]["error"] for member in front),
        "winner": next(member["id"] for member in front if member["winner"]),
    }


def tasks_left(search_folder: Path, folder: Path) -> list[Task]:
    """The finalists that the stage whose folder this is has not finished."""
    finalists = enumerate(load_finalists(search_folder))
    tasks = [Task(folder / f"{index:02d}", tuple(each["genotype"]), index) for index, each in finalists]
    return [task for task in tasks if not (task.home / ERRORS).exists()]


def member_design(context: Context, home: Path, member: dict[str, Any]) -> Design:
    """The fine-tuned numbers of a finalist, from its folder."""
    return load_design(context.space.lower(member["genotype"]), home / DESIGN)


def layer_costs(design: Design, device: Device) -> dict[str, dict[str, float]]:
    """What each layer of a finished design takes: bytes in its file, or its weights' adder graph on an FPGA."""
    match device.family:
        case "onnxruntime":
            return {layer.name: {"weight_bytes": layer_bytes(layer)} for layer in design.network}
        case "unrolled-fpga":
            assert device.clock_hz is not None
            graphs = adder_graph_cost(design, device.clock_hz, device.positions)
            return {name: dict(cost) for name, cost in graphs.layers.items()}
        case "folded-fpga":
            read = {design.network.input.name: dict.fromkeys(("cycles", *RESOURCES), 0.0)}
            return read | folding.layer_costs(folding.folded(design.network, device).options)
        case "bit-flexible" | "roofline" | "systolic" | "microcontroller" | "fitted":
            prices = layer_prices(device).items()
            return {layer.name: {name: price(layer) for name, price in prices} for layer in design.network}


def load_layer_costs(home: Path) -> dict[str, dict[str, float]]:
    """The layer costs of a finalist, from its folder."""
    costs: dict[str, dict[str, float]] = json.loads((home / LAYERS).read_text())
    return costs


def load_members(folder: Path) -> list[dict[str, Any]]:
    """All finalists of a finished stage: id, device, role, genotype, predicted, measured, on_front, winner."""
    members: list[dict[str, Any]] = json.loads((folder / MEMBERS).read_text())
    return members


def finalize_one(context: Context, device: Device, train_folder: Path, task: Task) -> None:
    """Tune a finalist and test it, into its folder."""
    training, data = context.trained(train_folder), context.data
    network = context.space.lower(task.genotype)
    subnet = training.specialise(network, context.formats(device))
    inherited = error(subnet, data.validation)
    fine_tune(subnet, training.full_subnet(), data.train, context.fine_tuning(), context.config.seed + task.index)
    design = subnet.design()
    errors = {
        "inherited_validation_error": inherited,
        "validation_error": error(subnet, data.validation),
        "error": _deployed_error(design, device, data.test, training),
    }
    task.home.mkdir(exist_ok=True)
    save_design(design, task.home / DESIGN)
    atomic_write(task.home / LAYERS, json.dumps(layer_costs(design, device)))
    atomic_write(task.home / ERRORS, json.dumps(errors))


def _deployed_error(design: Design, device: Device, data: Split, training: SupernetTraining) -> float:
    """Share of wrong answers of what is deployed: the ONNX model in its engine; elsewhere in exact arithmetic, done
    where the supernet is."""
    images = all_images(data, design.network)
    if device.family == "onnxruntime":
        logits = predict(engine_model(design), images).astype(np.float64)
    else:
        logits = design_logits(design, images, training.device)
    return float((logits.argmax(1) != data.labels.numpy()).mean())


def _measured(
    context: Context, device: Device, designs: Sequence[Design], layers: Sequence[Mapping[str, Mapping[str, float]]]
) -> list[dict[str, float]]:
    """Costs of the finished designs: measured on a CPU, of the real weights' adder graphs on an FPGA,
    computed by the cost model of another device."""
    match device.family:
        case "onnxruntime":
            models = {finalist_key(design.network): engine_model(design) for design in designs}
            builders = {key: partial(bytes, model) for key, model in models.items()}
            store = context.measurements(device.name)
            with progress(f"measure {len(models)} finalists on {device.name}", 100) as advance:
                latency, _ = measured_models(builders, device, store, context.config.seed, percent(advance))
            return [
                {"latency_s": latency[key], "weight_bytes": float(stored_weight_bytes(models[key]))}
                for key in (finalist_key(design.network) for design in designs)
            ]
        case "unrolled-fpga":
            assert device.clock_hz is not None
            stored = [float(sum(map(weight_bytes, design.network))) for design in designs]
            totals = [AdderGraphs(costs, device.clock_hz).total() for costs in layers]
            return [{**total, "weight_bytes": count} for total, count in zip(totals, stored, strict=True)]
        case "folded-fpga":
            stored = [float(sum(map(weight_bytes, design.network))) for design in designs]
            totals = [folding.folding_cost(costs, device) for costs in layers]
            return [{**total, "weight_bytes": count} for total, count in zip(totals, stored, strict=True)]
        case "bit-flexible" | "roofline" | "systolic" | "microcontroller" | "fitted":
            summed = layer_prices(device)
            totals = [{name: sum(cost[name] for cost in costs.values()) for name in summed} for costs in layers]
            if "peak_bytes" not in device.metrics:
                return totals
            peaks = [peak_memory_bytes(design.network) for design in designs]
            return [{**total, "peak_bytes": peak} for total, peak in zip(totals, peaks, strict=True)]


def finalist_key(network: Network) -> str:
    """Key of a finalist's measurement; that of a sampled architecture is the network's own, and not used for it."""
    return f"{network.key}-finalist"


def _member(
    target: Target, index: int, finalist: dict[str, Any], errors: dict[str, float], cost: dict[str, float]
) -> dict[str, Any]:
    """A finalist's record; `measured.error` is on the test split, `validation_error` is what decisions use."""
    return {
        "id": f"{target.name}-{index:02d}",
        "device": target.name,
        **finalist,
        "measured": {"error": errors.pop("error"), **cost},
        **errors,
    }


def _decided(member: dict[str, Any]) -> dict[str, float]:
    """What decisions about a finalist may read: its measured costs, and the error on the validation split."""
    return {**member["measured"], "error": member["validation_error"]}


def _mark_front(members: list[dict[str, Any]], target: Target, device: Device) -> None:
    """Mark who is on the front by validation error and measured cost within the limits, and the winner of it.

    The winner has the least validation error; of equals, the least of the next objective.
    """
    decided = [_decided(member) for member in members]
    costs = np.array([[values[name] for name in target.objectives] for values in decided])
    fits = np.array([all(values[c.metric] <= c.limit for c in limits(target, device)) for values in decided])
    front = np.flatnonzero(fits)[non_dominated(costs[fits])].tolist()
    others = [name for name in target.objectives if name != "error"]
    ranked = sorted(front, key=lambda i: (decided[i]["error"], *(decided[i][name] for name in others)))
    for index, member in enumerate(members):
        member["on_front"] = index in front
        member["winner"] = bool(ranked) and index == ranked[0]
