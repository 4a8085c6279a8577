"""The command `nas`."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from experiments import cli_device, cli_fpga, cli_predictor
from experiments.commands import Commands
from nas.errors import NasError

if TYPE_CHECKING:
    from experiments.config import Config
    from experiments.deploy import Deployed
    from nas.genotype import Gene, SearchSpace
    from nas.search.ledger import Ledger


RUNS = Path("runs")
RESULTS = Path("experiments/results")

app = typer.Typer(
    name="nas",
    cls=Commands,
    help="Find the best networks for each of your devices: architecture, pruning and quantization in one search.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_predictor.app)
app.add_typer(cli_device.app, name="device")
app.add_typer(cli_fpga.app, name="fpga")

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML file that describes the run.")]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, such as runs/digits.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def check(config: ConfigPath) -> None:
    """Check a config without running it.

    Prints what it would search, or all its faults at once, each with its key path; exits with 2 if there are any.
    """
    from experiments.targets import require_operations
    from nas.genotype import count_networks

    loaded, console = _load(config), Console()
    searched = loaded.build_space()
    require_operations(loaded.devices, searched)
    networks = count_networks(searched)
    console.print(f"{config}: OK", style="green", soft_wrap=True)
    for label, text in (
        ("data", loaded.data.source.name),
        ("space", f"{loaded.model_dump()['space']['name']}, {_power_of_ten(networks)} networks"),
        ("devices", ", ".join(f"{target.name} ({', '.join(target.objectives)})" for target in loaded.devices)),
        ("samplers", ", ".join(loaded.search.samplers)),
    ):
        console.print(f"  {label}: {text}", highlight=False, soft_wrap=True)


@app.command()
def space(config: ConfigPath) -> None:
    """Show the genes of a config's search space, and how many distinct networks it holds, exactly."""
    from nas.genotype import count_networks

    built, console = _load(config).build_space(), Console()
    table = Table("gene", "kind", "choices, small to large", "counts where")
    for gene in built.genes:
        table.add_row(gene.name, gene.kind, ", ".join(f"{choice:g}" for choice in gene.choices), _gate(built, gene))
    console.print(table)
    networks = count_networks(built)
    text = f"{len(built.genes)} genes, {networks} distinct networks ({_power_of_ten(networks)})"
    console.print(text, highlight=False, soft_wrap=True)


@app.command()
def run(
    config: ConfigPath,
    runs: Annotated[Path, typer.Option(help="Folder of runs; the run gets the folder of its name there.")] = RUNS,
) -> None:
    """Run a config to its end: fronts of measured networks, a report, and files to deploy.

    An interrupted run resumes where it stopped, and after a change of the config only what depends on it runs again.
    """
    from experiments.pipeline import run as run_all
    from experiments.plan import open_run

    folder = run_all(_load(config), runs, _say).path
    opened, console = open_run(folder), Console()
    for device in opened.plan.devices:
        _print_front(opened.members(device.target.name), device.target.objectives, console)
    console.print(f"report: {folder / 'report' / 'index.html'}", highlight=False, soft_wrap=True)


@app.command()
def train(
    config: ConfigPath,
    runs: Annotated[Path, typer.Option(help="Folder of runs; the run gets the folder of its name there.")] = RUNS,
) -> None:
    """Train a config's supernet and stop there; `nas run` goes on from it.

    On several GPUs or machines: `torchrun --nproc-per-node 8 --no-python nas train CONFIG`.
    """
    from experiments.pipeline import train_only

    train_only(_load(config), runs, _say)


@app.command()
def worker(
    config: ConfigPath,
    storage: Annotated[
        str, typer.Option(help="journal://PATH, postgresql://USER@HOST/DATABASE or grpc://HOST:PORT of Optuna's proxy.")
    ],
    device: Annotated[str | None, typer.Option(help="A device of the config; needed where it has several.")] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Trials of the study, all workers together; 100 where nobody says.")
    ] = None,
    sampler: Annotated[Literal["nsga2", "tpe"], typer.Option(help="Who suggests networks.")] = "nsga2",
    patience: Annotated[
        float, typer.Option(min=1, help="Seconds without a sign of life after which this worker counts as dead.")
    ] = 60.0,
    runs: Annotated[Path, typer.Option(help="Folder of runs; the run's supernet must be trained there.")] = RUNS,
    as_json: AsJson = False,
) -> None:
    """Train candidates of a finished run in an Optuna study that any number of workers share; print its front.

    Start as many as you like, wherever the storage and the run's folder can be reached. What a killed worker was
    training, another one trains.
    """
    from experiments.worker import candidates, front, work
    from nas.search.optuna_shared import SharedStudy

    loaded = _load(config)
    found = candidates(loaded, runs, device, sampler)
    study = SharedStudy(storage, found.name, found.problem, sampler, loaded.seed, trials)
    ledger = work(study, found.metrics, patience, _say)
    members = front(found.problem, ledger)
    if as_json:
        lost = [list(genotype) for genotype in ledger.lost]
        counts = {"trials": ledger.total, "trained": len(ledger.results), "lost": lost}
        typer.echo(json.dumps({"study": found.name, **counts, "front": members}, indent=2))
    else:
        _print_trained(found.name, found.problem.objectives, members, ledger)
    if ledger.lost:
        raise NasError(f"{found.name}: {len(ledger.lost)} networks failed in every try; the trials' attributes say why")


@app.command()
def status(run: RunPath, as_json: AsJson = False) -> None:
    """Show which stages of a run are done, partial or absent, and what they found."""
    from experiments.plan import open_run

    opened = open_run(run)
    folder, states = opened.context.run, opened.states()
    summaries = {s.name: folder.summary(s) for s in opened.plan.all if states[s.name] == "done"}
    if as_json:
        stages = {name: {"state": state, **summaries.get(name, {})} for name, state in states.items()}
        devices = [device.target.name for device in opened.plan.devices]
        typer.echo(json.dumps({"run": opened.context.config.name, "devices": devices, "stages": stages}, indent=2))
        return
    table = Table("stage", "state", "figures")
    for name, state in states.items():
        figures = {k: v for k, v in summaries.get(name, {}).items() if isinstance(v, int | float | str)}
        table.add_row(name, state, ", ".join(f"{k} {_short(v)}" for k, v in figures.items()))
    Console().print(table)


@app.command()
def front(
    run: RunPath,
    device: Annotated[str, typer.Option(help="A device of the run; `nas status RUN` names them.")],
    as_json: AsJson = False,
) -> None:
    """Print a device's front: each network's predicted and measured metrics. Errors are those of the test split."""
    from experiments.plan import open_run

    opened = open_run(run)
    members = opened.members(device)
    if as_json:
        typer.echo(json.dumps([member for member in members if member["on_front"]], indent=2))
        return
    _print_front(members, opened.plan.device(device).target.objectives, Console())


@app.command()
def deploy(
    config: ConfigPath,
    devices: Annotated[str, typer.Option(help="Devices, separated by commas; `nas device list` lists them.")],
    budgets: Annotated[
        str, typer.Option(help="How many, spread over each device's front; or limits such as `5 us,10 us`.")
    ] = "10",
    metric: Annotated[str, typer.Option(help="The metric that budgets limit.")] = "latency_s",
    together: Annotated[bool, typer.Option("--together", help="One network for all devices at each budget.")] = False,
    runs: Annotated[Path, typer.Option(help="Folder of runs; the run must be fitted there.")] = RUNS,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False,
) -> None:
    """Find the best predicted network of a finished run for every device and budget.

    Bounds are proved for an additive stand-in of the error that lies below every error predicted in the search.

    Any device that suits the space will do, also one the run was not made for; the supernet is not trained again.
    """
    from experiments import deploy as deployment

    loaded = _load(config)
    asked = deployment.problems(loaded, deployment.names(devices), runs, _say)
    search = deployment.deploy_together if together else deployment.deploy
    found = search(asked, metric, deployment.limits(budgets, metric), loaded.seed)
    if as_json:
        typer.echo(json.dumps([deployment.record(one) for one in found], indent=2))
    elif as_csv:
        typer.echo(deployment.as_csv(found), nl=False)
    else:
        Console().print(_deployed(found, metric))


def _deployed(found: list[Deployed], metric: str) -> Table:
    from experiments.report import numbers

    table = Table("device", f"{numbers.name(metric)} at most", "error", "bound", "gap", title="predicted")
    for one in found:
        limits = " + ".join(numbers.shown(metric, limit) for limit in one.budgets.values())
        error = one.metrics.get("error")
        values = (
            numbers.shown("error", value) if value is not None else "none" for value in (error, one.bound, one.gap)
        )
        table.add_row(one.device, limits, *values)
    return table


@app.command()
def report(run: RunPath) -> None:
    """Write the report of a finished run again and print where it is."""
    from experiments.plan import open_run
    from experiments.report.page import write_report

    opened = open_run(run)
    write_report(opened.context, opened.plan)
    typer.echo(opened.context.run.path / "report" / "index.html")


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="Which one; `demo` is the main job on the digits.")],
    quick: Annotated[bool, typer.Option(help="A small version, under 3 minutes, written as NAME-quick.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for NAME.json and NAME.md.")] = RESULTS,
    runs: Annotated[Path, typer.Option(help="Folder of the runs it makes.")] = RUNS,
) -> None:
    """Run a benchmark and write its figures, with spread, versions and the command, as JSON and as a table."""
    from experiments.bench import BENCHMARKS
    from experiments.bench.results import write_results
    from experiments.strict import lookup

    benchmark = lookup(BENCHMARKS, name, "benchmark")
    out.mkdir(parents=True, exist_ok=True)
    figures = benchmark.measure(quick, runs, out, _say)
    command = f"nas bench {name}{' --quick' if quick else ''}"
    title = f"{benchmark.title}{' (small version, on less or other data)' if quick else ''}"
    written = write_results(f"{name}{'-quick' if quick else ''}", title, figures, command, 0, out)
    typer.echo(written[1].read_text())
    typer.echo(f"written: {written[0]}, {written[1]}")


def _say(text: str) -> None:
    Console(stderr=True).print(text, highlight=False)


def _print_front(members: list[dict[str, Any]], objectives: tuple[str, ...], console: Console) -> None:
    from experiments.report import numbers

    table = Table(
        "network", "found among", *(numbers.name(metric) for metric in objectives),
        title=f"{members[0]['device']}: predicted → measured",
    )  # fmt: skip
    for member in sorted((m for m in members if m["on_front"]), key=lambda member: member["measured"]["error"]):
        pairs = (numbers.change(m, member["predicted"][m], member["measured"][m]) for m in objectives)
        table.add_row(f"{member['id']}{' ★' if member['winner'] else ''}", member["role"], *pairs)
    console.print(table)


def _print_trained(study: str, objectives: tuple[str, ...], members: list[dict[str, Any]], ledger: Ledger) -> None:
    from experiments.report import numbers

    table = Table(
        "trial", *(numbers.name(metric) for metric in objectives),
        title=f"{study}: front of {len(ledger.results)} networks trained in {ledger.total} trials",
        caption="errors are those of the validation split after fine-tuning; costs are predicted",
    )  # fmt: skip
    for member in members:
        table.add_row(str(member["trial"]), *(numbers.shown(name, member["metrics"][name]) for name in objectives))
    Console().print(table)


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def _load(path: Path) -> Config:
    from experiments.config import load_config

    return load_config(path)


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
