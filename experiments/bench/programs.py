"""Integer programs against exhaustive search, and the time a proof takes, on one thread."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.bench.results import Figure, figure
from nas.errors import NasError
from nas.genotype import FloatArray, Gate, Gene, IntArray, canonical
from nas.network import Network
from nas.problem import Constraint, Problem
from nas.search.archive import Archive
from nas.search.programs import Programs
from nas.tables import AdditiveCost, AdditiveTable, PipelinedCost

_LAYERS_PER_STAGE = 4


@dataclass(frozen=True)
class Choices:
    """Genes without networks: all that a program sees of a space."""

    genes: tuple[Gene, ...]

    def lower(self, genotype: Sequence[int]) -> Network:
        raise NasError("a space of choices alone has no networks")

    def maximal(self) -> tuple[Network, ...]:
        raise NasError("a space of choices alone has no networks")


def layered(layers: int, options: Sequence[int], stages: int, rng: np.random.Generator) -> Problem:
    """A random problem of layers that each have a gene per entry of `options`, such as kernel, width and bits.

    The last layers of every stage are there only if its depth says so. A layer's loss falls as its cost rises,
    with noise, so that most of its forms are worth a look; latency counts every layer, or the slowest (`interval_s`).
    """
    genes = [Gene(f"depth{stage}", "depth", (1.0, 2.0, 3.0)) for stage in range(stages)]
    tables: dict[str, list[AdditiveTable]] = {"error": [], "latency_s": [], "bytes": []}
    for layer in range(layers):
        stage, place = divmod(layer * max(stages, 1), layers)
        gate = None
        if stages and (least := place * _LAYERS_PER_STAGE // layers - 1) > 0:
            gate = Gate(stage, min(least, 2))
        first = len(genes)
        genes += [Gene(f"l{layer}g{i}", "width", tuple(map(float, range(n))), gate) for i, n in enumerate(options)]
        own = tuple(range(first, len(genes)))
        for name, values in _forms(int(np.prod(options)), rng).items():
            tables[name].append(_table(own, options, values, gate))
    sums = {name: AdditiveCost(tuple(shares)) for name, shares in tables.items()}
    slowest = PipelinedCost(tuple(AdditiveCost((table,)) for table in tables["latency_s"]))
    metrics = (*sums, "interval_s")

    def evaluate(population: IntArray) -> FloatArray:
        return np.stack([*(cost(population) for cost in sums.values()), slowest(population)], axis=1)

    allowed = tuple(tuple(range(len(gene.choices))) for gene in genes)
    return Problem(
        Choices(tuple(genes)), metrics, evaluate, ("error", "latency_s"), (), allowed, sums, {"interval_s": slowest}
    )


def _forms(count: int, rng: np.random.Generator) -> dict[str, FloatArray]:
    """A larger form of a layer costs more and loses less."""
    size = np.sort(rng.random(count))
    return {
        "error": 0.01 * np.exp(-3 * size) * rng.uniform(0.8, 1.2, count),
        "latency_s": 1e-4 * (0.1 + size) * rng.uniform(0.8, 1.2, count),
        "bytes": np.rint(1000 * (0.1 + size) * rng.uniform(0.5, 1.5, count)),
    }


def _table(own: tuple[int, ...], options: Sequence[int], values: FloatArray, gate: Gate | None) -> AdditiveTable:
    """A layer's values over its genes; 0 where its gate is closed."""
    strides = tuple(int(np.prod(options[i + 1 :])) for i in range(len(options)))
    if gate is None:
        return AdditiveTable(own, strides, values)
    by_depth = np.where(np.arange(3)[:, None] >= gate.least, values, 0.0)
    return AdditiveTable((gate.gene, *own), (len(values), *strides), by_depth.reshape(-1))


def every(problem: Problem) -> IntArray:
    """All canonical genotypes of a small problem, shape (n, genes)."""
    grid = np.array(list(itertools.product(*problem.allowed)), dtype=np.int64)
    networks: IntArray = grid[(canonical(problem.space, grid) == grid).all(axis=1)]
    return networks


def solved(problem: Problem, metric: str, limits: Sequence[Constraint]) -> tuple[float, float | None, float | None]:
    """Seconds to build and solve a program from nothing, the value of its solution and its proved bound."""
    programs = Programs(Archive(problem), 0, effort=60.0)
    start = time.perf_counter()
    place = programs.minimise(metric, limits)
    seconds = time.perf_counter() - start
    proof = programs.archive.proofs[-1]
    optimal = place is not None and proof.status == "optimal"
    return seconds, programs.cost(metric, place) if optimal and place is not None else None, proof.bound


def tight(problem: Problem, metrics: Sequence[str], share: float, rng: np.random.Generator) -> tuple[Constraint, ...]:
    """Limits at a share of the way from the smallest to the largest value of 1000 random networks."""
    counts = problem.allowed_counts
    drawn = problem.genotypes(rng.integers(0, counts, size=(1000, len(counts))))
    values = {name: problem.priced[name](drawn) for name in metrics}
    return tuple(Constraint(name, float(v.min() + share * np.ptp(v))) for name, v in values.items())


def equal_exhaustive(instances: int) -> dict[str, Figure]:
    """`ip_equal_exhaustive`: the share of random programs whose optimum is the best of all networks.

    Up to a million networks of 3 to 6 layers, one to three limits, a maximum as the limit or the objective in every
    other one; and the seconds each takes, `ip_small_s`.
    """
    equal, seconds = [], []
    for seed in range(instances):
        rng = np.random.default_rng(seed)
        layers = int(rng.integers(3, 7))
        options = ((2, 3, 4), (3, 3), (2, 3), (2, 2, 2), (3, 2))[int(rng.integers(5))]
        while np.prod(options) ** layers * 3 > 10**6:
            layers -= 1
        problem = layered(layers, options, 1, rng)
        metric, held = _QUESTIONS[seed % len(_QUESTIONS)]
        limits = tight(problem, held, float(rng.uniform(0.1, 0.9)), rng)
        took, value, _ = solved(problem, metric, limits)
        everything = every(problem)
        within = np.all([problem.priced[c.metric](everything) <= c.limit for c in limits], axis=0)
        best = problem.priced[metric](everything[within]).min() if within.any() else None
        equal.append(float(value is None if best is None else value is not None and abs(value - best) <= 1e-9 * best))
        seconds.append(took)
    return {
        "ip_equal_exhaustive": Figure(
            float(np.mean(equal)), "share of random programs", (min(equal), max(equal)), instances
        ),
        "ip_small_s": figure(seconds, "s"),
    }


_QUESTIONS = (
    ("error", ("latency_s",)),
    ("error", ("interval_s", "bytes")),
    ("error", ("latency_s", "bytes")),
    ("interval_s", ("bytes", "error")),
)


def proof_times(repetitions: int) -> dict[str, Figure]:
    """`ip_20x100_s`, `ip_50x60_s`: build and prove the least error under a latency, depth included."""
    shapes = {"ip_20x100_s": (20, (2, 5, 5, 2), 5), "ip_50x60_s": (50, (3, 5, 4), 5)}
    found = {}
    for name, (layers, options, stages) in shapes.items():
        seconds = []
        for seed in range(repetitions):
            rng = np.random.default_rng(seed)
            problem = layered(layers, options, stages, rng)
            took, value, _ = solved(problem, "error", tight(problem, ("latency_s",), 0.3, rng))
            seconds.append(took if value is not None else float("inf"))
        found[name] = figure(seconds, "s")
    return found


def programs(quick: bool, runs: Path, out: Path, say: Callable[[str], None]) -> dict[str, Figure]:
    """Both of the above.

    Args:
        quick: Fewer of them.
        runs: Not used: nothing is kept.
        out: Not used: there is no picture.
        say: Told what comes next.
    """
    instances, repetitions = (10, 2) if quick else (100, 10)
    say(f"proofs of full size, {repetitions} of each")
    times = proof_times(repetitions)
    say(f"{instances} programs against exhaustive search")
    return times | equal_exhaustive(instances)
