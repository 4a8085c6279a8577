"""The tables of an additive cost, reduced to the genes that each of them needs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.genotype import FloatArray, IntArray, SearchSpace
from nas.problem import Problem
from nas.tables import AdditiveCost, AdditiveTable

CLOSED = -1
"""Stands for the choice of a gene that has no effect, because its gate is below its least."""


@dataclass(frozen=True)
class Factor:
    """A share of a cost: the value of each state of a few genes.

    Attributes:
        genes: The genes, ascending.
        states: Every distinct combination of their allowed choices, `CLOSED` where one has no effect, (states, genes).
        values: Shape (states,).
    """

    genes: tuple[int, ...]
    states: IntArray
    values: FloatArray

    def at(self, genes: Sequence[int], states: IntArray) -> FloatArray:
        """The values at states of more genes, shape (n, more genes)."""
        if not self.genes:
            return np.repeat(self.values, len(states))
        wanted = states[:, [genes.index(gene) for gene in self.genes]]
        strides = np.cumprod([1, *(self.states.max(axis=0)[:-1] + 2)])
        keys = (self.states + 1) @ strides
        order = np.argsort(keys)
        found: FloatArray = self.values[order][np.searchsorted(keys[order], (wanted + 1) @ strides)]
        return found


def factors(problem: Problem, cost: AdditiveCost) -> tuple[Factor, ...]:
    """One factor for each table, over the canonical genotypes of allowed choices."""
    return tuple(_reduced(problem, table) for table in cost.tables)


def _reduced(problem: Problem, table: AdditiveTable) -> Factor:
    """Leave out, one by one, the genes without which the value is known still.

    Most often the depth goes: that a layer is absent shows in its own genes, which are closed then.
    """
    gates = {gate.gene for gene in table.genes if (gate := problem.space.genes[gene].gate) is not None}
    genes = sorted(gates.union(table.genes))
    states = combinations(problem, genes)
    rows = np.maximum(states[:, [genes.index(gene) for gene in table.genes]], 0) @ np.array(table.strides)
    values = table.values[rows.astype(np.int64)]
    for gene in sorted(genes, key=lambda gene: problem.space.genes[gene].gate is not None):
        rest = np.delete(states, genes.index(gene), axis=1)
        fewer, first, inverse = _unique(rest)
        if (values[first][inverse] == values).all():
            states, values = fewer, values[first]
            genes.remove(gene)
    return Factor(tuple(genes), states, values)


def combinations(problem: Problem, genes: Sequence[int]) -> IntArray:
    """Distinct states of these genes, which hold the gates of all of them, shape (states, genes)."""
    product = list(itertools.product(*(problem.allowed[gene] for gene in genes)))
    states = np.array(product, dtype=np.int64).reshape(len(product), len(genes))
    return _unique(closed(problem.space, genes, states))[0]


def closed(space: SearchSpace, genes: Sequence[int], states: IntArray) -> IntArray:
    """Set to `CLOSED` what has no effect; the genes hold the gates of all of them."""
    states = states.copy()
    for column, gene in enumerate(genes):
        gate = space.genes[gene].gate
        if gate is not None:
            states[states[:, genes.index(gate.gene)] < gate.least, column] = CLOSED
    return states


def _unique(states: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Distinct rows, the first row of each, and for each row the place of its like."""
    if not states.shape[1]:
        return states[:1], np.zeros(1, dtype=np.int64), np.zeros(len(states), dtype=np.int64)
    strides = np.cumprod([1, *(states.max(axis=0)[:-1] + 2)])
    _, first, inverse = np.unique((states + 1) @ strides, return_index=True, return_inverse=True)
    return states[first], first, inverse
