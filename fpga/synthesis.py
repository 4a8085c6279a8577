"""What a design takes on an FPGA, by every tool that is installed, each figure labelled by how it was obtained.

The RTL of `fpga.rtl` goes through yosys, nextpnr and Vivado, hls4ml's project through Vitis HLS: two implementations
of the same integers. Where a tool is missing, fails or takes too long, a figure without value says so, and the rest
goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from da4ml._cli.report import load_project

from fpga import csim, hls, rtl
from fpga.reports import Label, Report, csynth_xml, nextpnr_ecp5, yosys_stat
from fpga.tools import ToolError, find, run
from fpga.unrolling import pipelined, unroll
from fpga.verilator import TOP
from nas.design import Design
from nas.errors import NasError
from nas.genotype import FloatArray

ECP5 = ("--85k", "--package", "CABGA756", "--speed", "6", "--out-of-context", "--seed", "1", "--timing-allow-fail")
"""The largest ECP5, without pins, so that only the logic counts."""

_SYNTH_XILINX = "synth_xilinx -family xcup -flatten -noiopad -noclkbuf"
"""For UltraScale+, as a part of a larger design."""

_UNITS = {
    "lut": "LUT6", "ff": "flip-flops", "dsp": "DSP blocks", "bram": "BRAM of 18 Kbit", "fmax_hz": "Hz",
    "latency_cycles": "cycles", "interval_cycles": "cycles",
}  # fmt: skip
_ECP5_UNITS = _UNITS | {"lut": "LUT4", "dsp": "multipliers"}


@dataclass(frozen=True, slots=True)
class SynthesisFigure:
    """One figure of one tool.

    Attributes:
        name: `mismatches` between RTL and integer reference, or a field of `Report`.
        value: None where the tool gave none.
        unit: What is counted.
        label: How the figure was obtained.
        tool: What it was obtained with.
        note: Why there is no value.
    """

    name: str
    value: float | None
    unit: str
    label: Label | Literal["simulation"]
    tool: str
    note: str = ""


def synthesise(
    design: Design, folder: Path, part: str, clock_hz: float, images: FloatArray, limit_s: float
) -> tuple[SynthesisFigure, ...]:
    """Emit the design's RTL and hls4ml project, simulate the RTL, and synthesise both with what is installed.

    Args:
        design: Quantized in every layer, small enough to unroll.
        folder: Gets the projects `rtl` and, where Vitis is installed, `hls4ml`; reports stay in them.
        part: The AMD part that Vitis synthesises for; yosys synthesises for UltraScale+, nextpnr for ECP5.
        clock_hz: The clock that synthesis shall reach.
        images: What the RTL is simulated with, shape (n, *input shape); see `fpga.rtl.sample_images`.
        limit_s: Longest time for one run of a tool.

    Raises:
        NasError: The RTL differs from the integer reference, or the design cannot be emitted.
    """
    project = rtl.emit(design, folder / "rtl", part, clock_hz, images)
    steps: list[tuple[str, Label | Literal["simulation"], Callable[[], Iterator[SynthesisFigure]]]] = [
        ("verilator", "simulation", partial(_simulation, design, project, images, limit_s)),
        ("yosys", "yosys synthesis", partial(_xilinx, project, limit_s)),
        ("nextpnr-ecp5", "place-and-route", partial(_ecp5, project, clock_hz, limit_s)),
        ("vivado", "place-and-route", partial(_vivado, project, part, limit_s)),
        ("vitis", "hls4ml report", partial(_vitis, design, folder / "hls4ml", part, clock_hz, limit_s)),
    ]
    figures = list(_figures(estimated(design), "da4ml", _UNITS))
    for tool, label, step in steps:
        try:
            figures += step()
        except ToolError as error:
            name = "mismatches" if label == "simulation" else "lut"
            figures.append(SynthesisFigure(name, None, "", label, tool, str(error)))
    return tuple(figures)


def _figures(report: Report, tool: str, units: dict[str, str]) -> Iterator[SynthesisFigure]:
    for name, unit in units.items():
        value = getattr(report, name)
        if value is not None:
            yield SynthesisFigure(name, value, unit, report.label, tool)


def estimated(design: Design) -> Report:
    """What da4ml expects the design's RTL to take."""
    pipeline = pipelined(unroll(design, [design.network.layers[-1].name]).comb)
    lut, ff, stages = round(pipeline.cost), int(pipeline.reg_bits), len(pipeline.solutions)
    return Report("estimate", lut, ff, 0, 0, None, stages, 1)


def synthesised_rtl(design: Design, folder: Path, limit_s: float) -> Report:
    """What the design's RTL takes on UltraScale+ by yosys; it is emitted into the folder, and not simulated.

    Raises:
        ToolError: yosys is missing, fails or runs longer than `limit_s`.
    """
    find("yosys")
    project = rtl.emit(design, folder, "", 1.0, np.zeros((1, *design.network.input.out_shape)))
    return _yosys(project, _SYNTH_XILINX, "xcup_stat.txt", limit_s)


def _simulation(design: Design, project: Path, images: FloatArray, limit_s: float) -> Iterator[SynthesisFigure]:
    verification = rtl.compare(design, project, images, limit_s)
    if verification.mismatches:
        raise NasError(
            f"{project}: the RTL differs from the integer reference on {verification.mismatches} of "
            f"{verification.samples} vectors, first in layer {verification.first_differing_layer}; do not use it"
        )
    yield SynthesisFigure("mismatches", 0, f"of {verification.samples} vectors", "simulation", "verilator")


def _yosys(project: Path, synthesis: str, stat: str, limit_s: float) -> Report:
    sources = [str(path.relative_to(project)) for path in sorted(project.glob("src/**/*.v"))]
    script = [f"read_verilog -defer {' '.join(sources)}", f"{synthesis} -top {TOP}", f"tee -q -o {stat} stat"]
    run([find("yosys"), "-q", "-p", "; ".join(script)], project, limit_s)
    return yosys_stat((project / stat).read_text())


def _xilinx(project: Path, limit_s: float) -> Iterator[SynthesisFigure]:
    report = _yosys(project, _SYNTH_XILINX, "xcup_stat.txt", limit_s)
    yield from _figures(report, "yosys synth_xilinx, xcup", _UNITS)


def _ecp5(project: Path, clock_hz: float, limit_s: float) -> Iterator[SynthesisFigure]:
    nextpnr = find("nextpnr-ecp5")
    _yosys(project, "synth_ecp5 -json ecp5.json", "ecp5_stat.txt", limit_s)
    frequency = ["--freq", f"{clock_hz / 1e6:g}"]
    log = run([nextpnr, "--json", "ecp5.json", *ECP5, *frequency], project, limit_s)
    (project / "nextpnr.log").write_text(log)
    yield from _figures(nextpnr_ecp5(log), "nextpnr-ecp5, LFE5U-85F", _ECP5_UNITS)


def _vivado(project: Path, part: str, limit_s: float) -> Iterator[SynthesisFigure]:
    run([find("vivado"), "-mode", "batch", "-source", "build_vivado_prj.tcl"], project, limit_s)
    found = load_project(project)
    if found is None or not {"LUT", "Fmax(MHz)"} <= found.keys():
        raise ToolError(f"vivado: wrote no utilisation and timing after routing below {project}; see vivado.log there")
    used = (found["LUT"], found["FF"], found["DSP"], 2 * found["Block RAM Tile"])
    report = Report("place-and-route", *used, found["Fmax(MHz)"] * 1e6, found["latency"], 1)
    yield from _figures(report, f"Vivado, {part}", _UNITS)


_BUILD_OPTIONS = """array set opt {
    reset 1 csim 0 synth 1 cosim 0 validation 0 export 0 vsynth 0 fifo_opt 0
}
"""


def _vitis(design: Design, folder: Path, part: str, clock_hz: float, limit_s: float) -> Iterator[SynthesisFigure]:
    vitis = find("vitis")
    project = hls.emit(design, folder, part, clock_hz)
    (project / "build_opt.tcl").write_text(_BUILD_OPTIONS)
    mode = ["--mode", "hls", "--tcl"] if Path(vitis).name == "vitis-run" else ["-f"]
    run([vitis, *mode, "build_prj.tcl"], project, limit_s)
    found = sorted(project.glob(f"**/syn/report/{csim.TOP}_csynth.xml"))
    if not found:
        raise ToolError(f"{Path(vitis).name}: wrote no {csim.TOP}_csynth.xml below {project}; see its log there")
    yield from _figures(csynth_xml(found[-1].read_text()), f"Vitis HLS, {part}", _UNITS)
