"""The commands `nas fpga synth` and `nas fpga emit`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from nas.errors import NasError

if TYPE_CHECKING:
    from fpga.synthesis import SynthesisFigure

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, such as runs/digits.")]
Device = Annotated[str, typer.Option(help="An FPGA of the run.")]
Member = Annotated[str | None, typer.Option(help="A network of its front; the winner if left out.")]
Io = Literal["parallel", "stream"]
Strategy = Literal["latency", "resource", "distributed_arithmetic"]

app = typer.Typer(help="FPGA designs of a finished run.", no_args_is_help=True)


@app.command()
def synth(
    run: RunPath,
    device: Device,
    member: Member = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for RTL and reports; RUN/synthesis/MEMBER if left out.")
    ] = None,
    limit: Annotated[float, typer.Option(min=1, help="Longest time for one tool, in seconds.")] = 600,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Simulate and synthesise a design with whatever is installed: Verilator, yosys, nextpnr, Vivado, Vitis.

    The RTL is held against the integer reference on the whole test split first. Every figure says how it was obtained;
    a tool that is missing, fails or takes too long is named, and the rest goes on.
    """
    from experiments.synthesis import synthesised

    name, folder, figures = synthesised(run, device, member, out, limit)
    if as_json:
        typer.echo(json.dumps({"member": name, "figures": [asdict(one) for one in figures]}, indent=2))
        return
    Console().print(_table(name, figures))
    typer.echo(f"written: {folder}")


@app.command()
def emit(
    run: RunPath,
    device: Device,
    member: Member = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the project; RUN/projects/MEMBER if left out.")] = None,
    io: Annotated[Io | None, typer.Option(help="Tensors in wires (parallel) or streams.")] = None,
    strategy: Annotated[Strategy | None, typer.Option(help="How hls4ml makes products.")] = None,
    reuse: Annotated[
        list[str] | None,
        typer.Option(help="Products of each multiplier: 8 for all layers, or LAYER=8 for one; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Write a network as an hls4ml project, built as asked, and hold its C simulation against the integer reference.

    Left alone, a design is unrolled, or folded as its device folds it. A project that computes something else on any
    image of the test split is not kept.
    """
    from experiments.synthesis import Asked, emitted

    name, folder, found = emitted(run, device, member, out, Asked(io, strategy, dict(map(_factor, reuse or ()))))
    if as_json:
        typer.echo(json.dumps({"member": name, "folder": str(folder), **asdict(found)}))
        return
    typer.echo(f"{name}: C simulation equal to the integer reference on {found.samples} images")
    typer.echo(f"written: {folder}")


def _factor(text: str) -> tuple[str, int]:
    layer, _, factor = text.rpartition("=")
    if not factor.isdecimal() or int(factor) < 1:
        raise NasError(f"--reuse must be a whole number of at least 1, or LAYER=NUMBER; got {text!r}")
    return layer, int(factor)


def _table(name: str, figures: tuple[SynthesisFigure, ...]) -> Table:
    table = Table("figure", "value", "unit", "obtained by", "with", title=name)
    for one in figures:
        value = one.note if one.value is None else f"{one.value:,.0f}"
        table.add_row(one.name, value, one.unit, one.label, one.tool)
    return table
