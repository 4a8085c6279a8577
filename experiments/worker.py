"""A worker: trains candidates of a study that it shares with any number of others, until the study is done."""

from __future__ import annotations

import json
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.config import Config
from experiments.context import Context
from experiments.plan import plan
from experiments.problems import problem
from experiments.rundir import Stage
from hw_models.device import Device, load_device
from nas.errors import NasError
from nas.genotype import Genotype
from nas.pareto import non_dominated
from nas.problem import Problem
from nas.search.ledger import Ledger, Watch
from nas.search.optuna_shared import SharedStudy
from nas.search.optuna_study import SamplerName
from supernet.evaluate import error, fine_tune

VERSION = 2
"""Raised when training a candidate starts to give other results; a study holds results of one kind."""

_TUNING = ("finalize.epochs", "finalize.learning_rate", "finalize.range", "finalize.gradient")

_BEATS = 6
"""Signs of life within the time after which a worker without any counts as dead."""

_POLL_S = 0.5

Say = Callable[[str], None]
Train = Callable[[Genotype, int], Mapping[str, float]]


@dataclass(frozen=True)
class Candidates:
    """The networks of a finished run's supernet, for one of its devices."""

    context: Context
    device: Device
    problem: Problem
    train_folder: Path
    name: str

    def metrics(self, genotype: Genotype, origin: int) -> Mapping[str, float]:
        """Fine-tune a network; its error on the validation split, and its costs as the device's problem has them.

        The same on whatever worker: all randomness comes from the config's seed and the trial's number.
        """
        context, training, data = self.context, self.context.trained(self.train_folder), self.context.data
        subnet = training.specialise(context.space.lower(genotype), context.formats(self.device))
        fine_tune(subnet, training.full_subnet(), data.train, context.fine_tuning(), context.config.seed + origin)
        predicted = self.problem.evaluate(np.array([genotype]))[0].tolist()
        return {**dict(zip(self.problem.metrics, predicted, strict=True)), "error": error(subnet, data.validation)}


def candidates(config: Config, runs: Path, device: str | None, sampler: SamplerName) -> Candidates:
    """What a worker trains; its name is that of the study, and differs where results could.

    Raises:
        NasError: The run has no such device, or its supernet or predictors are not there.
    """
    context, stages = Context(config, runs), plan(config)
    names = [target.name for target in config.devices]
    if device is None and len(names) > 1:
        raise NasError(f"a study is of one device; name it with --device: {', '.join(names)}")
    of = stages.device(device or names[0])
    inputs = (stages.train, stages.fit, *([of.measure] if of.measure else []))
    for stage in inputs:
        context.run.summary(stage)
    at = context.run.stage_dir
    asked = problem(context, of.target, at(stages.fit), at(of.measure) if of.measure else None)
    said = [config.slice(*_TUNING, f"devices.{of.target.name}"), sampler]
    key = Stage("worker", VERSION, json.dumps(said), inputs).key
    return Candidates(
        context, load_device(of.target.name), asked, at(stages.train), f"{config.name}-{of.target.name}-{sampler}-{key}"
    )


def work(study: SharedStudy, train: Train, patience_s: float, say: Say) -> Ledger:
    """Train candidates until the study is done, and see to it that those of dead workers are trained too.

    Args:
        study: Shared with others.
        train: Metrics of a genotype, under the number of the trial that is to answer for it.
        patience_s: Without a sign of life for so long, others take this worker for dead.
        say: Told what happens.
    """
    watch = Watch()
    while not (ledger := _tend(study, watch, say)).done:
        number = _take(study, ledger, patience_s)
        if number is None:
            time.sleep(_POLL_S)
        else:
            with _alive(study, number, patience_s):
                _serve(study, number, train, watch, say)
    return ledger


def front(asked: Problem, ledger: Ledger) -> list[dict[str, Any]]:
    """What nothing trained dominates, within the limits, by the first objective: trial, genotype, metrics."""
    trained = ledger.results
    rows = np.array([[e.metrics[name] for name in asked.metrics] for e in trained.values()])
    if not len(rows):
        return []
    feasible = np.flatnonzero(asked.violation(rows) == 0)
    best = feasible[non_dominated(asked.costs(rows[feasible]))]
    found = [(genotype, entry) for genotype, entry in trained.items()]
    return [
        {"trial": entry.number, "genotype": list(genotype), "metrics": dict(entry.metrics)}
        for genotype, entry in sorted(
            (found[place] for place in best), key=lambda pair: [pair[1].metrics[name] for name in asked.objectives]
        )
    ]


def _tend(study: SharedStudy, watch: Watch, say: Say) -> Ledger:
    """Do what any worker may do, and several may do at once, for all: bury, queue again, answer copies."""
    ledger = study.read()
    for entry in watch.dead(ledger):
        if study.fail(entry.number, reason=f"no sign of life for {entry.within_s:g} s"):
            say(f"trial {entry.number}: its worker died; it is queued again")
    for entry in (ledger := study.read()).orphans:
        study.requeue(entry)
    for entry in ledger.copies:
        assert entry.genotype is not None
        if answer := ledger.answer(entry.genotype):
            study.finish(entry.number, answer.metrics)
        else:
            study.fail(entry.number, void=True, reason="copies a trial that was given up")
    return study.read()


def _take(study: SharedStudy, ledger: Ledger, patience_s: float) -> int | None:
    if ledger.waiting:
        return ledger.waiting.number if study.claim(ledger.waiting.number, patience_s) else None
    return study.create(patience_s) if ledger.room else None


def _serve(study: SharedStudy, number: int, train: Train, watch: Watch, say: Say) -> None:
    ledger = study.read()
    if ledger.entries[number].genotype is None and ledger.duty(number) == "wait":
        study.declare(number)
        ledger = _tend(study, watch, say)
    while (duty := ledger.duty(number)) == "wait":
        time.sleep(_POLL_S / 10)
        ledger = _tend(study, watch, say)
    entry = ledger.entries[number]
    if entry.finished or duty == "copy":
        return
    if duty == "surplus":
        study.fail(number, void=True, reason="another trial stands for it")
        return
    assert entry.genotype is not None
    try:
        metrics = train(entry.genotype, entry.origin)
    except KeyboardInterrupt:
        study.fail(number, void=True, reason="its worker was stopped")
        raise
    except Exception as fault:  # of this network, perhaps: the others are to be trained all the same
        say(f"trial {number}: failed\n{traceback.format_exc()}")
        study.fail(number, reason=f"{type(fault).__name__}: {fault}")
        return
    if study.finish(number, metrics):
        say(f"trial {number}: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    else:
        say(f"trial {number}: was taken from this worker, which had given no sign of life")


@contextmanager
def _alive(study: SharedStudy, number: int, patience_s: float) -> Iterator[None]:
    """Give signs of life meanwhile, from a thread of its own."""
    ended = threading.Event()

    def beats() -> None:
        count = 1
        while not ended.wait(patience_s / _BEATS):
            count += 1
            with suppress(NasError):  # the worker notices a lost storage itself; it may be back at the next beat
                study.beat(number, count, patience_s)

    thread = threading.Thread(target=beats, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
