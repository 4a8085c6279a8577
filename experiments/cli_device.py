"""The commands `nas device ...`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(help="Devices: what is known of each.", no_args_is_help=True)


@app.command("list")
def list_devices() -> None:
    """List the devices that a config can name, and what each can tell of a network."""
    from hw_models.device import METRICS, device_names, load_device

    table = Table("name", "family", "what it is", "metrics")
    for device in map(load_device, device_names()):
        table.add_row(device.name, device.family, device.title, ", ".join(METRICS[device.family]))
    Console().print(table)


@app.command()
def show(name: Annotated[str, typer.Argument(metavar="NAME", help="A device, see `nas device list`.")]) -> None:
    """Print a device's file: every number with its source."""
    from hw_models.device import device_text, load_device

    typer.echo(device_text(load_device(name).name), nl=False)
