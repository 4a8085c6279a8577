"""What a predictor answers, and how well it does on data it has not seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau, spearmanr

from nas.errors import NasError
from nas.genotype import FloatArray


@dataclass(frozen=True)
class Prediction:
    """Mean and standard deviation for each member of a population, each of shape (n,)."""

    mean: FloatArray
    std: FloatArray


@dataclass(frozen=True)
class Score:
    """Agreement of predicted and true values on held-out data.

    Attributes:
        kendall_tau: Rank correlation, ties corrected (tau-b); 0 where all predicted or all true values are equal.
        spearman: Rank correlation; 0 likewise.
        pairwise: Share of pairs with differing true values that are predicted in the right order; equal predictions
            count half.
        rmse: Root mean squared error, in the unit of the values.
        coverage90: Share of true values inside the central 90 % interval; 0.9 is right.
        n: Number of held-out values.
    """

    kendall_tau: float
    spearman: float
    pairwise: float
    rmse: float
    coverage90: float
    n: int


def score(prediction: Prediction, truth: FloatArray) -> Score:
    """Score a prediction against true values, shape (n,).

    Raises:
        NasError: Fewer than three values, on which no rank correlation can stand.
    """
    if len(truth) < 3:
        raise NasError(f"a held-out score needs at least 3 samples, got {len(truth)}; raise samples or held_out")
    inside = np.abs(truth - prediction.mean) <= 1.6449 * prediction.std
    return Score(
        kendall_tau=kendall_tau(prediction.mean, truth),
        spearman=spearman(prediction.mean, truth),
        pairwise=pairwise_accuracy(prediction.mean, truth),
        rmse=float(np.sqrt(np.mean((prediction.mean - truth) ** 2))),
        coverage90=float(inside.mean()),
        n=len(truth),
    )


def kendall_tau(predicted: FloatArray, truth: FloatArray) -> float:
    """Rank correlation, ties corrected (tau-b), shapes (n,) each; 0 where all of either are equal."""
    return float(kendalltau(predicted, truth).statistic) if _ordered(predicted, truth) else 0.0


def spearman(predicted: FloatArray, truth: FloatArray) -> float:
    """Rank correlation, equal values sharing their mean rank, shapes (n,) each; 0 where all of either are equal."""
    return float(spearmanr(predicted, truth).statistic) if _ordered(predicted, truth) else 0.0


def _ordered(predicted: FloatArray, truth: FloatArray) -> bool:
    return bool(np.ptp(predicted) > 0 and np.ptp(truth) > 0)


def pairwise_accuracy(predicted: FloatArray, truth: FloatArray) -> float:
    """Share of pairs with differing true values in the right order, equal predictions half; 0.5 where none differ."""
    agree = pairs = 0.0
    for row in range(len(truth) - 1):
        signs = np.sign(truth[row + 1 :] - truth[row])
        agree += float(signs @ np.sign(predicted[row + 1 :] - predicted[row]))
        pairs += np.count_nonzero(signs)
    return 0.5 + agree / (2 * pairs) if pairs else 0.5
