"""Regressors on functions that are known, and the encodings of tables."""

from __future__ import annotations

import io

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from predictors import boosting, mlp_ensemble, regressors
from predictors.prediction import Prediction, pairwise_accuracy
from predictors.table import edges_of, encoder_for, numbers

GROUPS: IntArray = np.arange(4)


def data(count: int, seed: int) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    features = rng.uniform(-1, 1, (count, 4))
    return features, 3 * features[:, 0] + features[:, 1] ** 2 + 0.3 * rng.normal(size=count)


@pytest.fixture(autouse=True)
def small_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlp_ensemble, "HIDDEN", (32, 32, 32))


@pytest.mark.parametrize("kind", regressors.REGRESSORS)
def test_ranks_the_unseen_and_predicts_the_same_when_restored(kind: str) -> None:
    fitted = regressors.fit(kind, *data(200, 0), GROUPS, 0)
    features, values = data(300, 1)
    prediction = fitted.predict(features)
    assert pairwise_accuracy(prediction.mean, values) > 0.88
    file = io.BytesIO()
    np.savez(file, **fitted.arrays())  # type: ignore[arg-type]
    file.seek(0)
    with np.load(file) as arrays:
        again = regressors.restore(kind, dict(arrays)).predict(features)
    assert np.array_equal(prediction.mean, again.mean)
    assert np.array_equal(prediction.std, again.std)


def test_the_trees_are_those_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[HistGradientBoostingRegressor] = []
    real = HistGradientBoostingRegressor.fit

    def fit(self: HistGradientBoostingRegressor, features: FloatArray, values: FloatArray) -> None:
        kept.append(real(self, features, values))

    monkeypatch.setattr(HistGradientBoostingRegressor, "fit", fit)
    trees = boosting.fit(*data(150, 2), GROUPS, 0)
    unseen = data(200, 3)[0]
    assert np.allclose(trees.predict(unseen).mean, kept[0].predict(unseen), rtol=1e-12, atol=1e-12)


def test_calibrated_intervals_hold_nine_tenths_of_new_values() -> None:
    rng = np.random.default_rng(4)
    truth = rng.standard_t(4, 20000)
    scale = regressors.calibration(Prediction(np.zeros(10000), np.ones(10000)), truth[:10000])
    assert np.mean(np.abs(truth[10000:]) <= 1.6449 * scale) == pytest.approx(0.9, abs=0.01)


def test_every_kind_of_column_round_trips() -> None:
    cells = ["|a~0|+|b~0|none~1|", "|b~0|+|b~0|a~1|", "|a~0|+|none~0|a~1|"]
    table = {"bits": [2, 4, 8], "op": ["x", "y", "x"], "ks": ["[3, 5]", "[7]", "[3]"], "cell": cells}
    encoder = encoder_for(table, list(table), "t.csv")
    features, groups = encoder.encode(table, "t.csv")
    assert groups.tolist() == [0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3]
    assert features[:, 0].tolist() == [2, 4, 8]
    assert features[:, 1:3].tolist() == [[1, 0], [0, 1], [1, 0]]
    assert features[:, 3:6].tolist() == [[3, 5, 2], [7, 0, 1], [3, 0, 1]]
    choices = [choice.split(":") for choice in encoder.codes[3].choices]
    for text, row in zip(cells, features[:, 6:], strict=True):
        assert [edge for (_, edge), on in zip(choices, row, strict=True) if on] == edges_of(text, "here")


def encoded(cells: list[object]) -> FloatArray:
    return encoder_for({"x": cells}, ["x"], "t.csv").encode({"x": cells}, "t.csv")[0]


@pytest.mark.parametrize(
    ("cells", "law"),
    [
        ([1.0, float("nan"), 3.0], "column 'x', row 2: the value is missing"),
        ([1, 2, "small"], "column 'x', row 3: must be a number"),
        ([1, float("inf"), 2], "column 'x', row 2: must be a finite number"),
        (["[1, 2]", "[3, a]"], "column 'x', row 2: must be a list of numbers"),
        (["|a~0|", "|a|0"], "column 'x', row 2: must be nodes like"),
        ([f"net-{row}" for row in range(100)], "leave it out"),
    ],
)
def test_a_bad_column_is_refused_with_its_place(cells: list[object], law: str) -> None:
    with pytest.raises(NasError, match=r"t\.csv: column") as caught:
        encoded(cells)
    assert law in str(caught.value)


def test_what_the_fit_did_not_see_is_refused() -> None:
    encoder = encoder_for({"x": ["a", "b"]}, ["x"], "t.csv")
    with pytest.raises(NasError, match="row 1: must be one of a, b"):
        encoder.encode({"x": ["c"]}, "u.csv")
    with pytest.raises(NasError, match="no column 'y'"):
        numbers({"x": [1]}, "y", "u.csv")


def test_too_few_rows_and_too_many_are_refused() -> None:
    with pytest.raises(NasError, match="at least 10 rows"):
        regressors.fit("boosting", *data(9, 0), GROUPS, 0)
    with pytest.raises(NasError, match="at most 1500 rows, got 1501"):
        regressors.fit("gp", *data(1501, 0), GROUPS, 0)


def test_pairwise_is_its_definition() -> None:
    assert pairwise_accuracy(np.array([1.0, 2, 2, 0]), np.array([1.0, 2, 3, 3])) == (1 + 1 + 0 + 0.5 + 0) / 5
