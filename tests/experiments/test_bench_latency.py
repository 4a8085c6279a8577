"""The peers against closed forms, the tables against what was published, and few-shot transfer on the real cells."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from experiments.bench import latency, latency_peers, latency_tables
from nas.counts import macs
from nas.errors import NasError
from nas.network import Conv2d

DATA = Path(os.environ.get("NAS_DATA", "data"))
NO_TABLE = pytest.mark.skipif(not (DATA / "hat-latency").is_dir(), reason="NAS_DATA names no folder with hat-latency")


def regression(seed: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features, asked = rng.normal(size=(12, columns)), rng.normal(size=(5, columns))
    return features, asked, features @ rng.normal(size=columns) + rng.normal(size=12)


def test_partial_least_squares_on_as_many_components_as_columns_is_least_squares() -> None:
    features, asked, values = regression(0, 2)
    design = np.column_stack([np.ones(12), features])
    exact = np.column_stack([np.ones(5), asked]) @ np.linalg.lstsq(design, values)[0]
    assert latency_peers.pls(features, np.zeros(2, int), asked, values, 0) == pytest.approx(exact)


def test_ridge_is_least_squares_with_a_penalty() -> None:
    features, asked, values = regression(1, 4)
    weights = np.linalg.solve(features.T @ features + np.eye(4), features.T @ (values - values.mean()))
    told = latency_peers.ridge(features, np.zeros(4, int), asked, values, 0)
    assert told == pytest.approx(values.mean() + asked @ weights)


@pytest.mark.parametrize("name", latency_peers.SCRATCH)
def test_peers_take_five_rows(name: str) -> None:
    features, asked, values = regression(2, 3)
    told = latency_peers.SCRATCH[name](features[:5], np.array([0, 0, 1]), asked, values[:5], 0)
    assert told.shape == (5,)
    assert np.isfinite(told).all()


def test_the_perceptrons_gradient_is_that_of_its_squared_error() -> None:
    rng = np.random.default_rng(3)
    weights = [rng.normal(size=shape).astype(np.float32) for shape in ((3, 4), (4,), (4, 4), (4,), (4, 1), (1,))]
    batch, values = rng.normal(size=(6, 3)).astype(np.float32), rng.normal(size=6).astype(np.float32)
    slopes = latency_peers._slopes(weights, batch, values)
    for place, slope in enumerate(slopes):
        turn = rng.normal(size=slope.shape)
        ends = []
        for step in (1e-3, -1e-3):
            moved = [each + (step * turn if other == place else 0) for other, each in enumerate(weights)]
            ends.append(float(np.mean((latency_peers._layers(moved, batch)[-1][:, 0] - values) ** 2)))
        assert float((slope * turn).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-3, rel=1e-2, abs=1e-3)


def test_the_perceptron_learns() -> None:
    rng = np.random.default_rng(4)
    features = rng.uniform(size=(300, 10))
    values = features.mean(axis=1) + 0.5
    off = [
        float(np.abs(latency_peers.hat_perceptron(features, values, features, steps, 0) - values).mean())
        for steps in (0, 150)
    ]
    assert off[1] < 0.6 * off[0]


def test_a_perfect_predictor_meets_every_budget_as_far_as_networks_allow() -> None:
    truth = np.arange(1.0, 1001.0)
    assert latency.budget_error(truth, truth, truth) < 0.01
    assert latency.budget_error(truth / 1.2, truth, truth) == pytest.approx(0.2, abs=0.02)
    assert latency.within10(np.array([1.0, 1.05, 1.2]), np.ones(3)) == pytest.approx(2 / 3)


def test_macs_are_those_of_the_layers() -> None:
    rng = np.random.default_rng(5)
    kernels, ratios = rng.choice([3, 5, 7], (1, 20)), rng.choice([3, 4, 6], (1, 20))
    depths = rng.choice([2, 3, 4], 5)
    there = (np.arange(4) < depths[:, None]).reshape(1, 20)
    inputs, size, total = 16, 64, 0
    for stage, (width, stride) in enumerate([(24, 2), (40, 2), (80, 2), (112, 1), (160, 2)]):
        for block in range(depths[stage]):
            place, step = 4 * stage + block, stride if block == 0 else 1
            middle, out, kernel = inputs * int(ratios[0, place]), -(-size // step), int(kernels[0, place])
            whole, small = (middle, size, size), (middle, out, out)
            total += macs(Conv2d("expand", ("x",), (inputs, size, size), whole, 1))
            total += macs(Conv2d("depthwise", ("x",), whole, small, kernel, step, middle))
            total += macs(Conv2d("project", ("x",), small, (width, out, out), 1))
            inputs, size = width, out
    assert latency_tables._subnet_macs(kernels, ratios, there, np.array([128.0])) == pytest.approx([total])


def test_a_missing_table_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NAS_DATA", str(tmp_path))
    with pytest.raises(NasError, match=r"wmt14ende_cpu_raspberrypi_all\.csv\.gz"):
        latency_tables.transformers()


@NO_TABLE
def test_each_device_measured_its_own_transformers() -> None:
    table = latency_tables.transformers()
    latencies = table.of(latency_tables.HAT)
    assert latencies.shape == (6000, 3)
    assert (np.isfinite(latencies).sum(axis=1) == 1).all()
    assert [len(table.measured(device)) for device in latency_tables.HAT] == [2000] * 3
    assert ((table.features[:, :10] > 0.1) & (table.features[:, :10] < 2)).all()


@NO_TABLE
def test_a_networks_cost_on_bitfusion_is_the_sum_of_the_published_entries() -> None:
    published = latency_tables.bit_flexible_layers()
    with (DATA / "apq-bitfusion-lut" / "bitfusion_lut.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(published.layers) == 6567
    found = {
        (*layer.in_shape[:2], layer.out_shape[0], layer.kernel, layer.stride, layer.groups, layer.precision): value
        for layer, value in zip(published.layers, published.latency, strict=True)
    }
    assert len(found) == 6567
    drawn = np.random.default_rng(6).integers(6567, size=30)
    looked_up = [
        found[
            int(row["in_ch"]), int(row["in_size"]), int(row["out_ch"]), int(row["kernel"]), int(row["stride"]),
            int(row["groups"]), type(published.layers[0].precision)(int(row["w_bits"]), int(row["a_bits"])),
        ]
        for row in (rows[place] for place in drawn)
    ]  # fmt: skip
    assert sum(looked_up) == pytest.approx(sum(float(rows[place]["latency"]) for place in drawn))
    figures = latency._bit_flexible_figures(print)
    assert figures["bitfusion_layer_spearman"].value > 0.95
    assert figures["bitfusion_network_spearman"].value > 0.95


@NO_TABLE
def test_ten_transformers_tell_the_order_of_the_others() -> None:
    table = latency_tables.transformers()
    for device, least in zip(latency_tables.HAT, (0.9, 0.96, 0.95), strict=True):
        known = latency._learn(table, tuple(other for other in latency_tables.HAT if other != device))
        told, rest = latency.judged(table, device, known, 10, 0)
        assert latency._rank(told.mean, table.latency[device][rest]) > least


@NO_TABLE
def test_ten_subnets_and_cells_tell_the_order_of_the_others() -> None:
    pytest.importorskip("pyarrow", reason="parquet needs pyarrow: pip install 'hwnas[bench]'")
    subnets = latency_tables.subnets()
    told, rest = latency.judged(subnets, "v100_64", latency._learn(subnets, latency_tables.OFA_KNOWN), 10, 0)
    assert latency._rank(told.mean, subnets.latency["v100_64"][rest]) > 0.99
    cells = latency_tables.cells()
    known, ranks = latency._learn(cells, latency_tables.NB201_KNOWN), []
    for device in latency_tables.NB201_NEW:
        told, rest = latency.judged(cells, device, known, 10, 0)
        ranks.append(latency._rank(told.mean, cells.latency[device][rest]))
    assert np.mean(ranks) > 0.945


def test_coverages_are_of_tables_and_units_are_told() -> None:
    found: latency.Found = defaultdict(list)
    found |= {"a_coverage90_10": [0.8, 1.0], "a_coverage90_10[d]": [0.1], "b_coverage90_10": [0.95]}
    latency._coverages(found)
    assert found["coverage90_min"] == pytest.approx([0.9])
    assert found["coverage90_max"] == [0.95]
    assert latency._unit("nb201_within10_10_over_ceiling[raspi4]") == latency._unit("hat_a_rmse_over_mlp") == "ratio"
    assert latency._unit("coverage90_min") == "share inside"
    assert latency._unit("ofa_v100_budget_error") == "share of the budget"


@NO_TABLE
@pytest.mark.slow
def test_quick_gives_every_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow", reason="parquet needs pyarrow: pip install 'hwnas[bench]'")
    monkeypatch.setattr(latency, "CURVE_SEEDS", 1)
    monkeypatch.setattr(latency_peers, "HAT_STEPS", 20)
    figures = latency.latency(True, tmp_path, tmp_path, print)
    hat = {f"hat_{device}_{name}" for device in latency_tables.HAT for name in ("within10", "rmse_over_mlp")}
    peers = {f"nb201_spearman_10[{name}]" for name in (*latency_peers.SCRATCH, "pls")}
    others = {"nb201_spearman_10", "nb201_within10_10", "ofa_v100_spearman_10", "ofa_v100_budget_error"}
    assert figures.keys() >= hat | peers | others | {"coverage90_min", "coverage90_max"}
    assert figures["nb201_spearman_10"].value > max(figures[name].value for name in peers)
    assert figures["ofa_v100_budget_error"].value < 0.06
    assert figures["coverage90_min"].value <= figures["coverage90_max"].value
