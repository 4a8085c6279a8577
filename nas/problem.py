"""What a search is asked.

The search sees plain callables: where an error or a latency comes from, it does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray, SearchSpace, active, canonical, choice_counts, choice_type
from nas.tables import AdditiveCost, PipelinedCost


@dataclass(frozen=True, slots=True)
class Constraint:
    """`metric <= limit`."""

    metric: str
    limit: float

    def __str__(self) -> str:
        return f"{self.metric} <= {self.limit:g}"


@dataclass(frozen=True)
class Problem:
    """Minimise the objectives over the allowed genotypes, under constraints.

    Attributes:
        space: The search space.
        metrics: Names of the columns that `evaluate` returns.
        evaluate: Canonical genotypes, shape (n, genes), to finite metrics, shape (n, metrics).
        objectives: The metrics to minimise.
        constraints: Upper limits on metrics.
        allowed: For each gene, the choice indices the device supports.
        additive: The exact sum over layers of those metrics that are one.
        pipelined: The exact maximum over stages of those metrics that are one.

    Raises:
        NasError: An objective or constraint names no metric, or a gene has no allowed choice.
    """

    space: SearchSpace
    metrics: tuple[str, ...]
    evaluate: Callable[[IntArray], FloatArray]
    objectives: tuple[str, ...]
    constraints: tuple[Constraint, ...]
    allowed: tuple[tuple[int, ...], ...]
    additive: Mapping[str, AdditiveCost]
    pipelined: Mapping[str, PipelinedCost] = field(default_factory=dict)

    def __post_init__(self) -> None:
        named = [*self.objectives, *(c.metric for c in self.constraints), *self.priced]
        for name in named:
            if name not in self.metrics:
                raise NasError(f"{name!r} is not a metric of this problem; it has {', '.join(self.metrics)}")
        if not self.objectives:
            raise NasError("a problem needs at least one objective")
        if len(self.allowed) != len(self.space.genes):
            raise NasError(f"allowed choices must list {len(self.space.genes)} genes, got {len(self.allowed)}")
        for gene, indices in zip(self.space.genes, self.allowed, strict=True):
            if not indices or not set(indices) <= set(range(len(gene.choices))):
                law = f"allowed choice indices must be some of 0..{len(gene.choices) - 1}, at least one"
                raise NasError(f"gene {gene.name}: {law}; got {list(indices)}")

    @cached_property
    def priced(self) -> Mapping[str, AdditiveCost | PipelinedCost]:
        """The metrics an integer program can hold."""
        return {**self.additive, **self.pipelined}

    def columns(self, names: tuple[str, ...]) -> list[int]:
        """Columns of these metrics."""
        return [self.metrics.index(name) for name in names]

    def costs(self, metrics: FloatArray) -> FloatArray:
        """The objectives' columns, shape (n, objectives)."""
        return metrics[:, self.columns(self.objectives)]

    def violation(self, metrics: FloatArray) -> FloatArray:
        """Summed excess over the limits, each divided by its limit, shape (n,); 0 means feasible."""
        total = np.zeros(len(metrics))
        for constraint in self.constraints:
            excess = metrics[:, self.metrics.index(constraint.metric)] - constraint.limit
            total += np.maximum(excess, 0) / (abs(constraint.limit) or 1.0)
        return total

    def require_allowed(self, population: IntArray) -> IntArray:
        """The canonical form of genotypes, shape (n, genes), once every gene that counts takes an allowed choice."""
        if population.ndim != 2 or population.shape[1] != len(self.allowed):
            raise NasError(f"a population must have shape (n, {len(self.allowed)}), got {population.shape}")
        counts = active(self.space, population)
        for gene, indices, column, used in zip(self.space.genes, self.allowed, population.T, counts.T, strict=True):
            strange = sorted(set(column[used].tolist()) - set(indices))
            if strange:
                raise NasError(f"gene {gene.name}: allowed choice indices are {list(indices)}, got {strange[0]}")
        return canonical(self.space, population)

    @cached_property
    def allowed_counts(self) -> IntArray:
        """Number of allowed choices per gene, shape (genes,)."""
        return np.array([len(indices) for indices in self.allowed])

    @cached_property
    def _choice(self) -> IntArray:
        """Ascending allowed indices of each gene, padded, shape (genes, most choices)."""
        table = np.zeros((len(self.allowed), choice_counts(self.space).max()), dtype=choice_type(self.space))
        for row, indices in zip(table, self.allowed, strict=True):
            row[: len(indices)] = sorted(indices)
        return table

    @cached_property
    def _all_allowed(self) -> bool:
        """Whether positions within the allowed choices are the choices' own."""
        return bool((self.allowed_counts == choice_counts(self.space)).all())

    def ranks(self, population: IntArray) -> IntArray:
        """Position of each gene's choice among its allowed ones, 0 for a gene that has no effect; shapes (n, genes)."""
        match = self._choice[None, :, :] == population[:, :, None]
        return np.where(active(self.space, population), match.argmax(axis=2), 0).astype(self._choice.dtype)

    def genotypes(self, ranks: IntArray) -> IntArray:
        """Canonical genotypes from positions within each gene's allowed choices, both of shape (n, genes)."""
        if self._all_allowed:
            return canonical(self.space, ranks.astype(self._choice.dtype, copy=False))
        starts = np.arange(len(self._choice)) * self._choice.shape[1]
        return canonical(self.space, self._choice.take(ranks + starts))


def sample(problem: Problem, size: int, rng: np.random.Generator) -> IntArray:
    """Allowed genotypes with independent uniform genes, canonical, shape (size, genes); may hold duplicates."""
    counts = problem.allowed_counts
    return problem.genotypes(rng.integers(0, counts, size=(size, len(counts))))


def sample_sizes(problem: Problem, size: int, rng: np.random.Generator) -> IntArray:
    """Allowed genotypes from the smallest to the largest network, canonical, shape (size, genes).

    Independent genes make every network middle-sized. Here each genotype has a level in 0..1 of its own, and a
    gene with k choices takes its index from a binomial distribution over k - 1 tries at that level.
    """
    counts = problem.allowed_counts
    levels = np.linspace(0, 1, size)[:, None]
    return problem.genotypes(rng.binomial(counts - 1, levels, size=(size, len(counts))))
