"""`nas bench latency-local`: this machine's latency of subnets at 224 pixels, from 30 measured ones, by each engine.

The subnets are Once-for-All's, of `imagenet-mobile.yaml`. All are measured in one campaign, those that are predicted a
second time in another, which shows how far measurements agree with themselves. A campaign that has ended is kept in
`latency-local` among the runs and not measured again: a stopped benchmark goes on with the next one, and one that is to
measure anew needs that folder removed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np

from experiments.bench import CONFIGS
from experiments.bench.latency import within10
from experiments.bench.results import Figure, figure
from experiments.config import load_config
from experiments.workers import parallel
from hw_models.engines import load_engine
from hw_models.measure import fingerprint, measure
from hw_models.onnx_model import to_onnx
from hw_models.quantized_onnx import random_int8_model
from hw_models.reference import random_design
from hw_models.store import MeasurementStore
from nas.errors import NasError
from nas.genotype import (
    FloatArray,
    IntArray,
    SearchSpace,
    canonical,
    distinct,
    opened,
    random_population,
    tilted_population,
)
from nas.network import Network
from predictors import latency
from predictors.prediction import Prediction, score

_RESOLUTION = 224
_ROUNDS: Mapping[str, int] = {"fp32": 3, "int8": 6}
"""Sets of sessions are opened anew every three, which takes as long as the rounds; in int8 two differ by more."""
_RUNS = 4
_CANDIDATES = 600
_ENGINES: Mapping[str, tuple[str, ...]] = {
    "fp32": ("onnxruntime", "openvino", "torch", "torch-cuda"), "int8": ("onnxruntime", "openvino"),
}  # fmt: skip
_UNITS = {
    "spearman": "rank correlation", "within10": "share within 10 %", "coverage90": "share inside",
    "campaigns_tau": "Kendall's tau of two campaigns", "campaigns_disagree": "median relative difference",
    "latency_s": "s, median of the subnets",
}  # fmt: skip

Say = Callable[[str], None]
Models = Callable[[], Mapping[str, bytes]]
"""Builds them when first asked."""


def local(quick: bool, runs: Path, out: Path, say: Say) -> dict[str, Figure]:
    """All figures, of each engine that is installed in each precision it runs, and over these.

    Args:
        quick: 20 subnets from 12, on ONNX Runtime.
        runs: Where campaigns are kept.
        out: Not used: there is no picture.
        say: Told of every campaign.
    """
    shots, others = (12, 20) if quick else (30, 100)
    space = load_config(CONFIGS / "imagenet-mobile.yaml").build_space()
    chosen = _informative(space, shots)
    judged = [network for network in _drawn(space, others + shots) if network not in chosen][:others]
    figures, found = dict[str, Figure](), dict[str, list[float]]()
    for precision, engines in _ENGINES.items():
        models = cache(partial(_models, precision, [*chosen, *judged]))
        for engine in engines[: 1 if quick else None]:
            try:
                load_engine(engine)
            except NasError as error:
                say(f"left out: {error}")
                continue
            folder = runs / f"latency-local{'-quick' * quick}" / f"{engine}-{precision}"
            say(f"{engine}, {precision}: a campaign over {shots + others} subnets, then one over {others}")
            first = _campaign(folder / "first.jsonl", models, [*chosen, *judged], engine, _ROUNDS[precision], 0)
            again = _campaign(folder / "second.jsonl", models, judged, engine, _ROUNDS[precision], 1)
            for name, value in _values(chosen, judged, first, again).items():
                key = name if name.startswith(("campaigns", "latency")) else f"{name}_{shots}"
                figures[f"local_{key}[{engine} {precision}]"] = figure([value], _UNITS[name])
                found.setdefault(f"local_{key}", []).append(value)
    overall = {key: figure(values, _UNITS[name]) for key, values in found.items()
               for name in _UNITS if key.startswith(f"local_{name}")}  # fmt: skip
    return overall | figures


def _values(chosen: list[Network], judged: list[Network], first: FloatArray, again: FloatArray) -> dict[str, float]:
    """What `_UNITS` lists, from latencies of the chosen and the judged subnets, and of the judged once more."""
    truth = first[len(chosen) :]
    told = latency.fit(chosen, first[: len(chosen)]).predict(judged)
    scored, apart = score(told, truth), np.abs(again / truth - 1)
    tau = score(Prediction(again, again), truth).kendall_tau
    values = scored.spearman, within10(told.mean, truth), scored.coverage90, tau, np.median(apart), np.median(truth)
    return dict(zip(_UNITS, map(float, values), strict=True))


def _models(precision: str, networks: Sequence[Network]) -> Mapping[str, bytes]:
    """ONNX models by the subnets' keys, built on all cores."""
    tasks = [(precision, network) for network in networks]
    return {network.key: model for (_, network), model in parallel(_built, tasks)}


def _built(task: tuple[str, Network]) -> bytes:
    precision, network = task
    return random_int8_model(network, seed=0) if precision == "int8" else to_onnx(random_design(network, 0))


def _campaign(
    file: Path, models: Models, networks: Sequence[Network], engine: str, rounds: int, seed: int
) -> FloatArray:
    """Seconds of each subnet, comparable with those of the first campaign; measured where the file lacks them."""
    store, method, keys = MeasurementStore(file), fingerprint(1, engine), [network.key for network in networks]
    if len(store.lookup(keys, method)) < len(keys):
        wanted = {key: models()[key] for key in keys}
        store.append(measure(wanted, rounds, _RUNS, seed=seed, engine=engine))
    found, first = store.lookup(keys, method), MeasurementStore(file.with_name("first.jsonl")).campaigns(method)[0]
    unit = first.reference_s / store.campaigns(method)[0].reference_s
    return unit * np.array([found[key] for key in keys])


def _informative(space: SearchSpace, count: int) -> list[Network]:
    rng, shaping = np.random.default_rng(2), opened(space, {"kernel", "depth", "width"})
    drawn = _networks(space, distinct(_at_full_size(space, tilted_population(space, _CANDIDATES, rng, shaping))))
    return [drawn[index] for index in latency.informative(drawn, count).tolist()]


def _drawn(space: SearchSpace, count: int) -> list[Network]:
    drawn = random_population(space, 2 * count, np.random.default_rng(1))
    return _networks(space, distinct(_at_full_size(space, drawn))[:count])


def _at_full_size(space: SearchSpace, population: IntArray) -> IntArray:
    fixed = population.copy()
    for column, gene in enumerate(space.genes):
        if gene.kind == "resolution":
            fixed[:, column] = gene.choices.index(_RESOLUTION)
    return canonical(space, fixed)


def _networks(space: SearchSpace, population: IntArray) -> list[Network]:
    return [space.lower(genotype).as_float() for genotype in population.tolist()]
