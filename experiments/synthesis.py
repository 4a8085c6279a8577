"""A network of a finished run as an FPGA project, or synthesised by the tools that are installed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from experiments.plan import OpenRun, open_run
from experiments.rundir import atomic_write
from experiments.stages.export import verified
from experiments.stages.finalize import member_design
from fpga import hls
from fpga.build import Build, Io, Strategy, folded_build, nearest
from fpga.folded import folded
from fpga.synthesis import SynthesisFigure, synthesise
from hw_models.device import Device, load_device
from nas.design import Design
from nas.errors import NasError
from nas.genotype import FloatArray
from nas.network import Network
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
    chosen = _chosen(run, device_name, member)
    if chosen.device.schedule is not None:
        law = "designs are folded, and RTL of those comes from Vitis HLS alone"
        raise NasError(f"device {device_name}: {law}; `nas fpga emit {run} --device {device_name}` writes its project")
    folder = out or run / "synthesis" / chosen.id
    figures = synthesise(chosen.design, folder, chosen.part, chosen.clock_hz, chosen.images, limit_s)
    atomic_write(folder / FIGURES, json.dumps([asdict(one) for one in figures], indent=1) + "\n")
    return chosen.id, folder, figures


def emitted(
    run: Path, device_name: str, member: str | None, out: Path | None, asked: Asked
) -> tuple[str, Path, hls.Verification]:
    """Write the hls4ml project of a network of a finished run: its id, the folder, and the check on the test split.

    Args:
        run: Folder of the run.
        device_name: An FPGA of it.
        member: Id of a finalist; None for the winner.
        out: Where to write; None for `RUN/projects/ID`. What is there is replaced.
        asked: How the project is to compute; where nothing is asked for, folded as the device folds it, or unrolled.

    Raises:
        NasError: The run has no such device or member, the device is no FPGA, the network cannot be built so, or the
            project computes something else: it is not kept then.
    """
    chosen = _chosen(run, device_name, member)
    folder = out or run / "projects" / chosen.id
    build = _build(chosen.design.network, chosen.device, asked)
    project = hls.emit(chosen.design, folder, chosen.part, chosen.clock_hz, build)
    return chosen.id, folder, verified(folder, "C simulation", hls.compare(chosen.design, project, chosen.images))


@dataclass(frozen=True)
class Asked:
    """Of a build what a person asks for.

    Attributes:
        io: How tensors travel; None for what suits.
        strategy: How products are made; None for what suits.
        reuse: Factors by layer; that of `""` is for all others, each of which takes its nearest valid one.
    """

    io: Io | None = None
    strategy: Strategy | None = None
    reuse: Mapping[str, int] = field(default_factory=dict)


def _build(network: Network, device: Device, asked: Asked) -> Build:
    suits = folded_build(network, folded(network, device).options) if device.schedule else hls.UNROLLED
    named = {name: factor for name, factor in asked.reuse.items() if name}
    everywhere = asked.reuse.get("")
    others = {layer.name: nearest(layer, everywhere) for layer in network.weighted} if everywhere else suits.reuse
    strategy: Strategy = asked.strategy or ("resource" if asked.reuse else suits.strategy)
    reuse = named if strategy == "distributed_arithmetic" else {**others, **named}
    return Build(asked.io or suits.io, strategy, reuse)


@dataclass(frozen=True)
class _Chosen:
    """A finalist, its numbers, the FPGA it is for, and the test split, shape (n, *input shape)."""

    id: str
    design: Design
    device: Device
    part: str
    clock_hz: float
    images: FloatArray


def _chosen(run: Path, device_name: str, member: str | None) -> _Chosen:
    opened, device = open_run(run), load_device(device_name)
    if device.part is None or device.clock_hz is None:
        raise NasError(f"device {device_name}: is no FPGA ({device.title}); name one of the run's FPGAs")
    found = _member(opened, device_name, member)
    home = opened.context.run.stage_dir(opened.plan.device(device_name).finalize) / found["id"].rsplit("-", 1)[1]
    design = member_design(opened.context, home, found)
    images = all_images(opened.context.data.test, design.network)
    return _Chosen(found["id"], design, device, device.part, device.clock_hz, images)


def _member(opened: OpenRun, device_name: str, member: str | None) -> dict[str, Any]:
    members = opened.members(device_name)
    found = [one for one in members if (one["winner"] if member is None else one["id"] == member)]
    if not found:
        known = ", ".join(one["id"] for one in members)
        raise NasError(f"device {device_name}: the run has no network {member!r}; it has {known}")
    return found[0]
