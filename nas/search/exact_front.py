"""The whole front of two additive objectives, by exact dynamic programming.

Genes are eliminated one by one, those first that tie the fewest others together; what is left of them is, for each
state of the genes they share a table with, the set of labels that no other dominates (bucket elimination over sets of
labels: Rollon and Larrosa, "Bucket elimination for multiobjective optimization problems", 2006, section 4). So the
private genes of a layer go first, then its layers are joined under their depth, and the stages last.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas.errors import NasError
from nas.genotype import FloatArray, Genotype, IntArray
from nas.problem import Problem
from nas.search.factors import CLOSED, Factor, combinations, factors
from nas.tables import AdditiveCost

_BLOCK = 4_000_000
"""Most sums of labels looked at together."""

_MOST_LABELS = 1_000_000
_MOST_STATES = 100_000


@dataclass(frozen=True)
class Front:
    """Networks that none dominates, one for each point, ascending in the first objective.

    Attributes:
        genotypes: Canonical, shape (n, genes).
        values: Shape (n, 2).
    """

    genotypes: IntArray
    values: FloatArray


@dataclass(frozen=True)
class _Labels:
    """Points that none dominates, ascending in the first: values (n, 2) and the choices they come from, (n, genes)."""

    values: FloatArray
    choices: npt.NDArray[np.int16]


@dataclass(frozen=True)
class _Bucket:
    """The labels of each state of some genes; no labels where a state cannot be."""

    genes: Genotype
    labels: Mapping[Genotype, _Labels]


def exact_front(problem: Problem, first: AdditiveCost, second: AdditiveCost) -> Front:
    """Every point of the front of two sums over layers, to rounding, over the allowed choices.

    Values that are limited need no more than this: drop what exceeds the limit.

    Raises:
        NasError: The genes share too many tables, or the front has too many points, to be listed.
    """
    buckets = [_bucket(problem, factor, column) for column, cost in enumerate((first, second))
               for factor in factors(problem, cost)]  # fmt: skip
    buckets += [_gate(problem, gene) for gene in range(len(problem.allowed))]
    left = set(range(len(problem.allowed)))
    while left:
        gene = min(left, key=lambda gene: (_width(buckets, gene), gene))
        left.remove(gene)
        own = [bucket for bucket in buckets if gene in bucket.genes]
        buckets = [bucket for bucket in buckets if gene not in bucket.genes] + [_eliminated(problem, own, gene)]
    found = _total(len(problem.allowed), [bucket.labels[()] for bucket in buckets])
    genotypes = found.choices.astype(np.int64)
    values = np.stack([first(genotypes), second(genotypes)], axis=1)
    kept = _kept(values)
    return Front(genotypes[kept], values[kept])


def _bucket(problem: Problem, factor: Factor, column: int) -> _Bucket:
    values = np.zeros((len(factor.values), 2))
    values[:, column] = factor.values
    nothing = np.zeros((1, len(problem.allowed)), dtype=np.int16)
    labels = {
        tuple(state): _Labels(value[None], nothing) for state, value in zip(factor.states.tolist(), values, strict=True)
    }
    return _Bucket(factor.genes, labels)


def _gate(problem: Problem, gene: int) -> _Bucket:
    """Which choices a gene may take: with its gate, where it has one."""
    gate = problem.space.genes[gene].gate
    genes = tuple(sorted({gene} if gate is None else {gene, gate.gene}))
    states = combinations(problem, genes)
    return _bucket(problem, Factor(genes, states, np.zeros(len(states))), 0)


def _width(buckets: Sequence[_Bucket], gene: int) -> int:
    """How many other genes are tied together once this one is gone."""
    return len({other for bucket in buckets if gene in bucket.genes for other in bucket.genes})


def _eliminated(problem: Problem, own: Sequence[_Bucket], gene: int) -> _Bucket:
    """Join the buckets of a gene, and keep for each state of the others what no choice of it makes better."""
    rest = tuple(sorted({other for bucket in own for other in bucket.genes} - {gene}))
    genes = (*rest, gene)
    picks = [[genes.index(other) for other in bucket.genes] for bucket in own]
    found: dict[Genotype, list[_Labels]] = {}
    domains = [_domain(problem, other) for other in genes]
    if np.prod([len(domain) for domain in domains], dtype=float) > _MOST_STATES:
        names = ", ".join(problem.space.genes[other].name for other in genes)
        raise NasError(f"the exact front must list all states of {names} together; use an epsilon-constraint sweep")
    for state in itertools.product(*domains):
        parts = [bucket.labels.get(tuple([state[i] for i in pick])) for bucket, pick in zip(own, picks, strict=True)]
        if all(part is not None for part in parts):
            labels = _total(len(problem.allowed), [part for part in parts if part is not None])
            if state[-1] != CLOSED:
                labels.choices[:, gene] = state[-1]
            found.setdefault(state[:-1], []).append(labels)
    return _Bucket(rest, {state: _union(parts) for state, parts in found.items()})


def _domain(problem: Problem, gene: int) -> list[int]:
    return [*([CLOSED] if problem.space.genes[gene].gate is not None else []), *problem.allowed[gene]]


def _union(parts: Sequence[_Labels]) -> _Labels:
    if len(parts) == 1:
        return parts[0]
    values = np.concatenate([part.values for part in parts])
    kept = _kept(values)
    return _Labels(values[kept], np.concatenate([part.choices for part in parts])[kept])


def _total(genes: int, parts: Sequence[_Labels]) -> _Labels:
    """All sums of one label of each, the smallest sets first."""
    total = _Labels(np.zeros((1, 2)), np.zeros((1, genes), dtype=np.int16))
    for part in sorted(parts, key=lambda part: len(part.values)):
        total = _sum(total, part)
    return total


def _sum(many: _Labels, few: _Labels) -> _Labels:
    if len(many.values) < len(few.values):
        many, few = few, many
    if len(few.values) == 1:
        return _Labels(many.values + few.values, many.choices + few.choices)
    rows = max(1, _BLOCK // len(many.values))
    values, pairs = np.zeros((0, 2)), np.zeros(0, dtype=np.int64)
    for start in range(0, len(few.values), rows):
        # Each row is ascending: a stable sort merges them.
        sums = (few.values[start : start + rows, None, :] + many.values[None, :, :]).reshape(-1, 2)
        values = np.concatenate([values, sums])
        pairs = np.concatenate([pairs, start * len(many.values) + np.arange(len(sums))])
        kept = _kept(values)
        values, pairs = values[kept], pairs[kept]
    if len(values) > _MOST_LABELS:
        raise NasError(f"the exact front has over {_MOST_LABELS} points; use an epsilon-constraint sweep")
    # A gene is 0 in all labels but those that chose it.
    return _Labels(values, few.choices[pairs // len(many.values)] + many.choices[pairs % len(many.values)])


def _kept(values: FloatArray) -> IntArray:
    """Places of the points that none dominates, one of equals, ascending in the first value."""
    order = np.argsort(values[:, 0], kind="stable")
    first, second = values[order].T
    lower = np.ones(len(order), dtype=bool)
    lower[1:] = second[1:] < np.minimum.accumulate(second)[:-1]
    order, first = order[lower], first[lower]
    # Among equals in the first value the last is the lowest.
    last = np.ones(len(order), dtype=bool)
    last[:-1] = first[1:] > first[:-1]
    kept: IntArray = order[last]
    return kept
