"""The commands `nas device ...`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(help="Devices: what is known of each.", no_args_is_help=True)


@app.command("list")
def list_devices(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the devices that a config can name, their bits, and what a search minimises on each by default."""
    from hw_models.device import device_names, load_device

    known = [load_device(name) for name in device_names()]
    if as_json:
        typer.echo(json.dumps([asdict(device) for device in known], indent=2))
        return
    table = Table("name", "what it is", "weight bits", "activation bits", "objectives")
    for device in known:
        bits = (_widths(device.weight_bits), _widths(device.act_bits))
        table.add_row(device.name, device.title, *bits, ", ".join(device.objectives))
    Console().print(table)


@app.command()
def show(name: Annotated[str, typer.Argument(metavar="NAME", help="A device, see `nas device list`.")]) -> None:
    """Print a device's file: every number with its source."""
    from hw_models.device import device_text, load_device

    typer.echo(device_text(load_device(name).name), nl=False)


def _widths(bits: tuple[int, ...]) -> str:
    unbroken = len(bits) > 2 and bits == tuple(range(bits[0], bits[-1] + 1))
    return f"{bits[0]}..{bits[-1]}" if unbroken else ", ".join(map(str, bits))
