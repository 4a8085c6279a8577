"""Cells that are one network against what they compute; the benchmark's laws on a small made-up table."""

import itertools
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.bench import cell_search, peers, search
from experiments.bench.cells import (
    CONV1,
    CONV3,
    EDGES,
    NONE,
    OPERATIONS,
    POOL,
    SKIP,
    expression,
    networks,
    parse,
    paths,
)
from experiments.bench.nasbench201 import Benchmark, load_benchmark
from nas.errors import NasError
from nas.genotype import FloatArray

ALL = np.array(list(itertools.product(range(len(OPERATIONS)), repeat=len(EDGES))))
CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|"


def output(cell: tuple[int, ...], seed: int) -> FloatArray:
    """What a cell computes where pooling is one matrix and a convolution a non-linear function drawn for its kind."""
    rng = np.random.default_rng(seed)
    pool, one, three = rng.normal(size=(3, 4, 4)) / 2
    nodes = [rng.normal(size=4), np.zeros(4), np.zeros(4), np.zeros(4)]
    arrives = [True, False, False, False]
    for (source, target), operation in zip(EDGES, cell, strict=True):
        if operation != NONE and arrives[source]:
            at = nodes[source]
            terms = {SKIP: at, POOL: pool @ at, CONV1: np.cos(one @ at), CONV3: np.cos(three @ at)}
            nodes[target] = nodes[target] + terms[operation]
            arrives[target] = True
    return nodes[3]


def test_cells_are_one_network_exactly_where_they_compute_the_same() -> None:
    values = np.array([np.concatenate([output(cell, seed) for seed in (0, 1)]) for cell in map(tuple, ALL.tolist())])
    _, by_value = np.unique(values.round(9), axis=0, return_inverse=True)
    found = networks(ALL)
    pairs = np.unique(np.column_stack([by_value.ravel(), found.of_cell]), axis=0)
    # Nothing and disconnected agree in value too: all zeros.
    assert len(pairs) == by_value.max() + 1 == found.of_cell.max() + 1 == 4660
    assert found.connected.sum() == 4659
    assert found.features.shape == (4660, len(found.groups))
    assert np.isfinite(found.features).all()


def test_a_known_cell_is_read_and_simplified() -> None:
    cell = parse(CELL)
    assert cell == (CONV3, NONE, SKIP, POOL, CONV1, SKIP)
    assert paths(expression(cell)) == {(CONV3,): 1, (CONV3, CONV1): 1, (POOL,): 1}
    assert expression((NONE, SKIP, POOL, NONE, CONV1, SKIP)) == (None,)


@pytest.mark.parametrize(
    "text", ["", "|none~0|", CELL.replace("none", "nine"), CELL.replace("skip_connect~1", "none~0")]
)
def test_what_is_no_cell_is_refused(text: str) -> None:
    with pytest.raises(NasError, match="a cell is written as"):
        parse(text)


@pytest.fixture(scope="module")
def benchmark() -> Benchmark:
    """All cells, with an error and a latency that convolutions decide."""
    rng = np.random.default_rng(0)
    found = networks(ALL)
    convolutions = (ALL == CONV3).sum(axis=1) + 0.4 * (ALL == CONV1).sum(axis=1)
    sums = np.array([np.log1p(9 * (ALL == CONV3).sum(axis=1) + (ALL == CONV1).sum(axis=1))])[0]
    mean = np.bincount(found.of_cell, sums) / np.bincount(found.of_cell)
    error = 20 - 3 * mean[found.of_cell] + 0.1 * rng.normal(size=len(ALL))
    return Benchmark(ALL, error, {"phone": 1 + convolutions + 0.01 * rng.random(len(ALL))}, found)


def test_places_are_those_of_the_cells(benchmark: Benchmark) -> None:
    rows = np.random.default_rng(1).integers(len(ALL), size=50)
    np.testing.assert_array_equal(benchmark.places(ALL[rows]), rows)


@pytest.mark.parametrize("peer", peers.PEERS)
def test_a_peer_keeps_the_budget_and_its_seed(peer: str, benchmark: Benchmark) -> None:
    if reason := peers.missing(peer):
        pytest.skip(reason)
    runs = [peers.run_peer(peer, benchmark, "phone", seed, 45).tolist() for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]
    assert all(20 < len(set(rows)) == len(rows) <= 45 for rows in runs)


def test_active_search_keeps_the_budget_and_its_seed_and_beats_chance(benchmark: Benchmark) -> None:
    runs = [cell_search.active_search(benchmark, "phone", seed, 45).tolist() for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]
    assert all(len(set(rows)) == len(rows) == 45 for rows in runs)
    assert benchmark.networks.connected[benchmark.networks.of_cell[runs[0]]].all()
    points = np.column_stack([benchmark.error, benchmark.latency_s["phone"]])
    reference = np.array([20.0, points[:, 1].max()])
    chance = peers.run_peer("random", benchmark, "phone", 0, 45)
    ours, theirs = (search.growth(points, np.array(rows), reference, 45)[-1] for rows in (runs[0], chance))
    assert ours > theirs


def test_growth_rises_to_one_and_stays_where_a_search_ended_early() -> None:
    points = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0], [3.0, 3.0]])
    curve = search.growth(points, np.array([3, 0, 1, 2]), np.array([4.0, 4.0]), 6)
    np.testing.assert_allclose(curve, [1 / 6, 3 / 6, 5 / 6, 1, 1, 1])


def test_figures_are_counted_from_the_curves() -> None:
    queries = np.arange(1, 401)
    ours = np.stack([np.minimum(queries / (100 + 20 * seed), 1) for seed in range(3)])[:, None]
    curves = {"active": ours, "slow": np.minimum(queries / 300, 1)[None, None].repeat(3, 0), "never": ours * 0.9}
    made = search.figures(curves, ours)
    assert made["hv_50"].value == pytest.approx(np.mean([50 / 100, 50 / 120, 50 / 140]))
    assert made["hv_50"].spread == pytest.approx((50 / 140, 50 / 100))
    assert made["hv_100[slow]"].value == pytest.approx(1 / 3)
    assert made["queries_to_99"].value == 119
    assert made["queries_to_99[never]"].value == 400
    assert made["queries_to_99_over_best_peer"].value == pytest.approx(119 / 297)
    assert made["queries_to_999_averaged_errors"].spread == (100, 140)


def test_missing_data_are_named_with_the_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NAS_DATA", raising=False)
    with pytest.raises(NasError, match=r"NAS_DATA is not set; set NAS_DATA to a folder with\n.*accuracy\.parquet"):
        load_benchmark(("raspi4",))
    monkeypatch.setenv("NAS_DATA", str(tmp_path))
    with pytest.raises(NasError, match=r"there is no .*nasbench201_accuracy\.parquet"):
        load_benchmark(("raspi4",))
    pytest.importorskip("pyarrow", reason="pandas reads parquet with pyarrow")
    (tmp_path / "nasbench201").mkdir()
    pd.DataFrame({"arch": [CELL]}).to_parquet(tmp_path / "nasbench201" / "nasbench201_accuracy.parquet")
    with pytest.raises(NasError, match="has no column cifar10_test_acc_200ep"):
        load_benchmark(("raspi4",))


@pytest.mark.skipif("NAS_DATA" not in os.environ, reason="the environment variable NAS_DATA is not set")
def test_the_published_best_cell_is_the_best() -> None:
    pytest.importorskip("pyarrow", reason="pandas reads parquet with pyarrow")
    loaded = load_benchmark(search.DEVICES)
    assert len(loaded.cells) == 15625
    assert loaded.error.argmin() == 6111
    assert 100 - loaded.error.min() == pytest.approx(94.37, abs=0.01)
