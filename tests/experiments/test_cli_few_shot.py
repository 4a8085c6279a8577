"""`nas predictor few-shot` on made-up devices that share two latent factors, and on NAS-Bench-201's."""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from typer.testing import CliRunner, Result

from experiments import few_shot_files, predictor_files
from experiments.cli import app
from nas.errors import NasError
from predictors import few_shot
from predictors.table import encoder_for

NETWORKS, KNOWN = 300, ("pixel3", "1080ti_1", "xeon")
EVERY = np.arange(NETWORKS)
CELLS = Path(os.environ.get("NAS_DATA", "data")) / "device-latency" / "nasbench201_latency.parquet"


def world(path: Path, seed: int = 0) -> np.ndarray:
    """Write a table whose devices mix two latent sums of prices of operations; give the new device's latencies."""
    rng = np.random.default_rng(seed)
    ops = rng.integers(4, size=(NETWORKS, 8))
    prices = rng.exponential(size=(8, 4, 2))
    factors = prices[np.arange(8), ops].sum(axis=1)
    mixed = factors @ np.array([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5], [0.35, 0.65]]).T * [3.0, 0.5, 1.0, 20.0]
    latencies = mixed * np.exp(0.01 * rng.normal(size=mixed.shape))
    columns = {f"op{place}": [f"o{op}" for op in ops[:, place]] for place in range(8)}
    table = pd.DataFrame({**columns, **dict(zip(KNOWN, latencies[:, :3].T, strict=True)), "raspi4": ""})
    table.to_csv(path, index=False)
    truth: np.ndarray = latencies[:, 3]
    return truth


def measured(path: Path, truth: np.ndarray, rows: np.ndarray) -> None:
    """Fill the new device's column in rows, from 0."""
    table = pd.read_csv(path, dtype={"raspi4": "float64"})
    table.loc[rows, "raspi4"] = truth[rows]
    table.to_csv(path, index=False)


def run(table: Path, *options: object, known: str = ",".join(KNOWN)) -> Result:
    command = ["predictor", "few-shot", "--table", str(table), "--known", known, *map(str, options)]
    return CliRunner().invoke(app, command)


def chosen(table: Path, *options: object) -> np.ndarray:
    result = run(table, "--choose", 10, *options, "--json")
    assert result.exit_code == 0, result.output
    return np.array([row["row"] for row in json.loads(result.stdout)]) - 1


def learned(table: Path) -> few_shot.Known:
    columns = predictor_files.read(table)
    names = [name for name in columns if name.startswith("op")]
    features, groups = encoder_for(columns, names, "t").encode(columns, "t")
    return few_shot.learn(np.array([columns[name] for name in KNOWN], dtype=np.float64).T, features, groups, 0)


def test_the_rows_are_those_of_the_library_and_shown_with_their_features(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    world(table)
    rows = chosen(table)
    assert np.array_equal(rows, few_shot.choose(learned(table), 10, EVERY, 0))
    assert not np.array_equal(rows, chosen(table, "--seed", 1))
    shown = [line.split("\t") for line in run(table, "--choose", 10).stdout.splitlines()]
    names = [f"op{place}" for place in range(8)]
    written = pd.read_csv(table)[names].iloc[rows].to_numpy().tolist()
    assert shown == [[str(row + 1), *ops] for row, ops in zip(rows, written, strict=True)]


def test_ten_measured_rows_rank_the_rest_better_than_features_alone(tmp_path: Path) -> None:
    for seed in range(2):
        table, out = tmp_path / "t.csv", tmp_path / "new" / "p.csv"
        truth = world(table, seed)
        rows = chosen(table)
        measured(table, truth, rows)
        result = run(table, "--target", "raspi4", "--out", out, "--json")
        assert result.exit_code == 0, result.output
        said, told = json.loads(result.stdout), pd.read_csv(out)
        assert (said["measured"], said["rows"], said["left_out"]["n"]) == (10, NETWORKS, 10)
        assert said["left_out"]["spearman"] > 0.8
        assert told["row"].tolist() == list(range(1, NETWORKS + 1))
        assert np.flatnonzero(told["measured"].notna()).tolist() == sorted(rows)
        assert told["measured"][rows].to_numpy() == pytest.approx(truth[rows])
        assert ((told["low"] >= 0) & (told["low"] < told["mean"]) & (told["mean"] < told["high"])).all()
        rest = np.setdiff1d(EVERY, rows)
        ranks = spearmanr(told["mean"][rest], truth[rest]).statistic
        assert ranks > 0.95
        assert told["mean"][rest].median() == pytest.approx(np.median(truth[rest]), rel=0.1)
        assert np.mean((told["low"] <= truth)[rest] & (truth <= told["high"])[rest]) > 0.8
        known = learned(table)
        of_features = known.basis.groups >= 2
        basis = replace(
            known.basis, columns=known.basis.columns[:, of_features], groups=known.basis.groups[of_features]
        )
        alone = few_shot.fit(replace(known, basis=basis, without=(), drawn=None), rows, truth[rows], 0).predict(rest)
        assert ranks > spearmanr(alone.mean, truth[rest]).statistic + 0.05


def test_left_out_rows_are_predicted_without_themselves(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    truth = world(table)
    known, rows = learned(table), np.arange(0, 60, 10)
    measured(table, truth, rows)
    answer = few_shot_files.fit(known, predictor_files.read(table), "raspi4", 0, "t")
    means = []
    for row in rows:
        others = rows[rows != row]
        means.append(few_shot.fit(known, others, truth[others], 0).predict(np.array([row])).mean[0])
    assert answer.score is not None
    assert answer.score.rmse == pytest.approx(np.sqrt(np.mean((np.array(means) - truth[rows]) ** 2)), rel=1e-2)


def test_what_was_learned_is_saved_and_predicts_other_tables(tmp_path: Path) -> None:
    table, other, folder, out = tmp_path / "t.csv", tmp_path / "other.csv", tmp_path / "raspi4", tmp_path / "p.csv"
    truth = world(table)
    rows = chosen(table)
    measured(table, truth, rows)
    result = run(table, "--target", "raspi4", "--out", out, "--save", folder)
    assert result.exit_code == 0, result.output
    saved = few_shot_files.load(folder)
    assert isinstance(saved, few_shot_files.DevicePredictor)
    fitted = few_shot_files.learn(predictor_files.read(table), KNOWN, "raspi4", None, 0, "t")
    before = few_shot_files.fit(fitted[0], predictor_files.read(table), "raspi4", 0, "t").fitted
    features = fitted[1].encode(predictor_files.read(table), "t")[0]
    for one, two in zip(
        astuple(before.predict_new(features)), astuple(saved.fitted.predict_new(features)), strict=True
    ):
        assert np.array_equal(one, two)
    pd.read_csv(table)[[f"op{place}" for place in range(8)]].iloc[::-1].assign(raspi4=truth[::-1]).to_csv(other)
    told = tmp_path / "new" / "told.csv"
    command = ["predictor", "predict", str(folder), "--table", str(other), "--out", str(told)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    written, first = pd.read_csv(told), pd.read_csv(out)
    for name in ("mean", "low", "high"):
        assert written[name].to_numpy()[::-1] == pytest.approx(first[name].to_numpy(), rel=1e-6)
    scored = CliRunner().invoke(app, ["predictor", "score", str(folder), "--table", str(other), "--json"])
    assert json.loads(scored.stdout)["spearman"] > 0.95


def test_a_damaged_or_no_predictor_is_refused(tmp_path: Path) -> None:
    (tmp_path / "few-shot.json").write_text('{"target": "raspi4"}')
    for folder, law in ((tmp_path, "is damaged"), (tmp_path / "no", "holds no predictor")):
        with pytest.raises(NasError, match=law):
            few_shot_files.load(folder)


def test_four_rows_are_fitted_without_a_score(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    measured(table, world(table), EVERY[:4])
    result = run(table, "--target", "raspi4", "--out", tmp_path / "p.csv")
    assert result.exit_code == 0, result.output
    assert "4 of 300 rows measured" in result.stdout
    assert "spearman" not in result.stdout


FIT = ("--target", "raspi4", "--out", "p.csv")


@pytest.mark.parametrize(
    ("options", "known", "law"),
    [
        ((), "xeon", "either --choose, or --target and --out"),
        (("--choose", 10, *FIT), "xeon", "either --choose, or --target and --out"),
        (("--choose", 10, "--out", "p.csv"), "xeon", "either --choose, or --target and --out"),
        (("--target", "raspi4"), "xeon", "either --choose, or --target and --out"),
        (("--choose", 301), "xeon", "must be 4, which a fit needs, to 300, the rows of the table, got 301"),
        (("--choose", 3), "xeon", "must be 4, which a fit needs, to 300, the rows of the table, got 3"),
        (("--choose", 10), "pixel", "there is no column 'pixel'; did you mean pixel3?"),
        (("--target", "rasp4", "--out", "p.csv"), "xeon", "there is no column 'rasp4'; did you mean raspi4?"),
        (("--choose", 10, "--features", "op0,oo1"), "xeon", "there is no column 'oo1'; did you mean"),
        (("--choose", 10), "xeon,xeon", "column 'xeon' must be one of"),
        (("--choose", 10, "--features", "op0,xeon"), "xeon", "column 'xeon' must be one of"),
        (FIT, "raspi4", "column 'raspi4' must be one of"),
        (("--choose", 10, "--features", "op0,raspi4"), "xeon", "column 'raspi4', row 1: the value is missing"),
        (FIT, "xeon", "column 'raspi4' must be measured in at least 4 rows, got 0"),
        (("--target", "raspi4", "--out", "t.csv"), "xeon", "must be a file of its own for the predictions, got the"),
        (("--target", "raspi4", "--out", "."), "xeon", "must be a file of its own for the predictions, got a folder"),
    ],
)
def test_bad_options_are_refused(
    options: tuple[object, ...], known: str, law: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    world(tmp_path / "t.csv")
    before = (tmp_path / "t.csv").read_bytes()
    result = run(Path("t.csv"), *options, known=known)
    assert (result.exit_code, law in result.stderr) == (2, True), result.stderr
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("t.csv", before)]


@pytest.mark.parametrize(
    ("column", "cells", "law"),
    [
        ("xeon", {7: ""}, "column 'xeon', row 8: the value is missing"),
        ("xeon", {7: 0.0}, "column 'xeon', row 8: a latency must be above 0, got 0"),
        ("raspi4", {2: 1.0, 3: 2.0, 4: 3.0}, "column 'raspi4' must be measured in at least 4 rows, got 3"),
        ("raspi4", {2: 1.0, 3: 2.0, 4: 3.0, 9: -4.0}, "column 'raspi4', row 10: a latency must be above 0, got -4"),
        ("raspi4", {2: 1.0, 3: 2.0, 4: 3.0, 9: "4 ms"}, "column 'raspi4', row 10: must be a number"),
        ("raspi4", {2: 1.0, 3: 2.0, 4: " ", 5: 4.0}, "column 'raspi4' must be measured in at least 4 rows, got 3"),
    ],
)
def test_bad_cells_are_refused(column: str, cells: dict[int, object], law: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    world(path)
    table = pd.read_csv(path, keep_default_na=False, dtype=object)
    table[column] = pd.Series([cells.get(row, cell) for row, cell in enumerate(table[column])], dtype=object)
    table.to_csv(path, index=False)
    result = run(path, "--target", "raspi4", "--out", tmp_path / "p.csv")
    assert (result.exit_code, law in result.stderr) == (2, True), result.stderr
    assert not (tmp_path / "p.csv").exists()


def test_a_short_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    world(path)
    pd.read_csv(path).head(19).to_csv(path, index=False)
    result = run(path, "--choose", 5)
    assert (result.exit_code, "must hold at least 20 rows" in result.stderr) == (2, True), result.stderr


@pytest.mark.skipif(not CELLS.is_file(), reason="NAS_DATA names no folder with device-latency")
@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="needs pyarrow")
def test_ten_cells_of_nas_bench_201_rank_the_rest(tmp_path: Path) -> None:
    table, whole = tmp_path / "t.csv", pd.read_parquet(CELLS).sample(2000, random_state=0)
    truth = whole["raspi4"].to_numpy()
    known = ("pixel3", "1080ti_1", "silver_4114")
    whole[["arch", *known]].assign(raspi4="").to_csv(table, index=False)
    options = ("--features", "arch")
    result = run(table, "--choose", 10, *options, "--json", known=",".join(known))
    assert result.exit_code == 0, result.output
    rows = np.array([row["row"] for row in json.loads(result.stdout)]) - 1
    measured(table, truth, rows)
    fitted = run(table, "--target", "raspi4", "--out", tmp_path / "p.csv", *options, known=",".join(known))
    assert fitted.exit_code == 0, fitted.output
    told = pd.read_csv(tmp_path / "p.csv")
    rest = np.setdiff1d(np.arange(len(truth)), rows)
    assert spearmanr(told["mean"][rest], truth[rest]).statistic > 0.95
