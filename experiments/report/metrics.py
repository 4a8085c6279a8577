"""Figures of merit of a device's finalists, as the finalize stage records them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from nas.errors import NasError
from nas.pareto import hypervolume

Member = Mapping[str, Any]
"""A record of `experiments.stages.finalize.load_members`."""

MARGIN = 1.05


def is_dense_8bit(member: Member) -> bool:
    """True for an unpruned 8-bit network, whoever found it."""
    return bool(member["dense_8bit"])


def joint_over_dense(members: Sequence[Member], objectives: Sequence[str]) -> float:
    """Hypervolume of the measured front over that of all 8-bit unpruned finalists; errors are of the test split.

    Each objective is scaled by its worst value over all finalists times 1.05, which is also the reference point.
    The front is the one marked by validation error, so the ratio may fall below 1.

    Args:
        members: All finalists of one device.
        objectives: The device's, all minimised.

    Raises:
        NasError: No finalist is 8-bit and unpruned.
    """
    measured = np.array([[float(member["measured"][name]) for name in objectives] for member in members])
    front = np.array([bool(member["on_front"]) for member in members])
    dense = np.array([is_dense_8bit(member) for member in members])
    if not dense.any():
        raise NasError("no finalist is an 8-bit dense network; allow 8 bits and sparsity 0, and set finalize.baseline")
    worst = measured.max(axis=0) * MARGIN
    scaled = measured / np.where(worst > 0, worst, 1.0)
    corner = np.ones(len(objectives))
    return hypervolume(scaled[front], corner) / hypervolume(scaled[dense], corner)


def spearman(members: Sequence[Member], metric: str) -> float:
    """Rank correlation of a metric's predicted and measured values over finalists; NaN where either is constant."""
    predicted, measured = (
        pd.Series([member[kind][metric] for member in members]) for kind in ("predicted", "measured")
    )
    if predicted.nunique() < 2 or measured.nunique() < 2:
        return math.nan
    return float(np.corrcoef(predicted.rank(), measured.rank())[0, 1])
