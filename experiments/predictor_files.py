"""A predictor of one column of a user's table from others: read, fitted, scored in folds, saved, loaded."""

from __future__ import annotations

import importlib.util
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.rundir import atomic_write
from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from predictors import regressors, transfer
from predictors.prediction import Prediction, Score, score
from predictors.regressors import Fitted
from predictors.table import ColumnCode, Columns, Encoder, encoder_for, numbers
from predictors.transfer import Transferred

FOLDS = 5
_SETTINGS, _ARRAYS = "predictor.json", "predictor.npz"
_BASE = "pretrained"


@dataclass(frozen=True)
class TablePredictor:
    """A fitted regressor with what turns a table into its features.

    Attributes:
        target: The column it predicts.
        kind: One of `regressors.REGRESSORS`.
        encoder: Of the columns it reads.
        fitted: Where there is a base, a transfer from it.
        scale: Calibrates the standard deviations.
        base: What was fitted to the table of the pre-training.
    """

    target: str
    kind: str
    encoder: Encoder
    fitted: Fitted | Transferred
    scale: float
    base: TablePredictor | None = None

    def predict(self, table: Columns, place: str) -> Prediction:
        """The target of every row; a `NasError` names what in the table does not fit."""
        prior = None if self.base is None else self.base.predict(table, place).mean
        prediction = _predict(self.fitted, self.encoder.encode(table, place)[0], prior)
        return Prediction(prediction.mean, self.scale * prediction.std)

    def save(self, folder: Path) -> None:
        """Write the folder's two files; the settings, written last, hold the figures that scoring does not need."""
        folder.mkdir(parents=True, exist_ok=True)
        file = io.BytesIO()
        np.savez(file, scale=self.scale, **self.fitted.arrays())  # type: ignore[arg-type]
        atomic_write(folder / _ARRAYS, file.getvalue())
        if self.base is not None:
            self.base.save(folder / _BASE)
        way = self.fitted.way if isinstance(self.fitted, Transferred) else None
        columns = [asdict(code) for code in self.encoder.codes]
        settings = {"target": self.target, "kind": self.kind, "way": way, "columns": columns}
        atomic_write(folder / _SETTINGS, json.dumps(settings, indent=2) + "\n")


def load(folder: Path) -> TablePredictor:
    """Read a saved predictor; it predicts exactly what it did when it was saved.

    Raises:
        NasError: The folder holds none, or a damaged one.
    """
    try:
        settings = json.loads((folder / _SETTINGS).read_text())
        with np.load(folder / _ARRAYS) as file:
            arrays = dict(file)
        codes = tuple(_code(code) for code in settings["columns"])
        kind, way = settings["kind"], settings["way"]
        fitted = regressors.restore(kind, arrays) if way is None else transfer.restore(way, kind, arrays)
        base = None if way is None else load(folder / _BASE)
        return TablePredictor(settings["target"], kind, Encoder(codes), fitted, float(arrays["scale"]), base)
    except NasError:
        raise
    except OSError as error:
        raise NasError(f"{folder}: holds no predictor ({error}); make one with `nas predictor fit`") from error
    except (ValueError, KeyError, TypeError) as error:
        raise NasError(f"{folder}: the predictor is damaged ({error!r}); run `nas predictor fit` again") from error


def fit(
    table: Columns,
    target: str,
    names: list[str] | None,
    kind: str,
    seed: int,
    place: str,
    base: TablePredictor | None = None,
) -> tuple[TablePredictor, Score]:
    """Fit to a table, and score on folds that were left out.

    Args:
        table: Cells by column.
        target: The column to predict.
        names: The columns to predict it from; None for all others.
        kind: One of `regressors.REGRESSORS`.
        seed: Of the folds and the fits.
        place: Name of the table in errors.
        base: What to transfer from.

    Raises:
        NasError: A column or cell does not fit, or there are too few rows.
    """
    values = numbers(table, target, place)
    chosen = [name for name in table if name != target] if names is None else names
    if target in chosen:
        raise NasError(f"{place}: column {target!r} is the target and must not be a feature; leave it out")
    encoder = encoder_for(table, chosen, place)
    fewest = regressors.FEWEST_ROWS * FOLDS // (FOLDS - 1) + 1
    if len(values) < fewest or np.ptp(values) == 0:
        law = f"must hold at least {fewest} rows with differing values of {target!r} for {FOLDS} folds"
        found = f"{len(values)} rows" if len(values) < fewest else f"{values[0]:g} in all {len(values)} rows"
        raise NasError(f"{place}: {law}, got {found}; bring more rows")
    features, groups = encoder.encode(table, place)
    prior = None if base is None else base.predict(table, place).mean
    part = regressors.folds(len(values), FOLDS, seed)
    mean, std = np.empty(len(values)), np.empty(len(values))
    for fold in range(FOLDS):
        own, rest = part == fold, part != fold
        learned = _learn(kind, features[rest], values[rest], groups, None if prior is None else prior[rest], seed)
        outside = _predict(learned, features[own], None if prior is None else prior[own])
        mean[own], std[own] = outside.mean, outside.std
    unseen, fitted = Prediction(mean, std), _learn(kind, features, values, groups, prior, seed)
    predictor = TablePredictor(target, kind, encoder, fitted, regressors.calibration(unseen, values), base)
    return predictor, score(Prediction(mean, _calibrated(unseen, values, part)), values)


def fit_base(
    table: Columns, finer: Columns, target: str, names: list[str] | None, kind: str, seed: int, place: str
) -> TablePredictor:
    """Fit to the table of the pre-training, from those features of the `finer` table that it has."""
    wanted = [name for name in finer if name != target] if names is None else names
    shared = [name for name in wanted if name in table]
    if not shared:
        raise NasError(f"{place}: has none of the features {', '.join(wanted)}; bring a table that shares some")
    return fit(table, target, shared, kind, seed, place)[0]


def _learn(
    kind: str, features: FloatArray, values: FloatArray, groups: IntArray, prior: FloatArray | None, seed: int
) -> Fitted | Transferred:
    if prior is None:
        return regressors.fit(kind, features, values, groups, seed)
    return transfer.fit(kind, features, values, groups, prior, seed)


def _predict(fitted: Fitted | Transferred, features: FloatArray, prior: FloatArray | None) -> Prediction:
    if isinstance(fitted, Fitted):
        return fitted.predict(features)
    assert prior is not None
    return fitted.predict(features, prior)


def read(path: Path) -> Columns:
    """Columns of a CSV (also compressed) or parquet file; empty cells and NA are missing.

    Raises:
        NasError: The file cannot be read, or holds no rows.
    """
    parquet = path.suffix == ".parquet"
    if parquet and importlib.util.find_spec("pyarrow") is None:
        raise NasError(f"pandas needs pyarrow to read {path}; pip install 'hwnas[bench]'")
    missing = ["", "NA", "N/A", "NaN", "nan"]
    try:
        frame = pd.read_parquet(path) if parquet else pd.read_csv(path, keep_default_na=False, na_values=missing)
    except (OSError, ValueError) as error:
        raise NasError(f"{path}: cannot be read as {'parquet' if parquet else 'CSV'}: {error}") from error
    if frame.empty:
        raise NasError(f"{path}: holds no rows; bring a table with a header and a row per network")
    return {str(name): frame[name].tolist() for name in frame.columns}


def _calibrated(unseen: Prediction, values: FloatArray, part: np.ndarray) -> FloatArray:
    """Each fold's standard deviations, scaled by what the other folds say: so the coverage is not its own judge."""
    std = unseen.std.copy()
    for fold in range(FOLDS):
        rest = part != fold
        std[~rest] *= regressors.calibration(Prediction(unseen.mean[rest], unseen.std[rest]), values[rest])
    return std


def _code(saved: dict[str, Any]) -> ColumnCode:
    return ColumnCode(saved["name"], saved["kind"], tuple(saved["choices"]), saved["length"], saved["varying"])
