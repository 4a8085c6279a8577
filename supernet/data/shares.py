"""Holding out a share of a data set, stratified by class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import NasError
from nas.genotype import IntArray

_HELD_OUT = 0x5A1E


def require_share(name: str, share: float) -> None:
    """Raise where a share does not lie inside (0, 1)."""
    if not 0 < share < 1:
        raise NasError(f"data: {name} must be a share between 0 and 1, got {share:g}")


def hold_out(labels: NDArray[Any], share: float, seed: int) -> tuple[IntArray, IntArray]:
    """Indices of the rest and of the held-out rows, both in shuffled order.

    Args:
        labels: Class numbers, shape (n,).
        share: Of every class, rounded to whole rows, that is held out.
        seed: Of the choice.

    Raises:
        NasError: A class would have no row on one of the two sides.
    """
    shuffled = np.random.default_rng([seed, _HELD_OUT]).permutation(len(labels))
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        count = round(share * len(members))
        if not 0 < count < len(members):
            law = "every class needs a row in each split"
            raise NasError(f"data: {law}; {share:g} of the {len(members)} rows of class {label} are {count}")
        held[members[:count]] = True
    return shuffled[~held[shuffled]], shuffled[held[shuffled]]
