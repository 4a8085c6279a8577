"""Whole fronts of any objectives that programs can hold, under any limits, by epsilon constraint.

The region that may hold further points is a set of boxes below local upper bounds, split by every point found
(Klamroth, Lacour and Vanderpooten, "On the representation of the search region in multi-objective optimization",
2015, section 2). One box takes two programs at most: the least first objective in it, then the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.genotype import FloatArray
from nas.problem import Constraint
from nas.search.programs import Programs

_STEP = 1e-7
"""Points nearer than this, relative to their value, count as one."""


@dataclass(frozen=True)
class Sweep:
    """A front.

    Attributes:
        places: Of its members in the archive, one for each point, ascending in the first objective.
        complete: Whether it is proved that there are no further points.
    """

    places: tuple[int, ...]
    complete: bool


def sweep(programs: Programs, objectives: Sequence[str], limits: Sequence[Constraint], most: int) -> Sweep:
    """Find every point of a front, or the first `most`.

    Args:
        programs: Archive and solver.
        objectives: Metrics that are sums or maxima; put the one that is the easiest to prove first. For a surrogate's
            front, make it an additive metric of the problem.
        limits: Upper limits.
        most: Most points.
    """
    bounds = np.full((1, len(objectives)), np.inf)
    solved: list[tuple[FloatArray, float]] = []
    places: list[int] = []
    complete = True
    while len(bounds):
        box, bounds = bounds[-1], bounds[:-1]
        if any((other >= box[1:]).all() and least >= box[0] for other, least in solved):
            continue
        below = [Constraint(m, b - _STEP * abs(b)) for m, b in zip(objectives[1:], box[1:], strict=True) if b < np.inf]
        place = programs.minimise(objectives[0], (*limits, *below))
        status = programs.archive.proofs[-1].status
        if place is None:
            solved.append((box[1:], np.inf))
            complete &= status == "infeasible"
            continue
        least = programs.cost(objectives[0], place)
        solved.append((box[1:], least))
        complete &= status == "optimal"
        if least >= box[0] - _STEP * abs(least):
            continue
        if len(places) == most:
            return Sweep(_ordered(programs, objectives[0], places), False)
        place, proved = _lowered(programs, objectives, (*limits, *below), place)
        complete &= proved
        places.append(place)
        bounds = _split(np.vstack([bounds, box]), np.array([programs.cost(name, place) for name in objectives]))
    return Sweep(_ordered(programs, objectives[0], places), complete)


def _lowered(
    programs: Programs, objectives: Sequence[str], limits: Sequence[Constraint], place: int
) -> tuple[int, bool]:
    """The point with the same first objective that nothing dominates, and whether that is proved."""
    if len(objectives) == 1:
        return place, True
    scales = {name: 1 / (abs(programs.cost(name, place)) or 1.0) for name in objectives[1:]}
    lower = programs.minimise(scales, (*limits, Constraint(objectives[0], programs.cost(objectives[0], place))))
    return (place if lower is None else lower), programs.archive.proofs[-1].status == "optimal"


def _split(bounds: FloatArray, point: FloatArray) -> FloatArray:
    """Take out of the boxes what a point dominates; boxes within others go."""
    above = (point < bounds).all(axis=1)
    parts = [np.where(np.arange(len(point)) == axis, point, bounds[above]) for axis in range(len(point))]
    boxes = np.unique(np.vstack([bounds[~above], *parts]), axis=0)
    inside = (boxes[:, None, :] <= boxes[None, :, :]).all(axis=2).sum(axis=1) > 1
    outermost: FloatArray = boxes[~inside]
    return outermost


def _ordered(programs: Programs, metric: str, places: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(places, key=lambda place: programs.cost(metric, place)))
