"""The stages of `nas bench joint`: those of a run up to its search, and beside them searches of other kinds.

All are keyed, resumed and recorded in the run's directory as the run's own stages are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from experiments.bench.sequential import STEPS, committed, sequential
from experiments.bench.sizes import sizes
from experiments.context import Context
from experiments.environment import environment
from experiments.plan import plan
from experiments.problems import on_device
from experiments.rundir import Stage, atomic_write
from experiments.stages.active import Found, learning
from experiments.stages.finalize import Task, finalize, finalize_one, load_members, tasks_left
from experiments.stages.fit import fit
from experiments.stages.sample import sample
from experiments.stages.search import FINALISTS, Folders, search
from experiments.stages.train import train
from experiments.targets import Target
from experiments.workers import parallel
from hw_models.device import load_device
from nas.errors import NasError
from nas.genotype import IntArray
from nas.pareto import spread_subset
from nas.problem import Problem
from nas.search.archive import Archive
from nas.search.evolution import Evolution, Nsga2
from predictors.accuracy import AccuracyPredictor
from supernet.distributed import ALONE, Ranks, gpus

Kind = Literal["joint", "sequential", "committed", "sizes"]
Say = Callable[[str], None]
InSequence = Callable[[Problem, Evolution, int, IntArray], Archive]

IN_SEQUENCE: Mapping[Kind, InSequence] = {"sequential": sequential, "committed": committed}

_VERSIONS: Mapping[Kind, int] = {"sequential": 3, "committed": 1, "sizes": 4}
"""Raised when a search of this kind starts to give other results for the same input."""

_SPARE = 1 / 8
"""Share of genotypes that mean a network met before: at most this in trials of 20 to 500 thousand candidates."""


@dataclass(frozen=True)
class Part:
    """A search of one seed for one device, and the stage that tunes and tests its finalists."""

    context: Context
    kind: Kind
    target: Target
    search: Stage
    finalize: Stage

    def members(self) -> list[dict[str, Any]]:
        """Its finalists, once it is done."""
        return load_members(self.context.run.stage_dir(self.finalize))


def parts(context: Context) -> list[Part]:
    """All searches of a seed: joint and in sequence for each device, and one of sizes, tested as on the last device."""
    stages, made = plan(context.config), list[Part]()
    for of in stages.devices:
        made.append(Part(context, "joint", of.target, of.search, of.finalize))
        kinds: tuple[Kind, ...] = (*IN_SEQUENCE, "sizes") if of is stages.devices[-1] else tuple(IN_SEQUENCE)
        for kind in kinds:
            found = Stage(f"{kind}-{of.target.name}", _VERSIONS[kind], of.search.settings, of.search.inputs)
            tested = Stage(
                f"finalize-{kind}-{of.target.name}", of.finalize.version, of.finalize.settings, (found, stages.train)
            )
            made.append(Part(context, kind, of.target, found, tested))
    return made


def run(contexts: Sequence[Context], say: Say) -> None:
    """Do what is left of all stages. Those that take one core each go side by side, of all seeds and devices."""
    with ExitStack() as held:
        for context in contexts:
            held.enter_context(context.run.locked())
            context.run.start(context.config.to_yaml(), environment(context.config.seed))
        _side_by_side("train", _train, list(enumerate(contexts)), say)
        for context in contexts:
            stages = plan(context.config)
            _finish(context, stages.sample, partial(sample, context, context.run.stage_dir(stages.train)), say)
        _side_by_side("fit", _fit, contexts, say)
        searches = [part for context in contexts for part in parts(context)]
        _side_by_side("search", _search, searches, say)
        _side_by_side("tune", partial(_tune, searches), _left(searches), say, contexts[0].workers)
        for part in searches:
            at = part.context.run.stage_dir
            test = partial(finalize, part.context, part.target, at(plan(part.context.config).train), at(part.search))
            _finish(part.context, part.finalize, test, say)


def sampler(context: Context) -> Evolution:
    """How all searches go.

    Raises:
        NasError: The config has not NSGA-II, and nothing else.
    """
    settings = context.config.search
    match settings.samplers:
        case {"nsga2": Nsga2() as evolution} if len(settings.samplers) == 1:
            return evolution
    raise NasError("search.samplers must be nsga2 alone: budgets are counted in candidates")


def budget(evolution: Evolution) -> int:
    """Candidates of each search of the stage: of the 8-bit unpruned networks it begins with, and of the joint ones."""
    return 2 * evolution.population * (evolution.generations + 1)


def step(evolution: Evolution) -> Evolution:
    """One step of a search in sequence: an equal share of the search stage's candidates, and some to spare.

    Those make up for genotypes of `Opened` that mean the same network, so that it predicts no fewer networks.
    """
    steps = evolution.population * (1 + len(STEPS))
    return replace(evolution, generations=math.ceil(budget(evolution) * (1 + _SPARE) / steps) - 1)


def _side_by_side(
    what: str, function: Callable[[Any], str], tasks: Sequence[Any], say: Say, most: int | None = None
) -> None:
    for _, told in parallel(function, tasks, most):
        say(f"{what}: {told}")


def _finish(
    context: Context, stage: Stage, work: Callable[[Path], dict[str, Any]], say: Say = lambda text: None
) -> str:
    """Do a stage unless it is done; what became of it."""
    state, name = context.run.state(stage), f"{context.config.name}, {stage.name}"
    if state != "done":
        say(f"{name}: {'resumes' if state == 'partial' else 'starts'}")
        context.run.finish(stage, work(context.run.stage_dir(stage)))
    told = f"{name}: done {json.dumps(context.run.summary(stage))}"
    say(told)
    return told


def _train(numbered: tuple[int, Context]) -> str:
    """Train a supernet, or go on; GPUs take seeds by turns."""
    number, context = numbered
    gpu = Ranks(local=number % len(gpus())) if gpus() else ALONE
    return _finish(context, plan(context.config).train, lambda folder: train(context, folder, gpu))


def _fit(context: Context) -> str:
    stages = plan(context.config)
    return _finish(context, stages.fit, partial(fit, context, context.run.stage_dir(stages.sample)))


def _search(part: Part) -> str:
    context, stages = part.context, plan(part.context.config)
    train_folder, fit_folder = (context.run.stage_dir(stage) for stage in (stages.train, stages.fit))
    evolution = sampler(context)
    match part.kind:
        case "joint":
            work = partial(search, context, part.target, Folders(train_folder, fit_folder, None))
        case "sequential" | "committed":
            once = partial(_once, context, part.target, IN_SEQUENCE[part.kind], step(evolution))
            work = partial(_in_sequence, context, part.kind, once, train_folder, fit_folder)
        case "sizes":
            work = partial(sizes, context, step(evolution), train_folder, fit_folder)
    return _finish(context, part.search, work)


def _left(searches: Sequence[Part]) -> list[tuple[int, Task]]:
    """The finalists of all searches that are not tuned, each with the place of its search; one pool serves them all."""
    return [
        (place, task)
        for place, part in enumerate(searches)
        for task in tasks_left(part.context.run.stage_dir(part.search), part.context.run.stage_dir(part.finalize))
    ]


def _tune(searches: Sequence[Part], placed: tuple[int, Task]) -> str:
    place, task = placed
    part = searches[place]
    train_folder = part.context.run.stage_dir(plan(part.context.config).train)
    finalize_one(part.context, load_device(part.target.name), train_folder, task)
    return f"{part.context.config.name}, {part.finalize.name}, {task.index}"


def _in_sequence(
    context: Context, kind: Kind, once: Callable[[AccuracyPredictor, IntArray], Found], train_folder: Path,
    fit_folder: Path, folder: Path,
) -> dict[str, Any]:  # fmt: skip
    """Stage: a search in sequence, which scores as many subnets as the joint one, and as many finalists."""
    learned = learning(context, train_folder, fit_folder, folder, once)
    archive = learned.found.archive
    asked, front = archive.problem, archive.front()
    chosen = front[spread_subset(asked.costs(archive.metrics[front]), context.config.finalize.members)]
    records = [
        {"genotype": row, "role": kind, "predicted": dict(zip(asked.metrics, values, strict=True))}
        for row, values in zip(archive.genotypes[chosen].tolist(), archive.metrics[chosen].tolist(), strict=True)
    ]
    atomic_write(folder / FINALISTS, json.dumps(records, indent=1))
    return {
        "candidates": len(archive),
        "front": len(front),
        "finalists": len(records),
        "evaluations": learned.evaluations,
        "rmse_by_batch": learned.rmse_by_batch,
    }


def _once(
    context: Context, target: Target, search: InSequence, evolution: Evolution, errors: AccuracyPredictor,
    starts: IntArray,
) -> Found:  # fmt: skip
    asked = on_device(context, load_device(target.name), target, errors, None)
    return Found(search(asked, evolution, context.config.seed, starts))
