"""`nas bench demo --quick`, run once as a user would; and how figures are gathered."""

import inspect
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from experiments.bench import BENCHMARKS, supernet
from experiments.bench.results import Figure, figure

FIGURES = {
    "front_size", "best_error", "joint_hv_over_8bit_dense", "latency_spearman", "accuracy_tau", "hls_mismatches",
}  # fmt: skip


def test_a_figure_is_the_median_with_the_extremes() -> None:
    made = figure([3.0, 1.0, 2.0, 10.0], "s")
    assert (made.value, made.spread, made.n, made.unit) == (2.5, (1.0, 10.0), 4, "s")


def test_unknown_benchmarks_are_named(tmp_path: Path) -> None:
    result = _bench(tmp_path, "dmo")
    assert result.returncode == 2
    assert "did you mean 'demo'" in result.stderr
    assert {"demo", "search", "programs", "speed", "hybrid", "supernet"} < set(BENCHMARKS)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_is_where_it_is_said_to_be(name: str) -> None:
    """It is imported and called by name, so nothing else tells of a wrong one."""
    listed = BENCHMARKS[name]
    measure = getattr(import_module(f"experiments.bench.{listed.module}"), listed.function)
    parameters = list(inspect.signature(measure).parameters)
    assert parameters[len(listed.arguments) :] == ["quick", "runs", "out", "say"]


def test_a_benchmark_is_given_its_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[object, ...]] = []

    def measure(*arguments: object) -> dict[str, Figure]:
        given.append(arguments)
        return {"speed": figure([1.0], "m/s")}

    monkeypatch.setattr(supernet, "supernet", measure)
    assert BENCHMARKS["supernet-cifar10"].measure(True, tmp_path, tmp_path / "out", print).keys() == {"speed"}
    assert given == [("cifar10-short", True, tmp_path, tmp_path / "out", print)]


@pytest.mark.slow
@pytest.mark.hls
def test_quick_demo_writes_its_figures(tmp_path: Path) -> None:
    result = _bench(tmp_path, "demo", "--quick")
    assert result.returncode == 0, result.stderr
    written = json.loads((tmp_path / "demo-quick.json").read_text())
    figures = written["figures"]
    assert figures.keys() >= FIGURES
    assert written["command"] == "nas bench demo --quick"
    assert {"date", "packages", "cpu"} <= written.keys()
    for name in FIGURES - {"accuracy_tau", "hls_mismatches"}:
        devices = [figures[f"{name}[{device}]"]["value"] for device in ("local-cpu", "zu3eg")]
        assert figures[name]["value"] == (max(devices) if name == "best_error" else min(devices))
    assert figures["hls_mismatches"]["value"] == 0
    assert figures["best_error"]["value"] < 0.5
    assert (tmp_path / "front-quick.png").read_bytes().startswith(b"\x89PNG")
    table = (tmp_path / "demo-quick.md").read_text()
    assert all(f"| {name} |" in table for name in figures)


def _bench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from experiments.cli import main; main()", "bench", *arguments]
    options = ["--out", str(folder), "--runs", str(folder / "runs")]
    return subprocess.run([*command, *options], capture_output=True, text=True, check=False)
