"""Stage `sample`: subnets of all sizes, scored on the validation split, for the accuracy predictor to learn from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.context import Context
from experiments.progress import progress
from experiments.rundir import append_line, read_lines
from experiments.workers import parallel
from nas.genotype import FloatArray, IntArray, distinct, tilted_population
from supernet.calibrate import Calibrations
from supernet.evaluate import errors
from supernet.trie import shared_order

_CHUNK = 20
_LOG = "samples.jsonl"


@dataclass(frozen=True)
class Sampled:
    """Genotypes, shape (n, genes), and their errors on the validation split, shape (n,)."""

    genotypes: IntArray
    errors: FloatArray


def sample(context: Context, train_folder: Path, folder: Path) -> dict[str, Any]:
    """Evaluate distinct genotypes, those with much in common together; what an interrupted run evaluated is kept."""
    values = evaluated(context, train_folder, _draw(context), folder, "evaluate sampled subnets")
    return {"samples": len(values), "least_error": float(values.min()), "median_error": float(np.median(values))}


def evaluated(context: Context, train_folder: Path, genotypes: IntArray, folder: Path, label: str) -> FloatArray:
    """Errors of subnets on the validation split, shape (n,), logged one by one; what the log has of them is kept.

    Args:
        context: Config, data and space.
        train_folder: Where the supernet is.
        genotypes: Canonical, shape (n, genes). A later call gives the same ones first, except that a search resumed on
            another machine may choose otherwise; then the log's are not theirs.
        folder: Of the log.
        label: What the progress is called.
    """
    logged = {record["index"]: record["genotype"] for record in read_lines(folder / _LOG)}
    done = {index for index, genotype in enumerate(genotypes.tolist()) if logged.get(index) == genotype}
    order = shared_order([context.space.lower(genotype) for genotype in genotypes.tolist()])
    missing = [index for index in order if index not in done]
    chunks = [tuple(missing[i : i + _CHUNK]) for i in range(0, len(missing), _CHUNK)]
    with progress(label, len(genotypes), len(done)) as advance:
        for chunk, found in parallel(partial(_evaluate, context, train_folder, genotypes), chunks, context.workers):
            for index, value in zip(chunk, found, strict=True):
                append_line(folder / _LOG, {"index": index, "genotype": genotypes[index].tolist(), "error": value})
            advance(len(chunk))
    return load_samples(folder).errors[: len(genotypes)]  # an interrupted run may have logged later ones


def load_samples(folder: Path) -> Sampled:
    """The samples of a finished stage, in the order in which they were drawn."""
    records = sorted({record["index"]: record for record in read_lines(folder / _LOG)}.items())
    genotypes = np.array([record["genotype"] for _, record in records], dtype=np.int64)
    return Sampled(genotypes, np.array([record["error"] for _, record in records]))


def _draw(context: Context) -> IntArray:
    rng = np.random.default_rng([context.config.seed, 1])
    wanted = context.config.predictors.accuracy.samples
    anything = np.zeros(len(context.space.genes), dtype=np.int64)
    return distinct(tilted_population(context.space, 2 * wanted, rng, anything))[:wanted]


def _evaluate(context: Context, train_folder: Path, genotypes: IntArray, indices: tuple[int, ...]) -> list[float]:
    training = context.trained(train_folder)
    networks = [context.space.lower(genotype) for genotype in genotypes[list(indices)].tolist()]
    calibrations = Calibrations(training.supernet, networks, training.calibration_images)
    return errors(calibrations, context.data.validation)
