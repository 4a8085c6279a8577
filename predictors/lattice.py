"""Weighted sums of an isotropic kernel over points of a lattice, at the price of one product of matrices.

Squared distances between lattice points are whole numbers of a unit. A product of matrices gives them exactly, in
32-bit floats, as long as they are small; the kernel is evaluated once per distance there can be, and looked up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray

_EXACT = 1 << 24
"""Integers up to this are exact in 32-bit floats."""

_ROWS = 256
"""Rows at a time, so that their distances stay in the cache."""


@dataclass(frozen=True)
class LatticeSums:
    """sum over j of weights[j] * kernel(|x - centre j|) for lattice points x.

    Attributes:
        factors: Lattice units per step of each column, shape (columns,).
        centres: -2 times the centres, their squared lengths and ones, shape (columns + 2, centres).
        values: The kernel at each squared distance in lattice units, shape (distances,).
        weights: Shape (centres,).
    """

    factors: npt.NDArray[np.float32]
    centres: npt.NDArray[np.float32]
    values: FloatArray
    weights: FloatArray

    def __call__(self, points: IntArray) -> FloatArray:
        """The sums, shape (n,), for points given in steps, shape (n, columns)."""
        blocks = [self._block(points[start : start + _ROWS]) for start in range(0, len(points), _ROWS)]
        return np.concatenate([np.zeros(0), *blocks])

    def _block(self, points: IntArray) -> FloatArray:
        columns = len(self.factors)
        extended = np.ones((len(points), columns + 2), dtype=np.float32)
        scaled = extended[:, :columns]
        np.multiply(points, self.factors, out=scaled, casting="unsafe")
        extended[:, -1] = np.einsum("ij,ij->i", scaled, scaled)
        squared = (extended @ self.centres).astype(np.intp)
        sums: FloatArray = self.values.take(squared) @ self.weights
        return sums


def lattice_sums(
    kernel: Callable[[FloatArray], FloatArray], factors: IntArray, unit: int, centres: IntArray, weights: FloatArray
) -> LatticeSums:
    """Prepare the sums.

    Args:
        kernel: Distances, shape (n,), to values, shape (n,).
        factors: Lattice units per step of each column, shape (columns,).
        unit: Lattice units per unit of distance.
        centres: Points in steps, shape (centres, columns), between 0 and unit / factors.
        weights: Shape (centres,).

    Raises:
        NasError: The lattice is too fine for distances to be exact.
    """
    furthest = len(factors) * unit**2
    if 4 * furthest > _EXACT:
        raise NasError(f"{len(factors)} columns of {unit} units have distances up to {furthest}, more than 2^22")
    scaled = centres * factors
    extended = np.column_stack([-2 * scaled, (scaled**2).sum(axis=1), np.ones(len(scaled))])
    values = kernel(np.sqrt(np.arange(furthest + 1)) / unit)
    return LatticeSums(factors.astype(np.float32), np.ascontiguousarray(extended.T, dtype=np.float32), values, weights)
