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

This module and what it imports need nothing but Python 3.9 and the engine, so that any machine can run them:
`hw_models.remote` sends them there with a job, a folder of models, and `python3 -m hw_models.runner FOLDER` prints
the campaign as JSON.
"""

from __future__ import annotations

import json
import math
import os
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hw_models.engines import load_engine
from hw_models.machine import Engine, quiet, versions
from hw_models.power import Meter
from nas.errors import NasError

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

JOB = "job.json"

Clock = Callable[[], int]
Progress = Callable[[int, int], None]
"""Called with the rounds done and the rounds wanted."""


@dataclass(frozen=True)
class Campaign:
    """One set of models measured together, one input at a time, and the circumstances.

    Attributes:
        latency_s: Latency of each model as this campaign saw it; `hw_models.store` makes campaigns comparable.
        reference_s: Latency of the reference model, by the same rule.
        fingerprint: Machine and method; only equal ones compare.
        cpu: Name of the processor that ran the models, a CPU or a GPU.
        rounds: Rounds kept.
        rejected: Rounds repeated because the reference drifted.
        runs: Batches of calls in one timing.
        drift: Largest relative departure of the reference in a kept round.
        load_average: Of the minute before it began.
        date: When it began, ISO 8601, UTC.
        duration_s: How long it took.
        versions: Of Python, numpy, the engine, the operating system and a GPU's driver.
        clock_hz: Mean clock of the cores when it ended; None where the system does not tell it.
        energy_j: Energy of one inference of each model (`hw_models.power`); empty where no counter is readable.
        energy_source: The counter, or why there is none.
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
    clock_hz: float | None = None
    energy_j: Mapping[str, float] = field(default_factory=dict)
    energy_source: str = "missing: not asked for"


@dataclass(frozen=True)
class Plan:
    """How a campaign goes.

    Attributes:
        rounds: Rounds to keep, each with one timing of every model.
        runs: Batches of calls in one timing.
        seed: Of the order within the rounds.
        threads: Of the engine.
    """

    rounds: int
    runs: int
    seed: int
    threads: int


def fingerprint_of(engine: Engine, threads: int) -> str:
    """What a latency depends on beside the model: processor, engine, threads, harness."""
    return f"{engine.PROCESSOR.name}, {engine.NAME} {engine.VERSION}, threads {threads}, harness {HARNESS}"


def run_campaign(
    engine: Engine,
    models: Mapping[str, bytes],
    reference: bytes,
    plan: Plan,
    progress: Progress,
    clock: Clock,
) -> Campaign:
    """Measure ONNX models, by their keys, against each other and the reference model.

    Raises:
        NasError: `MAX_ATTEMPTS * rounds` rounds did not give `rounds` with a steady reference.
    """
    date, load, start = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()), os.getloadavg()[0], time.perf_counter()
    bench, processor = _Bench(engine, tuple(models.values()), reference, plan, clock), engine.PROCESSOR
    meter, source = processor.meter()
    with quiet(plan.threads):
        timings = bench.time_rounds(progress)
        energies = {key: _Stopwatch(models[key], bench).joules(meter) for key in models} if meter else {}
    kept = [index for index, kept in enumerate(timings.kept) if kept]
    columns = [[timings.models[index][column] for index in kept] for column in range(len(models))]
    return Campaign(
        latency_s={key: percentile(columns[column], PERCENTILE) for column, key in enumerate(models)},
        reference_s=percentile([seconds for index in kept for seconds in timings.reference[index]], PERCENTILE),
        fingerprint=fingerprint_of(engine, plan.threads),
        cpu=processor.name,
        rounds=len(kept),
        rejected=len(timings.models) - len(kept),
        runs=plan.runs,
        drift=max(timings.drift[index] for index in kept),
        load_average=load,
        date=date,
        duration_s=time.perf_counter() - start,
        versions=versions(engine),
        clock_hz=processor.clock_hz(),
        energy_j=energies,
        energy_source=source,
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear between the two nearest of the sorted values, of which there is at least one."""
    ordered = sorted(values)
    low, share = divmod((len(ordered) - 1) * percent / 100, 1)
    least = ordered[int(low)]
    return least + (ordered[min(int(low) + 1, len(ordered) - 1)] - least) * share


@dataclass
class _Timings:
    """Seconds per round: of the reference when it opened and when it closed the round, and of each model."""

    reference: list[tuple[float, float]] = field(default_factory=list)
    models: list[list[float]] = field(default_factory=list)

    @property
    def drift(self) -> list[float]:
        """Largest relative departure of the reference in each round."""
        usual = percentile([seconds for pair in self.reference for seconds in pair], PERCENTILE)
        return [max(abs(seconds / usual - 1) for seconds in pair) for pair in self.reference]

    @property
    def kept(self) -> list[bool]:
        return [drift <= MAX_DRIFT for drift in self.drift]


@dataclass(frozen=True)
class _Bench:
    """Everything a round needs."""

    engine: Engine
    models: Sequence[bytes]
    reference: bytes
    plan: Plan
    clock: Clock

    def time_rounds(self, progress: Progress) -> _Timings:
        """Repeat rounds until enough of them saw a steady reference."""
        rng, timings, wanted = random.Random(self.plan.seed), _Timings(), self.plan.rounds
        for attempt in range(MAX_ATTEMPTS * wanted):
            if attempt % FRESH_SESSIONS == 0:
                reference = _Stopwatch(self.reference, self)
                watches = [_Stopwatch(model, self) for model in self.models]
            opened, seconds = reference.seconds(), [0.0] * len(watches)
            for index in rng.sample(range(len(watches)), len(watches)):
                seconds[index] = watches[index].seconds()
            timings.reference.append((opened, reference.seconds()))
            timings.models.append(seconds)
            done = sum(timings.kept)
            progress(min(done, wanted), wanted)
            if done >= wanted:
                return timings
        raise _unsteady(timings, wanted)


class _Stopwatch:
    """Times one model in a session of its own, in batches of as many calls as fill `BATCH_S`."""

    def __init__(self, model: bytes, bench: _Bench) -> None:
        self._call, self._bench, self._batch = bench.engine.repeated_call(model, bench.plan.threads), bench, 1
        self._batch = max(1, math.ceil(BATCH_S / self.seconds()))

    def seconds(self) -> float:
        """Seconds of one call: the shortest of `runs` batches, after one call to warm the caches."""
        self._call(1)
        return min(self._once() for _ in range(self._bench.plan.runs)) / self._batch

    def joules(self, meter: Meter) -> float:
        """Joules of one call."""
        return meter.joules_per_call(self._call, max(1, math.ceil(meter.least_s / 100 / self.seconds())))

    def _once(self) -> float:
        start = self._bench.clock()
        told = self._call(self._batch)
        waited = self._bench.clock() - start
        return told or max(waited, 1) * 1e-9


def _unsteady(timings: _Timings, rounds: int) -> NasError:
    seconds = [seconds * 1e6 for pair in timings.reference for seconds in pair]
    low, high = percentile(seconds, PERCENTILE), percentile(seconds, 100 - PERCENTILE)
    return NasError(
        f"measurement: the reference model drifted by {high / low - 1:.0%} ({low:.1f} to {high:.1f} us), and only "
        f"{sum(timings.kept)} of {len(timings.models)} rounds stayed within {MAX_DRIFT:.0%}, {rounds} are needed; "
        "end other work on this machine and run again"
    )


def run_job(folder: Path) -> None:
    """Do what a folder's job asks, and print one line of JSON for each thing there is to say.

    `job.json` holds `engine`, `plan` and `models`, a list of [key, file], and `reference`, a file; without `reference`
    it only asks for the fingerprint. Lines hold `progress` (done, wanted), and at the end `fingerprint`, `campaign` or
    `error`.
    """
    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    try:
        engine, plan = load_engine(job["engine"]), Plan(**job["plan"])
        if "reference" not in job:
            _say(fingerprint=fingerprint_of(engine, plan.threads))
            return
        models = {key: (folder / name).read_bytes() for key, name in job["models"]}
        reference = (folder / job["reference"]).read_bytes()
        campaign = run_campaign(
            engine, models, reference, plan, lambda *rounds: _say(progress=rounds), time.perf_counter_ns
        )
        _say(campaign=asdict(campaign))
    except NasError as error:
        _say(error=str(error))


def _say(**line: object) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    run_job(Path(sys.argv[1]))
