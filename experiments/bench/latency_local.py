"""`nas bench latency-local`: this machine's latency of subnets at 224 pixels, float and int8, from 30 measured ones.

The subnets are Once-for-All's, of `imagenet-mobile.yaml`. All are measured in one campaign, those that are predicted a
second time in another, which shows how far measurements agree with themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from experiments.bench.latency import within10
from experiments.bench.results import Figure, figure
from experiments.bench.supernet import CONFIGS
from experiments.config import load_config
from hw_models.measure import measure
from hw_models.onnx_model import to_onnx
from hw_models.quantized_onnx import random_int8_model
from hw_models.reference import random_design
from nas.genotype import IntArray, SearchSpace, canonical, distinct, opened, random_population, tilted_population
from nas.network import Network
from predictors import latency
from predictors.prediction import Prediction, score

_RESOLUTION = 224
_ROUNDS, _RUNS = 10, 3
_CANDIDATES = 600

_BUILD: Mapping[str, Callable[[Network], bytes]] = {
    "fp32": lambda network: to_onnx(random_design(network, 0)),
    "int8": partial(random_int8_model, seed=0),
}


def local(quick: bool, runs: Path, out: Path, say: Callable[[str], None]) -> dict[str, Figure]:
    """All figures, of each precision.

    Args:
        quick: 20 subnets from 12, in few rounds.
        runs: Not used: nothing is trained.
        out: Not used: there is no picture.
        say: Told of every campaign.
    """
    shots, others, rounds = (12, 20, 3) if quick else (30, 100, _ROUNDS)
    space = load_config(CONFIGS / "imagenet-mobile.yaml").build_space()
    chosen, judged = _informative(space, shots), _networks(space, _drawn(space, others))
    figures: dict[str, Figure] = {}
    for precision, build in _BUILD.items():
        models = {f"{kind}{index}": build(network) for kind, networks in (("known", chosen), ("new", judged))
                  for index, network in enumerate(networks)}  # fmt: skip
        say(f"{precision}: a campaign over {len(models)} subnets, then one over {others}")
        first = measure(models, rounds, _RUNS, seed=0)
        second = measure({key: model for key, model in models.items() if key.startswith("new")}, rounds, _RUNS, seed=1)
        known = np.array([first.latency_s[f"known{index}"] for index in range(shots)])
        truth = np.array([first.latency_s[f"new{index}"] for index in range(others)])
        again = np.array([second.latency_s[f"new{index}"] for index in range(others)])
        again *= first.reference_s / second.reference_s
        told = latency.fit(chosen, known).predict(judged)
        scored = score(told, truth)
        values = {
            f"local_spearman_{shots}": (scored.spearman, "rank correlation"),
            f"local_within10_{shots}": (within10(told.mean, truth), "share within 10 %"),
            f"local_coverage90_{shots}": (scored.coverage90, "share inside"),
            "local_campaigns_tau": (
                score(Prediction(again, again), truth).kendall_tau,
                "Kendall's tau of two campaigns",
            ),
            "local_campaigns_disagree": (float(np.median(np.abs(again / truth - 1))), "median relative difference"),
            "local_latency_s": (float(np.median(truth)), "s, median of the subnets"),
        }
        figures |= {f"{name}[{precision}]": figure([value], unit) for name, (value, unit) in values.items()}
    return figures


def _informative(space: SearchSpace, count: int) -> list[Network]:
    rng, shaping = np.random.default_rng(2), opened(space, {"kernel", "depth", "width"})
    drawn = _networks(space, distinct(_at_full_size(space, tilted_population(space, _CANDIDATES, rng, shaping))))
    return [drawn[index] for index in latency.informative(drawn, count).tolist()]


def _drawn(space: SearchSpace, count: int) -> IntArray:
    return distinct(_at_full_size(space, random_population(space, 2 * count, np.random.default_rng(1))))[:count]


def _at_full_size(space: SearchSpace, population: IntArray) -> IntArray:
    fixed = population.copy()
    for column, gene in enumerate(space.genes):
        if gene.kind == "resolution":
            fixed[:, column] = gene.choices.index(_RESOLUTION)
    return canonical(space, fixed)


def _networks(space: SearchSpace, population: IntArray) -> list[Network]:
    return [space.lower(genotype).as_float() for genotype in population.tolist()]
