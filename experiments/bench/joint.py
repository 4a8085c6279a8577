"""`nas bench joint`: architecture, zeros and bits searched at once against one after the other.

Per seed one supernet and one predictor serve all searches. The joint search and those in sequence predict as many
candidates, score as many subnets for the predictor to learn from, and have as many finalists tuned for as many epochs;
the finalize stage tests these. Besides: large sparse networks against small dense ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench import CONFIGS
from experiments.bench.figures import fronts_picture
from experiments.bench.fronts import points_at_equal_cost, ratio_at_equal_accuracy
from experiments.bench.hybrid import ratios
from experiments.bench.joint_stages import IN_SEQUENCE, Kind, Part, budget, parts, run, sampler
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

COMPARED: tuple[Kind, ...] = ("joint", *IN_SEQUENCE)

Finalists = Mapping[tuple[Kind, str], list[dict[str, Any]]]
"""Of one seed, by search and device."""


def joint(name: str, quick: bool, runs: Path, out: Path, say: Callable[[str], None]) -> dict[str, Figure]:
    """Run what an earlier call left undone, and compare.

    Args:
        name: Name of a shipped config.
        quick: One seed on the digits, everything smaller.
        runs: Folder of runs; what an earlier call finished there is kept.
        out: Where the picture goes, `NAME.png`.
        say: Told of every stage.
    """
    whole = f"{name}{'-quick' if quick else ''}"
    seeds = SEEDS[:1] if quick else SEEDS
    contexts = [Context(joint_config(name, seed, quick), runs / f"bench-{whole}") for seed in seeds]
    run(contexts, say)
    found = [{(part.kind, part.target.name): part.members() for part in parts(context)} for context in contexts]
    targets = contexts[0].config.devices
    atomic_write(out / f"{whole}.png", picture(targets, found))
    return figures(targets, found) | _stage_figures(contexts)


def joint_config(name: str, seed: int, quick: bool) -> Config:
    """A shipped config with a seed, trained on a GPU where there is one; or a small version of it, on the digits."""
    path = CONFIGS / f"{name}.yaml"
    values = {**read_yaml(path), "name": f"{name}-{seed}", "seed": seed, "train_on": "cuda" if gpus() else "cpu"}
    if quick:
        values |= {**QUICK, "supernet": {**values["supernet"], **QUICK_TRAINING}, "name": f"digits-{seed}"}
        values["devices"] = [{**device, "constraints": {}} for device in values["devices"]]
    return config_from(values, f"{path.name}, seed {seed}")


def tested(members: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> FloatArray:
    """Measured metrics of a front chosen on the validation split, errors of the test split; shape (n, metrics)."""
    return np.array([[m["measured"][name] for name in metrics] for m in members if m["on_front"]], dtype=np.float64)


def compared(target: Target, ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, float]:
    """A joint front against another: hypervolumes, points at equal cost, costs at equal accuracy."""
    share = ratios({"ours": tested(ours, target.objectives), "theirs": tested(theirs, target.objectives)})
    made = {"hypervolume": share["ours"] / share["theirs"]}
    for place, cost in enumerate(costs_of(target)):
        pair = tested(ours, (cost, "error")), tested(theirs, (cost, "error"))
        if not place:
            made["points"] = points_at_equal_cost(*pair)
        made[cost] = ratio_at_equal_accuracy(*pair)
    return made


def costs_of(target: Target) -> tuple[str, ...]:
    """The costs that a device's networks are compared at, the first of them also for accuracies at equal cost."""
    return tuple(name for name in target.objectives if name != "error")


def figures(targets: Sequence[Target], found: Sequence[Finalists]) -> dict[str, Figure]:
    """Of all seeds: by device, and without its name that of the device where it is worst for the joint search."""
    made: dict[str, Figure] = {}
    for rival in IN_SEQUENCE:
        by_device = {
            t.name: [compared(t, each["joint", t.name], each[rival, t.name]) for each in found] for t in targets
        }
        for measure, (pattern, against, worst) in _NAMES.items():
            of = {device: [one[measure] for one in each] for device, each in by_device.items() if measure in each[0]}
            if of:
                name = pattern.format(rival=rival, to="" if rival == "sequential" else f"_to_{rival}")
                unit = against.format(rival=rival)
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


_NAMES: Mapping[str, tuple[str, str, Callable[[Sequence[float]], float]]] = {
    "points": ("joint_minus_{rival}_points", "points of test accuracy at equal latency, LUTs on an FPGA", min),
    "latency_s": (
        "joint_latency_ratio{to}_at_equal_accuracy",
        "latency joint / {rival}, below 1: joint is faster",
        max,
    ),
    "energy_j": ("joint_energy_ratio{to}_at_equal_accuracy", "energy joint / {rival}, below 1: joint takes less", max),
    "lut": ("joint_lut_ratio{to}_at_equal_accuracy", "LUTs joint / {rival}, below 1: joint takes fewer", max),
    "hypervolume": ("joint_hv_over_{rival}", "ratio of hypervolumes, tested fronts", min),
}  # fmt: skip
"""By what is compared: the figure's name, its unit, and which device is the worst for the joint search."""


def _stage_figures(contexts: Sequence[Context]) -> dict[str, Figure]:
    """How well the predictor ranks, what the searches took, and how far off it was on their first and last batches."""
    taus = [context.run.summary(plan(context.config).fit)["kendall_tau"] for context in contexts]
    made = {"accuracy_tau": figure(taus, "Kendall tau, held-out subnets")}
    for target in contexts[0].config.devices:
        for kind in ("joint", "sequential"):
            wanted = [p for each in contexts for p in parts(each) if (p.kind, p.target.name) == (kind, target.name)]
            made[f"candidates[{kind}, {target.name}]"] = figure(
                [_candidates(part) for part in wanted], "networks predicted"
            )
            off = [part.context.run.summary(part.search)["rmse_by_batch"] for part in wanted]
            for word, place in (("first", 0), ("last", -1)):
                made[f"{word}_batch_rmse[{kind}, {target.name}]"] = figure(
                    [100 * each[place] for each in off], "points of error, predicted against inherited"
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
            kind: [tested(each[kind, target.name], (cost, "error")) for each in found] for kind in COMPARED
        }
        panels[target.name] = cost, fronts
    return fronts_picture(panels)
