"""A surrogate refined around its own solutions: solve, evaluate, correct, cut, solve again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas.genotype import IntArray
from nas.problem import Constraint
from nas.search import surrogate
from nas.search.archive import Archive
from nas.search.programs import Programs

_IDLE = 2
"""Rounds without progress that end a refinement."""


def refine(programs: Programs, metric: str, limits: Sequence[Constraint], count: int, rounds: int) -> int | None:
    """Minimise a metric that is no sum over layers, such as a predicted error.

    Each round solves for the `count` best of the surrogate that were not evaluated before, evaluates them with the
    predictor, and corrects the surrogate: what it leaves is fitted to all of the archive, which counts the more
    the nearer it is to the best. Ends when a program has nothing new, when two rounds bring nothing better, or
    after `rounds`. The corrected surrogate serves this refinement alone.

    Args:
        programs: Archive and solver; a proof of the archive holds for the surrogate of its round.
        metric: The metric.
        limits: Upper limits; those that no program can hold are judged by the archive.
        count: Solutions of each round.
        rounds: Most rounds.

    Returns:
        The place of the best member of the archive within all limits, whoever found it; None without one.
    """
    archive, first = programs.archive, programs.surrogate(metric)
    seen: list[int] = []
    idle, best = 0, best_within(archive, metric, limits)
    for turn in range(rounds):
        if idle >= _IDLE:
            break
        if turn:
            centre = archive.genotypes[seen if best is None else [best]]
            programs.surrogates[metric] = _corrected(archive, metric, first, centre)
        found = programs.best(metric, limits, count, seen)
        if not found:
            break
        seen += found
        better = best_within(archive, metric, limits)
        idle, best = idle + 1 if better == best else 0, better
    programs.surrogates[metric] = first
    return best


def best_within(archive: Archive, metric: str, limits: Sequence[Constraint]) -> int | None:
    """The place of the member with the least value within all limits, the first of equals; None without one."""
    within = np.ones(len(archive), dtype=bool)
    for limit in limits:
        within &= archive.metrics[:, archive.problem.metrics.index(limit.metric)] <= limit.limit
    places = np.flatnonzero(within)
    values = archive.metrics[places, archive.problem.metrics.index(metric)]
    return int(places[values.argmin()]) if len(places) else None


def _corrected(archive: Archive, metric: str, first: surrogate.Genewise, centre: IntArray) -> surrogate.Genewise:
    values = archive.metrics[:, archive.problem.metrics.index(metric)]
    return surrogate.fit(
        archive.problem, archive.genotypes, values, surrogate.nearness(archive.genotypes, centre), first
    )
