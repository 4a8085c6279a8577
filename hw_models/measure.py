"""Measure latency so that it repeats, also while other programs use the machine.

All models are timed in turn, in rounds and in an order drawn anew for each; one timing is the shortest of
`runs` batches of calls, each batch long against the clock; a model's latency is the 10th percentile over the
rounds. A fixed reference model opens and closes every round. A machine changes pace for whole seconds (clock
frequency, neighbours), so a round whose reference departs by more than 15 % from the campaign's 10th percentile
is repeated, and the reference's latency is the unit in which campaigns compare (`hw_models.store`).

Where in memory a session happens to lie moves its latency by about 1 %, as long as it lives: so sessions are
opened anew every few rounds.

Two campaigns over forty mobile networks of 10 to 35 us, two shared cores under a load of 2 to 6: Kendall tau 0.97
to 0.99, median disagreement 0.4 to 1.7 %, largest 4 %.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from hw_models import onnx_runtime
from hw_models.machine import cpu_model, quiet, versions
from hw_models.onnx_model import to_onnx
from hw_models.reference import REFERENCE, random_design
from nas.errors import NasError
from nas.genotype import BoolArray, FloatArray

HARNESS = 1
"""Version of what follows and of the reference model; measurements of different versions do not compare."""
BATCH_S = 100e-6
"""Least time of one batch of calls."""
PERCENTILE = 10
FRESH_SESSIONS = 3
"""Rounds one set of sessions serves."""
MAX_DRIFT = 0.15
MAX_ATTEMPTS = 20
"""Rounds tried for each round wanted before a campaign is given up: a machine that is slow nine tenths of the time
still gives one steady pace or the other within ten."""

Clock = Callable[[], int]
Progress = Callable[[int, int], None]
"""Called with the rounds done and the rounds wanted."""


def silent(_done: int, _total: int) -> None:
    """Report no progress."""


@dataclass(frozen=True)
class Campaign:
    """One set of models measured together, one input at a time, and the circumstances.

    Attributes:
        latency_s: Latency of each model as this campaign saw it; `hw_models.store` makes campaigns comparable.
        reference_s: Latency of the reference model, by the same rule.
        fingerprint: Machine and method; only equal ones compare.
        cpu: The processor's name.
        rounds: Rounds kept.
        rejected: Rounds repeated because the reference drifted.
        runs: Batches of calls in one timing.
        drift: Largest relative departure of the reference in a kept round.
        load_average: Of the minute before it began.
        date: When it began, ISO 8601, UTC.
        duration_s: How long it took.
        versions: Of Python, numpy, onnxruntime and the operating system.
    """

    latency_s: Mapping[str, float]
    reference_s: float
    fingerprint: str
    cpu: str
    rounds: int
    rejected: int
    runs: int
    drift: float
    load_average: float
    date: str
    duration_s: float
    versions: Mapping[str, str]


def fingerprint(threads: int = 1) -> str:
    """What a latency depends on beside the model: processor, engine, threads, harness."""
    return f"{cpu_model()}, onnxruntime {onnx_runtime.VERSION}, threads {threads}, harness {HARNESS}"


def measure(
    models: Mapping[str, bytes],
    rounds: int = 30,
    runs: int = 5,
    *,
    seed: int = 0,
    threads: int = 1,
    progress: Progress = silent,
    clock: Clock = time.perf_counter_ns,
) -> Campaign:
    """Measure ONNX models against each other, one input at a time.

    Args:
        models: Serialized models by key.
        rounds: Rounds to keep, each with one timing of every model.
        runs: Batches of calls in one timing.
        seed: Of the order within the rounds.
        threads: Of the engine.
        progress: Called after every round.
        clock: Nanoseconds, ascending.

    Raises:
        NasError: `MAX_ATTEMPTS * rounds` rounds did not give `rounds` with a steady reference.
    """
    date, load, start = datetime.now(UTC), os.getloadavg()[0], time.perf_counter()
    plan = _Plan(rounds, runs, seed, threads, clock)
    with quiet(threads):
        timings = _time_rounds(tuple(models.values()), plan, progress)
    kept = timings.kept
    latency = np.percentile(np.array(timings.models)[kept], PERCENTILE, axis=0)
    return Campaign(
        latency_s=dict(zip(models, latency.tolist(), strict=True)),
        reference_s=float(np.percentile(np.array(timings.reference)[kept], PERCENTILE)),
        fingerprint=fingerprint(threads),
        cpu=cpu_model(),
        rounds=int(kept.sum()),
        rejected=int((~kept).sum()),
        runs=runs,
        drift=float(timings.drift[kept].max()),
        load_average=load,
        date=date.isoformat(timespec="seconds"),
        duration_s=time.perf_counter() - start,
        versions=versions(),
    )


@dataclass(frozen=True)
class _Plan:
    """The settings of one campaign, as `measure` explains them."""

    rounds: int
    runs: int
    seed: int
    threads: int
    clock: Clock


class _Stopwatch:
    """Times one model in a session of its own, in batches of as many calls as fill `BATCH_S`."""

    def __init__(self, model: bytes, plan: _Plan) -> None:
        self._call, self._plan, self._batch = onnx_runtime.repeated_call(model, plan.threads), plan, 1
        self._batch = max(1, math.ceil(BATCH_S / self.seconds()))

    def seconds(self) -> float:
        """Seconds of one call: the shortest of `runs` batches, after one call to warm the caches."""
        self._call(1)
        return min(self._once() for _ in range(self._plan.runs)) / self._batch

    def _once(self) -> float:
        start = self._plan.clock()
        self._call(self._batch)
        return max(self._plan.clock() - start, 1) * 1e-9


@dataclass
class _Timings:
    """Seconds per round: of the reference when it opened and when it closed the round, and of each model."""

    reference: list[tuple[float, float]] = field(default_factory=list)
    models: list[FloatArray] = field(default_factory=list)

    @property
    def drift(self) -> FloatArray:
        """Largest relative departure of the reference in each round, shape (rounds,)."""
        seconds = np.array(self.reference)
        departure: FloatArray = np.max(np.abs(seconds / np.percentile(seconds, PERCENTILE) - 1), axis=1)
        return departure

    @property
    def kept(self) -> BoolArray:
        return self.drift <= MAX_DRIFT


def _time_rounds(models: Sequence[bytes], plan: _Plan, progress: Progress) -> _Timings:
    """Repeat rounds until enough of them saw a steady reference."""
    reference_model, rng, timings = to_onnx(random_design(REFERENCE, 0)), np.random.default_rng(plan.seed), _Timings()
    for attempt in range(MAX_ATTEMPTS * plan.rounds):
        if attempt % FRESH_SESSIONS == 0:
            reference = _Stopwatch(reference_model, plan)
            watches = [_Stopwatch(model, plan) for model in models]
        opened, seconds = reference.seconds(), np.zeros(len(models))
        for index in rng.permutation(len(models)):
            seconds[index] = watches[index].seconds()
        timings.reference.append((opened, reference.seconds()))
        timings.models.append(seconds)
        done = int(timings.kept.sum())
        progress(min(done, plan.rounds), plan.rounds)
        if done >= plan.rounds:
            return timings
    raise _unsteady(timings, plan.rounds)


def _unsteady(timings: _Timings, rounds: int) -> NasError:
    low, high = np.percentile(np.array(timings.reference) * 1e6, (PERCENTILE, 100 - PERCENTILE))
    return NasError(
        f"measurement: the reference model drifted by {high / low - 1:.0%} ({low:.1f} to {high:.1f} us), and only "
        f"{timings.kept.sum()} of {len(timings.models)} rounds stayed within {MAX_DRIFT:.0%}, {rounds} are needed; "
        "end other work on this machine and run again"
    )
