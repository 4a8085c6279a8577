"""An additive stand-in for a metric that is not a sum over layers, such as the error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nas.genotype import FloatArray, IntArray, active, choice_counts
from nas.problem import Problem
from nas.tables import AdditiveCost, AdditiveTable

_RIDGE = 1.0

_REACH = 0.1
"""Share of the genes by which a member may differ from the nearest centre before it counts 1/e as much."""


@dataclass(frozen=True)
class Genewise:
    """A constant and one weight per gene and choice, shape (genes, most choices), for the genes that have an effect."""

    weights: FloatArray
    constant: float

    def __call__(self, problem: Problem, population: IntArray) -> FloatArray:
        """The value of each canonical genotype, shape (n,)."""
        taken = self.weights[np.arange(len(self.weights)), population] * active(problem.space, population)
        total: FloatArray = self.constant + taken.sum(axis=1)
        return total

    def additive(self, problem: Problem) -> AdditiveCost:
        """The same as tables, so that it can be an additive metric of a problem."""
        return AdditiveCost(tuple(self._table(problem, gene) for gene in range(len(self.weights))), self.constant)

    def _table(self, problem: Problem, gene: int) -> AdditiveTable:
        genes, count = problem.space.genes, len(problem.space.genes[gene].choices)
        gate, values = genes[gene].gate, self.weights[gene, :count]
        if gate is None:
            return AdditiveTable((gene,), (1,), values.copy())
        levels = len(genes[gate.gene].choices)
        table = np.where(np.arange(levels)[:, None] >= gate.least, values, 0.0)
        if gate.gene < gene:
            return AdditiveTable((gate.gene, gene), (count, 1), table.reshape(-1))
        return AdditiveTable((gene, gate.gene), (levels, 1), table.T.reshape(-1))


def fit(
    problem: Problem,
    population: IntArray,
    values: FloatArray,
    importance: FloatArray | None = None,
    prior: Genewise | None = None,
) -> Genewise:
    """Ridge least squares on the one-hot choices of the genes that have an effect.

    Args:
        problem: Gives the genes.
        population: Canonical genotypes, shape (n, genes).
        values: The metric of each, shape (n,).
        importance: What each counts for, shape (n,); 1 if not given.
        prior: Where given, only what it leaves is fitted, so that far from important members it stays as it was.

    Returns:
        Weights, 0 (or the prior's) where a choice never occurs, and a constant.
    """
    most = int(choice_counts(problem.space).max())
    share = np.ones(len(values)) if importance is None else importance
    start = prior or Genewise(np.zeros((len(problem.allowed), most)), 0.0)
    rest = values - start(problem, population)
    effect = active(problem.space, population)
    hot = (population[:, :, None] == np.arange(most)) & effect[:, :, None]
    features = hot.reshape(len(population), -1).astype(np.float64)
    means, mean = share @ features / share.sum(), float(share @ rest / share.sum())
    centred = features - means
    gram = centred.T @ (share[:, None] * centred) + _RIDGE * np.eye(len(means))
    weights = np.linalg.solve(gram, centred.T @ (share * (rest - mean)))
    return Genewise(start.weights + weights.reshape(-1, most), start.constant + mean - float(means @ weights))


def nearness(population: IntArray, centre: IntArray) -> FloatArray:
    """Importance of members for a fit near some genotypes, shape (n,): exp(-distance to the nearest), of mean 1."""
    distance = np.min([(population != member).mean(axis=1) for member in centre], axis=0)
    near = np.exp(-distance / _REACH)
    share: FloatArray = near / near.mean()
    return share
