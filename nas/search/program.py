"""A problem as a 0-1 linear program: one choice per gene, one form per layer.

`x[gene, choice]` picks a choice; the choices of a gene without effect sum to 0, all others to 1. For every table
of an additive cost `y[state]` picks one of its states, tied to x by its marginals: the states in which a gene takes
a choice sum to that x. So a cost of layers that share genes is linear without a product of variables.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nas.genotype import BoolArray, FloatArray, IntArray, active, choice_counts
from nas.problem import Problem
from nas.search.archive import Status
from nas.tables import AdditiveTable

_INACTIVE = -1


@dataclass(frozen=True)
class Linear:
    """`coefficients @ columns + constant`."""

    coefficients: FloatArray
    constant: float

    def __call__(self, chosen: BoolArray) -> float:
        return float(self.coefficients[chosen].sum()) + self.constant


@dataclass(frozen=True)
class Equality:
    """The columns of `plus` sum to those of `minus` plus `right`."""

    plus: IntArray
    minus: IntArray
    right: int = 0


@dataclass(frozen=True)
class Program:
    """Binary columns and what ties them.

    Attributes:
        columns: Number of columns.
        chosen: At most this many columns are 1 together.
        choices: Column of each gene and choice, -1 where not allowed, shape (genes, most choices).
        equalities: What holds for every genotype.
        costs: The additive metrics over the columns.
    """

    columns: int
    chosen: int
    choices: IntArray
    equalities: tuple[Equality, ...]
    costs: Mapping[str, Linear]

    def genewise(self, weights: FloatArray, constant: float) -> Linear:
        """A sum of one weight per gene and choice, shape (genes, most choices), over the genes that have an effect."""
        coefficients = np.zeros(self.columns)
        used = self.choices >= 0
        coefficients[self.choices[used]] = weights[used]
        return Linear(coefficients, constant)

    def genotype(self, chosen: BoolArray) -> IntArray:
        """The canonical genotype a solution means, shape (genes,)."""
        picked = (self.choices >= 0) & chosen[self.choices]
        genotype: IntArray = picked.argmax(axis=1)
        return genotype


@dataclass(frozen=True)
class Solution:
    """What a solver found: `bound <= optimum <= value`, None where it has none."""

    status: Status
    chosen: BoolArray | None = None
    value: float | None = None
    bound: float | None = None


def build(problem: Problem, metrics: Sequence[str]) -> Program:
    """The program of a problem, with these of its additive metrics."""
    choices, columns = _choices(problem)
    equalities = [_one_choice(problem, choices, gene) for gene in range(len(choices))]
    constants = {name: problem.additive[name].constant for name in metrics}
    parts: dict[str, list[tuple[IntArray, FloatArray]]] = {name: [] for name in metrics}
    groups: dict[tuple[int, ...], list[tuple[str, AdditiveTable]]] = defaultdict(list)
    for name in metrics:
        for table in problem.additive[name].tables:
            groups[table.genes].append((name, table))
    for tables in groups.values():
        states = _states(problem, [table for _, table in tables])
        new = columns + np.arange(len(states))
        columns += len(states)
        equalities += _marginals(problem, states, new, choices)
        for name, table in tables:
            parts[name].append((new, table.values[table.rows(np.maximum(states, 0))]))
    costs = {name: _linear(parts[name], columns, constants[name]) for name in metrics}
    return Program(columns, len(choices) + len(groups), choices, tuple(equalities), costs)


def _choices(problem: Problem) -> tuple[IntArray, int]:
    """Columns of the genes' choices, and how many."""
    choices = np.full((len(problem.allowed), choice_counts(problem.space).max()), -1, dtype=np.int64)
    columns = 0
    for row, indices in zip(choices, problem.allowed, strict=True):
        row[list(indices)] = columns + np.arange(len(indices))
        columns += len(indices)
    return choices, columns


def _one_choice(problem: Problem, choices: IntArray, index: int) -> Equality:
    """A gene takes one choice, or none while its gate is below its least."""
    gate, none = problem.space.genes[index].gate, np.zeros(0, dtype=np.int64)
    columns = choices[index][choices[index] >= 0]
    if gate is None:
        return Equality(columns, none, 1)
    opening = choices[gate.gene, gate.least :]
    return Equality(columns, opening[opening >= 0])


def _states(problem: Problem, tables: Sequence[AdditiveTable]) -> IntArray:
    """Distinct states of the genes that matter to tables of the same genes, shape (states, genes).

    A gene that has no effect, or does not matter, is `_INACTIVE`, which the tables read as 0.
    """
    genes = tables[0].genes
    matter = [gene for axis, gene in enumerate(genes) if any(_matters(problem, table, axis) for table in tables)]
    gates = {gate.gene for gene in matter if (gate := problem.space.genes[gene].gate) is not None}
    closure = sorted(gates.union(matter))
    combinations = np.array(list(itertools.product(*(problem.allowed[gene] for gene in closure))), dtype=np.int64)
    population = np.zeros((len(combinations), len(problem.allowed)), dtype=np.int64)
    population[:, closure] = combinations.reshape(len(combinations), len(closure))
    states = np.full_like(population, _INACTIVE)
    states[:, closure] = np.where(active(problem.space, population), population, _INACTIVE)[:, closure]
    return np.unique(states, axis=0)


def _matters(problem: Problem, table: AdditiveTable, axis: int) -> bool:
    """Whether a table's values change with one of its genes, over the allowed choices and 0."""
    domains = [sorted({0, *problem.allowed[gene]}) for gene in table.genes]
    sizes = [len(problem.space.genes[gene].choices) for gene in table.genes]
    values = table.values.reshape(sizes)[np.ix_(*domains)]
    return bool((values != values.take([0], axis=axis)).any())


def _marginals(problem: Problem, states: IntArray, columns: IntArray, choices: IntArray) -> list[Equality]:
    """One state holds, and a choice holds exactly where the state has it."""
    ties = [Equality(columns, choices[0, :0], 1)]
    for gene in np.flatnonzero((states != _INACTIVE).any(axis=0)):
        for choice in problem.allowed[gene]:
            ties.append(Equality(columns[states[:, gene] == choice], choices[gene, [choice]]))
    return ties


def _linear(parts: Sequence[tuple[IntArray, FloatArray]], columns: int, constant: float) -> Linear:
    coefficients = np.zeros(columns)
    for new, values in parts:
        coefficients[new] += values
    return Linear(coefficients, constant)
