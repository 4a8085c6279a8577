"""The command `nas fpga synth`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from fpga.synthesis import SynthesisFigure

app = typer.Typer(help="FPGA designs of a finished run.", no_args_is_help=True)


@app.command()
def synth(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, such as runs/digits.")],
    device: Annotated[str, typer.Option(help="An FPGA of the run.")],
    member: Annotated[str | None, typer.Option(help="A network of its front; the winner if left out.")] = None,
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


def _table(name: str, figures: tuple[SynthesisFigure, ...]) -> Table:
    table = Table("figure", "value", "unit", "obtained by", "with", title=name)
    for one in figures:
        value = one.note if one.value is None else f"{one.value:,.0f}"
        table.add_row(one.name, value, one.unit, one.label, one.tool)
    return table
