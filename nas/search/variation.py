"""How children differ from their parents: crossover by gene or by stage, mutation of genes and of blocks.

Members are ranks: the position of each gene's choice among its allowed ones, shape (n, genes).
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from nas.genotype import BoolArray, FloatArray, IntArray, parts
from nas.problem import Problem

Crossover = Literal["uniform", "stage"]

_CROSSOVER = 0.9
_STAGE, _BLOCK = 1, 2


def cross(
    problem: Problem, members: IntArray, preference: FloatArray, size: int, kind: Crossover, rng: np.random.Generator
) -> IntArray:
    """Children of the winners of binary tournaments, shape (size, genes).

    Args:
        problem: Gives the genes.
        members: The parents, shape (n, genes).
        preference: The lower of two wins; of equals the first drawn. Shape (n,).
        size: Number of children.
        kind: Whether each gene comes from either parent by chance, or each stage as a whole.
        rng: Source of randomness.
    """
    pairs = rng.integers(0, len(members), size=(2, 2, size))
    mother, father = np.where(preference[pairs[:, 0]] <= preference[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
    if kind == "uniform":
        mixed = _coins(size, members.shape[1], rng)
    else:
        stages = parts(problem.space, _STAGE)
        mixed = _coins(size, int(stages.max()) + 1, rng)[:, stages]
    mixed &= rng.random((size, 1)) < _CROSSOVER
    children: IntArray = members[mother]
    children ^= (children ^ members[father]) * mixed  # as np.where, without its branches
    return children


def mutate_genes(problem: Problem, ranks: IntArray, expected: float, rng: np.random.Generator) -> IntArray:
    """Move genes to another allowed choice, each with equal chance, so many per child as expected."""
    counts = problem.allowed_counts
    hit = _hits(ranks.size, expected / ranks.shape[1], rng)
    options = counts[hit % ranks.shape[1]]
    mutated = ranks.flatten()
    mutated[hit] = (mutated[hit] + rng.integers(1, np.maximum(options, 2))) % options
    return mutated.reshape(ranks.shape)


def mutate_blocks(problem: Problem, ranks: IntArray, expected: float, rng: np.random.Generator) -> IntArray:
    """Draw all genes of a block anew, each block with equal chance, so many per child as expected."""
    if not expected:
        return ranks
    blocks = parts(problem.space, _BLOCK)
    hit = np.zeros((len(ranks), int(blocks.max()) + 1), dtype=bool)
    hit.ravel()[_hits(hit.size, expected / hit.shape[1], rng)] = True
    row, gene = np.nonzero(hit[:, blocks])
    mutated = ranks.copy()
    mutated[row, gene] = rng.integers(0, problem.allowed_counts[gene])
    return mutated


def _coins(size: int, columns: int, rng: np.random.Generator) -> BoolArray:
    """Fair coins, shape (size, columns)."""
    width = -(-columns // 8)
    drawn = np.frombuffer(rng.bytes(size * width), dtype=np.uint8).reshape(size, width)
    return np.unpackbits(drawn, axis=1, count=columns).view(bool)


def _hits(tries: int, share: float, rng: np.random.Generator) -> IntArray:
    """Which of many independent tries succeed, ascending: the gaps between successes are geometric."""
    if share >= 1:
        return np.arange(tries)
    found, last = [np.zeros(0, dtype=np.int64)], -1
    while last < tries:
        gaps = rng.geometric(share, int((tries - last) * share) + 16)
        found.append(last + np.cumsum(gaps))
        last = int(found[-1][-1])
    places = np.concatenate(found)
    return places[places < tries]
