"""Reference directions of many objectives (Deb & Jain, NSGA-III, 2014), and who belongs to which."""

from __future__ import annotations

import itertools
from math import comb

import numpy as np

from nas.genotype import FloatArray, IntArray

_AXIS = 1e-6
"""Weight of the other objectives where an extreme point is looked for (section IV-C)."""


def simplex(objectives: int, divisions: int) -> FloatArray:
    """All points of the unit simplex whose coordinates are multiples of 1 / divisions, shape (h, objectives).

    Das & Dennis, 1998; the centre where there are 0 divisions.
    """
    if not divisions:
        return np.full((1, objectives), 1 / objectives)
    bars = np.array(list(itertools.combinations(range(divisions + objectives - 1), objectives - 1)))
    edges = np.concatenate(
        [np.full((len(bars), 1), -1), bars, np.full((len(bars), 1), divisions + objectives - 1)], axis=1
    )
    return (np.diff(edges, axis=1) - 1) / divisions


def reference_directions(objectives: int, most: int) -> FloatArray:
    """As many directions as fit, shape (h, objectives), h <= most; at least one per axis.

    Where they lie on the simplex's boundary only, a second layer lies inside, halfway to the centre (section V, the
    problems with 8 and more objectives).
    """
    if objectives == 1:
        return np.ones((1, 1))
    outer = _divisions(objectives, most)
    layers = [simplex(objectives, max(outer, 1))]
    if 0 < outer < objectives and len(layers[0]) < most:
        inner = simplex(objectives, _divisions(objectives, most - len(layers[0])))
        layers.append((inner + 1 / objectives) / 2)
    return np.concatenate(layers)


def _divisions(objectives: int, most: int) -> int:
    """The largest number of divisions with at most so many points."""
    return next(p for p in itertools.count() if comb(p + objectives, objectives - 1) > most)


def normalised(costs: FloatArray, ideal: FloatArray) -> FloatArray:
    """Objectives scaled so that the ideal is the origin and the extremes span the unit simplex (algorithm 2).

    Where the plane through the extreme points does not cut every axis, the worst values stand in for its intercepts.
    """
    moved = costs - ideal
    weights = np.full((costs.shape[1], costs.shape[1]), _AXIS)
    np.fill_diagonal(weights, 1.0)
    achievement = (moved[:, None, :] / weights).max(axis=2)
    worst = moved.max(axis=0)
    intercepts = _intercepts(moved[achievement.argmin(axis=0)], worst)
    return moved / np.where(intercepts > 0, intercepts, 1.0)


def _intercepts(extremes: FloatArray, worst: FloatArray) -> FloatArray:
    """Where the plane through the rows cuts the axes, shape (m,)."""
    scale = np.where(worst > 0, worst, 1.0)
    try:
        plane = np.linalg.solve(extremes / scale, np.ones(len(extremes)))
    except np.linalg.LinAlgError:
        return worst
    if not np.isfinite(plane).all() or (plane <= _AXIS).any():
        return worst
    intercepts: FloatArray = scale / plane
    return intercepts


def associate(points: FloatArray, directions: FloatArray) -> tuple[IntArray, FloatArray]:
    """The direction whose line through the origin is nearest to each point, and the distance (algorithm 3).

    Args:
        points: Normalised objectives, shape (n, m), not negative.
        directions: Shape (h, m).

    Returns:
        Index of the direction and distance, each of shape (n,).
    """
    units = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    along = points @ units.T
    niche = np.argmax(along, axis=1)
    away = points - along[np.arange(len(points)), niche, None] * units[niche]
    return niche, np.linalg.norm(away, axis=1)
