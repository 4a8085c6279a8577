"""`nas bench transfer`: how many quantized subnets a predictor of accuracy needs, with and without float ones.

Subnets of the digits' supernet are scored on the validation split: float ones, joint ones with all that the config lets
a search choose, and ones as APQ's (CVPR 2020) with 4 to 8 bits and no zeros. The predictor of the float ones is
transferred to some of the quantized ones and judged on others, beside the same regressor from scratch on the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from experiments.bench.demo import demo_config
from experiments.bench.figures import transfer_picture
from experiments.bench.results import Figure, figure
from experiments.context import Context
from experiments.pipeline import train_only
from experiments.plan import plan
from experiments.progress import progress
from experiments.rundir import Stage, append_line, atomic_write, read_lines
from experiments.workers import parallel
from nas.genotype import FloatArray, GeneKind, IntArray, SearchSpace, distinct, opened, tilted_population
from nas.network import Network
from nas.spaces.mobile import MobileSpace
from nas.spaces.precision import PrecisionChoices
from predictors import regressors, transfer
from predictors.accuracy import encode
from predictors.prediction import kendall_tau, pairwise_accuracy
from supernet.calibrate import Calibrations
from supernet.evaluate import errors
from supernet.trie import shared_order

SEEDS, DRAWS = (0, 1), 3
COUNTS = (20, 50, 100, 200, 500, 1000)
ENOUGH = 0.85
"""Pairwise accuracy that the number of samples is asked for."""

WAYS = ("float", "scratch", "transfer")
_KIND = "gp"
_JUDGED = 400
_SHAPING: tuple[GeneKind, ...] = ("resolution", "kernel", "depth", "width")
_APQ_BITS = PrecisionChoices((4, 8), (4, 6, 8), (0.0,))
_ROWS = {"floats": 1000, "joint": 2500, "apq_bits": 1400}
_QUICK_ROWS = {"floats": 60, "joint": 90, "apq_bits": 90}
_CHUNK = 20


@dataclass(frozen=True)
class Sampled:
    """Subnets of one space.

    Attributes:
        space: Of the genotypes.
        genotypes: Canonical, shape (n, genes).
        floats: They are taken without bits and zeros.
    """

    space: SearchSpace
    genotypes: IntArray
    floats: bool = False

    @property
    def features(self) -> FloatArray:
        """Each gene's place among its choices, shape (n, genes)."""
        return encode(self.space, self.genotypes)


Errors = Mapping[str, FloatArray]
"""Of the subnets of each name in `sampled`."""


def transferred(quick: bool, runs: Path, out: Path, say: Callable[[str], None]) -> dict[str, Figure]:
    """Measure the curves.

    Args:
        quick: One supernet, of a small training, few samples and two counts.
        runs: Folder of runs; supernets and scored subnets are kept there and used again.
        out: Where the picture goes.
        say: Told what comes next.
    """
    seeds, counts = (SEEDS[:1], COUNTS[:2]) if quick else (SEEDS, COUNTS)
    found: dict[str, list[FloatArray]] = {"joint": [], "apq_bits": []}
    for seed in seeds:
        context = Context(demo_config(seed, quick), runs / f"bench-transfer{'-quick' if quick else ''}")
        subnets = sampled(context, _QUICK_ROWS if quick else _ROWS)
        scored = _scored(context, subnets, say)
        tasks = [(name, draw) for name in found for draw in range(DRAWS)]
        with progress(f"supernet {seed}: curves", len(tasks)) as advance:
            for (name, _), curve in parallel(partial(_curve, subnets, scored, counts), tasks):
                found[name].append(curve)
                advance(1)
    curves = {name: np.stack(each) for name, each in found.items()}
    atomic_write(out / f"transfer{'-quick' if quick else ''}.png", transfer_picture(counts, curves, ENOUGH))
    return {key: one for name, each in curves.items() for key, one in _figures(name, each, counts).items()}


def sampled(context: Context, rows: Mapping[str, int]) -> dict[str, Sampled]:
    """The subnets to score, of all sizes: so many `floats`, `joint` ones and ones of `apq_bits`."""
    space, seed = context.space, context.config.seed
    assert isinstance(space, MobileSpace)
    apq = replace(space, choices=replace(space.choices, precision=_APQ_BITS))
    rng, anything = np.random.default_rng([seed, 5]), np.zeros(len(space.genes), dtype=np.int64)

    def drawn(one: SearchSpace, times: int, name: str, least: IntArray, rng: np.random.Generator) -> IntArray:
        return distinct(tilted_population(one, times * rows[name], rng, least))[: rows[name]]

    return {
        "floats": Sampled(space, drawn(space, 6, "floats", opened(space, _SHAPING), rng), floats=True),
        "joint": Sampled(space, drawn(space, 2, "joint", anything, rng)),
        "apq_bits": Sampled(apq, drawn(apq, 2, "apq_bits", anything, np.random.default_rng([seed, 6]))),
    }


def samples_needed(counts: Sequence[int], accuracy: FloatArray) -> float:
    """Samples at which a curve first reaches `ENOUGH`, between counts by their logarithms.

    The least count where it starts there, the largest where it ends below: ratios are then no larger than they are.
    """
    reached = np.flatnonzero(accuracy >= ENOUGH)
    if not len(reached):
        return float(counts[-1])
    last = int(reached[0])
    if last == 0:
        return float(counts[0])
    pair = slice(last - 1, last + 1)
    return float(np.exp(np.interp(ENOUGH, accuracy[pair], np.log(counts[pair]))))


def _scored(context: Context, subnets: Mapping[str, Sampled], say: Callable[[str], None]) -> Errors:
    """Errors on the validation split, each shape (n,); what is in the logs of the run is kept."""
    train_only(context.config, context.runs, say)
    trained, found = plan(context.config).train, {}
    for name, one in subnets.items():
        folder = context.run.stage_dir(Stage(f"sample-{name}", 1, str(len(one.genotypes)), (trained,)))
        log = folder / "samples.jsonl"
        known = {record["index"]: record["error"] for record in read_lines(log)}
        order = [index for index in shared_order(_networks(one, range(len(one.genotypes)))) if index not in known]
        chunks = [tuple(order[i : i + _CHUNK]) for i in range(0, len(order), _CHUNK)]
        score = partial(_errors, context, context.run.stage_dir(trained), one)
        with progress(f"score subnets: {name}", len(one.genotypes), len(known)) as advance:
            for chunk, values in parallel(score, chunks) if chunks else ():
                for index, value in zip(chunk, values, strict=True):
                    append_line(log, {"index": index, "error": value})
                    known[index] = value
                advance(len(chunk))
        found[name] = np.array([known[index] for index in range(len(one.genotypes))])
    return found


def _networks(subnets: Sampled, indices: Sequence[int]) -> list[Network]:
    networks = [subnets.space.lower(subnets.genotypes[index].tolist()) for index in indices]
    return [network.as_float() for network in networks] if subnets.floats else networks


def _errors(context: Context, train_folder: Path, subnets: Sampled, indices: tuple[int, ...]) -> list[float]:
    training = context.trained(train_folder)
    calibrations = Calibrations(training.supernet, _networks(subnets, indices), training.calibration_images)
    return errors(calibrations, context.data.validation)


def _curve(subnets: Mapping[str, Sampled], scored: Errors, counts: Sequence[int], task: tuple[str, int]) -> FloatArray:
    """Pairwise accuracy and Kendall's tau of each way at each count of samples, shape (2, ways, counts)."""
    name, draw = task
    kinds = [gene.kind for gene in subnets[name].space.genes]
    groups = np.unique(kinds, return_inverse=True)[1]
    shaping = np.isin(kinds, _SHAPING)
    own = np.unique(groups[shaping], return_inverse=True)[1]
    floats, quantized = subnets["floats"].features[:, shaping], subnets[name].features
    base = regressors.fit(_KIND, floats, transfer.normal_scores(scored["floats"]), own, draw)
    values, prior = scored[name], base.predict(quantized[:, shaping]).mean
    order = np.random.default_rng(draw).permutation(len(values))
    judged = order[-min(_JUDGED, len(order) - counts[-1]) :]
    found = np.empty((2, len(WAYS), len(counts)))
    for place, count in enumerate(counts):
        rows = order[:count]
        fitted = transfer.fit(_KIND, quantized[rows], values[rows], groups, prior[rows], draw)
        alone = fitted.stack.scratch if fitted.stack else _scratch(quantized[rows], values[rows], groups, draw)
        told = {
            "float": prior[judged],
            "scratch": alone.predict(quantized[judged]).mean,
            "transfer": fitted.predict(quantized[judged], prior[judged]).mean,
        }
        for way, word in enumerate(WAYS):
            found[0, way, place] = pairwise_accuracy(told[word], values[judged])
            found[1, way, place] = kendall_tau(told[word], values[judged])
    return found


def _scratch(features: FloatArray, values: FloatArray, groups: IntArray, seed: int) -> regressors.Fitted:
    """The stack's member from scratch, where the stack was not chosen."""
    return regressors.fit(_KIND, features, transfer.normal_scores(values), groups, seed)


def _figures(name: str, curves: FloatArray, counts: Sequence[int]) -> dict[str, Figure]:
    """Of curves of shape (repetitions, 2, ways, counts)."""
    mark = "" if name == "joint" else f"[{name}]"
    pairwise = dict(zip(WAYS, curves[:, 0].swapaxes(0, 1), strict=True))
    needed = {way: [samples_needed(counts, one) for one in pairwise[way]] for way in ("scratch", "transfer")}
    ratios = [scratch / ours for scratch, ours in zip(needed["scratch"], needed["transfer"], strict=True)]
    least = (pairwise["transfer"] - pairwise["float"]).min(axis=1)
    most = (pairwise["transfer"] - pairwise["scratch"])[:, -1]
    made = {
        f"transfer_samples_ratio{mark}": figure(ratios, f"samples for {ENOUGH:.0%}, from scratch / with transfer"),
        **{f"samples_{way}{mark}": figure(each, f"for {ENOUGH:.0%} pairwise accuracy") for way, each in needed.items()},
        f"least_gain_over_float{mark}": figure(least.tolist(), "pairwise accuracy, worst count"),
        f"gain_over_scratch_{counts[-1]}{mark}": figure(most.tolist(), "pairwise accuracy"),
    }
    for measure, unit in enumerate(("pairwise accuracy", "Kendall tau")):
        for way, word in enumerate(WAYS):
            for place, count in enumerate(counts):
                key = f"{unit.split()[-1].lower()}_{word}_{count}{mark}".replace("accuracy", "pairwise")
                made[key] = figure(curves[:, measure, way, place].tolist(), unit)
    return made
