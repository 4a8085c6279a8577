"""`nas bench latency`: latency predictors on published tables, above all on a device that is new.

A new device is learned from a few measurements, chosen among its networks, and judged on up to 2000 others. Ceilings
are those of boosted trees fitted to four fifths of a device's own table: its noise allows little more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from experiments.bench import latency_peers as peers
from experiments.bench import latency_tables as tables
from experiments.bench.latency_tables import HAT, NB201_KNOWN, NB201_NEW, OFA_KNOWN, OFA_NEW, Table
from experiments.bench.results import Figure, figure
from hw_models import bit_flexible
from hw_models.device import load_device
from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from predictors import few_shot, regressors
from predictors.few_shot import Known
from predictors.prediction import Prediction, score

Say = Callable[[str], None]
Found = defaultdict[str, list[float]]
"""Values of figures by name, one per seed."""

SHOTS = 10
COUNTS = (5, 10, 20, 50, 100)
SEEDS, CURVE_SEEDS, HAT_SEEDS = 20, 3, 2
_JUDGED = 2000
_HAT_ROWS = 1600
_HAT_FEATURES = 10
_HAT_LATENCY = {"cpu_raspberrypi": 5000.0, "cpu_xeon": 300.0, "gpu_titanxp": 200.0}
_DRIFT_ROWS = 8.0
_UNITS = {"spearman": "rank correlation", "within10": "share within 10 %", "coverage90": "share inside"}


def latency(quick: bool, runs: Path, out: Path, say: Say) -> dict[str, Figure]:
    """All figures.

    Args:
        quick: Two seeds, and one for what HAT's perceptron is beside; ten measurements only.
        runs: Not used: nothing is trained in a run.
        out: Not used: there is no picture.
        say: Told what comes next.
    """
    found: Found = defaultdict(list)
    for measure in (_cells, _subnets, _transformers):
        measure(found, quick, say)
    _coverages(found)
    figures = {name: figure(values, _unit(name)) for name, values in found.items()}
    return figures | _bit_flexible_figures(say)


def judged(table: Table, device: str, known: Known, count: int, seed: int) -> tuple[Prediction, IntArray]:
    """Learn a device from `count` networks; what is told of others, and their rows."""
    own = table.measured(device)
    rows = few_shot.choose(known, count, own, seed)
    fitted = few_shot.fit(known, rows, table.latency[device][rows], seed)
    rest = _others(own, rows, seed)
    return fitted.predict(rest), rest


def within10(predicted: FloatArray, truth: FloatArray) -> float:
    """Share of predictions at most 10 % off."""
    return float(np.mean(np.abs(predicted / truth - 1) <= 0.1))


def budget_error(predicted: FloatArray, truth: FloatArray, size: FloatArray) -> float:
    """How far the true latency of the largest network predicted to fit is from the budget, as a share of it.

    Mean over nine budgets, the deciles of the true latencies.
    """
    budgets = np.quantile(truth, np.arange(1, 10) / 10)
    chosen = [int(np.argmax(np.where(predicted <= budget, size, -np.inf))) for budget in budgets]
    return float(np.mean(np.abs(truth[chosen] / budgets - 1)))


def _cells(found: Found, quick: bool, say: Say) -> None:
    table = tables.cells()
    say("NAS-Bench-201: nine known devices")
    known = _learn(table, NB201_KNOWN)
    ceilings = {device: _ceiling(found, f"nb201_{{}}_ceiling[{device}]", table, device) for device in NB201_NEW}
    for count in (SHOTS, *(other for other in COUNTS if other != SHOTS and not quick)):
        say(f"{count} of NAS-Bench-201's networks on {', '.join(NB201_NEW)}")
        for seed in range(2 if quick else SEEDS if count == SHOTS else CURVE_SEEDS):
            scores = []
            for device in NB201_NEW:
                told, rest = judged(table, device, known, count, seed)
                scores.append(_score(found, "nb201", f"[{device}]", count, told, table.latency[device][rest]))
                if count == SHOTS:
                    found[f"nb201_within10_10_over_ceiling[{device}]"].append(scores[-1][1] / ceilings[device])
            for name, mean in zip(_UNITS, np.mean(scores, axis=0), strict=True):
                found[f"nb201_{name}_{count}"].append(float(mean))
        for seed in range(CURVE_SEEDS):
            for name, rank in _peers(table, count, seed):
                found[f"nb201_spearman_{count}[{name}]"].append(rank)


def _peers(table: Table, count: int, seed: int) -> Iterable[tuple[str, float]]:
    """Mean rank correlation over the new devices of what is fitted to as many random networks."""
    rows = np.random.default_rng(seed).permutation(len(table.features))[:count]
    rest = _others(np.arange(len(table.features)), rows, seed)
    for name, learn in {**peers.SCRATCH, "pls": peers.pls}.items():
        columns = _standardised(np.log(table.of(NB201_KNOWN)) if name == "pls" else table.features)
        ranks = []
        for device in NB201_NEW:
            truth = table.latency[device]
            told = learn(columns[rows], table.groups, columns[rest], truth[rows], seed)
            ranks.append(_rank(told, truth[rest]))
        yield name, float(np.mean(ranks))


def _subnets(found: Found, quick: bool, say: Say) -> None:
    table = tables.subnets()
    say(f"Once-for-All's subnets: {SHOTS} on a V100, known on a Titan RTX")
    known = _learn(table, OFA_KNOWN)
    for device, name in zip(OFA_NEW, ("ofa_v100", "ofa_v100_1"), strict=True):
        _ceiling(found, f"{name}_{{}}_ceiling", table, device)
        for seed in range(2 if quick else SEEDS):
            told, rest = judged(table, device, known, SHOTS, seed)
            truth = table.latency[device][rest]
            _score(found, name, "", SHOTS, told, truth)
            found[f"{name}_budget_error"].append(budget_error(told.mean, truth, table.features[rest, -1]))


def _transformers(found: Found, quick: bool, say: Say) -> None:
    table = tables.transformers()
    ranks: dict[int, list[float]] = defaultdict(list)
    for device in HAT:
        say(f"HAT's Transformers on {device}: {SHOTS} known of 2000, then {_HAT_ROWS}")
        known = _learn(table, tuple(other for other in HAT if other != device))
        for seed in range(2 if quick else SEEDS):
            told, rest = judged(table, device, known, SHOTS, seed)
            ranks[seed].append(_score(found, f"hat_{device}", "", SHOTS, told, table.latency[device][rest])[0])
        for seed in range(1 if quick else HAT_SEEDS):
            _many_transformers(found, table, device, known, seed)
    found[f"hat_spearman_{SHOTS}"] = [float(np.mean(each)) for each in ranks.values()]


def _many_transformers(found: Found, table: Table, device: str, known: Known, seed: int) -> None:
    """A model of 1600 rows beside HAT's; and one that takes the campaign's drift from rows measured next to a row."""
    own, truth = np.random.default_rng(seed).permutation(table.measured(device)), table.latency[device]
    rows, rest = own[:_HAT_ROWS], own[_HAT_ROWS:]
    fitted = few_shot.fit(known, rows, truth[rows], seed)
    told = fitted.predict(rest)
    unit, features = _HAT_LATENCY[device], table.features[:, :_HAT_FEATURES]
    theirs = unit * peers.hat_perceptron(features[rows], truth[rows] / unit, features[rest], peers.HAT_STEPS, seed)
    _score(found, f"hat_{device}", "", _HAT_ROWS, told, truth[rest])
    near = np.exp(-np.abs(rest[:, None] - rows) / _DRIFT_ROWS)
    drift = near @ (truth[rows] - fitted.predict(rows).mean) / near.sum(axis=1)
    base = _rmse(theirs, truth[rest])
    found[f"hat_{device}_within10"].append(within10(told.mean, truth[rest]))
    found[f"hat_{device}_within10[mlp]"].append(within10(theirs, truth[rest]))
    found[f"hat_{device}_rmse_over_mlp"].append(_rmse(told.mean, truth[rest]) / base)
    found[f"hat_{device}_rmse_over_mlp[drift known]"].append(_rmse(told.mean + drift, truth[rest]) / base)


def _bit_flexible_figures(say: Say) -> dict[str, Figure]:
    """Ranks of our model on APQ's layers, and on networks of twenty of them each."""
    say("APQ's layers on BitFusion")
    published, array = tables.bit_flexible_layers(), load_device("bitfusion").array
    if array is None:
        raise NasError("device bitfusion: array is missing; it is a bit-flexible processor")
    ours = np.array([1e3 * bit_flexible.layer_latency_s(layer, array) for layer in published.layers])
    networks = np.random.default_rng(0).integers(len(ours), size=(1000, 20))
    sums = [latencies[networks].sum(axis=1) + published.ends for latencies in (ours, published.latency)]
    off = float(np.median(np.abs(ours / published.latency - 1)))
    return {
        "bitfusion_layer_spearman": figure([_rank(ours, published.latency)], _UNITS["spearman"]),
        "bitfusion_network_spearman": figure([_rank(*sums)], _UNITS["spearman"]),
        "bitfusion_layer_error": figure([off], "median share of the published latency"),
    }


def _learn(table: Table, devices: tuple[str, ...]) -> Known:
    return few_shot.learn(table.of(devices), table.features, table.groups, 0)


def _ceiling(found: Found, name: str, table: Table, device: str) -> float:
    own, truth = np.random.default_rng(0).permutation(table.measured(device)), table.latency[device]
    rows, rest = np.split(own, [len(own) * 4 // 5])
    fitted = regressors.fit("boosting", table.features[rows], truth[rows], table.groups, 0)
    told = fitted.predict(table.features[rest[:_JUDGED]]).mean
    share = within10(told, truth[rest[:_JUDGED]])
    found[name.format("spearman")].append(_rank(told, truth[rest[:_JUDGED]]))
    found[name.format("within10")].append(share)
    return share


def _score(
    found: Found, name: str, suffix: str, count: int, told: Prediction, truth: FloatArray
) -> tuple[float, float, float]:
    """Keep and give what `_UNITS` lists."""
    scored = score(told, truth)
    values = scored.spearman, within10(told.mean, truth), scored.coverage90
    for kind, value in zip(_UNITS, values, strict=True):
        found[f"{name}_{kind}_{count}{suffix}"].append(value)
    return values


def _coverages(found: Found) -> None:
    """The least and the largest coverage, each the mean over a table's devices and seeds."""
    means = [float(np.mean(values)) for name, values in found.items() if "coverage90" in name and "[" not in name]
    found["coverage90_min"], found["coverage90_max"] = [min(means)], [max(means)]


def _unit(name: str) -> str:
    if "over" in name and "coverage" not in name:
        return "ratio"
    return next((unit for part, unit in _UNITS.items() if part in name), "share of the budget")


def _others(among: IntArray, rows: IntArray, seed: int) -> IntArray:
    rest: IntArray = np.random.default_rng(seed).permutation(np.setdiff1d(among, rows))[:_JUDGED]
    return rest


def _rank(predicted: FloatArray, truth: FloatArray) -> float:
    return score(Prediction(predicted, np.ones(len(predicted))), truth).spearman


def _rmse(predicted: FloatArray, truth: FloatArray) -> float:
    return float(np.sqrt(np.mean((predicted - truth) ** 2)))


def _standardised(columns: FloatArray) -> FloatArray:
    spread = columns.std(axis=0)
    standardised: FloatArray = (columns - columns.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return standardised
