"""The commands `nas predictor fit` and `nas predictor score`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from predictors.prediction import Score

app = typer.Typer(name="predictor", help="Predict a column of any table of networks from others.", no_args_is_help=True)

TablePath = Annotated[Path, typer.Option(help="CSV or parquet file, a row per network.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def fit(
    table: TablePath,
    target: Annotated[str, typer.Option(help="The column to predict.")],
    out: Annotated[Path, typer.Option(help="Folder for the predictor.")],
    features: Annotated[str | None, typer.Option(help="Columns, separated by commas; all others if left out.")] = None,
    pretrain: Annotated[
        Path | None, typer.Option(help="A table of float networks with the same target, to transfer from.")
    ] = None,
    kind: Annotated[Literal["gp", "boosting", "mlp"], typer.Option(help="The regressor.")] = "boosting",
    seed: Annotated[int, typer.Option(min=0, help="Of the folds and the fits.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Fit a predictor and print its scores on five folds, each left out in turn.

    Lists such as [3, 5, 7], texts and cells of NAS-Bench-201 are encoded by themselves.
    """
    from experiments import predictor_files

    names = None if features is None else [name.strip() for name in features.split(",")]
    columns, base = predictor_files.read(table), None
    if pretrain is not None:
        floats = predictor_files.read(pretrain)
        base = predictor_files.fit_base(floats, columns, target, names, kind, seed, str(pretrain))
    predictor, scored = predictor_files.fit(columns, target, names, kind, seed, str(table), base)
    predictor.save(out)
    _print(f"{target}: {kind}, 5 folds", scored, as_json)


@app.command()
def score(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `nas predictor fit` wrote.")],
    table: TablePath,
    as_json: AsJson = False,
) -> None:
    """Score a saved predictor on a table it has not seen."""
    from experiments import predictor_files
    from predictors.prediction import score as score_of
    from predictors.table import numbers

    predictor, columns = predictor_files.load(folder), predictor_files.read(table)
    truth = numbers(columns, predictor.target, str(table))
    _print(f"{predictor.target}: {table}", score_of(predictor.predict(columns, str(table)), truth), as_json)


def _print(title: str, scored: Score, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(scored), indent=2))
        return
    shown = Table("score", "value", title=title)
    for name, value in asdict(scored).items():
        shown.add_row(name, f"{value:.4g}")
    Console().print(shown)
