"""The commands `nas predictor fit`, `score`, `predict` and `few-shot`."""

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
    from experiments.few_shot_files import Answer
    from predictors.prediction import Score

app = typer.Typer(name="predictor", help="Predict a column of any table of networks from others.", no_args_is_help=True)

TablePath = Annotated[Path, typer.Option(help="CSV or parquet file, a row per network.")]
Saved = Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `fit`, or `few-shot --save`, wrote.")]
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

    names = None if features is None else _names(features)
    columns, base = predictor_files.read(table), None
    if pretrain is not None:
        floats = predictor_files.read(pretrain)
        base = predictor_files.fit_base(floats, columns, target, names, kind, seed, str(pretrain))
    predictor, scored = predictor_files.fit(columns, target, names, kind, seed, str(table), base)
    predictor.save(out)
    _print(f"{target}: {kind}, 5 folds", scored, as_json)


@app.command()
def score(
    folder: Saved,
    table: TablePath,
    as_json: AsJson = False,
) -> None:
    """Score a saved predictor on a table it has not seen."""
    from experiments import few_shot_files, predictor_files
    from predictors.prediction import score as score_of
    from predictors.table import numbers

    predictor, columns = few_shot_files.load(folder), predictor_files.read(table)
    truth = numbers(columns, predictor.target, str(table))
    _print(f"{predictor.target}: {table}", score_of(predictor.predict(columns, str(table)), truth), as_json)


@app.command()
def predict(
    folder: Saved,
    table: TablePath,
    out: Annotated[Path, typer.Option(help="CSV file for the predictions.")],
) -> None:
    """Predict every row of a table by a saved predictor, with 90 % intervals."""
    from experiments import few_shot_files, predictor_files

    few_shot_files.require_new(out, table)
    predictor, columns = few_shot_files.load(folder), predictor_files.read(table)
    told = predictor.predict(columns, str(table))
    few_shot_files.write(few_shot_files.csv(told, {}), out)
    typer.echo(f"{predictor.target}: {len(told.mean)} rows predicted; written: {out}")


@app.command("few-shot")
def transfer(
    table: TablePath,
    known: Annotated[str, typer.Option(help="Columns of latencies on known devices, separated by commas.")],
    choose: Annotated[int | None, typer.Option(help="Networks to choose for measuring on a new device.")] = None,
    target: Annotated[
        str | None, typer.Option(help="The new device's column of latencies, blank where not measured.")
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(help="Columns that describe the networks, separated by commas; all others if left out."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="CSV file for the predictions, with --target.")] = None,
    save: Annotated[
        Path | None, typer.Option(help="Folder for what was learned, for `score` and `predict`; with --target.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws; the same for choosing and fitting.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Learn a new device from some ten measurements and what known devices say of the same networks.

    With --choose, prints the rows to measure, the most telling first; row 1 is the first below the header. With
    --target and --out, predicts every row from the measured ones, with 90 % intervals, and scores measured rows left
    out in turn. Known devices may have different units; predictions are in that of the measurements.
    """
    from experiments import few_shot_files, predictor_files

    if (choose is None) == (target is None) or (target is None) != (out is None) or (save and target is None):
        raise NasError("nas predictor few-shot: takes either --choose, or --target and --out; give one of the two")
    if out is not None:
        few_shot_files.require_new(out, table)
    columns, place = predictor_files.read(table), str(table)
    names = None if features is None else _names(features)
    learned, encoder = few_shot_files.learn(columns, _names(known), target, names, seed, place)
    if choose is not None:
        rows = few_shot_files.choose(learned, choose, seed, place).tolist()
        _print_rows([{"row": row + 1, **{name: columns[name][row] for name in encoder.names}} for row in rows], as_json)
    if target is not None and out is not None:
        answer = few_shot_files.fit(learned, columns, target, seed, place)
        few_shot_files.write(answer.csv(), out)
        if save is not None:
            few_shot_files.DevicePredictor(target, encoder, answer.fitted).save(save)
        _print_answer(target, answer, out, as_json)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _print_rows(rows: list[dict[str, object]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows, indent=2, default=str))
        return
    for row in rows:
        typer.echo("\t".join(map(str, row.values())))


def _print_answer(target: str, answer: Answer, out: Path, as_json: bool) -> None:
    measured, count = len(answer.rows), len(answer.measured)
    if as_json:
        scored = None if answer.score is None else asdict(answer.score)
        typer.echo(json.dumps({"measured": measured, "rows": count, "left_out": scored}, indent=2))
        return
    if answer.score is not None:
        _print(f"{target}: measured rows, left out in turn", answer.score, as_json)
    typer.echo(f"{measured} of {count} rows measured; written: {out}")


def _print(title: str, scored: Score, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(scored), indent=2))
        return
    shown = Table("score", "value", title=title)
    for name, value in asdict(scored).items():
        shown.add_row(name, f"{value:.4g}")
    Console().print(shown)
