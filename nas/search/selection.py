"""Who survives a generation: NSGA-II's crowding and NSGA-III's niches, both under constrained domination."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nas.genotype import FloatArray, IntArray
from nas.pareto import crowding_distance, rank
from nas.search.directions import associate, normalised


@dataclass(frozen=True)
class Survivors:
    """Who is kept, shape (kept,), and who of them wins tournaments: the lower preference, shape (kept,)."""

    kept: IntArray
    preference: FloatArray


def by_crowding(costs: FloatArray, violation: FloatArray, size: int) -> Survivors:
    """The best by front, then by crowding distance (Deb et al., NSGA-II, 2002, section III-C), best first.

    Args:
        costs: Objectives, shape (n, m).
        violation: Of the constraints, 0 for the feasible, shape (n,).
        size: How many are kept; all where there are no more.
    """
    ranks = constrained_ranks(costs, violation, size)
    crowding = np.full(len(costs), np.inf)
    for front in np.flatnonzero(np.bincount(ranks) > 2):
        if (ranks < front).sum() < size:
            crowding[ranks == front] = crowding_distance(costs[ranks == front])
    kept = np.lexsort((-crowding, ranks))[:size]
    return Survivors(kept, np.arange(len(kept), dtype=np.float64))


def by_niches(
    costs: FloatArray, violation: FloatArray, size: int, directions: FloatArray, ideal: FloatArray,
    rng: np.random.Generator,
) -> Survivors:  # fmt: skip
    """The best by front; of the last front those whose niches are emptiest (Deb & Jain, NSGA-III, 2014, section IV).

    Infeasible members are kept only where the feasible are too few, the least violating first, and lose tournaments
    against feasible ones, which are all alike (Jain & Deb, 2014, section II).

    Args:
        costs: Objectives, shape (n, m).
        violation: Of the constraints, 0 for the feasible, shape (n,).
        size: How many are kept; all where there are no more.
        directions: Reference points, shape (h, m).
        ideal: The least value of each objective seen so far among the feasible, shape (m,).
        rng: Source of randomness.
    """
    ranks = constrained_ranks(costs, violation, size)
    order = np.argsort(ranks, kind="stable")
    last = ranks[order[min(size, len(order)) - 1]]
    kept, split = np.flatnonzero(ranks < last), np.flatnonzero(ranks == last)
    if len(kept) + len(split) > size:
        if violation[split[0]] > 0:
            chosen = np.arange(size - len(kept))
        else:
            considered = normalised(costs[np.concatenate([kept, split])], ideal)
            niche, distance = associate(considered, directions)
            chosen = fill_niches(niche[: len(kept)], niche[len(kept) :], distance[len(kept) :], size - len(kept), rng)
        split = split[chosen]
    kept = np.concatenate([kept, split])
    return Survivors(kept, violation[kept])


def constrained_ranks(costs: FloatArray, violation: FloatArray, enough: int) -> IntArray:
    """Front of each member under constrained domination, shape (n,).

    The feasible rank among themselves and before all others, which rank by violation (Deb et al., 2002, section VI-A).
    """
    feasible = violation == 0
    ranks = np.zeros(len(costs), dtype=np.int64)
    if feasible.any():
        ranks[feasible] = rank(costs[feasible], enough)
    ranks[~feasible] = 1 + ranks.max() + np.unique(violation[~feasible], return_inverse=True)[1]
    return ranks


def fill_niches(held: IntArray, niche: IntArray, distance: FloatArray, size: int, rng: np.random.Generator) -> IntArray:
    """Choose so many from the last front, niche by niche (Deb & Jain, 2014, algorithm 4).

    The algorithm takes one member after the other, each for a random one of the niches that hold the fewest and still
    have candidates: the nearest to the direction where the niche is empty, any otherwise. A niche is served again only
    once no other holds fewer, so a candidate's turn is known beforehand: what its niche holds, plus its place there.

    Args:
        held: Niches of the members that are kept already.
        niche: Niches of the candidates, shape (n,).
        distance: Their distances from the niche's direction, shape (n,).
        size: How many to choose.
        rng: Source of randomness.

    Returns:
        Indices in the order of choice, shape (size,).
    """
    count = np.bincount(held, minlength=int(niche.max()) + 1)
    near_first = np.lexsort((distance, niche))
    leads = near_first[np.unique(niche[near_first], return_index=True)[1]]
    follows = np.ones(len(niche), dtype=bool)
    follows[leads[count[niche[leads]] == 0]] = False
    order = np.lexsort((rng.random(len(niche)), follows, niche))
    place = np.arange(len(niche)) - np.searchsorted(niche[order], niche[order])
    turn = np.empty(len(niche), dtype=np.int64)
    turn[order] = count[niche[order]] + place
    chosen: IntArray = np.lexsort((rng.random(len(niche)), turn))[:size]
    return chosen
