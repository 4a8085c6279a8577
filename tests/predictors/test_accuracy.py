"""The accuracy predictor on errors whose law is known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from nas.errors import NasError
from nas.genotype import (
    FloatArray,
    GeneKind,
    IntArray,
    SearchSpace,
    active,
    canonical,
    choice_counts,
    largest,
    random_population,
)
from nas.spaces import MlpChoices, MobileChoices
from nas.spaces.mobile import Stage
from nas.spaces.precision import PrecisionChoices
from predictors import accuracy
from predictors.accuracy import AccuracyPredictor

PRECISION = PrecisionChoices((2, 4, 8), (3, 6, 8), (0.75, 0.5, 0.0))
EXAMPLES: dict[str, SearchSpace] = {
    "mobile": MobileChoices(8, (Stage(16, 2, (1, 2)),), (3, 5), (2, 4), PRECISION).build((1, 8, 8), 10),
    "mlp": MlpChoices((1, 2, 4), (8, 16, 32), PRECISION).build((64,), 10),
}
SLOPES: dict[GeneKind, float] = {"weight_bits": 0.5, "act_bits": 0.3, "sparsity": 0.25, "depth": 0.2, "width": 0.2}


def errors_of(space: SearchSpace, population: IntArray) -> FloatArray:
    """Each step down in size multiplies the error; a tenth of the effect is noise."""
    steps = np.where(active(space, population), choice_counts(space) - 1 - population, 0)
    slopes = np.array([SLOPES.get(gene.kind, 0.1) for gene in space.genes])
    noise = 0.1 * np.random.default_rng(0).normal(size=len(population))
    return 0.02 * np.exp(steps @ slopes / 3 + noise)


def draw(space: SearchSpace, count: int, seed: int) -> IntArray:
    return random_population(space, count, np.random.default_rng(seed))


@pytest.fixture(scope="module", params=EXAMPLES)
def fitted(request: pytest.FixtureRequest) -> AccuracyPredictor:
    space = EXAMPLES[request.param]
    samples = draw(space, 150, 0)
    return accuracy.fit(space, samples, errors_of(space, samples), 0)


@pytest.mark.parametrize("kind", ["weight_bits", "act_bits", "sparsity"])
def test_prediction_reacts_to_bits_and_sparsity(fitted: AccuracyPredictor, kind: GeneKind) -> None:
    """With all else equal, every step towards fewer bits or more zeros raises the error, on average."""
    space, population = fitted.space, draw(fitted.space, 100, 1)
    columns = [index for index, gene in enumerate(space.genes) if gene.kind == kind]
    means = []
    for choice in range(3):
        changed = population.copy()
        changed[:, columns] = choice
        prediction = fitted.predict(canonical(space, changed))
        assert np.ptp(prediction.mean) > 0
        means.append(np.log(prediction.mean).mean())
    steps = -np.diff(means)
    truth = SLOPES[kind] / 3 * active(space, population)[:, columns].sum(axis=1).mean()
    assert (steps > 0.5 * truth).all()
    assert (steps < 1.5 * truth).all()


def test_single_genes_count(fitted: AccuracyPredictor) -> None:
    """No gene of bits or sparsity that has an effect leaves the prediction alone."""
    top = largest(fitted.space)
    base = float(fitted.predict(top[None]).mean[0])
    for column, gene in enumerate(fitted.space.genes):
        if gene.kind in ("weight_bits", "act_bits", "sparsity"):
            lowered = top.copy()
            lowered[column] = 0
            assert float(fitted.predict(lowered[None]).mean[0]) != base


def test_unseen_errors_are_ranked(fitted: AccuracyPredictor) -> None:
    unseen = draw(fitted.space, 300, 2)
    prediction, truth = fitted.predict(unseen).mean, errors_of(fitted.space, unseen)
    assert np.corrcoef(np.log(prediction), np.log(truth))[0, 1] > 0.9
    assert np.median(np.abs(np.log(prediction / truth))) < 0.3


def test_genes_without_effect_change_nothing(fitted: AccuracyPredictor) -> None:
    raw = np.random.default_rng(3).integers(0, choice_counts(fitted.space), (100, len(fitted.space.genes)))
    reduced = canonical(fitted.space, raw)
    assert (raw != reduced).any()
    first, second = fitted.predict(raw), fitted.predict(reduced)
    assert np.array_equal(first.mean, second.mean)
    assert np.array_equal(first.std, second.std)


def test_saved_and_loaded_predicts_identically(fitted: AccuracyPredictor, tmp_path: Path) -> None:
    fitted.save(tmp_path / "accuracy.npz")
    loaded = accuracy.load(fitted.space, tmp_path / "accuracy.npz")
    population = draw(fitted.space, 200, 4)
    first, second = fitted.predict(population), loaded.predict(population)
    assert np.array_equal(first.mean, second.mean)
    assert np.array_equal(first.std, second.std)
    loaded.save(tmp_path / "again.npz")
    again = accuracy.load(fitted.space, tmp_path / "again.npz").predict(population)
    assert np.array_equal(first.mean, again.mean)


def test_what_it_is_taught_conditions_the_process_it_is(fitted: AccuracyPredictor) -> None:
    """The posterior by its formula (Rasmussen & Williams, 2006, equation 2.25), hyper-parameters those of the fit."""
    space = fitted.space
    new, unseen = draw(space, 60, 8), draw(space, 40, 9)
    taught = fitted.taught(new, errors_of(space, new))
    assert np.array_equal(taught.theta, fitted.theta)
    samples = np.concatenate([fitted.samples, new])
    logarithms = np.log(np.concatenate([fitted.errors, errors_of(space, new)]))
    variance, length, noise = np.exp(fitted.theta)
    places = [np.where(active(space, p), p / np.maximum(choice_counts(space) - 1, 1), 0) for p in (samples, unseen)]

    def kernel(a: FloatArray, b: FloatArray) -> FloatArray:
        distance = np.sqrt(5 * ((a[:, None] - b[None]) ** 2).sum(axis=2)) / length
        values: FloatArray = variance * (1 + distance + distance**2 / 3) * np.exp(-distance)
        return values

    weights = np.linalg.solve(
        kernel(places[0], places[0]) + (noise + 1e-8) * np.eye(len(samples)),
        (logarithms - logarithms.mean()) / logarithms.std(),
    )
    expected = np.exp(logarithms.mean() + logarithms.std() * (kernel(places[1], places[0]) @ weights))
    assert taught.mean(unseen) == pytest.approx(expected, rel=1e-6)
    assert taught.predict(unseen).mean == pytest.approx(expected, rel=1e-6)


def test_the_same_seed_fits_the_same_predictor(fitted: AccuracyPredictor) -> None:
    again = accuracy.fit(fitted.space, fitted.samples, fitted.errors, 0)
    assert np.array_equal(again.theta, fitted.theta)


def test_uncertainty_grows_away_from_the_samples() -> None:
    """All samples have a small first half of genes; the farther from them, the less is known."""
    space = EXAMPLES["mlp"]
    half = len(space.genes) // 2
    samples = draw(space, 80, 5)
    samples[:, 1:half] = 0
    samples = canonical(space, samples)
    predictor = accuracy.fit(space, samples, errors_of(space, samples), 0)
    populations = []
    for share in (0.0, 0.5, 1.0):
        population = draw(space, 100, 6)
        moved = np.random.default_rng(7).random(population.shape) < share
        population[:, 1:half] = np.where(moved, largest(space), 0)[:, 1:half]
        populations.append(canonical(space, population))
    prediction = predictor.predict(np.concatenate(populations))
    relative = (prediction.std / prediction.mean).reshape(3, 100).mean(axis=1)
    assert relative[0] < relative[1] < relative[2]
    assert relative[2] > 1.2 * relative[0]
    assert (prediction.std > 0).all()


def test_errors_below_the_floor_are_no_fault() -> None:
    space = EXAMPLES["mlp"]
    samples = draw(space, 40, 8)
    errors = np.where(np.arange(40) % 3 == 0, 0.0, errors_of(space, samples))
    prediction = accuracy.fit(space, samples, errors, 0).predict(samples)
    assert np.isfinite(prediction.mean).all()
    assert (prediction.mean > 0).all()


def test_errors_without_noise_are_no_fault() -> None:
    """Hyper-parameters end at their bounds; that is an answer, not a warning."""
    space = EXAMPLES["mlp"]
    samples = draw(space, 60, 9)
    errors = 0.01 * np.exp(samples.sum(axis=1) / 20)
    prediction = accuracy.fit(space, samples, errors, 0).predict(samples)
    np.testing.assert_allclose(prediction.mean, errors, rtol=0.05)


@pytest.mark.parametrize(("count", "errors", "found"), [(9, None, "9 samples"), (20, 0.25, "0.25..0.25")])
def test_samples_that_teach_nothing_are_refused(count: int, errors: float | None, found: str) -> None:
    space = EXAMPLES["mlp"]
    samples = draw(space, count, 10)
    values = errors_of(space, samples) if errors is None else np.full(count, errors)
    with pytest.raises(NasError, match=f"{found}.*raise predictors.accuracy.samples"):
        accuracy.fit(space, samples, values, 0)


def test_encoding_is_ordinal_between_zero_and_one() -> None:
    space = EXAMPLES["mobile"]
    encoded = accuracy.encode(space, draw(space, 100, 11))
    assert encoded.min() == 0.0
    assert encoded.max() == 1.0
    assert np.array_equal(accuracy.encode(space, largest(space)[None]), np.ones((1, len(space.genes))))
    assert set(encoded[:, [gene.kind == "act_bits" for gene in space.genes]].reshape(-1)) == {0.0, 0.5, 1.0}


def test_the_mean_alone_is_that_of_the_process(fitted: AccuracyPredictor) -> None:
    """Found by whole numbers and a table instead; and by the process itself where the lattice is too fine."""
    population = draw(fitted.space, 700, 12)
    assert fitted._lattice is not None
    np.testing.assert_allclose(fitted.mean(population), fitted.predict(population).mean, rtol=1e-10)
    assert fitted.mean(population[:0]).shape == (0,)
    wide = MlpChoices((1, 2), tuple(range(8, 39)), PrecisionChoices((2, 3, 4, 5, 6, 7, 8, 9))).build((64,), 10)
    samples = draw(wide, 40, 13)
    predictor = accuracy.fit(wide, samples, errors_of(wide, samples), 0)
    assert math.lcm(30, 7) ** 2 * len(wide.genes) < 1 << 20
    assert np.abs(predictor.mean(samples) / predictor.predict(samples).mean - 1).max() < 1e-10
    finest = MlpChoices((1, 2), tuple(range(8, 106)), PrecisionChoices((2, 3, 4, 5, 6, 7, 8, 9))).build((64,), 10)
    samples = draw(finest, 40, 13)
    predictor = accuracy.fit(finest, samples, errors_of(finest, samples), 0)
    assert predictor._lattice is None
    np.testing.assert_allclose(predictor.mean(samples), predictor.predict(samples).mean, rtol=1e-10)
