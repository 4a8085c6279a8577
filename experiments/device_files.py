"""Devices that a user adds: a file, and a table of what was measured, in the folder of the user's own devices."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from experiments import predictor_files
from experiments.config import Config
from experiments.rundir import atomic_write
from experiments.stages.fit import architectures
from hw_models.device import Device, device_names, parse_device, user_folder
from hw_models.latency import Bench, measured_latencies
from hw_models.measure import Campaign, Progress
from nas.errors import NasError
from nas.genotype import FloatArray, IntArray, active, choice_counts
from nas.network import Network
from predictors import latency
from predictors.prediction import Prediction, Score, score
from predictors.table import numbers

FEWEST = 10
_FOLDS = 5
_WITHIN = 0.1
_BITS = "weight-only quantization: the integers become float32 while the model loads"


@dataclass(frozen=True)
class Known:
    """Latencies of networks on a device, and how well those left out in turn were predicted from the others.

    Attributes:
        genotypes: What the networks are, shape (n, genes).
        seconds: Their latencies, shape (n,).
        score: Of five folds.
        within10: Share of them that were predicted within 10 %.
    """

    genotypes: IntArray
    seconds: FloatArray
    score: Score
    within10: float


def add_measured(
    name: str, config: Config, bench: Bench, threads: int, samples: int, runs: Path, progress: Progress
) -> tuple[Known, tuple[Path, ...]]:
    """Measure networks of a config's space on a machine and write the device's file and table.

    A run of the same config measures none of these networks again.

    Args:
        name: Of the new device.
        config: Gives the space and the seed.
        bench: The machine and the engine.
        threads: Of the engine.
        samples: Networks to measure, half of them the most informative of many.
        runs: Folder of runs, in which measurements are kept.
        progress: Called after every round.

    Raises:
        NasError: The name is taken or none, there are too few samples, or the machine cannot be measured on.
    """
    file = _new_file(name)
    text = yaml.safe_dump(_measured_file(name, bench, threads), sort_keys=False, width=120)
    known, campaigns, networks = _measured(parse_device(name, text), config, samples, runs, progress)
    table = file.with_suffix(".csv")
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(table, _table(known, networks, campaigns))
    atomic_write(file, text)
    return known, (file, table)


def measured(device: Device, config: Config, samples: int, runs: Path, progress: Progress) -> Known:
    """Latencies of networks chosen as `add_measured` does, in seconds; what is stored is not measured again."""
    return _measured(device, config, samples, runs, progress)[0]


def add_table(name: str, config: Config, table: Path, target: str) -> tuple[Known, tuple[Path, ...]]:
    """Fit costs of kernels to a table of genotypes and latencies that somebody measured, and write the device's file.

    Args:
        name: Of the new device.
        config: Gives the space that genotypes belong to.
        table: CSV or parquet with a column `genotype`, lists of choice indices.
        target: The column of latencies, in seconds.

    Raises:
        NasError: The name is taken, the table is too short, or a row is no network of the space or has no latency.
    """
    file, columns = _new_file(name), predictor_files.read(table)
    seconds, genotypes = numbers(columns, target, str(table)), _genotypes(columns, config, table)
    if len(seconds) < FEWEST or (seconds <= 0).any():
        least = f"{len(seconds)} rows, the least latency {seconds.min(initial=np.inf):g}"
        raise NasError(f"{table}: must have at least {FEWEST} rows with latencies above 0 in {target}; got {least}")
    space = config.build_space()
    networks = [space.lower(genotype).as_float() for genotype in genotypes.tolist()]
    fitted = latency.fit(networks, seconds, lines=True)
    entries = _fitted_file(fitted, f"fitted to column {target} of {table.name}, {len(seconds)} networks, {_today()}")
    text = yaml.safe_dump(entries, sort_keys=False, width=120)
    parse_device(name, text)
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, text)
    return Known(genotypes, seconds, *scored(networks, seconds, config.seed, lines=True)), (file,)


def scored(networks: Sequence[Network], seconds: FloatArray, seed: int, *, lines: bool = False) -> tuple[Score, float]:
    """Score of the latency predictor on five folds left out in turn, and the share of them within 10 %."""
    order = np.random.default_rng(seed).permutation(len(networks))
    mean, std = np.zeros(len(networks)), np.zeros(len(networks))
    for fold in range(_FOLDS):
        held = order[fold::_FOLDS]
        kept = np.setdiff1d(order, held)
        fitted = latency.fit([networks[i] for i in kept], seconds[kept], lines=lines)
        predicted = fitted.predict([networks[i] for i in held])
        mean[held], std[held] = predicted.mean, predicted.std
    return score(Prediction(mean, std), seconds), float(np.mean(np.abs(mean / seconds - 1) <= _WITHIN))


def _new_file(name: str) -> Path:
    """Where the file of a device goes that there is not yet."""
    file = user_folder() / f"{name}.yaml"
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name):
        raise NasError(f"a device's name has small letters, digits, '.' and '-', such as pi-4; got {name!r}")
    if file.exists():
        raise NasError(f"device {name}: exists; remove {file}, or take another name")
    if name in device_names():
        raise NasError(f"device {name}: comes with hwnas; take another name")
    return file


def _measured(
    device: Device, config: Config, samples: int, runs: Path, progress: Progress
) -> tuple[Known, tuple[Campaign, ...], list[Network]]:
    if samples < FEWEST:
        raise NasError(f"--samples must be at least {FEWEST}, so that folds can be left out; got {samples}")
    space, genotypes = config.build_space(), architectures(config, samples)
    networks = [space.lower(genotype).as_float() for genotype in genotypes.tolist()]
    store = runs / "measurements" / f"{device.name}.jsonl"
    found, campaigns = measured_latencies(networks, device, store, config.seed, progress)
    seconds = np.array([found[network.key] for network in networks])
    return Known(genotypes, seconds, *scored(networks, seconds, config.seed)), campaigns, networks


def _genotypes(columns: Mapping[str, Sequence[object]], config: Config, table: Path) -> IntArray:
    """The table's genotypes, canonical, shape (n, genes)."""
    if "genotype" not in columns:
        raise NasError(f"{table}: needs a column genotype, lists of choice indices; it has {', '.join(columns)}")
    space = config.build_space()
    counts, rows = choice_counts(space), list[list[int]]()
    for number, cell in enumerate(columns["genotype"], 1):
        try:
            row = np.array(json.loads(cell) if isinstance(cell, str) else cell, dtype=np.int64).tolist()
        except (TypeError, ValueError):
            row = []
        if len(row) != len(counts) or not all(0 <= choice < count for choice, count in zip(row, counts, strict=True)):
            law = f"genotype must be {len(counts)} choice indices of the space of {config.name}"
            raise NasError(f"{table}, row {number}: {law}; got {cell!r}")
        rows.append(row)
    genotypes = np.array(rows, dtype=np.int64)
    return np.where(active(space, genotypes), genotypes, 0)


def _measured_file(name: str, bench: Bench, threads: int) -> dict[str, Any]:
    where = "this machine" if bench.host is None else bench.host
    there = {} if bench.host is None else {"host": bench.host, "python": bench.python}
    return {
        "family": "onnxruntime",
        "title": f"{where}, measured with {bench.engine}, {threads} thread{'s' * (threads > 1)}",
        "weight_bits": {"value": [4, 8, 32], "source": "ONNX's DequantizeLinear reads 4 and 8 bits; " + _BITS},
        "act_bits": {"value": [32], "source": _BITS},
        "objectives": ["error", "latency_s", "weight_bytes"],
        "threads": {"value": threads, "source": f"nas device add {name}, {_today()}"},
        "engine": bench.engine,
        **there,
    }


def _fitted_file(fitted: latency.LatencyPredictor, source: str) -> dict[str, Any]:
    return {
        "family": "fitted",
        "title": f"known by a table of latencies: {source}",
        "weight_bits": {"value": [4, 8, 32], "source": "latencies do not depend on bits; " + _BITS},
        "act_bits": {"value": [32], "source": _BITS},
        "objectives": ["error", "latency_s", "weight_bytes"],
        "constant_s": {"value": fitted.constant, "source": source},
        "kernels": {"value": {kind: list(terms) for kind, terms in fitted.costs.items()}, "source": source},
    }


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _table(known: Known, networks: Sequence[Network], campaigns: Sequence[Campaign]) -> str:
    """A row per network: what it is, its latency, and the circumstances under which it was measured."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["genotype", "latency_s", "date", "method", "load_average", "clock_hz", "reference_s"])
    for genotype, network, seconds in zip(known.genotypes.tolist(), networks, known.seconds.tolist(), strict=True):
        campaign = next(one for one in campaigns if network.key in one.latency_s)
        circumstances = (campaign.load_average, campaign.clock_hz, campaign.reference_s)
        writer.writerow([genotype, seconds, campaign.date, campaign.fingerprint, *circumstances])
    return text.getvalue()
