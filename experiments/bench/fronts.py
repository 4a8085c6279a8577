"""Two measured fronts beside each other: accuracy at equal cost, cost at equal accuracy."""

from __future__ import annotations

import numpy as np

from nas.errors import NasError
from nas.genotype import FloatArray
from nas.pareto import non_dominated


def front(points: FloatArray) -> FloatArray:
    """The rows no other dominates, in the order of their cost.

    Args:
        points: Cost and error of networks, shape (n, 2).

    Returns:
        Shape (m, 2); costs strictly ascend and errors strictly descend.
    """
    rows: FloatArray = np.unique(points[non_dominated(points)], axis=0)
    return rows


def points_at_equal_cost(ours: FloatArray, theirs: FloatArray) -> float:
    """Our accuracy minus theirs in points, mean over the costs of their front.

    Between two of our networks the error is linear in the logarithm of the cost; beyond the last one it stays, since a
    network that costs less is within the cost. Their networks below our least cost are left out.

    Args:
        ours: Cost above 0 and error of networks, shape (n, 2).
        theirs: Those we are compared with, shape (m, 2).

    Raises:
        NasError: All of theirs cost less than all of ours.
    """
    mine, other = front(ours), front(theirs)
    within = other[other[:, 0] >= mine[0, 0]]
    _require(within, "all of their networks cost less than any of ours")
    errors = np.interp(np.log(within[:, 0]), np.log(mine[:, 0]), mine[:, 1])
    return float(100 * np.mean(within[:, 1] - errors))


def ratio_at_equal_accuracy(ours: FloatArray, theirs: FloatArray) -> float:
    """Our cost over theirs, geometric mean over the errors of their front: below 1 where ours costs less.

    Between two of our networks the logarithm of the cost is linear in the error; above our largest error it is our
    least cost. Their networks below our least error are left out.

    Args:
        ours: Cost above 0 and error of networks, shape (n, 2).
        theirs: Those we are compared with, shape (m, 2).

    Raises:
        NasError: All of theirs err less than all of ours.
    """
    mine, other = front(ours), front(theirs)
    within = other[other[:, 1] >= mine[-1, 1]]
    _require(within, "all of their networks err less than any of ours")
    logarithm = np.interp(within[:, 1], mine[::-1, 1], np.log(mine[::-1, 0]))
    return float(np.exp(np.mean(logarithm - np.log(within[:, 0]))))


def _require(within: FloatArray, fault: str) -> None:
    if not len(within):
        raise NasError(f"the fronts do not overlap: {fault}; search both over the same range of costs")
