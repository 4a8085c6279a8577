"""`nas bench speed`: how fast the search is, on one core, and how fast many devices are served on all of them.

The space is Once-for-All's mobile space, 20 blocks in five stages, with weight bits, activation bits and sparsity of
every convolution. How fast candidates are predicted does not depend on what was learned, so the accuracy predictor is
fitted to errors of a made-up law instead of a supernet's.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from experiments.bench.deploy import deploy_figures
from experiments.bench.results import Figure, figure
from experiments.problems import evaluation
from hw_models import unrolled
from hw_models.device import load_device
from nas.genotype import FloatArray, IntArray, SearchSpace, choice_counts, distinct, tilted_population
from nas.problem import Problem
from nas.search.evolution import Evolution, Nsga2, Nsga3
from nas.spaces.mobile import MobileChoices, Stage
from nas.spaces.precision import PrecisionChoices
from nas.tables import additive, layer_tables
from predictors import accuracy

_SAMPLES = 400
"""What the config of the main job has."""

_MANY_SAMPLES = 1000
_WIDTHS_AND_STRIDES = ((24, 2), (40, 2), (80, 2), (112, 1), (160, 2))
_POPULATION = 1000
_METRICS = ("error", "lut", "latency_s")


def mobile_space() -> SearchSpace:
    """20 blocks, 231 genes, 10^123 networks; without float activations, so that FPGAs can hold all of it."""
    stages = tuple(Stage(width, stride, (2, 3, 4)) for width, stride in _WIDTHS_AND_STRIDES)
    precision = PrecisionChoices((2, 3, 4, 8), (3, 4, 6, 8), (0.0, 0.5, 0.75))
    return MobileChoices(16, stages, (3, 5, 7), (3, 4, 6), precision, stem_stride=2, resolution=(128, 256)).build(
        (3, 256, 256), 1000
    )


def mobile_problem(space: SearchSpace, samples: int) -> Problem:
    """Predicted error, LUTs on one device and latency on another, all minimised; nothing is forbidden."""
    tables, priced = layer_tables(space), functools.cache(unrolled.layer_cost)
    clock_hz = load_device("zcu102").clock_hz
    assert clock_hz is not None
    costs = {
        "lut": additive(space, tables, lambda layer: priced(layer)["lut"]),
        "latency_s": additive(space, tables, lambda layer: priced(layer)["cycles"] / clock_hz),
    }
    drawn = distinct(tilted_population(space, samples, np.random.default_rng(0), np.zeros_like(choice_counts(space))))
    predictor = accuracy.fit(space, drawn, made_up_errors(space, drawn), 0)
    allowed = tuple(tuple(range(len(gene.choices))) for gene in space.genes)
    return Problem(space, _METRICS, evaluation(predictor, costs, _METRICS), _METRICS, (), allowed, costs)


def made_up_errors(space: SearchSpace, population: IntArray) -> FloatArray:
    """Smaller networks err more: each gene has a weight of its own, and there is some noise."""
    rng = np.random.default_rng(0)
    missing = 1 - population / np.maximum(choice_counts(space) - 1, 1)
    weights = rng.exponential(size=len(space.genes))
    loss = missing @ weights / weights.sum()
    return np.asarray(0.2 * np.exp(2 * loss + 0.05 * rng.normal(size=len(population))) / np.exp(1))


def search_rate(problem: Problem, sampler: Evolution, seed: int) -> float:
    """Distinct candidates evaluated per second of wall clock, everything the sampler does included."""
    start = time.perf_counter()
    archive = sampler.run(problem, seed)
    return len(archive) / (time.perf_counter() - start)


def loop_rate(problem: Problem, candidates: int, seed: int) -> float:
    """The same for a plain loop: mutate a known candidate, skip what was seen, evaluate the rest one by one."""
    rng, counts = np.random.default_rng(seed), problem.allowed_counts
    start = time.perf_counter()
    members = [problem.genotypes(counts[None] - 1)[0]]
    seen = {members[0].tobytes()}
    while len(seen) < candidates:
        child = members[rng.integers(len(members))].copy()
        for gene in rng.integers(len(child), size=2):
            child[gene] = rng.integers(counts[gene])
        child = problem.genotypes(child[None])[0]
        if child.tobytes() not in seen:
            seen.add(child.tobytes())
            problem.evaluate(child[None])
            members.append(child)
    return candidates / (time.perf_counter() - start)


def candidate_rates(quick: bool, say: Callable[[str], None]) -> Iterator[tuple[str, Figure]]:
    """`candidates_per_s`, of NSGA-II with the predictor of the main job, and beside it a larger predictor and NSGA-III.

    `candidates_over_loop` is how many times as fast as the plain loop that is.
    """
    repetitions, generations = (2, 10) if quick else (7, 100)
    space, unit = mobile_space(), "distinct candidates evaluated per second"
    samplers: dict[str, Evolution] = {
        "": Nsga2(_POPULATION, generations), "[nsga3]": Nsga3(_POPULATION, generations)
    }  # fmt: skip
    for samples in (_SAMPLES, _MANY_SAMPLES):
        say(f"an accuracy predictor of {samples} samples")
        problem = mobile_problem(space, samples)
        for name, sampler in samplers.items() if samples == _SAMPLES else [("[1000 samples]", samplers[""])]:
            say(f"{repetitions} searches of {generations} generations by {sampler.name}")
            rates = [search_rate(problem, sampler, seed) for seed in range(repetitions)]
            yield f"candidates_per_s{name}", figure(rates, unit)
            if not name:
                loops = [loop_rate(problem, 200 if quick else 2000, seed) for seed in range(repetitions)]
                yield "candidates_per_s[plain loop]", figure(loops, unit)
                yield "candidates_over_loop", figure([a / b for a, b in zip(rates, loops, strict=True)], "ratio")


def speed(quick: bool, runs: Path, out: Path, say: Callable[[str], None]) -> dict[str, Figure]:
    """All figures; candidates are counted on one core.

    Args:
        quick: Fewer and shorter searches.
        runs: Folder of runs, for the supernet that many devices are served from.
        out: Not used: there is no picture.
        say: Told what comes next.
    """
    with threadpool_limits(1):
        rates = dict(candidate_rates(quick, say))
    return rates | deploy_figures(quick, runs, say)
