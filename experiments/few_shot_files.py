"""Few-shot transfer on a user's table: which networks to measure on a new device, and the latencies of all others.

Rows are counted from 1, the first below the header, as in the errors on tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.rundir import atomic_write
from hw_models.fields import nearest
from nas.errors import NasError
from nas.genotype import BoolArray, FloatArray, IntArray
from predictors import few_shot, regressors
from predictors.few_shot import Known
from predictors.prediction import Prediction, Score, score
from predictors.table import Columns, encoder_for, numbers

PARTS = 20
"""Up to so many measured rows are left out one by one, more in so many parts."""
_QUANTILE90 = 1.6449


@dataclass(frozen=True)
class Answer:
    """A new device's latencies, in the unit of its measured ones.

    Attributes:
        measured: NaN where not measured, shape (n,).
        predicted: What a measurement of each row would give, shapes (n,).
        score: Of measured rows, each predicted without itself; None where too few are left for a fit without one.
    """

    measured: FloatArray
    predicted: Prediction
    score: Score | None

    @property
    def rows(self) -> IntArray:
        """The measured ones, from 0."""
        rows: IntArray = np.flatnonzero(np.isfinite(self.measured))
        return rows

    def csv(self) -> str:
        """A line per row: its number, what was measured, and the predicted mean and 90 % interval, cut off at 0."""
        mean, reach = self.predicted.mean, _QUANTILE90 * self.predicted.std
        columns = {"measured": self.measured, "mean": mean, "low": np.maximum(mean - reach, 0.0), "high": mean + reach}
        text: str = pd.DataFrame({"row": np.arange(1, len(mean) + 1), **columns}).to_csv(index=False)
        return text


def learn(
    table: Columns, known: Sequence[str], target: str | None, features: Sequence[str] | None, seed: int, place: str
) -> tuple[Known, tuple[str, ...]]:
    """What a table's known devices say of its networks, and the features' columns.

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
    return few_shot.learn(latencies, *encoder.encode(table, place), seed), encoder.names


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
    return Answer(measured, fitted.predict(np.arange(len(measured))), _left_out(known, rows, measured[rows], seed))


def require_new(out: Path, table: Path) -> None:
    """Refuse to write to a folder, or over the table that is read."""
    if out.is_dir() or out.resolve() == table.resolve():
        law = "a folder" if out.is_dir() else "the table itself"
        raise NasError(f"{out}: must be a file of its own for the predictions, got {law}; name another")


def write(answer: Answer, out: Path) -> None:
    """Write the predictions, whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(out, answer.csv())


def _left_out(known: Known, rows: IntArray, latencies: FloatArray, seed: int) -> Score | None:
    if len(rows) <= few_shot.FEWEST:
        return None
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
