"""The commands `nas device ...`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from experiments.device_files import Known
    from hw_models.device import Device
    from hw_models.measure import Progress
    from nas.genotype import SearchSpace

app = typer.Typer(help="Devices: what is known of each, and adding your own.", no_args_is_help=True)


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
    table = Table(Column("name", no_wrap=True), "what it is", show_lines=True)
    for device in known:
        bits = f"weights {_widths(device.weight_bits)} bits, activations {_widths(device.act_bits)}"
        about = Text(f"{bits}; minimises {', '.join(device.objectives)}", "dim")
        table.add_row(device.name, Text(f"{device.title}\n") + about)
    Console().print(table)


@app.command()
def show(name: Annotated[str, typer.Argument(metavar="NAME", help="A device, see `nas device list`.")]) -> None:
    """Print a device's file, and that of the device it is like: every number with its source."""
    from hw_models.device import device_text, liked, load_device

    typer.echo(device_text(load_device(name).name), nl=False)
    if (other := liked(name)) is not None:
        typer.echo(f"\n# {other}, for what is not said above\n{device_text(other)}", nl=False)


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


Config = Annotated[Path, typer.Option(help="The YAML file whose search space the networks come from.")]
Samples = Annotated[int, typer.Option(help="Networks to measure, half of them the most informative of many.")]
Runs = Annotated[Path, typer.Option(help="Folder of runs, in which measurements are kept.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the new device is called, such as pi-4.")],
    config: Config,
    engine: Annotated[
        str,
        typer.Option(
            help="What runs the models: onnxruntime, openvino, executorch, torch, torch-cuda, torch-cuda-fp16."
        ),
    ] = "onnxruntime",
    host: Annotated[str | None, typer.Option(help="Another machine, as ssh takes it: user@pi.")] = None,
    python: Annotated[str, typer.Option(help="The command that starts Python there.")] = "python3",
    threads: Annotated[int, typer.Option(min=1, help="Threads of the engine.")] = 1,
    samples: Samples = 30,
    table: Annotated[
        Path | None, typer.Option(help="CSV or parquet of genotypes and latencies that somebody else measured.")
    ] = None,
    target: Annotated[str, typer.Option(help="The table's column of latencies, in seconds.")] = "latency_s",
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Add a device of your own, measured here, on another machine over ssh, or known by a table.

    Chooses informative networks of the config's space, measures them, fits, prints scores of folds that were left out,
    and writes the device's file and table into the folder that NAS_DEVICES names, `devices` if it does not.
    """
    from experiments import device_files
    from experiments.config import load_config
    from hw_models.latency import Bench

    loaded = load_config(config)
    if table is not None:
        known, written = device_files.add_table(name, loaded, table, target)
    else:
        bench = Bench(engine, host, python)
        with _rounds(f"measure {name}") as progress:
            known, written = device_files.add_measured(name, loaded, bench, threads, samples, runs, progress)
    _print_known(name, known, as_json)
    if not as_json:
        typer.echo(f"written: {', '.join(map(str, written))}")


@app.command()
def measure(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A measured device, see `nas device list`.")],
    config: Config,
    samples: Samples = 30,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Measure networks of a config's space on a device and print their latencies; what is stored is not repeated."""
    from experiments.report import numbers

    known = _known(name, config, samples, runs)
    rows = list(zip(known.genotypes.tolist(), known.seconds.tolist(), strict=True))
    if as_json:
        typer.echo(json.dumps([{"genotype": genotype, "latency_s": seconds} for genotype, seconds in rows]))
        return
    table = Table("genotype", "latency, measured", title=name)
    for genotype, seconds in sorted(rows, key=lambda row: row[1]):
        table.add_row(" ".join(map(str, genotype)), numbers.shown("latency_s", seconds))
    Console().print(table)


@app.command()
def score(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A measured device, see `nas device list`.")],
    config: Config,
    samples: Samples = 30,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Score latency predictions on networks that were left out of the fit; measures what is not stored yet."""
    _print_known(name, _known(name, config, samples, runs), as_json)


def _known(name: str, config: Path, samples: int, runs: Path) -> Known:
    from experiments import device_files
    from experiments.config import load_config
    from hw_models.device import load_device

    with _rounds(f"measure {name}") as progress:
        return device_files.measured(load_device(name), load_config(config), samples, runs, progress)


@contextmanager
def _rounds(label: str) -> Iterator[Progress]:
    """What a campaign tells of its rounds, shown."""
    from experiments.progress import percent, progress

    with progress(label, 100) as advance:
        yield percent(advance)


def _print_known(name: str, known: Known, as_json: bool) -> None:
    figures = {"networks": len(known.seconds), **asdict(known.score), "within10": known.within10}
    if as_json:
        typer.echo(json.dumps({"device": name, **figures}, indent=2))
        return
    table = Table("score of five folds", "value", title=name)
    for key, value in figures.items():
        table.add_row(key, f"{value:.4g}")
    Console().print(table)


def _explained(device: Device, space: SearchSpace) -> dict[str, tuple[float, int, str]]:
    """Latency, multiply-accumulates and what binds, of the smallest and the largest network."""
    import numpy as np

    from experiments.problems import allowed
    from hw_models.prices import layer_times
    from hw_models.roofline import explain
    from nas.counts import macs
    from nas.errors import NasError
    from nas.genotype import canonical

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
