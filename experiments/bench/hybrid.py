"""`nas bench hybrid`: programs and evolution together against each alone, at equal CPU time, on the digits' supernet.

Hybrids run to their end, proofs included; then evolution and programs get as much CPU time as a hybrid took, the median
over the seeds since other work on the machine slows some, and are stopped in the middle of whatever they do. All that
they evaluated by then counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from experiments.bench.digits import CPU, FPGA, digits_problems
from experiments.bench.results import Figure, figure
from hw_models.device import load_device
from nas.genotype import FloatArray, IntArray
from nas.pareto import hypervolume, non_dominated
from nas.problem import Problem
from nas.search.archive import Proof, Sampler
from nas.search.evolution import Nsga2
from nas.search.hybrid import Hybrid
from nas.search.integer_program import IntegerProgram

SEEDS = range(10, 20)
"""None of which was looked at while the hybrid's settings were chosen; lower ones were."""

_ENDLESS = 10**6
_MARGIN = 1.05

HYBRID = Hybrid()
ALONE: Mapping[str, Sampler] = {
    "evolution": Nsga2(HYBRID.population, _ENDLESS),
    "program": IntegerProgram(budgets=1000, best=3, rounds=3),
}
"""Settings so large that time ends them; the evolution's population is the hybrid's."""


class TimeOver(Exception):
    """The CPU time of a search is spent."""


@dataclass
class Watched:
    """A problem's evaluation that keeps all results, and ends a search when its CPU time is over.

    Attributes:
        problem: The problem.
        seconds: CPU time from now on.
        seen: The metrics evaluated.
        start: CPU time of the process at the beginning.
        end: CPU seconds that the search took.
    """

    problem: Problem
    seconds: float
    seen: list[FloatArray] = field(default_factory=list)
    start: float = field(default_factory=time.process_time)
    end: float = np.inf

    def __call__(self, population: IntArray) -> FloatArray:
        values = self.problem.evaluate(population)
        if self.spent > self.seconds:
            raise TimeOver
        self.seen.append(values)
        return values

    @property
    def spent(self) -> float:
        """CPU seconds so far."""
        return time.process_time() - self.start

    def front(self) -> FloatArray:
        """Costs of the feasible networks seen that none dominates, shape (n, objectives)."""
        values = np.concatenate(self.seen)
        costs = self.problem.costs(values[self.problem.violation(values) == 0])
        front: FloatArray = costs[non_dominated(costs)]
        return front


def searched(problem: Problem, sampler: Sampler, seed: int, seconds: float = np.inf) -> tuple[Watched, list[Proof]]:
    """What a sampler sees in its CPU time, and what it proves if it comes to an end."""
    watched = Watched(problem, seconds)
    try:
        proofs = sampler.run(replace(problem, evaluate=watched), seed).proofs
    except TimeOver:
        proofs = []
    watched.end = watched.spent
    return watched, proofs


def ratios(fronts: Mapping[str, FloatArray]) -> dict[str, float]:
    """Hypervolume of each front over that of their union's; columns scaled to the union's worst times 1.05."""
    points = np.concatenate(list(fronts.values()))
    union = points[non_dominated(points)]
    least, corner = union.min(axis=0), union.max(axis=0) * _MARGIN
    scale = np.where(corner > least, corner - least, 1.0)
    one = (corner - least) / scale
    whole = hypervolume((union - least) / scale, one)
    return {name: hypervolume((front - least) / scale, one) / whole for name, front in fronts.items()}


def hybrid(quick: bool, runs: Path, out: Path, say: Callable[[str], None]) -> dict[str, Figure]:
    """Run all searches on both devices from every seed.

    Args:
        quick: Two seeds, on the small training.
        runs: Folder of runs; the supernet is trained there once.
        out: Not used: there is no picture.
        say: Told of every search.
    """
    devices = {name: load_device(name) for name in (CPU, FPGA)}
    made: dict[str, Figure] = {}
    seeds = SEEDS[:2] if quick else SEEDS
    with threadpool_limits(1):
        for device, problem in digits_problems(quick, runs, devices, say, share=False).items():
            for sampler in ALONE.values():  # solvers are imported, and memory is warm, before anything is timed
                searched(problem, sampler, 0, 0.5)
            say(f"{device}: {len(seeds)} hybrids")
            ours = [searched(problem, HYBRID, seed) for seed in seeds]
            seconds = float(np.median([watched.end for watched, _ in ours]))
            found = [_trial(problem, seed, *one, seconds) for seed, one in zip(seeds, ours, strict=True)]
            for seed, one in zip(seeds, found, strict=True):
                say(f"{device}, seed {seed}: " + ", ".join(f"{name} {value:.5g}" for name, value in one.items()))
            made |= {f"{name}[{device}]": figure([one[name] for one in found], unit) for name, unit in _UNITS.items()}
    return made


_UNITS = {
    "hv_hybrid": "hypervolume, ratio to the union of the three fronts",
    "hv_evolution": "hypervolume, ratio to the union of the three fronts",
    "hv_program": "hypervolume, ratio to the union of the three fronts",
    "hybrid_minus_best_alone": "difference of the ratios, same seed",
    "hybrid_s": "CPU seconds; the others get the median",
    "gap": "share of the error above a bound proved for its stand-in, mean over budgets",
}


def _trial(problem: Problem, seed: int, ours: Watched, proofs: list[Proof], seconds: float) -> dict[str, float]:
    fronts = {"hybrid": ours.front()}
    fronts |= {name: searched(problem, sampler, seed, seconds)[0].front() for name, sampler in ALONE.items()}
    ratio = ratios(fronts)
    gaps = [proof.gap / proof.value for proof in proofs if proof.gap is not None and proof.value]
    return {
        **{f"hv_{name}": value for name, value in ratio.items()},
        "hybrid_minus_best_alone": ratio["hybrid"] - max(ratio[name] for name in ALONE),
        "hybrid_s": ours.end,
        "gap": float(np.mean(gaps)),
    }
