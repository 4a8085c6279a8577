"""`nas fpga synth` on the finished run."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import Finished
from typer.testing import CliRunner

from experiments.cli import app
from fpga.tools import missing

pytestmark = [pytest.mark.hls]


def synth(finished: Finished, out: Path, *arguments: str) -> Any:
    command = ["fpga", "synth", str(finished.path), "--out", str(out), *arguments]
    return CliRunner().invoke(app, command)


def figures(result: Any) -> dict[tuple[str, str], dict[str, Any]]:
    assert result.exit_code == 0, result.stderr
    return {(one["name"], one["tool"].split(" ")[0]): one for one in json.loads(result.stdout)["figures"]}


@pytest.mark.skipif(bool({"verilator", "yosys", "g++"} & missing().keys()), reason="needs verilator, yosys and g++")
def test_a_winner_is_simulated_on_the_whole_test_split_and_synthesised(finished: Finished, tmp_path: Path) -> None:
    opened = finished.open()
    found = figures(synth(finished, tmp_path / "out", "--device", "zu3eg", "--limit", "300", "--json"))
    assert found["mismatches", "verilator"]["value"] == 0
    assert found["mismatches", "verilator"]["unit"] == f"of {len(opened.context.data.test)} vectors"
    estimate, synthesised = found["lut", "da4ml"], found["lut", "yosys"]
    assert (estimate["label"], synthesised["label"]) == ("estimate", "yosys synthesis")
    assert synthesised["value"] == pytest.approx(estimate["value"], rel=0.5)
    assert json.loads((tmp_path / "out" / "figures.json").read_text()) == list(found.values())


def test_without_tools_the_estimate_stands_and_each_tool_says_what_to_install(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert shutil.which("yosys") is None
    found = figures(synth(finished, tmp_path / "out", "--device", "zu3eg", "--json"))
    assert found["lut", "da4ml"]["value"] > 0
    for tool in ("yosys", "nextpnr-ecp5", "vivado", "vitis"):
        assert found["lut", tool]["value"] is None
        assert "nstall" in found["lut", tool]["note"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--device", "local-cpu"), "device local-cpu: is no FPGA"),
        (("--device", "zu3eg", "--member", "zu3eg-99"), "the run has no network 'zu3eg-99'; it has zu3eg-00"),
    ],
)
def test_what_is_no_design_is_told(arguments: tuple[str, ...], told: str, finished: Finished, tmp_path: Path) -> None:
    result = synth(finished, tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()
