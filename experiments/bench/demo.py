"""`nas bench demo`: the main job on the digits, once per seed, each run from nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench import CONFIGS
from experiments.bench.results import Figure, figure
from experiments.config import Config, config_from
from experiments.pipeline import run
from experiments.plan import OpenRun, open_run
from experiments.report.figures import front_picture
from experiments.report.metrics import joint_over_dense, spearman
from experiments.rundir import atomic_write
from experiments.strict import read_yaml
from nas.pareto import non_dominated

CONFIG = CONFIGS / "digits.yaml"
SEEDS = (0, 1, 2)

QUICK: Mapping[str, Any] = {
    "supernet": {"epochs": {"full": 20, "kernel": 3, "depth": 3, "width": 4, "precision": 10}},
    "predictors": {"accuracy": {"samples": 80}, "latency": {"samples": 20}},
    "search": {
        "samplers": {
            "nsga2": {"population": 40, "generations": 10},
            "integer_program": {"budgets": 2, "effort": 1.0, "samples": 200},
            "optuna": {"trials": 20},
        }
    },
    "finalize": {"members": 8, "baseline": 4, "epochs": 3},
}
"""What `--quick` changes; the constraints go, since so short a training need not meet them."""


def demo(quick: bool, runs: Path, out: Path, say: Callable[[str], None]) -> dict[str, Figure]:
    """Run the main job and gather its figures: over devices the worst counts, over seeds the median.

    Args:
        quick: One seed, everything smaller.
        runs: Folder of runs; each call works in a new folder of it.
        out: Where the fronts of the first seed go as a picture, `front.png`.
        say: Told of every stage.
    """
    folder = runs / f"bench-demo-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    opened = [open_run(run(demo_config(seed, quick), folder, say).path) for seed in (SEEDS[:1] if quick else SEEDS)]
    atomic_write(out / f"front{'-quick' if quick else ''}.png", front_picture(opened[0]))
    figures: dict[str, Figure] = {}
    for name, (unit, worst, measure) in _FIGURES.items():
        values = [{d.target.name: measure(one, d.target.name) for d in one.plan.devices} for one in opened]
        present = [{device: v for device, v in by_device.items() if v is not None} for by_device in values]
        figures[name] = figure([worst(by_device.values()) for by_device in present], unit)
        if len(present[0]) > 1:
            for device in present[0]:
                figures[f"{name}[{device}]"] = figure([by_device[device] for by_device in present], unit)
    return figures


def demo_config(seed: int, quick: bool) -> Config:
    """The main job of a seed, or a small version of it without constraints."""
    entries: dict[str, Any] = {**read_yaml(CONFIG), "name": f"digits-{seed}", "seed": seed}
    if quick:
        entries = merged(entries, QUICK)
        entries["devices"] = [{"name": device["name"]} for device in entries["devices"]]
    return config_from(entries, f"digits.yaml, seed {seed}")


def merged(base: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """A config's values with some changed, section by section."""
    return base | {
        key: merged(base[key], value) if isinstance(value, Mapping) else value for key, value in change.items()
    }


def _front(opened: OpenRun, device: str) -> list[dict[str, Any]]:
    return [member for member in opened.members(device) if member["on_front"]]


def _front_size(opened: OpenRun, device: str) -> float:
    """Members of the front that no other dominates as measured, with the errors of the test split."""
    objectives = opened.plan.device(device).target.objectives
    measured = [[member["measured"][name] for name in objectives] for member in _front(opened, device)]
    return float(non_dominated(np.array(measured)).sum())


def _best_error(opened: OpenRun, device: str) -> float:
    return min(float(member["measured"]["error"]) for member in _front(opened, device))


def _joint_over_dense(opened: OpenRun, device: str) -> float:
    return joint_over_dense(opened.members(device), opened.plan.device(device).target.objectives)


def _latency_spearman(opened: OpenRun, device: str) -> float:
    return spearman(opened.members(device), "latency_s")


def _accuracy_tau(opened: OpenRun, device: str) -> float:
    return float(opened.context.run.summary(opened.plan.fit)["kendall_tau"])


def _hls_mismatches(opened: OpenRun, device: str) -> float | None:
    checks = opened.context.run.summary(opened.plan.device(device).export)["checks"].values()
    found = [check["mismatches"] for check in checks if check["kind"] == "hls4ml"]
    return float(sum(found)) if found else None


Measure = Callable[[OpenRun, str], float | None]

_FIGURES: Mapping[str, tuple[str, Callable[[Iterable[float]], float], Measure]] = {
    "front_size": ("networks", min, _front_size),
    "best_error": ("share of test images", max, _best_error),
    "joint_hv_over_8bit_dense": ("ratio of measured hypervolumes", min, _joint_over_dense),
    "latency_spearman": ("rank correlation, finalists", min, _latency_spearman),
    "accuracy_tau": ("Kendall tau, held-out subnets", min, _accuracy_tau),
    "hls_mismatches": ("test images", max, _hls_mismatches),
}
"""Name, unit, which device counts, and how it is measured; None where a device has no such figure."""
