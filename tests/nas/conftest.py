"""Small problems whose every genotype can be listed."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from nas.errors import NasError
from nas.genotype import FloatArray, Gate, Gene, IntArray, SearchSpace, active, canonical
from nas.network import Network
from nas.problem import Constraint, Problem
from nas.tables import AdditiveCost, AdditiveTable


@dataclass(frozen=True)
class BareSpace:
    """Genes alone: what a search sees of a space."""

    genes: tuple[Gene, ...]

    def lower(self, genotype: Sequence[int]) -> Network:
        raise NasError("a bare space has no networks")

    def maximal(self) -> tuple[Network, ...]:
        raise NasError("a bare space has no networks")


def every_genotype(space: SearchSpace, allowed: Sequence[Sequence[int]] | None = None) -> IntArray:
    choices = allowed or [range(len(gene.choices)) for gene in space.genes]
    return np.unique(canonical(space, np.array(list(itertools.product(*choices)))), axis=0)


def random_space(rng: np.random.Generator, genes: int) -> BareSpace:
    """The first two genes gate about half of the others."""
    made = [Gene(f"d{index}", "depth", tuple(range(1, int(rng.integers(2, 4)) + 1))) for index in range(2)]
    for index in range(2, genes):
        gate = None
        if rng.random() < 0.5:
            gene = int(rng.integers(2))
            gate = Gate(gene, int(rng.integers(1, len(made[gene].choices))))
        made.append(Gene(f"g{index}", "width", tuple(range(1, int(rng.integers(2, 4)) + 1)), gate))
    return BareSpace(tuple(made))


def random_cost(space: BareSpace, rng: np.random.Generator, tables: int, integer: bool) -> AdditiveCost:
    """Tables over random genes, which may leave out the gate of a gene."""
    made = []
    for _ in range(tables):
        genes = tuple(sorted(rng.choice(len(space.genes), size=int(rng.integers(1, 4)), replace=False).tolist()))
        sizes = [len(space.genes[gene].choices) for gene in genes]
        strides = tuple(int(np.prod(sizes[axis + 1 :], dtype=int)) for axis in range(len(sizes)))
        values = rng.integers(0, 50, size=sizes).astype(float) if integer else rng.random(sizes) * 1e-5
        if rng.random() < 0.5:
            values = np.broadcast_to(values.take([0], axis=0), sizes)
        made.append(AdditiveTable(genes, strides, values.reshape(-1).copy()))
    return AdditiveCost(tuple(made), 7.0 if integer else 2e-6)


def bare_problem(seed: int, genes: int = 7) -> Problem:
    """Metrics: `error`, one weight per choice in effect plus interactions; additive `latency_s` and `lut`."""
    rng = np.random.default_rng(seed)
    space = random_space(rng, genes)
    costs = {name: random_cost(space, rng, 6, name == "lut") for name in ("latency_s", "lut")}
    weights, pairs = rng.random((genes, 3)) * 0.1, rng.normal(size=(genes, genes)) * 0.01

    def evaluate(population: IntArray) -> FloatArray:
        effect = active(space, population)
        error = 0.2 + (weights[np.arange(genes), population] * effect).sum(axis=1)
        error += np.einsum("ni,ij,nj->n", population * effect, pairs, population * effect)
        return np.stack([error, *(cost(population) for cost in costs.values())], axis=1)

    allowed = []
    for gene in space.genes:
        size = len(gene.choices)
        kept = rng.choice(size, size=int(rng.integers(1, size + 1)), replace=False)
        allowed.append(tuple(sorted(kept.tolist())))
    allowed[:2] = [tuple(range(len(gene.choices))) for gene in space.genes[:2]]
    metrics = ("error", "latency_s", "lut")
    return Problem(space, metrics, evaluate, metrics, (), tuple(allowed), costs)


@pytest.fixture
def every() -> Callable[..., IntArray]:
    """All distinct canonical genotypes of a space, within allowed choices."""
    return every_genotype


@pytest.fixture
def make_problem() -> Callable[..., Problem]:
    """A random problem from a seed."""
    return bare_problem


@pytest.fixture
def limited() -> Callable[[Problem, str, float], Constraint]:
    """A constraint that a given share of all genotypes meets."""

    def make(problem: Problem, metric: str, share: float) -> Constraint:
        values = problem.evaluate(every_genotype(problem.space, problem.allowed))
        return Constraint(metric, float(np.quantile(values[:, problem.metrics.index(metric)], share)))

    return make


@pytest.fixture
def coupled() -> Callable[[Problem, np.random.Generator, bool], AdditiveCost]:
    """A cost of fifty random tables over a bare problem's genes."""

    def make(problem: Problem, rng: np.random.Generator, integer: bool) -> AdditiveCost:
        return random_cost(BareSpace(problem.space.genes), rng, 50, integer)

    return make
