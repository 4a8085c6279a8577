"""The command `nas`."""

from __future__ import annotations

import json
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from nas.errors import NasError

if TYPE_CHECKING:
    from experiments.config import Config
    from nas.genotype import Gene, SearchSpace


class Commands(TyperGroup):
    """Turns what the user can mend into a message and exit code 2, and an interrupt into 130; no tracebacks."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except NasError as error:
            _complain(f"error: {error}")
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            _complain("stopped; run the same command again to resume")
            raise typer.Exit(130) from None


def _complain(text: str) -> None:
    Console(stderr=True).print(text, style="red", markup=False, highlight=False, soft_wrap=True)


app = typer.Typer(
    name="nas",
    cls=Commands,
    help="Find the best networks for each of your devices: architecture, pruning and quantization in one search.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML file that describes the run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def check(config: ConfigPath) -> None:
    """Check a config without running it.

    Prints what it would search, or all its faults at once, each with its key path; exits with 2 if there are any.
    """
    from nas.genotype import count_networks

    loaded, console = _load(config), Console()
    networks = count_networks(_space(loaded))
    console.print(f"{config}: OK", style="green", soft_wrap=True)
    for label, text in (
        ("space", f"{loaded.data.name}, {_power_of_ten(networks)} networks"),
        ("devices", ", ".join(f"{target.name} ({', '.join(target.objectives)})" for target in loaded.devices)),
        ("samplers", ", ".join(loaded.search.samplers)),
    ):
        console.print(f"  {label}: {text}", highlight=False, soft_wrap=True)


@app.command()
def space(config: ConfigPath) -> None:
    """Show the genes of a config's search space, and how many distinct networks it holds, exactly."""
    from nas.genotype import count_networks

    built, console = _space(_load(config)), Console()
    table = Table("gene", "kind", "choices, small to large", "counts where")
    for gene in built.genes:
        table.add_row(gene.name, gene.kind, ", ".join(f"{choice:g}" for choice in gene.choices), _gate(built, gene))
    console.print(table)
    networks = count_networks(built)
    text = f"{len(built.genes)} genes, {networks} distinct networks ({_power_of_ten(networks)})"
    console.print(text, highlight=False, soft_wrap=True)


@app.command()
def devices(as_json: AsJson = False) -> None:
    """List the devices that a config can name."""
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


def _load(path: Path) -> Config:
    from experiments.config import load_config

    return load_config(path)


def _space(config: Config) -> SearchSpace:
    """The space over the shapes of the config's data."""
    from supernet.data import load_dataset

    data = load_dataset(config.data.name, config.data.validation, config.data.test, config.seed)
    return config.space.build(data.input_shape, data.classes)


def _widths(bits: tuple[int, ...]) -> str:
    unbroken = len(bits) > 2 and bits == tuple(range(bits[0], bits[-1] + 1))
    return f"{bits[0]}..{bits[-1]}" if unbroken else ", ".join(map(str, bits))


def _gate(space: SearchSpace, gene: Gene) -> str:
    if gene.gate is None:
        return ""
    gating = space.genes[gene.gate.gene]
    return f"{gating.name} >= {gating.choices[gene.gate.least]:g}"


def _power_of_ten(number: int) -> str:
    """Like `about 3.2 x 10^19`; exact where the number is short."""
    digits = str(number)
    if len(digits) <= 6:
        return digits
    mantissa, exponent = f"{Decimal(number):.1e}".split("e")
    return f"about {mantissa} x 10^{int(exponent)}"


def main() -> None:
    """Entry point of the command."""
    app()
