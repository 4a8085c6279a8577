"""Stages `fit` and `measure`: predictors of error and of latency, each scored on samples it did not see."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from experiments.config import Config
from experiments.context import Context
from experiments.progress import percent, progress
from experiments.rundir import atomic_write
from experiments.stages.sample import load_samples
from hw_models.device import load_device
from hw_models.latency import measured_latencies
from hw_models.quantized_onnx import int8_network
from nas.errors import NasError
from nas.genotype import FloatArray, IntArray, distinct, opened, tilted_population
from nas.network import FLOAT_BITS
from predictors import accuracy, latency
from predictors.prediction import Prediction, score

ACCURACY = "accuracy.npz"
LATENCY = "latency.json"
HELD_OUT = "held_out.npz"
_DRAWN = 10
"""Architectures to choose among, for each that is measured."""


def fit(context: Context, sample_folder: Path, folder: Path) -> dict[str, Any]:
    """Fit the accuracy predictor to the sampled subnets; the score is that of a fit without the held-out ones."""
    sampled, seed = load_samples(sample_folder), context.config.seed
    known, held = _split(len(sampled.errors), context.config.predictors.accuracy.held_out, seed)
    partial = accuracy.fit(context.space, sampled.genotypes[known], sampled.errors[known], seed)
    summary = _score(folder, partial.predict(sampled.genotypes[held]), sampled.errors[held])
    accuracy.fit(context.space, sampled.genotypes, sampled.errors, seed).save(folder / ACCURACY)
    return summary


def measure(context: Context, device_name: str, folder: Path) -> dict[str, Any]:
    """Measure architectures of all sizes on a device and fit its latency predictor."""
    device, settings = load_device(device_name), context.config.predictors.latency
    genotypes = architectures(context.config, settings.samples)
    networks = [context.space.lower(genotype).as_float() for genotype in genotypes.tolist()]
    with progress(f"measure {len(networks)} networks on {device_name}", 100) as advance:
        store, seed, int8 = context.measurements(device_name), context.config.seed, FLOAT_BITS not in device.act_bits
        found, campaigns = measured_latencies(networks, device, store, seed, percent(advance), int8=int8)
    latencies = np.array([found[(int8_network(network) if int8 else network).key] for network in networks])
    known, held = _split(len(networks), settings.held_out, context.config.seed)
    partial = latency.fit([networks[i] for i in known], latencies[known])
    summary = _score(folder, partial.predict([networks[i] for i in held]), latencies[held])
    latency.fit(networks, latencies).save(folder / LATENCY)
    atomic_write(
        folder / "campaigns.json", json.dumps([{**asdict(c), "latency_s": dict(c.latency_s)} for c in campaigns])
    )
    return {**summary, "samples": len(networks), "measured": [campaign.date for campaign in campaigns]}


def architectures(config: Config, count: int) -> IntArray:
    """Genotypes of the architectures to measure on a device, shape (n, genes).

    Half of them are the most informative of many, which pins down every kind of kernel; half are drawn as they come,
    since no model of kernels holds everywhere, and extremes alone would say little of what lies between.
    """
    space, rng = config.build_space(), np.random.default_rng([config.seed, 2])
    shaping = opened(space, {"resolution", "kernel", "depth", "width"})
    drawn = distinct(tilted_population(space, _DRAWN * count, rng, shaping))
    telling = latency.informative([space.lower(genotype) for genotype in drawn.tolist()], count // 2)
    others = np.setdiff1d(np.arange(len(drawn)), telling)[: count - len(telling)]
    chosen: IntArray = drawn[np.union1d(telling, others)]
    return chosen


def _split(count: int, held_out: float, seed: int) -> tuple[IntArray, IntArray]:
    order = np.random.default_rng([seed, 3]).permutation(count)
    held = max(3, round(count * held_out))
    if count <= held:
        raise NasError(f"a predictor needs more than {held} distinct samples, got {count}; raise samples, or the space")
    return order[held:], order[:held]


def _score(folder: Path, prediction: Prediction, truth: FloatArray) -> dict[str, Any]:
    with (folder / HELD_OUT).open("wb") as file:
        np.savez(file, predicted=prediction.mean, std=prediction.std, truth=truth)
    if np.ptp(truth) == 0:
        raise NasError(
            f"all {len(truth)} held-out samples have the value {truth[0]:g}: no score can stand on them; raise samples"
        )
    return asdict(score(prediction, truth))
