"""NAS-Bench-201's accuracies (Dong & Yang, ICLR 2020) with the latencies HELP measured (Lee et al., NeurIPS 2021)."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.bench.cells import OPERATIONS, Networks, networks, parse
from nas.errors import NasError
from nas.genotype import FloatArray, IntArray

_ACCURACY = "nasbench201/nasbench201_accuracy.parquet"
_LATENCY = "device-latency/nasbench201_latency.parquet"
_LAYOUT = f"""set NAS_DATA to a folder with
  {_ACCURACY}: columns arch, cifar10_test_acc_200ep (%)
  {_LATENCY}: columns arch and one per device (ms), rows in the same order"""


@dataclass(frozen=True)
class Benchmark:
    """All 15625 cells.

    Attributes:
        cells: Operations on the edges, shape (n, 6).
        error: 100 - CIFAR-10 test accuracy after 200 epochs, in %, shape (n,).
        latency_s: By device, measured, shape (n,) each.
        networks: Which cells are one network, and features of the networks.
    """

    cells: IntArray
    error: FloatArray
    latency_s: Mapping[str, FloatArray]
    networks: Networks

    def places(self, cells: IntArray) -> IntArray:
        """Row of each cell, shape (n,)."""
        return self._place_of_code[_codes(cells)]

    @cached_property
    def _place_of_code(self) -> IntArray:
        places: IntArray = np.argsort(_codes(self.cells))
        return places

    def network_errors(self) -> FloatArray:
        """Mean error of all cells that are the same network, per cell: the error without most of its noise."""
        of_cell = self.networks.of_cell
        mean: FloatArray = np.bincount(of_cell, self.error) / np.bincount(of_cell)
        return mean[of_cell]


def load_benchmark(devices: tuple[str, ...]) -> Benchmark:
    """Read the benchmark from the folder that the environment variable NAS_DATA names.

    Raises:
        NasError: A file or column is missing; the message gives the layout.
    """
    accuracy = _table(_ACCURACY, ["arch", "cifar10_test_acc_200ep"])
    latency = _table(_LATENCY, ["arch", *devices])
    if not accuracy["arch"].equals(latency["arch"]):
        raise NasError(f"{_ACCURACY} and {_LATENCY} list different cells; {_LAYOUT}")
    cells = np.array([parse(text) for text in accuracy["arch"]], dtype=np.int64)
    error = 100 - accuracy["cifar10_test_acc_200ep"].to_numpy(np.float64)
    seconds = {device: latency[device].to_numpy(np.float64) / 1e3 for device in devices}
    return Benchmark(cells, error, seconds, networks(cells))


def _table(name: str, columns: list[str]) -> pd.DataFrame:
    folder = os.environ.get("NAS_DATA")
    if folder is None:
        raise NasError(f"the environment variable NAS_DATA is not set; {_LAYOUT}")
    path = Path(folder) / name
    if not path.is_file():
        raise NasError(f"there is no {path}; {_LAYOUT}")
    if importlib.util.find_spec("pyarrow") is None:
        raise NasError(f"pandas needs pyarrow to read {path}; pip install 'hwnas[bench]'")
    table = pd.read_parquet(path)
    missing = [column for column in columns if column not in table]
    if missing:
        raise NasError(f"{path} has no column {', '.join(missing)}; {_LAYOUT}")
    return table[columns]


def _codes(cells: IntArray) -> IntArray:
    codes: IntArray = cells @ len(OPERATIONS) ** np.arange(cells.shape[1])
    return codes
