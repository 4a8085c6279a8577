"""Devices of a user's own: added, loaded, measured, and known by a table."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import TINY, tiny_config
from typer.testing import CliRunner

from experiments.cli import app
from experiments.stages.fit import architectures
from hw_models.device import device_names, load_device
from hw_models.prices import layer_prices
from nas.genotype import random_population
from predictors import latency


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's devices."""
    monkeypatch.setenv("NAS_DEVICES", str(tmp_path / "devices"))
    return tmp_path / "devices"


def nas_device(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["device", *map(str, arguments)])


def told(*arguments: object) -> str:
    result = nas_device(*arguments)
    assert result.exit_code == 2, result.stdout
    return " ".join(result.stderr.split())


def test_a_measured_device_is_loaded_and_not_measured_again(own: Path, tmp_path: Path) -> None:
    rest = ("--config", TINY, "--samples", 12, "--runs", tmp_path / "runs", "--json")
    added = nas_device("add", "mine", *rest)
    assert added.exit_code == 0, added.stderr
    assert json.loads(added.stdout)["networks"] == 12
    device = load_device("mine")
    assert (device.family, device.engine, device.host, device.threads) == ("onnxruntime", "onnxruntime", None, 1)
    assert "mine" in device_names()
    store = tmp_path / "runs" / "measurements" / "mine.jsonl"
    before = store.read_bytes()
    measured = json.loads(nas_device("measure", "mine", *rest).stdout)
    assert store.read_bytes() == before
    with (own / "mine.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(json.loads(row["genotype"]), float(row["latency_s"])) for row in rows] == [
        (row["genotype"], row["latency_s"]) for row in measured
    ]
    assert [row["genotype"] for row in measured] == architectures(tiny_config(), 12).tolist()
    assert json.loads(nas_device("score", "mine", *rest).stdout) == json.loads(added.stdout)


def test_a_table_gives_the_costs_of_a_predictor_fitted_to_it(own: Path, tmp_path: Path) -> None:
    """A device with a law of its own, seen through 30 rows: the sum of its prices is the predictor's answer."""
    config = tiny_config()
    space = config.build_space()
    genotypes = architectures(config, 30)
    networks = [space.lower(genotype).as_float() for genotype in genotypes.tolist()]
    seconds = np.array(
        [1e-6 + sum(2e-7 + 1e-10 * np.prod(layer.out_shape) for layer in one.weighted) for one in networks]
    )
    table = tmp_path / "table.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["genotype", "ms"], *([list(g), s] for g, s in zip(genotypes.tolist(), seconds.tolist(), strict=True))]
        )
    result = nas_device("add", "theirs", "--config", TINY, "--table", table, "--target", "ms", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["within10"] == 1
    fitted, price = latency.fit(networks, seconds), layer_prices(load_device("theirs"))["latency_s"]
    others = [space.lower(genotype) for genotype in random_population(space, 20, np.random.default_rng(0)).tolist()]
    assert [sum(map(price, one)) for one in others] == pytest.approx(fitted.predict(others).mean.tolist())


@pytest.mark.parametrize(
    ("rows", "law"),
    [
        (
            [["genotype", "latency_s"], ["[0, 1]", 1e-3]],
            "row 1: genotype must be 12 choice indices of the space of tiny",
        ),
        ([["genotype", "latency_s"], [[9] * 12, 1e-3]], "row 1: genotype must be 12 choice indices"),
        ([["genotype", "latency_s"], [[0] * 12, 1e-3]], "must have at least 10 rows with latencies above 0"),
        ([["network", "latency_s"], [[0] * 12, 1e-3]], "needs a column genotype, lists of choice indices"),
    ],
)
def test_a_table_that_says_too_little_is_refused(rows: list[list[Any]], law: str, own: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    assert law in told("add", "theirs", "--config", TINY, "--table", table)
    assert not own.exists()


def test_a_name_that_is_taken_or_none_is_refused(own: Path, tmp_path: Path) -> None:
    own.mkdir()
    (own / "mine.yaml").write_text("family: onnxruntime\n")
    for name, law in (("mine", "exists; remove"), ("zu3eg", "comes with hwnas"), ("Pi 4", "small letters, digits")):
        assert law in told("add", name, "--config", TINY, "--runs", tmp_path)
    assert (own / "mine.yaml").read_text() == "family: onnxruntime\n"


def test_an_unknown_engine_and_a_device_that_is_not_measured_are_refused(own: Path, tmp_path: Path) -> None:
    rest = ("--config", TINY, "--samples", 12, "--runs", tmp_path)
    assert "engine 'tflite' is unknown; known are onnxruntime, openvino" in told(
        "add", "mine", "--engine", "tflite", *rest
    )
    assert "latency is measured on the onnxruntime family only" in told("measure", "zu3eg", *rest)
    assert "at least 10" in told("add", "mine", "--config", TINY, "--samples", 3)
    assert not own.exists()
