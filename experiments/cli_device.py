"""The commands `nas device ...`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from hw_models.device import Device
    from nas.genotype import SearchSpace

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


@app.command()
def explain(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A device that is priced by peak rates.")],
    config: Annotated[Path, typer.Option(help="The YAML file whose search space the networks come from.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Print what binds a device's time, and where, for the smallest and the largest network that it can compute."""
    from experiments.config import load_config
    from experiments.report import numbers
    from hw_models.device import load_device

    explained = _explained(load_device(name), load_config(config).build_space())
    if as_json:
        keys = ("latency_s", "macs", "binds")
        rows = {size: dict(zip(keys, row, strict=True)) for size, row in explained.items()}
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table("network", "latency, estimated", "multiply-accumulates", "what binds")
    for size, (latency_s, operations, binds) in explained.items():
        table.add_row(size, numbers.shown("latency_s", latency_s), numbers.scientific(operations), binds)
    Console().print(table)


def _explained(device: Device, space: SearchSpace) -> dict[str, tuple[float, int, str]]:
    """Latency, multiply-accumulates and what binds, of the smallest and the largest network."""
    import numpy as np

    from experiments.problems import allowed
    from hw_models.prices import layer_times
    from hw_models.roofline import explain
    from nas.errors import NasError
    from nas.genotype import canonical
    from nas.network import macs

    times, choices = layer_times(device), allowed(space, device)
    explained = dict[str, tuple[float, int, str]]()
    for gene, indices in zip(space.genes, choices, strict=True):
        if not indices:
            raise NasError(f"{device.name} supports none of the choices of {gene.name}, {list(gene.choices)}")
    for size, place in (("smallest", 0), ("largest", -1)):
        network = space.lower(canonical(space, np.array([[indices[place] for indices in choices]]))[0].tolist())
        seconds = sum(times(layer).latency_s for layer in network)
        explained[size] = (seconds, sum(map(macs, network)), explain(network, times))
    return explained


def _widths(bits: tuple[int, ...]) -> str:
    unbroken = len(bits) > 2 and bits == tuple(range(bits[0], bits[-1] + 1))
    return f"{bits[0]}..{bits[-1]}" if unbroken else ", ".join(map(str, bits))
