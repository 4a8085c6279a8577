"""An additive stand-in for a metric that is not a sum over layers, such as the error."""

from __future__ import annotations

import numpy as np

from nas.genotype import FloatArray, IntArray, active, choice_counts
from nas.problem import Problem

_RIDGE = 1.0


def fit(problem: Problem, population: IntArray, values: FloatArray) -> tuple[FloatArray, float]:
    """Ridge least squares on the one-hot choices of the genes that have an effect.

    Args:
        problem: Gives the genes.
        population: Canonical genotypes, shape (n, genes).
        values: The metric of each, shape (n,).

    Returns:
        Weights of shape (genes, most choices), 0 where a choice never occurs, and a constant.
    """
    most = int(choice_counts(problem.space).max())
    effect = active(problem.space, population)
    hot = (population[:, :, None] == np.arange(most)) & effect[:, :, None]
    features = hot.reshape(len(population), -1).astype(np.float64)
    means, mean = features.mean(axis=0), float(values.mean())
    centred = features - means
    gram = centred.T @ centred + _RIDGE * np.eye(len(means))
    weights = np.linalg.solve(gram, centred.T @ (values - mean))
    return weights.reshape(-1, most), mean - float(means @ weights)
