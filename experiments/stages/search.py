"""Stage `search`: all samplers over the joint genotype of one device, and the choice of finalists from their finds."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments.context import Context
from experiments.problems import are_dense_8bit, dense_8bit, on_device
from experiments.progress import percent, progress
from experiments.rundir import atomic_write
from experiments.stages.active import Found, learning
from experiments.targets import Target
from hw_models.device import load_device
from nas.errors import NasError
from nas.genotype import IntArray, distinct
from nas.pareto import spread_subset
from nas.problem import Problem
from nas.search.archive import Archive
from nas.search.evolution import Nsga2
from nas.search.infeasible import explain
from predictors.accuracy import AccuracyPredictor

Role = Literal["joint", "dense-8bit"]

FINALISTS = "finalists.json"
CANDIDATES = "candidates.npz"


@dataclass(frozen=True)
class Folders:
    """Of the stages that a search builds on; `measure` is None for a device whose cost is computed."""

    train: Path
    fit: Path
    measure: Path | None


def search(context: Context, target: Target, inputs: Folders, folder: Path) -> dict[str, Any]:
    """Search one device's front.

    First a search among 8-bit unpruned networks alone: its front starts the joint search and is its baseline. Where the
    config asks for evaluations, subnets of the front are then scored, the predictor learns from them, and both searches
    are made anew, the joint one beginning with those subnets, too, until the evaluations are used up or the whole front
    has been scored.

    Raises:
        NasError: Nothing satisfies the constraints; names the binding one and the best reachable value.
    """
    once = partial(_search_once, context, target, inputs.measure)
    learned = learning(context, inputs.train, inputs.fit, folder, once)
    archive, dense = learned.found.archive, learned.found.dense
    asked = archive.problem
    front = archive.front()
    if not len(front):
        raise NasError(f"device {target.name}: {explain(asked, context.config.seed).message}")
    _save(folder, archive, front)
    settings = context.config.finalize
    joint = _chosen(asked, archive, front, settings.members)
    places = archive.add(dense, "") if dense is not None else np.zeros(0, dtype=np.int64)
    baseline = _chosen(asked, archive, places[asked.violation(archive.metrics[places]) == 0], settings.baseline)
    finalists = [_finalist(archive, place, "joint") for place in joint]
    finalists += [_finalist(archive, place, "dense-8bit") for place in baseline if place not in set(joint.tolist())]
    atomic_write(folder / FINALISTS, json.dumps(finalists, indent=1))
    atomic_write(folder / "proofs.json", json.dumps([asdict(proof) for proof in archive.proofs], indent=1))
    found_by = {name: archive.found_by.count(name) for name in dict.fromkeys(archive.found_by)}
    front_by = [archive.found_by[place] for place in front]
    return {
        "candidates": len(archive),
        "front": len(front),
        "finalists": len(finalists),
        "candidates_by": found_by,
        "front_by": {name: front_by.count(name) for name in dict.fromkeys(front_by)},
        "evaluations": learned.evaluations,
        "rmse_by_batch": learned.rmse_by_batch,
        "largest_gap": max((proof.gap for proof in archive.proofs if proof.gap is not None), default=None),
    }


def _search_once(
    context: Context, target: Target, measure_folder: Path | None, errors: AccuracyPredictor, starts: IntArray
) -> Found:
    """Search with this predictor: 8-bit unpruned networks first, then all, by every sampler of the config."""
    asked = on_device(context, load_device(target.name), target, errors, measure_folder)
    dense = _dense_front(context, target, asked)
    begun = starts if dense is None else distinct(np.concatenate([dense, starts]))
    return Found(_joint(context, target, asked, begun), dense)


def load_finalists(folder: Path) -> list[dict[str, Any]]:
    """What a finished search hands to finalize: id-less records.

    Each has genotype, role, dense_8bit (whether its genes are unpruned and 8-bit), found_by and predicted metrics.
    """
    finalists: list[dict[str, Any]] = json.loads((folder / FINALISTS).read_text())
    return finalists


def _dense_front(context: Context, target: Target, asked: Problem) -> IntArray | None:
    dense = dense_8bit(asked)
    if dense is None:
        return None
    sampler = context.config.search.samplers.get("nsga2", Nsga2())
    with progress(f"search {target.name}: 8-bit dense", 100) as advance:
        archive = sampler.run(dense, context.config.seed, percent(advance))
    return archive.genotypes[archive.front()]


def _joint(context: Context, target: Target, asked: Problem, starts: IntArray) -> Archive:
    archive = Archive(asked)
    for name, sampler in context.config.search.samplers.items():
        with progress(f"search {target.name}: {name}", 100) as advance:
            archive.absorb(sampler.run(asked, context.config.seed, percent(advance), starts))
    return archive


def _chosen(asked: Problem, archive: Archive, places: IntArray, count: int) -> IntArray:
    """As many as asked for, but never fewer than the best of each objective."""
    if not len(places) or not count:
        return places[:0]
    costs = asked.costs(archive.metrics[places])
    return places[spread_subset(costs, max(count, costs.shape[1]))]


def _finalist(archive: Archive, place: int, role: Role) -> dict[str, Any]:
    predicted = dict(zip(archive.problem.metrics, archive.metrics[place].tolist(), strict=True))
    return {
        "genotype": archive.genotypes[place].tolist(),
        "role": role,
        "dense_8bit": bool(are_dense_8bit(archive.problem, archive.genotypes[[place]])[0]),
        "found_by": archive.found_by[place],
        "predicted": predicted,
    }


def _save(folder: Path, archive: Archive, front: IntArray) -> None:
    with (folder / CANDIDATES).open("wb") as file:
        np.savez_compressed(
            file, genotypes=archive.genotypes.astype(np.int16), metrics=archive.metrics, front=front,
            names=np.array(archive.problem.metrics),
        )  # fmt: skip
