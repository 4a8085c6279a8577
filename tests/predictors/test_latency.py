"""The latency predictor on devices whose law is known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from nas.counts import macs
from nas.errors import NasError
from nas.genotype import FloatArray, SearchSpace, random_population
from nas.kernels import kernels
from nas.network import Add, Conv2d, Input, Layer, Linear, Mean, Network, PairSum, Pool, RowMean, Scale
from nas.spaces import MlpChoices, MobileChoices
from nas.spaces.mobile import Stage
from predictors import latency
from predictors.latency import LatencyPredictor

EXAMPLES: dict[str, SearchSpace] = {
    "mobile": MobileChoices(8, (Stage(16, 2, (1, 2)), Stage(24, 2, (1, 3))), (3, 5), (2, 3, 4)).build((1, 8, 8), 10),
    "mlp": MlpChoices((1, 2, 4), (16, 32, 48, 64)).build((64,), 10),
}


def networks(example: str, count: int, seed: int) -> list[Network]:
    space = EXAMPLES[example]
    return [space.lower(g) for g in random_population(space, count, np.random.default_rng(seed)).tolist()]


def layer_seconds(layer: Layer) -> float:
    """A device of its own: a launch, MACs at a rate by kind of layer, and bytes moved."""
    match layer:
        case Input():
            return 0.0
        case Conv2d(kernel=kernel, groups=groups):
            rate = 1e-10 if groups == 1 else 2e-10 * kernel
            launch = 2e-6 + 1e-7 * kernel
        case Linear():
            launch, rate = 1e-6, 3e-10
        case Add() | PairSum() | Mean() | RowMean() | Scale():
            launch, rate = 5e-7, 0.0
        case Pool(kernel=kernel, kind=kind):
            launch, rate = 1e-7 * kernel**2 * (2 if kind == "max" else 1), 0.0
    own = launch + rate * macs(layer) + 5e-11 * (math.prod(layer.in_shape) + math.prod(layer.out_shape))
    return own + activation_seconds(layer)


def activation_seconds(layer: Layer) -> float:
    """Free where it is done as the sum of a weighted layer leaves its registers."""
    match layer:
        case Conv2d(activation="hswish" | "hsigmoid") | Linear(activation="hswish" | "hsigmoid"):
            return 3e-7 + 1e-10 * math.prod(layer.out_shape)
        case Add(activation="relu"):
            return 2e-7
        case _:
            return 0.0


def measured(population: list[Network], noise: float = 0.0, seed: int = 0) -> FloatArray:
    exact = np.array([5e-6 + sum(map(layer_seconds, network)) for network in population])
    return exact * (1 + noise * np.random.default_rng(seed).normal(size=len(population)))


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_law_without_noise_is_recovered(example: str) -> None:
    predictor = latency.fit(networks(example, 60, 0), measured(networks(example, 60, 0)))
    unseen = networks(example, 200, 1)
    prediction = predictor.predict(unseen)
    np.testing.assert_allclose(prediction.mean, measured(unseen), rtol=1e-9)
    assert predictor.spread < 1e-9
    assert np.ptp(prediction.mean) > 0.2 * prediction.mean.mean()


@pytest.mark.parametrize("example", EXAMPLES)
def test_noise_leaves_the_order_and_is_estimated(example: str) -> None:
    predictor = latency.fit(networks(example, 60, 0), measured(networks(example, 60, 0), 0.02))
    unseen = networks(example, 200, 1)
    prediction = predictor.predict(unseen)
    assert spearmanr(prediction.mean, measured(unseen)).statistic > 0.95
    assert predictor.spread == pytest.approx(0.02, rel=0.3)
    np.testing.assert_array_equal(prediction.std, prediction.mean * predictor.spread)


@pytest.mark.parametrize("example", EXAMPLES)
def test_layers_and_a_constant_add_up(example: str) -> None:
    predictor = latency.fit(networks(example, 40, 0), measured(networks(example, 40, 0), 0.05))
    for network in networks(example, 50, 1):
        total = predictor.constant + sum(predictor.layer_latency(layer) for layer in network)
        assert predictor.predict([network]).mean.tolist() == pytest.approx([total], rel=1e-12)


def mixed_networks(count: int, seed: int) -> list[Network]:
    """Chains of blocks drawn from all operations, no two alike in size."""
    rng = np.random.default_rng(seed)
    return [mixed_network(rng) for _ in range(count)]


def mixed_network(rng: np.random.Generator) -> Network:
    layers: list[Layer] = [Input("image", (int(rng.integers(2, 9)), 16, 16))]
    for block in range(int(rng.integers(2, 6))):
        last, name = layers[-1], f"b{block}"
        shape, out = last.out_shape, (int(rng.integers(4, 33)), *last.out_shape[1:])
        act = str(rng.choice(["relu", "hswish"]))
        match rng.integers(4):
            case 0:
                layers.append(Conv2d(name, (last.name,), shape, out, 1, activation=act))  # type: ignore[arg-type]
            case 1:
                kernel, kind = int(rng.integers(2, 4)), str(rng.choice(["max", "mean"]))
                layers.append(Pool(name, (last.name,), shape, kernel, 2, kind))  # type: ignore[arg-type]
            case 2:
                layers += [
                    Mean(f"{name}.mean", (last.name,), shape),
                    Linear(f"{name}.gate", (f"{name}.mean",), shape[:1], shape[:1], "hsigmoid"),
                    Scale(name, (last.name, f"{name}.gate"), shape),
                ]
            case _:
                act = str(rng.choice(["identity", "relu"]))
                layers += [
                    Conv2d(f"{name}.conv", (last.name,), shape, shape, 3),
                    Add(name, (last.name, f"{name}.conv"), shape, activation=act),  # type: ignore[arg-type]
                ]
    return Network(tuple(layers))


def test_every_operation_and_activation_is_a_feature() -> None:
    """The law of a device that prices each of them apart is found again from sums over whole networks."""
    known, unseen = mixed_networks(200, 0), mixed_networks(200, 1)
    predictor = latency.fit(known, measured(known))
    np.testing.assert_allclose(predictor.predict(unseen).mean, measured(unseen), rtol=1e-8)
    assert set(predictor.costs) == {
        "add", "add-relu", "conv3", "hsigmoid", "hswish", "linear", "maxpool2", "maxpool3", "mean", "meanpool2",
        "meanpool3", "pointwise1", "scale",
    }  # fmt: skip


UNMEASURED: dict[str, Layer] = {
    "scale": Scale("layer", ("a", "b"), (4, 2, 2)),
    "maxpool3": Pool("layer", ("a",), (4, 2, 2), 3, 2, "max"),
    "meanpool2": Pool("layer", ("a",), (4, 2, 2), 2, 2, "mean"),
    "hswish": Conv2d("layer", ("a",), (1, 8, 8), (8, 8, 8), 3, activation="hswish"),
    "hsigmoid": Linear("layer", ("a",), (8,), (8,), "hsigmoid"),
    "add-relu": Add("layer", ("a", "b"), (4, 2, 2), activation="relu"),
    "pair-sum": PairSum("layer", ("a", "b"), (4, 2, 1)),
    "pair-sum-relu": PairSum("layer", ("a", "b"), (4, 2, 1), activation="relu"),
    "row-mean": RowMean("layer", ("a",), (4, 2, 2)),
}


@pytest.mark.parametrize("kind", UNMEASURED)
def test_what_was_not_measured_is_never_free(kind: str) -> None:
    predictor = latency.fit(networks("mobile", 60, 0), measured(networks("mobile", 60, 0)))
    with pytest.raises(NasError, match=f"layer layer: no {kind} was measured"):
        predictor.layer_latency(UNMEASURED[kind])


def test_no_latency_is_negative() -> None:
    """Not even when the measurements say that more work takes less time."""
    population = networks("mobile", 60, 0)
    work = np.array([sum(map(macs, network)) for network in population])
    for latencies in (1e-3 / work, measured(population, 0.5, 1) ** 2, np.full(60, 1e-5)):
        predictor = latency.fit(population, np.abs(latencies))
        assert predictor.constant >= 0
        assert all(cost >= 0 for costs in predictor.costs.values() for cost in costs)
        assert (predictor.predict(networks("mobile", 100, 2)).mean > 0).all()


def test_an_unknown_kind_is_refused_by_name() -> None:
    predictor = latency.fit(networks("mlp", 30, 0), measured(networks("mlp", 30, 0)))
    with pytest.raises(NasError, match=r"layer stem: no conv3 .*known: linear\)"):
        predictor.predict(networks("mobile", 1, 0))
    pointwise = Conv2d("c", ("i",), (2, 4, 4), (3, 4, 4), 1)
    with pytest.raises(NasError, match="layer c: no pointwise1"):
        predictor.layer_latency(pointwise)


@pytest.mark.parametrize("example", EXAMPLES)
def test_saved_and_loaded_predicts_identically(example: str, tmp_path: Path) -> None:
    predictor = latency.fit(networks(example, 40, 0), measured(networks(example, 40, 0), 0.02))
    predictor.save(tmp_path / "latency.json")
    loaded = latency.load(tmp_path / "latency.json")
    assert loaded == predictor
    first, second = (p.predict(networks(example, 50, 1)) for p in (predictor, loaded))
    assert np.array_equal(first.mean, second.mean)
    assert np.array_equal(first.std, second.std)


def test_a_layer_costs_what_its_kind_does() -> None:
    costs = {"conv3": (1.0, 10.0, 100.0), "depthwise3": (2.0, 0.0, 0.0), "pointwise1": (3.0, 0.0, 0.0)}
    costs |= {"linear": (4.0, 0.5, 0.0), "add": (5.0, 1e9, 0.0), "mean": (6.0, 1e9, 0.25)}
    costs |= {"hswish": (7.0, 1e9, 0.125), "maxpool2": (8.0, 1e9, 0.0), "scale": (9.0, 1e9, 1.0)}
    predictor = LatencyPredictor(0.0, costs, 0.1)
    layers: dict[Layer, float] = {
        Input("i", (4, 8, 8)): 0.0,
        Conv2d("c", ("i",), (4, 8, 8), (6, 4, 4), 3, 2): 1 + 10 * 6 * 4 * 9 * 16 + 100 * (4 * 64 + 6 * 16),
        Conv2d("d", ("i",), (4, 8, 8), (4, 8, 8), 3, 1, 4): 2.0,
        Conv2d("p", ("i",), (4, 8, 8), (6, 8, 8), 1): 3.0,
        Linear("l", ("i",), (7,), (5,)): 4 + 0.5 * 35,
        Add("a", ("i", "d"), (4, 8, 8)): 5.0,
        Mean("m", ("i",), (4, 8, 8)): 6 + 0.25 * (256 + 4),
        Conv2d("h", ("i",), (4, 8, 8), (6, 8, 8), 1, activation="hswish"): 3.0 + 7.0 + 0.125 * 2 * 6 * 64,
        Pool("x", ("i",), (4, 8, 8), 2, 2, "max"): 8.0,
        Scale("s", ("i", "m"), (4, 8, 8)): 9.0 + 2 * 256,
    }
    for layer, seconds in layers.items():
        assert predictor.layer_latency(layer) == pytest.approx(seconds)


def vector_units(population: list[Network]) -> FloatArray:
    """Latencies where channels are worked on sixteen at a time, and large tensors leave the cache."""

    def seconds(layer: Layer) -> float:
        if isinstance(layer, Input):
            return 0.0
        read, written = (-(-shape[0] // 16) * 16 / shape[0] for shape in (layer.in_shape, layer.out_shape))
        return read * written * layer_seconds(layer) * (1.5 if math.prod(layer.out_shape) > 1000 else 1.0)

    return np.array([5e-6 + sum(map(seconds, network)) for network in population])


def off(predictor: LatencyPredictor, population: list[Network], latencies: FloatArray) -> float:
    return float(np.abs(predictor.predict(population).mean / latencies - 1).mean())


@pytest.mark.parametrize("example", EXAMPLES)
def test_bends_learn_what_lines_miss_and_add_up(example: str, tmp_path: Path) -> None:
    known, unseen = networks(example, 60, 0), networks(example, 200, 1)
    truth = vector_units(unseen)
    bent, lines = latency.fit(known, vector_units(known)), latency.fit(known, vector_units(known), lines=True)
    assert bent.bends
    assert not lines.bends
    assert off(bent, unseen, truth) < 0.5 * off(lines, unseen, truth)
    totals = [bent.constant + sum(map(bent.layer_latency, network)) for network in unseen]
    np.testing.assert_allclose(bent.predict(unseen).mean, totals, rtol=1e-12)
    bent.save(tmp_path / "latency.json")
    loaded = latency.load(tmp_path / "latency.json")
    assert loaded == bent
    assert np.array_equal(loaded.predict(unseen).mean, bent.predict(unseen).mean)


def test_bends_are_those_of_a_gaussian_process_on_whole_networks() -> None:
    """The posterior mean by the textbook, from covariances of sums over pairs of layers."""
    known, unseen = networks("mobile", 40, 0), networks("mobile", 20, 1)
    latencies = vector_units(known)
    work = latency._work([*known, *unseen])
    predictor, process = latency.fit(known, latencies), latency._process(latency._work(known), latencies)
    assert predictor.bends
    kinds, shapes = zip(*work.kernels, strict=True)
    prior = latency._alike(shapes, shapes, process.length) * (np.array(kinds)[:, None] == kinds)
    lines = work.sums @ latency._weights(latency._work(known).sums, latencies)
    rows = work.counts / lines[:, None]
    covariance = rows @ prior @ rows.T
    missed = latencies / lines[:40] - 1
    covariance *= np.exp(2 * process.theta[0]) * missed.var() / np.diag(covariance)[:40].mean()
    inverse = np.linalg.inv(covariance[:40, :40] + np.exp(2 * process.theta[1]) * missed.var() * np.eye(40))
    level = inverse.sum(axis=0) @ missed / inverse.sum()
    mean = lines[40:] * (1 + level + covariance[40:, :40] @ inverse @ (missed - level))
    np.testing.assert_allclose(predictor.predict(unseen).mean, mean, rtol=1e-4)


def test_noise_is_not_taken_for_bends() -> None:
    """Bends are learned where networks left out say so; where it is by chance, little is lost."""
    known, unseen = networks("mobile", 12, 0), networks("mobile", 200, 1)
    worse = []
    for seed in range(5):
        latencies = measured(known, 0.05, seed)
        bent, lines = latency.fit(known, latencies), latency.fit(known, latencies, lines=True)
        worse.append(off(bent, unseen, measured(unseen)) / off(lines, unseen, measured(unseen)))
    assert np.mean(worse) < 1.1


@pytest.mark.parametrize("count", [30, 100])
def test_intervals_hold_ninety_percent(count: int) -> None:
    inside = []
    for seed in range(6):
        known, unseen, rng = networks("mobile", count, 2 * seed), networks("mobile", 100, 2 * seed + 1), seed + 1000
        noise = 1 + 0.01 * np.random.default_rng(rng).normal(size=count + 100)
        latencies = vector_units([*known, *unseen]) * noise
        told = latency.fit(known, latencies[:count]).predict(unseen)
        inside.append(np.mean(np.abs(told.mean - latencies[count:]) <= 1.6449 * told.std))
    assert 0.86 < np.mean(inside) < 0.96


def test_informative_networks_are_those_a_brute_force_design_tells() -> None:
    """Each the most uncertain one given those before, by inverting the information matrix anew every time."""
    drawn = networks("mobile", 60, 3)
    kinds = sorted({kind for network in drawn for layer in network for kind in kernels(layer)})
    rows = np.array(
        [[1.0, *(_amount(network, kind, term) for kind in kinds for term in range(3))] for network in drawn]
    )
    rows /= np.maximum(rows.max(axis=0), 1.0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    chosen: list[int] = []
    for _ in range(25):
        information = 1e-4 * np.eye(rows.shape[1]) + rows[chosen].T @ rows[chosen]
        uncertain = np.einsum("ij,jk,ik->i", rows, np.linalg.inv(information), rows)
        uncertain[chosen] = -1
        chosen.append(int(uncertain.argmax()))
    found = latency.informative(drawn, 25)
    assert len(set(found.tolist())) == 25

    def known(members: list[int]) -> float:
        return float(np.linalg.slogdet(1e-4 * np.eye(rows.shape[1]) + rows[members].T @ rows[members])[1])

    assert known(found.tolist()) == pytest.approx(known(chosen), abs=0.2)  # of equal ones either may be taken
    rng = np.random.default_rng(0)
    assert known(found.tolist()) > 1 + max(known(rng.permutation(60)[:25].tolist()) for _ in range(200))
    assert latency.informative(drawn, 100).tolist() == list(range(60))


def _amount(network: Network, kind: str, term: int) -> float:
    return sum(kernels(layer).get(kind, (0.0, 0.0, 0.0))[term] for layer in network)


def test_informative_networks_predict_better_than_as_many_drawn_by_chance() -> None:
    """Worst relative error over all others, in the mean over ten draws of noise."""
    drawn = networks("mobile", 400, 5)
    truth, best = measured(drawn), latency.informative(drawn, 20)

    def worst(rows: list[int], seed: int) -> float:
        noise = np.random.default_rng(seed).normal(1, 0.01, len(rows))
        fitted = latency.fit([drawn[row] for row in rows], truth[rows] * noise, lines=True)
        return float(np.abs(fitted.predict(drawn).mean / truth - 1).max())

    chance = [worst(np.random.default_rng(100 + seed).permutation(400)[:20].tolist(), seed) for seed in range(10)]
    assert np.mean([worst(best.tolist(), seed) for seed in range(10)]) < np.mean(chance)
