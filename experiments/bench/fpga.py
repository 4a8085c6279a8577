"""`nas bench fpga`: the folding program, its proofs and exhaustive search beside it; the cost model; jets on FPGAs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from experiments.bench.fpga_corpus import Row, completed, read_table
from experiments.bench.fpga_designs import designs, rows_of_runs
from experiments.bench.fpga_model import csynth_figures, finalist_figures, model_figures
from experiments.bench.results import Figure, figure
from fpga.folding import Folding, choose
from fpga.folding_options import Option, pruned
from fpga.tools import ToolError
from hw_models.device import Resources
from hw_models.families import Schedule
from nas.errors import NasError

_SCHEDULES: tuple[Schedule, ...] = ("pipelined", "sequential")


def random_layer(count: int, rng: np.random.Generator) -> tuple[Option, ...]:
    """That many options, none of them dominated: more at once takes fewer cycles and more of DSP blocks or LUTs."""
    work = float(rng.uniform(2e3, 2e5))
    options: tuple[Option, ...] = ()
    drawn: list[Option] = []
    while len(options) < count:
        drawn += [_random_option(work, rng) for _ in range(count)]
        options = pruned(drawn)
    kept = np.sort(rng.choice(len(options), count, replace=False))
    return tuple(options[place] for place in kept)


def _random_option(work: float, rng: np.random.Generator) -> Option:
    parallel, in_dsp = float(np.exp(rng.uniform(0, np.log(2000)))), bool(rng.integers(2))
    lut, ff, bram = parallel * rng.uniform([10, 10, 0.1], [25, 30, 0.4])
    dsp = int(parallel / 2) + 1 if in_dsp else 0
    lut += 0 if in_dsp else 60 * parallel
    return Option(1, 1, 1, "dsp" if in_dsp else "lut", int(work / parallel) + 1, int(lut), int(ff), dsp, int(bram))


def tight(layers: Sequence[Sequence[Option]], rng: np.random.Generator) -> Resources:
    """What the cheapest option of every layer takes of each resource, plus a small share of what the dearest take."""
    have = []
    for place in range(4):
        values = [[option.resources[place] for option in options] for options in layers]
        least, most = sum(map(min, values)), sum(map(max, values))
        have.append(int(least + rng.uniform(0.02, 0.3) * (most - least)))
    return Resources(*have)


def proof_times(repetitions: int) -> dict[str, Figure]:
    """`folding_20x100_s`: seconds to build, solve and prove 20 layers of 100 options, pipelined and sequential.

    `folding_20x100_pipelined_s` and `folding_20x100_sequential_s` are those of one schedule; infinite without a proof.
    """
    seconds: dict[Schedule, list[float]] = {schedule: [] for schedule in _SCHEDULES}
    _solve(1, 2, "sequential", 0)  # imports the solver
    for seed in range(repetitions):
        for schedule in _SCHEDULES:
            took, found = _solve(20, 100, schedule, seed)
            seconds[schedule].append(took if found is not None and found.gap == 0 else float("inf"))
    by_schedule = {f"folding_20x100_{schedule}_s": figure(values, "s") for schedule, values in seconds.items()}
    return {"folding_20x100_s": figure([took for values in seconds.values() for took in values], "s")} | by_schedule


def _solve(layers: int, count: int, schedule: Schedule, seed: int) -> tuple[float, Folding | None]:
    rng = np.random.default_rng(seed)
    several = [random_layer(count, rng) for _ in range(layers)]
    named, have = {f"layer{place}": options for place, options in enumerate(several)}, tight(several, rng)
    start = time.perf_counter()
    try:
        found = choose(named, have, schedule, effort=60.0)
    except NasError:
        return float("inf"), None
    return time.perf_counter() - start, found if isinstance(found, Folding) else None


def equal_exhaustive(instances: int) -> dict[str, Figure]:
    """`folding_equal_exhaustive`: the share of random programs, feasible or not, that agree with exhaustive search."""
    equal = []
    for seed in range(instances):
        rng = np.random.default_rng(seed)
        several = [random_layer(int(rng.integers(2, 9)), rng) for _ in range(int(rng.integers(2, 5)))]
        have, schedule = tight(several, rng), _SCHEDULES[seed % 2]
        found = choose({f"layer{place}": options for place, options in enumerate(several)}, have, schedule)
        equal.append(float(_best(several, have, schedule) == (found.cycles if isinstance(found, Folding) else None)))
    return {
        "folding_equal_exhaustive": Figure(
            float(np.mean(equal)), "share of random programs", (min(equal), max(equal)), instances
        )
    }


def _best(layers: Sequence[Sequence[Option]], have: Resources, schedule: Schedule) -> int | None:
    limits, together = np.array([have.lut, have.ff, have.dsp, have.bram]), max if schedule == "pipelined" else sum
    return min(
        (
            together(option.cycles for option in chosen)
            for chosen in itertools.product(*layers)
            if (np.sum([option.resources for option in chosen], axis=0) <= limits).all()
        ),
        default=None,
    )


def fpga(quick: bool, runs: Path, out: Path, say: Callable[[str], None]) -> dict[str, Figure]:
    """Foldings, the cost model against synthesis, and networks for jets; writes `fpga-designs.md`, too.

    Args:
        quick: Fewer foldings, the designs that were synthesised before, and small runs without synthesis.
        runs: Folder of runs; what is finished there is used again.
        out: Where the table of designs goes.
        say: Told what comes next.
    """
    instances, repetitions = (10, 2) if quick else (100, 10)
    say(f"folding 20 layers of 100 options, {repetitions} of each schedule")
    figures = proof_times(repetitions)
    say(f"{instances} foldings against exhaustive search")
    figures |= equal_exhaustive(instances)
    figures |= designs(quick, runs, out, say)
    rows = read_table() if quick else _synthesised(runs, say)
    made = [] if quick else rows_of_runs(runs)
    return figures | model_figures(rows) | finalist_figures(made, rows) | csynth_figures()


def _synthesised(runs: Path, say: Callable[[str], None]) -> list[Row]:
    """The designs that calibrate and test the model; those that were synthesised before, where yosys is missing."""
    try:
        return completed(runs, say)
    except ToolError as error:
        say(f"no further design is synthesised: {error}")
        return read_table()
