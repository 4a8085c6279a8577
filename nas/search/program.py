"""A problem as a 0-1 linear program: one choice per gene, one form per layer.

`x[gene, choice]` picks a choice; the choices of a gene without effect sum to 0, all others to 1. For every group of
genes that some table of a cost needs together, `y[state]` picks one of their states, tied to x by its marginals: the
states in which a gene takes a choice sum to that x. So a cost of layers that share genes is linear without a product
of variables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nas.genotype import BoolArray, FloatArray, Genotype, IntArray, active, choice_counts
from nas.problem import Problem
from nas.search.archive import Status
from nas.search.factors import CLOSED, Factor, factors
from nas.tables import AdditiveCost


@dataclass(frozen=True)
class Linear:
    """`coefficients @ columns + constant`."""

    coefficients: FloatArray
    constant: float

    def __call__(self, chosen: BoolArray) -> float:
        return float(self.coefficients[chosen].sum()) + self.constant

    def times(self, factor: float) -> Linear:
        return Linear(self.coefficients * factor, self.constant * factor)

    def plus(self, other: Linear) -> Linear:
        return Linear(self.coefficients + other.coefficients, self.constant + other.constant)


@dataclass(frozen=True)
class Peak:
    """The largest of several linear quantities, such as the slowest stage of a pipeline."""

    parts: tuple[Linear, ...]

    def __call__(self, chosen: BoolArray) -> float:
        return max(part(chosen) for part in self.parts)

    def times(self, factor: float) -> Peak:
        """`factor` is positive."""
        return Peak(tuple(part.times(factor) for part in self.parts))


@dataclass(frozen=True)
class Equality:
    """The columns of `plus` sum to those of `minus` plus `right`."""

    plus: IntArray
    minus: IntArray
    right: int = 0


Limit = tuple[Linear, float]
"""A quantity and its upper limit."""


@dataclass(frozen=True)
class Program:
    """Binary columns and what ties them.

    Attributes:
        columns: Number of columns.
        chosen: At most this many columns are 1 together.
        choices: Column of each gene and choice, -1 where not allowed, shape (genes, most choices).
        equalities: What holds for every genotype.
        costs: The additive metrics over the columns.
        peaks: The pipelined metrics over the columns.
    """

    columns: int
    chosen: int
    choices: IntArray
    equalities: tuple[Equality, ...]
    costs: Mapping[str, Linear]
    peaks: Mapping[str, Peak]

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

    def limits(self, metric: str, limit: float) -> list[Limit]:
        """`metric <= limit`: of a pipelined one, every stage."""
        parts = self.peaks[metric].parts if metric in self.peaks else (self.costs[metric],)
        return [(part, limit) for part in parts]

    def without(self, problem: Problem, genotype: IntArray) -> Limit:
        """A cut that leaves out one canonical genotype, shape (genes,), and no other.

        A network that made all of its choices would have all of its gates, hence no further genes: it would be it.
        """
        genes = np.flatnonzero(active(problem.space, genotype[None])[0])
        coefficients = np.zeros(self.columns)
        coefficients[self.choices[genes, genotype[genes]]] = 1.0
        return Linear(coefficients, 0.0), len(genes) - 1.0


@dataclass(frozen=True)
class Solution:
    """What a solver found: `bound <= optimum <= value`, None where it has none."""

    status: Status
    chosen: BoolArray | None = None
    value: float | None = None
    bound: float | None = None


class Solve(Protocol):
    """Minimise an objective plus some peaks under limits."""

    def __call__(
        self,
        program: Program,
        objective: Linear,
        limits: Sequence[Limit],
        effort: float,
        seed: int,
        peaks: Sequence[Peak] = (),
    ) -> Solution: ...


Shares = dict[str, list[tuple[Factor, ...]]]
"""The factors of each sum that a metric is made of."""


def build(problem: Problem, metrics: Sequence[str], known: Shares | None = None) -> Program:
    """The program of a problem, with these of its additive and pipelined metrics.

    Args:
        problem: The problem.
        metrics: Which metrics.
        known: Factors of programs of the same problem built before; those made now are added.
    """
    sums = {name: _sums(problem, name) for name in metrics}
    made = {} if known is None else known
    made |= {name: [factors(problem, cost) for cost in costs] for name, costs in sums.items() if name not in made}
    shares = {name: made[name] for name in metrics}
    choices, columns = _choices(problem)
    equalities = [_one_choice(problem, choices, gene) for gene in range(len(choices))]
    owners = _owners([factor for parts in shares.values() for part in parts for factor in part])
    groups: dict[Genotype, _Group] = {}
    for owner in owners.values():
        if owner.genes not in groups:
            groups[owner.genes] = _Group(owner, columns + np.arange(len(owner.states)))
            columns += len(owner.states)
            equalities += _marginals(problem, groups[owner.genes], choices)
    by_genes = {genes: groups[owner.genes] for genes, owner in owners.items()}

    linear = {
        name: [
            _linear(cost.constant, part, by_genes, choices, columns)
            for cost, part in zip(costs, shares[name], strict=True)
        ]
        for name, costs in sums.items()
    }
    return Program(
        columns,
        len(choices) + len(groups),
        choices,
        tuple(equalities),
        {name: parts[0] for name, parts in linear.items() if name in problem.additive},
        {name: Peak(tuple(parts)) for name, parts in linear.items() if name not in problem.additive},
    )


def _sums(problem: Problem, metric: str) -> tuple[AdditiveCost, ...]:
    """The sums a metric is made of: itself, or the stages of a pipeline."""
    return (problem.additive[metric],) if metric in problem.additive else problem.pipelined[metric].stages


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


@dataclass(frozen=True)
class _Group:
    """Genes that some factor needs together, and a column for each of their states."""

    factor: Factor
    columns: IntArray


def _owners(shares: Sequence[Factor]) -> dict[Genotype, Factor]:
    """For each set of two genes or more that a factor needs, the largest factor whose genes hold them all."""
    owners: dict[Genotype, Factor] = {}
    for factor in sorted(shares, key=lambda factor: -len(factor.genes)):
        if len(factor.genes) > 1 and factor.genes not in owners:
            holders = (owner for owner in owners.values() if set(factor.genes) <= set(owner.genes))
            owners[factor.genes] = next(holders, factor)
    return owners


def _marginals(problem: Problem, group: _Group, choices: IntArray) -> list[Equality]:
    """One state holds, and a choice holds exactly where the state has it."""
    ties = [Equality(group.columns, choices[0, :0], 1)]
    for gene, taken in zip(group.factor.genes, group.factor.states.T, strict=True):
        for choice in problem.allowed[gene]:
            ties.append(Equality(group.columns[taken == choice], choices[gene, [choice]]))
    return ties


def _linear(
    constant: float, shares: Sequence[Factor], groups: Mapping[Genotype, _Group], choices: IntArray, columns: int
) -> Linear:
    """A cost over the columns: a factor of one gene needs no states, and one of none is a constant."""
    coefficients = np.zeros(columns)
    for factor in shares:
        if len(factor.genes) > 1:
            group = groups[factor.genes]
            coefficients[group.columns] += factor.at(group.factor.genes, group.factor.states)
            continue
        away = _away(factor)
        constant += away
        for gene in factor.genes:
            taken = factor.states[:, 0] != CLOSED
            coefficients[choices[gene, factor.states[taken, 0]]] += factor.values[taken] - away
    return Linear(coefficients, constant)


def _away(factor: Factor) -> float:
    """The value of a factor of one gene at most, where that gene takes no choice."""
    if not factor.genes:
        return float(factor.values[0])
    return float(factor.values[factor.states[:, 0] == CLOSED].sum())
