"""Few-shot transfer on a user's table: which networks to measure on a new device, and the latencies of all others.

What was learned of a device can be saved; it predicts networks of other tables, too, by their features. Rows are
counted from 1, the first below the header, as in the errors on tables.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from experiments import predictor_files
from experiments.predictor_files import TablePredictor
from experiments.rundir import atomic_write
from hw_models.fields import nearest
from nas.errors import NasError
from nas.genotype import BoolArray, FloatArray, IntArray
from predictors import few_shot, regressors
from predictors.few_shot import FewShot, Known
from predictors.prediction import Prediction, Score, score
from predictors.table import ColumnCode, Columns, Encoder, encoder_for, numbers

PARTS = 20
"""Up to so many measured rows are left out one by one, more in so many parts."""
_SETTINGS, _ARRAYS = "few-shot.json", "few-shot.npz"
_QUANTILE90 = 1.6449


@dataclass(frozen=True)
class Answer:
    """A new device's latencies, in the unit of its measured ones.

    Attributes:
        measured: NaN where not measured, shape (n,).
        predicted: What a measurement of each row would give, shapes (n,).
        score: Of measured rows, each predicted without itself; None where too few are left for a fit without one.
        fitted: What was learned of the device.
    """

    fitted: FewShot
    measured: FloatArray
    predicted: Prediction
    score: Score | None

    @property
    def rows(self) -> IntArray:
        """The measured ones, from 0."""
        rows: IntArray = np.flatnonzero(np.isfinite(self.measured))
        return rows

    def csv(self) -> str:
        """As `csv`, with what was measured."""
        return csv(self.predicted, {"measured": self.measured})


def csv(predicted: Prediction, beside: dict[str, FloatArray]) -> str:
    """A line per row: its number, what stands beside, and the predicted mean and 90 % interval, cut off at 0."""
    mean, reach = predicted.mean, _QUANTILE90 * predicted.std
    columns = {**beside, "mean": mean, "low": np.maximum(mean - reach, 0.0), "high": mean + reach}
    text: str = pd.DataFrame({"row": np.arange(1, len(mean) + 1), **columns}).to_csv(index=False)
    return text


@dataclass(frozen=True)
class DevicePredictor:
    """A device that was learned, with what turns a table into features.

    Attributes:
        target: The column it predicts.
        encoder: Of the columns it reads.
        fitted: What was learned.
    """

    target: str
    encoder: Encoder
    fitted: FewShot

    def predict(self, table: Columns, place: str) -> Prediction:
        """The latency of every row; a `NasError` names what in the table does not fit."""
        return self.fitted.predict_new(self.encoder.encode(table, place)[0])

    def save(self, folder: Path) -> None:
        """Write the folder's two files, the settings last, as `experiments.predictor_files` does."""
        folder.mkdir(parents=True, exist_ok=True)
        file = io.BytesIO()
        np.savez(file, **self.fitted.arrays())  # type: ignore[arg-type]
        atomic_write(folder / _ARRAYS, file.getvalue())
        columns = [asdict(code) for code in self.encoder.codes]
        settings = {"target": self.target, "columns": columns}
        atomic_write(folder / _SETTINGS, json.dumps(settings, indent=2) + "\n")


def load(folder: Path) -> DevicePredictor | TablePredictor:
    """Read a saved predictor of either sort; it predicts exactly what it did when it was saved.

    Raises:
        NasError: The folder holds none, or a damaged one.
    """
    if not (folder / _SETTINGS).is_file():
        return predictor_files.load(folder)
    try:
        settings = json.loads((folder / _SETTINGS).read_text())
        codes = [ColumnCode(**{**saved, "choices": tuple(saved["choices"])}) for saved in settings["columns"]]
        with np.load(folder / _ARRAYS) as file:
            return DevicePredictor(settings["target"], Encoder(tuple(codes)), few_shot.restore(dict(file)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        law = "the predictor is damaged"
        raise NasError(f"{folder}: {law} ({error!r}); run `nas predictor few-shot --save` again") from error


def learn(
    table: Columns, known: Sequence[str], target: str | None, features: Sequence[str] | None, seed: int, place: str
) -> tuple[Known, Encoder]:
    """What a table's known devices say of its networks, and what encodes the features.

    Args:
        table: Cells by column.
        known: Columns of latencies on known devices, a unit each.
        target: The column of the new device, where there is one: no feature.
        features: Columns that describe the networks; None for all others, except empty ones.
        seed: Of the draws and of the smoothing.
        place: Name of the table in errors.

    Raises:
        NasError: A column is absent or named twice, a known device's cell is blank or no latency, a feature's cell
            cannot be encoded, or there are fewer than 20 rows.
    """
    named = [*known, *([] if target is None else [target])]
    if features is None:
        features = [name for name in table if name not in named and not _blank(table[name]).all()]
    named += features
    for name in named:
        if name not in table:
            raise NasError(f"{place}: there is no column {name!r}{nearest(name, tuple(table))}")
        if named.count(name) > 1:
            raise NasError(f"{place}: column {name!r} must be one of known, target and feature, and once; name it once")
    latencies = np.stack([_latencies(table, name, place) for name in known], axis=1)
    if len(latencies) < few_shot.FEWEST_KNOWN:
        law = f"must hold at least {few_shot.FEWEST_KNOWN} rows for what is known to tell of a new device"
        raise NasError(f"{place}: {law}, got {len(latencies)}; bring more rows")
    encoder = encoder_for(table, features, place)
    return few_shot.learn(latencies, *encoder.encode(table, place), seed), encoder


def choose(known: Known, count: int, seed: int, place: str) -> IntArray:
    """Rows, from 0, of the networks to measure on a new device, the most telling first, shape (count,).

    Raises:
        NasError: Fewer than a fit needs, or more than the table has.
    """
    rows = np.arange(len(known.values))
    if not few_shot.FEWEST <= count <= len(rows):
        law = f"must be {few_shot.FEWEST}, which a fit needs, to {len(rows)}, the rows of the table"
        raise NasError(f"{place}: the count of networks to choose {law}, got {count}")
    return few_shot.choose(known, count, rows, seed)


def fit(known: Known, table: Columns, target: str, seed: int, place: str) -> Answer:
    """Learn the device whose column is blank but in the measured rows.

    Raises:
        NasError: A cell is neither blank nor a latency above 0, or fewer than four are measured.
    """
    blank = _blank(table[target])
    filled = {target: [1.0 if empty else cell for empty, cell in zip(blank, table[target], strict=True)]}
    measured = np.where(blank, np.nan, _latencies(filled, target, place))
    rows = np.flatnonzero(~blank)
    if len(rows) < few_shot.FEWEST:
        law = f"must be measured in at least {few_shot.FEWEST} rows"
        raise NasError(f"{place}: column {target!r} {law}, got {len(rows)}; measure more of the chosen networks")
    fitted = few_shot.fit(known, rows, measured[rows], seed)
    told = fitted.predict(np.arange(len(measured)))
    return Answer(fitted, measured, told, _left_out(fitted, known, rows, measured[rows], seed))


def require_new(out: Path, table: Path) -> None:
    """Refuse to write to a folder, or over the table that is read."""
    if out.is_dir() or out.resolve() == table.resolve():
        law = "a folder" if out.is_dir() else "the table itself"
        raise NasError(f"{out}: must be a file of its own for the predictions, got {law}; name another")


def write(text: str, out: Path) -> None:
    """Write predictions, whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(out, text)


def _left_out(fitted: FewShot, known: Known, rows: IntArray, latencies: FloatArray, seed: int) -> Score | None:
    if len(rows) <= few_shot.FEWEST:
        return None
    if fitted.left_out is not None:
        return score(fitted.left_out, latencies)
    part = regressors.folds(len(rows), min(PARTS, len(rows)), seed)
    mean, std = np.empty(len(rows)), np.empty(len(rows))
    for own in (part == number for number in range(int(part.max()) + 1)):
        told = few_shot.fit(known, rows[~own], latencies[~own], seed).predict(rows[own])
        mean[own], std[own] = told.mean, told.std
    return score(Prediction(mean, std), latencies)


def _latencies(table: Columns, name: str, place: str) -> FloatArray:
    values = numbers(table, name, place)
    for row in np.flatnonzero(values <= 0)[:1]:
        raise NasError(
            f"{place}: column {name!r}, row {row + 1}: a latency must be above 0, got {values[row]:g}; mend the row"
        )
    return values


def _blank(cells: Sequence[object]) -> BoolArray:
    """Which cells hold nothing, or spaces only."""
    stripped = [(cell.strip() or None) if isinstance(cell, str) else cell for cell in cells]
    blank: BoolArray = pd.Series(stripped, dtype=object).isna().to_numpy()
    return blank
