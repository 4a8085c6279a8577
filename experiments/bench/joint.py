"""`nas bench joint`: architecture, zeros and bits searched at once against one after the other, on Fashion-MNIST.

Per seed one supernet and one predictor serve both searches. Both predict as many candidates, score as many subnets for
the predictor to learn from, and have as many finalists tuned for as many epochs; the finalize stage tests these.
Besides: large sparse networks against small dense ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench.figures import fronts_picture
from experiments.bench.fronts import points_at_equal_cost, ratio_at_equal_accuracy
from experiments.bench.hybrid import ratios
from experiments.bench.joint_stages import Kind, Part, budget, parts, run, sampler
from experiments.bench.results import Figure, figure
from experiments.bench.sizes import MEASURES, sparse_minus_dense
from experiments.config import Config, config_from
from experiments.context import Context
from experiments.plan import plan
from experiments.rundir import atomic_write
from experiments.strict import read_yaml
from experiments.targets import Target
from nas.genotype import FloatArray
from supernet.distributed import gpus

CONFIG = Path(__file__).parents[1] / "configs" / "fashion-joint.yaml"
SEEDS = (0, 1, 2)

QUICK: Mapping[str, Any] = {
    "data": {"name": "digits", "validation": "25 %", "test": "20 %"},
    "predictors": {"accuracy": {"samples": 40}, "latency": {"samples": 20}},
    "search": {"samplers": {"nsga2": {"population": 40, "generations": 29}}, "evaluations": 20, "batch": 10},
    "finalize": {"members": 3, "epochs": 2},
}
"""What `--quick` changes, besides the training; so short a one need not meet limits on the error."""

QUICK_TRAINING: Mapping[str, Any] = {
    "epochs": {"full": 10, "kernel": 1, "depth": 1, "width": 1, "precision": 4},
    "batch": 64,
    "augmentation": {"shift": 1},
}

_SHORT = {"latency_s": "latency", "energy_j": "energy"}
"""How figures call costs that have a unit."""

RIVALS: tuple[Kind, ...] = ("joint", "sequential")

Finalists = Mapping[tuple[Kind, str], list[dict[str, Any]]]
"""Of one seed, by search and device."""


def joint(quick: bool, runs: Path, out: Path, say: Callable[[str], None]) -> dict[str, Figure]:
    """Run what an earlier call left undone, and compare.

    Args:
        quick: One seed on the digits, everything smaller.
        runs: Folder of runs; what an earlier call finished there is kept.
        out: Where the picture goes, `joint.png`.
        say: Told of every stage.
    """
    folder = runs / f"bench-joint{'-quick' if quick else ''}"
    contexts = [Context(joint_config(seed, quick), folder) for seed in (SEEDS[:1] if quick else SEEDS)]
    run(contexts, say)
    found = [{(part.kind, part.target.name): part.members() for part in parts(context)} for context in contexts]
    targets = contexts[0].config.devices
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(out / f"joint{'-quick' if quick else ''}.png", picture(targets, found))
    return figures(targets, found) | _stage_figures(contexts)


def joint_config(seed: int, quick: bool) -> Config:
    """The shipped config with a seed, trained on a GPU where there is one; or a small version of it, on the digits."""
    values = {**read_yaml(CONFIG), "name": f"fashion-joint-{seed}", "seed": seed}
    if gpus():
        values |= {"train_on": "cuda"}
    if quick:
        values |= {**QUICK, "supernet": {**values["supernet"], **QUICK_TRAINING}, "name": f"digits-joint-{seed}"}
        values["devices"] = [{**device, "constraints": {}} for device in values["devices"]]
    return config_from(values, f"{CONFIG.name}, seed {seed}")


def tested(members: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> FloatArray:
    """Measured metrics of a front chosen on the validation split, errors of the test split; shape (n, metrics)."""
    return np.array([[m["measured"][name] for name in metrics] for m in members if m["on_front"]], dtype=np.float64)


def compared(target: Target, ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, float]:
    """A joint front against one searched in sequence: hypervolumes, points at equal cost, costs at equal accuracy."""
    fronts = {name: tested(each, target.objectives) for name, each in (("joint", ours), ("sequential", theirs))}
    share = ratios(fronts)
    made = {"joint_hv_over_sequential": share["joint"] / share["sequential"]}
    for place, cost in enumerate(costs_of(target)):
        pair = tested(ours, (cost, "error")), tested(theirs, (cost, "error"))
        if not place:
            made["joint_minus_sequential_points"] = points_at_equal_cost(*pair)
        made[f"joint_{_SHORT.get(cost, cost)}_ratio_at_equal_accuracy"] = ratio_at_equal_accuracy(*pair)
    return made


def costs_of(target: Target) -> tuple[str, ...]:
    """The costs that a device's networks are compared at, the first of them also for accuracies at equal cost."""
    return tuple(name for name in target.objectives if name != "error")


def figures(targets: Sequence[Target], found: Sequence[Finalists]) -> dict[str, Figure]:
    """Of all seeds: by device, and without its name that of the device where it is worst for the joint search."""
    made: dict[str, Figure] = {}
    by_device = {
        t.name: [compared(t, each["joint", t.name], each["sequential", t.name]) for each in found] for t in targets
    }
    for name, (unit, worst) in _UNITS.items():
        of = {device: [one[name] for one in values] for device, values in by_device.items() if name in values[0]}
        if of:
            made[name] = figure([worst(one) for one in zip(*of.values(), strict=True)], unit)
            made |= {f"{name}[{device}]": figure(values, unit) for device, values in of.items()}
    device = targets[-1].name
    for measure in MEASURES:
        points = np.array([sparse_minus_dense(each["sizes", device], measure) for each in found])
        suffix = "" if measure == "nonzeros" else f"[{measure}]"
        unit = f"points of test accuracy, mean of {points.shape[1]} sizes in {measure}"
        made[f"sparse_minus_dense_points{suffix}"] = figure(points.mean(axis=1).tolist(), unit)
        for place, column in enumerate(points.T.tolist(), 1):
            made[f"sparse_minus_dense_points[{measure}, size {place}]"] = figure(column, "points of test accuracy")
    return made


_UNITS: Mapping[str, tuple[str, Callable[[Sequence[float]], float]]] = {
    "joint_minus_sequential_points": ("points of test accuracy at equal latency, LUTs on an FPGA", min),
    "joint_latency_ratio_at_equal_accuracy": ("latency joint / sequential, below 1: joint is faster", max),
    "joint_energy_ratio_at_equal_accuracy": ("energy joint / sequential, below 1: joint takes less", max),
    "joint_lut_ratio_at_equal_accuracy": ("LUTs joint / sequential, below 1: joint takes fewer", max),
    "joint_hv_over_sequential": ("ratio of hypervolumes, tested fronts", min),
}


def _stage_figures(contexts: Sequence[Context]) -> dict[str, Figure]:
    """How well the predictor ranks, and what the searches took."""
    taus = [context.run.summary(plan(context.config).fit)["kendall_tau"] for context in contexts]
    made = {"accuracy_tau": figure(taus, "Kendall tau, held-out subnets")}
    for target in contexts[0].config.devices:
        for kind in RIVALS:
            wanted = [p for each in contexts for p in parts(each) if (p.kind, p.target.name) == (kind, target.name)]
            made[f"candidates[{kind}, {target.name}]"] = figure(
                [_candidates(part) for part in wanted], "networks predicted"
            )
    return made


def _candidates(part: Part) -> float:
    """Of its last search. The joint one's archive does not count the 8-bit unpruned networks that it begins with."""
    count = float(part.context.run.summary(part.search)["candidates"])
    return count + budget(sampler(part.context)) / 2 if part.kind == "joint" else count


def picture(targets: Sequence[Target], found: Sequence[Finalists]) -> bytes:
    """Tested fronts of all seeds, a panel for each device."""
    panels = {}
    for target in targets:
        cost = costs_of(target)[0]
        fronts: dict[str, list[FloatArray]] = {
            kind: [tested(each[kind, target.name], (cost, "error")) for each in found] for kind in RIVALS
        }
        panels[target.name] = cost, fronts
    return fronts_picture(panels)
