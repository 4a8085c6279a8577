"""`nas predictor` on tables whose law is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from experiments import predictor_files
from experiments.cli import app


def write(path: Path, rows: int, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    kernels, bits, op = rng.choice([3, 5, 7], (rows, 3)), rng.choice([2, 4, 8], rows), rng.choice(["a", "b"], rows)
    values = kernels.sum(axis=1) + bits + 4.0 * (op == "a") + 0.5 * rng.normal(size=rows)
    lists = [str(row) for row in kernels.tolist()]
    pd.DataFrame({"ks": lists, "bits": bits, "op": op, "latency": values}).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("kind", ["gp", "boosting"])
def test_a_fit_scores_as_well_on_a_new_table_as_in_its_folds(kind: str, tmp_path: Path) -> None:
    table, fresh, out = write(tmp_path / "t.csv", 300, 0), write(tmp_path / "u.csv", 300, 1), tmp_path / "p"
    options = ["--table", str(table), "--target", "latency", "--kind", kind, "--out", str(out), "--json"]
    folds = CliRunner().invoke(app, ["predictor", "fit", *options])
    assert folds.exit_code == 0, folds.output
    unseen = CliRunner().invoke(app, ["predictor", "score", str(out), "--table", str(fresh), "--json"])
    assert unseen.exit_code == 0, unseen.output
    for result in (json.loads(folds.stdout), json.loads(unseen.stdout)):
        assert result["pairwise"] > 0.9
        assert 0.84 < result["coverage90"] < 0.96


def test_saved_and_loaded_predicts_identically(tmp_path: Path) -> None:
    columns = predictor_files.read(write(tmp_path / "t.csv", 100, 2))
    predictor, _ = predictor_files.fit(columns, "latency", ["ks", "op"], "boosting", 0, "t.csv")
    predictor.save(tmp_path / "p")
    first, second = predictor.predict(columns, "t"), predictor_files.load(tmp_path / "p").predict(columns, "t")
    assert np.array_equal(first.mean, second.mean)
    assert np.array_equal(first.std, second.std)


@pytest.mark.parametrize(
    ("content", "law"),
    [
        ("a,y\n1,2\n,3\n", "column 'a', row 2: the value is missing"),
        ("a,y\n1,2\n2,3\n", "at least 13 rows"),
        ("a,b\n1,2\n", "no column 'y'; it has a, b"),
        ("", "cannot be read as CSV"),
        ("a,y\n", "holds no rows"),
        ("a,y\n" + "".join(f"{row},7\n" for row in range(20)), "got 7 in all 20 rows"),
    ],
)
def test_bad_tables_are_refused(content: str, law: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(content)
    options = ["--table", str(tmp_path / "t.csv"), "--target", "y", "--out", str(tmp_path / "p")]
    result = CliRunner().invoke(app, ["predictor", "fit", *options])
    assert result.exit_code == 2
    assert law in result.stderr
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("content", "law"),
    [
        ("x,latency\n1,2\n", "has none of the features ks, bits, op"),
        ("ks,op\n[3],a\n", "there is no column 'latency'"),
        ("bits,latency\n" + "".join(f"{row},7\n" for row in range(20)), "got 7 in all 20 rows"),
        ("", "cannot be read as CSV"),
    ],
)
def test_bad_tables_to_transfer_from_are_refused(content: str, law: str, tmp_path: Path) -> None:
    few = write(tmp_path / "few.csv", 20, 0)
    (tmp_path / "floats.csv").write_text(content)
    options = ["--table", str(few), "--target", "latency", "--out", str(tmp_path / "p")]
    result = CliRunner().invoke(app, ["predictor", "fit", *options, "--pretrain", str(tmp_path / "floats.csv")])
    assert result.exit_code == 2
    assert "floats.csv: " in result.stderr
    assert law in result.stderr
    assert not (tmp_path / "p").exists()


def test_a_folder_without_a_predictor_is_refused(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", 20, 0)
    result = CliRunner().invoke(app, ["predictor", "score", str(tmp_path), "--table", str(table)])
    assert result.exit_code == 2
    assert "holds no predictor" in result.stderr


def test_a_transfer_ranks_better_than_its_base_and_is_saved_with_it(tmp_path: Path) -> None:
    """The pre-training's table lacks the bits; 40 rows with bits do the rest."""
    floats, few, fresh = (write(tmp_path / f"{n}.csv", n, n) for n in (400, 40, 300))
    pd.read_csv(floats).drop(columns="bits").to_csv(floats, index=False)
    out = tmp_path / "p"
    options = ["--table", str(few), "--target", "latency", "--out", str(out), "--pretrain", str(floats)]
    fitted = CliRunner().invoke(app, ["predictor", "fit", *options])
    assert fitted.exit_code == 0, fitted.output
    scores = [
        json.loads(CliRunner().invoke(app, ["predictor", "score", str(folder), "--table", str(fresh), "--json"]).stdout)
        for folder in (out, out / "pretrained")
    ]
    assert scores[0]["pairwise"] > scores[1]["pairwise"] + 0.02
