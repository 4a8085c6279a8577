"""Search in sequence, as it is done where the choices are not made at once: architectures, then zeros, then bits.

Architectures are searched at 8 bits unpruned; then pruning opens for all of the front that was found, or for one of
them, and then bits for all of that front. Nothing that an earlier step decided changes later. Every step is a search by
the same sampler over a space of its own, in which the networks found so far are the choices of one gene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from experiments.problems import dense_8bit
from nas.errors import NasError
from nas.genotype import Gene, GeneKind, IntArray, SearchSpace, canonical, distinct
from nas.network import Network
from nas.problem import Problem
from nas.search.archive import Archive
from nas.search.evolution import Evolution

STEPS: tuple[tuple[GeneKind, ...], ...] = (("sparsity",), ("weight_bits", "act_bits"))
"""What opens after the architectures, step by step."""


@dataclass(frozen=True)
class Opened:
    """The networks of a space that differ from given ones in some kinds of genes alone.

    Its first gene chooses one of the given networks, the others replace what that one had. So the genes of a layer that
    a network lacks have no effect, and some genotypes mean the same network.

    Attributes:
        space: The whole space.
        members: The given networks, canonical genotypes of the whole space, shape (n, genes).
        kinds: The genes that are open.
    """

    space: SearchSpace
    members: IntArray
    kinds: tuple[GeneKind, ...]

    @cached_property
    def columns(self) -> list[int]:
        """The open genes of the whole space."""
        return [place for place, gene in enumerate(self.space.genes) if gene.kind in self.kinds]

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        opened = (replace(self.space.genes[place], gate=None) for place in self.columns)
        return Gene("network", "width", tuple(range(len(self.members)))), *opened

    def whole(self, population: IntArray) -> IntArray:
        """Canonical genotypes of the whole space, from genotypes of this one, shape (n, genes of either)."""
        genotypes = self.members[population[:, 0]]
        genotypes[:, self.columns] = population[:, 1:]
        return canonical(self.space, genotypes)

    def own(self) -> IntArray:
        """The given networks as they are, as genotypes of this space."""
        return np.column_stack([np.arange(len(self.members)), self.members[:, self.columns]])

    def those(self, networks: IntArray) -> IntArray:
        """Those networks of the whole space, shape (n, genes), that belong to this one, as genotypes of it."""
        closed = np.setdiff1d(np.arange(len(self.space.genes)), self.columns)
        members = {row.tobytes(): place for place, row in enumerate(np.ascontiguousarray(self.members[:, closed]))}
        kept = np.ascontiguousarray(networks[:, closed].astype(self.members.dtype))
        places = np.array([members.get(row.tobytes(), -1) for row in kept], dtype=np.int64)
        return np.column_stack([places, networks[:, self.columns]])[places >= 0]

    def lower(self, genotype: Sequence[int]) -> Network:
        return self.space.lower(self.whole(np.array([genotype]))[0].tolist())

    def maximal(self) -> tuple[Network, ...]:
        return self.space.maximal()


def opened(problem: Problem, members: IntArray, kinds: tuple[GeneKind, ...]) -> Problem:
    """The same problem, over given networks with some kinds of genes open."""
    space = Opened(problem.space, members, kinds)
    choices = (tuple(range(len(members))), *(problem.allowed[place] for place in space.columns))
    evaluate = problem.evaluate
    return replace(
        problem, space=space, allowed=choices, additive={}, pipelined={},
        evaluate=lambda population: evaluate(space.whole(population)),
    )  # fmt: skip


def sequential(problem: Problem, sampler: Evolution, seed: int, starts: IntArray) -> Archive:
    """Everything that a search in sequence evaluates; its front is that of the last step.

    Args:
        problem: What is asked.
        sampler: How each of the three steps is searched.
        seed: Of all steps.
        starts: Networks of an earlier search, shape (n, genes). Every step begins with what it may decide of them.

    Raises:
        NasError: The space has no unpruned 8-bit networks, or none of a step satisfies the constraints.
    """
    dense, found = _dense(problem), Archive(problem)
    found.add(sampler.run(dense, seed, starts=_undecided(dense, starts, ())).genotypes, sampler.name)
    return _compressed(dense, found, sampler, seed, starts)


def committed(problem: Problem, sampler: Evolution, seed: int, starts: IntArray) -> Archive:
    """Everything that pruning and bits evaluate of one architecture, the middle one of the front by error.

    So are ProxylessNAS, AMC and HAQ applied where APQ compares itself with them (arXiv 2006.08509, section 4).

    Args:
        problem: What is asked.
        sampler: How each of the three steps is searched.
        seed: Of all steps.
        starts: Networks of an earlier search, shape (n, genes). Their architecture stays.

    Raises:
        NasError: As `sequential`.
    """
    dense, found = _dense(problem), Archive(problem)
    chosen = _undecided(dense, starts, ())
    if not len(chosen):
        front = _front(sampler.run(dense, seed))
        chosen = front[[len(front) // 2]]
    found.add(chosen, sampler.name)
    return _compressed(dense, found, sampler, seed, starts)


def _dense(problem: Problem) -> Problem:
    dense = dense_8bit(problem)
    if dense is None:
        raise NasError("a search in sequence begins with unpruned networks of 8 bits; allow sparsity 0 and 8 bits")
    return dense


def _compressed(dense: Problem, found: Archive, sampler: Evolution, seed: int, starts: IntArray) -> Archive:
    """The archive with what the later steps add to it."""
    problem, decided = found.problem, list[GeneKind]()
    for kinds in STEPS:
        decided += kinds
        step = opened(problem, _front(found), kinds)
        assert isinstance(step.space, Opened)
        begun = np.concatenate([step.space.own(), step.space.those(_undecided(dense, starts, decided))])
        archive = sampler.run(step, seed, starts=distinct(begun))
        found.add(distinct(step.space.whole(archive.genotypes)), sampler.name)
    return found


def _undecided(dense: Problem, networks: IntArray, decided: Sequence[GeneKind]) -> IntArray:
    """The networks with 8 bits and no zeros where that is not decided yet, each once."""
    reduced = networks.copy()
    for column, (gene, choices) in enumerate(zip(dense.space.genes, dense.allowed, strict=True)):
        if gene.kind not in decided and any(gene.kind in kinds for kinds in STEPS):
            reduced[:, column] = choices[0]
    return distinct(canonical(dense.space, reduced))


def _front(found: Archive) -> IntArray:
    """Genotypes of the front, the best of the first objective last, as choices ascend in size."""
    front = found.front()
    if not len(front):
        raise NasError("no network of this step satisfies the constraints; loosen them, or name a larger device")
    return found.genotypes[front[np.argsort(-found.problem.costs(found.metrics[front])[:, 0], kind="stable")]]
