"""`nas bench search`: hypervolume against accuracy queries on NAS-Bench-201, beside other searches.

Error is 100 - CIFAR-10 test accuracy after 200 epochs, one query per cell; latencies are known. The hypervolume is that
within error 20 % and the device's largest latency, divided by that of the true front, so that units cancel.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

import nas.search.active
import predictors.gaussian_process
from experiments.bench import cell_search, cells, nasbench201, peers
from experiments.bench.figures import Curves, search_picture
from experiments.bench.results import Figure, figure
from experiments.rundir import atomic_write
from experiments.workers import parallel
from nas.genotype import FloatArray, IntArray
from nas.pareto import hypervolume

DEVICES = ("1080ti_1", "raspi4", "pixel3", "gold_6226")
SEEDS = tuple(range(20))
QUERIES = (25, 50, 100, 200, 400)
OURS = "active"

_benchmark = cache(nasbench201.load_benchmark)
_SOURCES = (nas.search.active, predictors.gaussian_process, cell_search, cells, nasbench201, peers)


@dataclass(frozen=True)
class Trial:
    """One search: who, for which device, from which seed; `path` keeps the rows it asked for."""

    searcher: str
    device: str
    seed: int
    path: Path


def search(quick: bool, runs: Path, out: Path, say: Callable[[str], None]) -> dict[str, Figure]:
    """Run every search on every device from every seed, and gather the figures; what is done already is kept.

    Args:
        quick: Two seeds, one device.
        runs: Folder of runs; searches are kept in `bench-search-KEY`, KEY a hash of the code that searches.
        out: Where the curves go as a picture, `search.png`.
        say: Told of every search.
    """
    folder = runs / f"bench-search-{_key()}"
    folder.mkdir(parents=True, exist_ok=True)
    devices, seeds = (DEVICES[:1], SEEDS[:2]) if quick else (DEVICES, SEEDS)
    searchers = [OURS, *_present(say)]
    trials = [
        Trial(searcher, device, seed, folder / f"{searcher}-{device}-{seed}.json")
        for seed in seeds for device in devices for searcher in searchers
    ]  # fmt: skip
    left = [trial for trial in trials if not trial.path.is_file()]
    for done, (trial, _) in enumerate(parallel(run_trial, left), start=1):
        say(f"{done}/{len(left)} {trial.searcher}, {trial.device}, seed {trial.seed}")
    truth, by_network = (_curves(trials, len(seeds), averaged) for averaged in (False, True))
    atomic_write(out / f"search{'-quick' if quick else ''}.png", search_picture(truth))
    return figures(truth, by_network[OURS])


def run_trial(trial: Trial) -> None:
    """Search and keep the rows of the cells asked for."""
    benchmark, budget = _benchmark(DEVICES), QUERIES[-1]
    if trial.searcher == OURS:
        rows = cell_search.active_search(benchmark, trial.device, trial.seed, budget)
    else:
        rows = peers.run_peer(trial.searcher, benchmark, trial.device, trial.seed, budget)
    atomic_write(trial.path, json.dumps(rows.tolist()))


def figures(curves: Curves, averaged: FloatArray) -> dict[str, Figure]:
    """The benchmark's figures.

    Args:
        curves: By searcher, the ratio of hypervolumes after 1, 2, ... queries, shape (seeds, devices, queries).
        averaged: The same for ours, errors averaged over all cells that are one network.
    """
    made = {name: _mean(curves[OURS], queries) for name, queries in _names("hv_{}")}
    for peer in [name for name in curves if name != OURS]:
        made |= {name: _mean(curves[peer], queries) for name, queries in _names(f"hv_{{}}[{peer}]")}
    made |= {name: _mean(averaged, queries) for name, queries in _names("hv_{}_averaged_errors")}
    needed = {name: queries_to(curve, 0.99) for name, curve in curves.items()}
    unit = f"accuracy queries; {QUERIES[-1]} where never"
    for name, numbers in needed.items():
        made["queries_to_99" if name == OURS else f"queries_to_99[{name}]"] = figure(numbers, unit)
    made["queries_to_99_averaged_errors"] = figure(queries_to(averaged, 0.99), unit)
    made["queries_to_999_averaged_errors"] = figure(queries_to(averaged, 0.999), unit)
    medians = {name: float(np.median(numbers)) for name, numbers in needed.items()}
    ratio = medians.pop(OURS) / min(medians.values())
    made["queries_to_99_over_best_peer"] = Figure(
        ratio, f"ratio of medians; peers count {QUERIES[-1]} where never", (ratio, ratio), len(needed[OURS])
    )
    return made


def _names(pattern: str) -> Iterable[tuple[str, int]]:
    return ((pattern.format(queries), queries) for queries in QUERIES)


def _mean(curves: FloatArray, queries: int) -> Figure:
    """Mean over devices and seeds; the spread is that of the seeds' means."""
    by_seed = curves[:, :, queries - 1].mean(axis=1)
    spread = float(by_seed.min()), float(by_seed.max())
    return Figure(float(by_seed.mean()), "ratio of hypervolumes, mean over devices and seeds", spread, len(by_seed))


def queries_to(curves: FloatArray, ratio: float) -> list[float]:
    """Queries until each curve, along the last axis, reaches a ratio; all of them where it never does."""
    flat = curves.reshape(-1, curves.shape[-1])
    reached = flat >= ratio
    first = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, flat.shape[1])
    return [float(queries) for queries in first]


def growth(points: FloatArray, rows: IntArray, reference: FloatArray, queries: int) -> FloatArray:
    """Share of the hypervolume of all points that the first 1, 2, ... of some rows dominate, shape (queries,)."""
    whole = hypervolume(points, reference)
    reached = [hypervolume(points[rows[: count + 1]], reference) / whole for count in range(min(queries, len(rows)))]
    return np.array(reached + reached[-1:] * (queries - len(reached)))


def _curves(trials: list[Trial], seeds: int, averaged: bool) -> Curves:
    benchmark = _benchmark(DEVICES)
    error = benchmark.network_errors() if averaged else benchmark.error
    found: dict[str, list[FloatArray]] = {}
    for trial in trials:
        latency_s, rows = benchmark.latency_s[trial.device], np.array(json.loads(trial.path.read_text()))
        reference = np.array([cell_search.REFERENCE_ERROR, latency_s.max()])
        curve = growth(np.column_stack([error, latency_s]), rows, reference, QUERIES[-1])
        found.setdefault(trial.searcher, []).append(curve)
    return {searcher: np.array(curves).reshape(seeds, -1, QUERIES[-1]) for searcher, curves in found.items()}


def _present(say: Callable[[str], None]) -> list[str]:
    reasons: Mapping[str, str | None] = {peer: peers.missing(peer) for peer in peers.PEERS}
    for peer, reason in reasons.items():
        if reason:
            say(f"{peer} is left out: {reason}")
    return [peer for peer, reason in reasons.items() if not reason]


def _key() -> str:
    """Changes with the code that searches, so that what older code found is not taken for its result."""
    sources = b"".join(Path(str(module.__file__)).read_bytes() for module in _SOURCES)
    return hashlib.sha256(sources).hexdigest()[:12]
