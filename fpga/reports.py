"""What synthesis tools report, read from their text into one record that says how each figure was obtained."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from nas.errors import NasError

Label = Literal["estimate", "hls4ml report", "yosys synthesis", "place-and-route"]
"""How a figure was obtained; `hls4ml report` is the C synthesis of hls4ml's project by the vendor's compiler."""


@dataclass(frozen=True, slots=True)
class Report:
    """Figures of one design; None for what a report does not tell.

    Attributes:
        label: How the figures were obtained.
        lut: Lookup tables: of 6 inputs on AMD devices, of 4 on ECP5.
        ff: Flip-flops.
        dsp: DSP blocks, or multipliers of 18 by 18 bits on ECP5.
        bram: Block RAMs of 18 Kbit.
        fmax_hz: Highest clock.
        latency_cycles: From the first value to the last, at worst.
        interval_cycles: Between two inputs, at worst.
    """

    label: Label
    lut: int | None = None
    ff: int | None = None
    dsp: int | None = None
    bram: int | None = None
    fmax_hz: float | None = None
    latency_cycles: int | None = None
    interval_cycles: int | None = None


_CELLS: Mapping[str, tuple[str, int]] = {
    **{f"LUT{inputs}": ("lut", 1) for inputs in range(1, 7)}, "INV": ("lut", 1),
    "SRL16E": ("lut", 1), "SRLC16E": ("lut", 1), "SRLC32E": ("lut", 1), "RAM32X1D": ("lut", 2), "RAM64X1D": ("lut", 2),
    "RAM32M": ("lut", 4), "RAM64M": ("lut", 4), "RAM32M16": ("lut", 8), "RAM64M8": ("lut", 8),
    "CCU2C": ("lut", 2), "TRELLIS_DPR16X4": ("lut", 4),
    "FDRE": ("ff", 1), "FDSE": ("ff", 1), "FDCE": ("ff", 1), "FDPE": ("ff", 1), "TRELLIS_FF": ("ff", 1),
    "DSP48E1": ("dsp", 1), "DSP48E2": ("dsp", 1), "MULT18X18D": ("dsp", 1),
    "RAMB18E1": ("bram", 1), "RAMB18E2": ("bram", 1), "RAMB36E1": ("bram", 2), "RAMB36E2": ("bram", 2),
    "DP16KD": ("bram", 1), "PDPW16KD": ("bram", 1),
}  # fmt: skip
"""What a cell takes: AMD UG974 (a RAM64M8 fills eight LUTs), Lattice FPGA-TN-02205 (a CCU2C, two).

yosys names a LUT of one input that inverts INV.
"""

_STAT_LINE = re.compile(r"^\s+(?:(?P<name>\w+)\s+(?P<after>\d+)|(?P<before>\d+)\s+(?:\S+\s+)?(?P<cell>\w+))\s*$", re.M)


def yosys_stat(text: str) -> Report:
    """Read what yosys prints for `stat`, old and new layout, or for `stat -json`.

    Of several modules the design's total counts, which is the last section.

    Raises:
        NasError: There are no cells, or modules without a total.
    """
    cells = _json_cells(text) if text.lstrip().startswith("{") else _text_cells(text)
    if not cells:
        raise NasError("yosys stat: lists no cell of a known device; run `stat` after synth_xilinx or synth_ecp5")
    used: Counter[str] = Counter()
    for name, count in cells.items():
        resource, each = _CELLS.get(name, ("", 0))
        used[resource] += each * count
    return Report("yosys synthesis", used["lut"], used["ff"], used["dsp"], used["bram"])


def _json_cells(text: str) -> Mapping[str, int]:
    try:
        found = json.loads(text)
        modules = found.get("modules", {})
        total = found.get("design") or (next(iter(modules.values())) if len(modules) == 1 else None)
        if total is None:
            raise NasError(f"yosys stat: {len(modules)} modules and no total; run `hierarchy -top` or `flatten` first")
        return {name: int(count) for name, count in total["num_cells_by_type"].items() if name in _CELLS}
    except (json.JSONDecodeError, KeyError, AttributeError) as error:
        raise NasError(f"yosys stat: is not the JSON of `stat -json`: {error}; write it with `tee -o`") from error


def _text_cells(text: str) -> Mapping[str, int]:
    sections = re.split(r"^=== .* ===\s*$", text, flags=re.M)[1:]
    if len(sections) > 1 and "=== design hierarchy ===" not in text:
        raise NasError(f"yosys stat: {len(sections)} modules and no total; run `hierarchy -top` or `flatten` first")
    found = (match.groupdict() for match in _STAT_LINE.finditer(sections[-1] if sections else ""))
    pairs = ((line["name"] or line["cell"], int(line["after"] or line["before"])) for line in found)
    return {name: count for name, count in pairs if name in _CELLS}


def nextpnr_ecp5(text: str) -> Report:
    """Read the log of nextpnr-ecp5: the device's utilisation, and the slowest clock after routing.

    A log that misses its target frequency is read, too: nextpnr fails there, though its figures hold.

    Raises:
        NasError: It tells no utilisation, as where nextpnr stopped before packing was done.
    """
    used = {name: int(count) for name, count in re.findall(r"^Info:\s+(\w+):\s+(\d+)/\s*\d+\s+\d+%", text, re.M)}
    if "TRELLIS_COMB" not in used:
        raise NasError("nextpnr-ecp5: the log has no line `TRELLIS_COMB: used/available`; let it run past packing")
    clocks = re.findall(r"Max frequency for clock\s+'([^']*)':\s+([\d.]+) MHz", text)
    slowest = min((float(mhz) for mhz in dict(clocks).values()), default=None)
    return Report(
        "place-and-route", used["TRELLIS_COMB"], used.get("TRELLIS_FF"), used.get("MULT18X18D"), used.get("DP16KD"),
        None if slowest is None else slowest * 1e6,
    )  # fmt: skip


def csynth_xml(text: str) -> Report:
    """Read `csynth.xml` of Vitis HLS or Vivado HLS.

    Raises:
        NasError: It is no such file.
    """
    try:
        root = ET.fromstring(text)
    except ET.ParseError as error:
        raise NasError(f"csynth.xml: is not valid XML: {error}; run C synthesis again") from error
    area, latency = "AreaEstimates/Resources", "PerformanceEstimates/SummaryOfOverallLatency"
    if root.find(area) is None:
        raise NasError(f"csynth.xml: has no {area}; give the file of the top function")
    dsp = root.findtext(f"{area}/DSP") or root.findtext(f"{area}/DSP48E")
    period = root.findtext("PerformanceEstimates/SummaryOfTimingAnalysis/EstimatedClockPeriod")
    return _csynth(
        {"LUT": root.findtext(f"{area}/LUT"), "FF": root.findtext(f"{area}/FF"), "DSP": dsp,
         "BRAM": root.findtext(f"{area}/BRAM_18K")},
        period, root.findtext(f"{latency}/Worst-caseLatency"), root.findtext(f"{latency}/Interval-max"),
    )  # fmt: skip


def csynth_rpt(text: str) -> Report:
    """Read `NAME_csynth.rpt` of Vitis HLS or Vivado HLS: the first latency, timing and utilisation tables.

    Raises:
        NasError: It has no utilisation table.
    """
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in text.splitlines() if "|" in line]
    header = next((row for row in rows if "BRAM_18K" in row), None)
    total = next((row for row in rows if row[0] == "Total"), None)
    if header is None or total is None:
        raise NasError("csynth.rpt: has no utilisation table with a row Total; give the report of the top function")
    area = dict(zip(header, total, strict=False))
    clock = next((row for row in rows if row[0].startswith("ap_clk")), [])
    latency, interval = _overall(rows)
    amounts = {"LUT": area.get("LUT"), "FF": area.get("FF"), "DSP": area.get("DSP") or area.get("DSP48E")}
    period = re.sub(r"[^\d.]", "", clock[2]) if len(clock) > 2 else None
    return _csynth({**amounts, "BRAM": area["BRAM_18K"]}, period, latency, interval)


def _overall(rows: list[list[str]]) -> tuple[str | None, str | None]:
    """The largest latency and interval in cycles: of the first row below `Latency (cycles)` that holds numbers."""
    start = next((place for place, row in enumerate(rows) if row[0].startswith("Latency")), len(rows))
    row = next((row for row in rows[start:] if len(row) >= 5 and row[0].isdigit()), None)
    return (row[1], row[-2]) if row else (None, None)


def _csynth(area: Mapping[str, str | None], period: str | None, latency: str | None, interval: str | None) -> Report:
    """`period` is in ns; counts that the tool leaves open, as `-` or `undef`, are None."""
    lut, ff, dsp, bram = (_whole(area[name]) for name in ("LUT", "FF", "DSP", "BRAM"))
    fmax_hz = 1e9 / float(period) if period and float(period) > 0 else None
    return Report("hls4ml report", lut, ff, dsp, bram, fmax_hz, _whole(latency), _whole(interval))


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


PARSERS: Mapping[str, Callable[[str], Report]] = {
    "yosys": yosys_stat,
    "nextpnr-ecp5": nextpnr_ecp5,
    "csynth.xml": csynth_xml,
    "csynth.rpt": csynth_rpt,
}
"""What reads which report."""
