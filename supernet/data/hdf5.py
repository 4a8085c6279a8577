"""Named columns of HDF5 files, such as the hls4ml LHC jet files (E. Moreno et al., zenodo 3602260)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from supernet.data.files import corrupt


def read_columns(path: Path, table: str, names: str, columns: tuple[str, ...]) -> NDArray[Any]:
    """Columns of a data set along its last axis, in the order in which they are named: shape (n, ..., columns).

    Names behind the last column stand for nothing: the public files name `j1_pdgid`, which their particles lack.

    Args:
        path: The file.
        table: The data set.
        names: The data set that names the columns of `table`.
        columns: The columns to take.

    Raises:
        NasError: The file is no HDF5 file, or lacks a data set or a column.
    """
    try:
        with h5py.File(path, "r") as file:
            known = [name.decode() for name in _dataset(path, file, names)[:].tolist()]
            values = np.asarray(_dataset(path, file, table)[:])
    except OSError as error:
        raise corrupt(path, f"cannot be read as HDF5: {error}") from error
    lacking = [column for column in columns if column not in known]
    if lacking:
        raise corrupt(path, f"{names} must name the columns {', '.join(lacking)}; it names {', '.join(known)}")
    places = [known.index(column) for column in columns]
    if not max(places) < values.shape[-1] <= len(known):
        raise corrupt(path, f"{table} must have the {len(known)} columns that {names} names, got {values.shape[-1]}")
    return np.ascontiguousarray(values[..., places])


def _dataset(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        raise corrupt(path, f"must hold the data set {name}; it holds {', '.join(file)}")
    return found
