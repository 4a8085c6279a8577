"""What a network of a run takes on its FPGA, by the tools that are installed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.plan import OpenRun, open_run
from experiments.rundir import atomic_write
from experiments.stages.finalize import member_design
from fpga.synthesis import SynthesisFigure, synthesise
from hw_models.device import load_device
from nas.errors import NasError
from supernet.evaluate import all_images

FIGURES = "figures.json"


def synthesised(
    run: Path, device_name: str, member: str | None, out: Path | None, limit_s: float
) -> tuple[str, Path, tuple[SynthesisFigure, ...]]:
    """Synthesise a network of a finished run: its id, the folder that was written, and the figures.

    Args:
        run: Folder of the run.
        device_name: An FPGA of it.
        member: Id of a finalist; None for the winner.
        out: Where to write; None for `RUN/synthesis/ID`.
        limit_s: Longest time for one run of a tool.

    Raises:
        NasError: The run has no such device or member, the device is no FPGA, or the RTL computes something else.
    """
    opened, device = open_run(run), load_device(device_name)
    if device.part is None or device.clock_hz is None:
        raise NasError(f"device {device_name}: is no FPGA ({device.title}); name one of the run's FPGAs")
    chosen = _member(opened, device_name, member)
    home = opened.context.run.stage_dir(opened.plan.device(device_name).finalize) / chosen["id"].rsplit("-", 1)[1]
    design = member_design(opened.context, home, chosen)
    folder = out or run / "synthesis" / chosen["id"]
    images = all_images(opened.context.data.test, design.network)
    figures = synthesise(design, folder, device.part, device.clock_hz, images, limit_s)
    atomic_write(folder / FIGURES, json.dumps([asdict(one) for one in figures], indent=1) + "\n")
    return chosen["id"], folder, figures


def _member(opened: OpenRun, device_name: str, member: str | None) -> dict[str, Any]:
    members = opened.members(device_name)
    found = [one for one in members if (one["winner"] if member is None else one["id"] == member)]
    if not found:
        known = ", ".join(one["id"] for one in members)
        raise NasError(f"device {device_name}: the run has no network {member!r}; it has {known}")
    return found[0]
