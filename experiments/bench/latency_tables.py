"""Published tables of latencies: NAS-Bench-201's cells, Once-for-All's subnets, HAT's Transformers, APQ's layers."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.bench import nasbench201
from experiments.bench.cells import CONV1, CONV3, OPERATIONS
from nas.errors import NasError
from nas.genotype import BoolArray, FloatArray, IntArray
from nas.network import Conv2d, Precision

NB201_KNOWN = (
    "1080ti_1", "1080ti_32", "1080ti_256", "silver_4114", "silver_4210r", "samsung_a50", "pixel3", "essential_ph_1",
    "samsung_s7",
)  # fmt: skip
NB201_NEW = ("gold_6226", "raspi4", "pixel2")
OFA_KNOWN = ("titan_rtx_1", "titan_rtx_32")
OFA_NEW = ("v100_64", "v100_1")
HAT = ("cpu_raspberrypi", "cpu_xeon", "gpu_titanxp")

_WIDTHS_AND_STRIDES = ((24, 2), (40, 2), (80, 2), (112, 1), (160, 2))
_DEPTH = 4
_HAT_UNITS = np.array([640, 6, 2048, 6, 640, 6, 2048, 6, 6, 2], np.float64)
_DECODER_LAYERS, _PER_DECODER_LAYER = 5, [4, 6, 7, 8, 9]
_ENTRY = re.compile(r"\((.*)\)-W(\d)A(\d)")


@dataclass(frozen=True)
class Table:
    """Latencies of networks on devices.

    Attributes:
        latency: In ms, NaN where not measured, by device, shape (networks,) each.
        features: Shape (networks, columns).
        groups: Of the columns, shape (columns,).
    """

    latency: Mapping[str, FloatArray]
    features: FloatArray
    groups: IntArray

    def of(self, devices: tuple[str, ...]) -> FloatArray:
        """Latencies on some devices, shape (networks, devices)."""
        return np.stack([self.latency[device] for device in devices], axis=1)

    def measured(self, device: str) -> IntArray:
        """Rows with a latency on the device."""
        rows: IntArray = np.flatnonzero(np.isfinite(self.latency[device]))
        return rows


def cells() -> Table:
    """NAS-Bench-201 (Lee et al., NeurIPS 2021): which operation each edge has, and multiplications."""
    benchmark = nasbench201.load_benchmark((*NB201_KNOWN, *NB201_NEW))
    latency = {device: 1e3 * seconds for device, seconds in benchmark.latency_s.items()}
    one_hot = (benchmark.cells[:, :, None] == np.arange(len(OPERATIONS))).reshape(len(benchmark.cells), -1)
    multiplications = 9.0 * (benchmark.cells == CONV3).sum(axis=1) + (benchmark.cells == CONV1).sum(axis=1)
    return _table(latency, one_hot.astype(np.float64), multiplications)


def subnets() -> Table:
    """Once-for-All's MobileNetV3: kernel and expansion of each block that is there, depth, resolution, MACs."""
    table = pd.read_parquet(path("device-latency/ofa_mbv3_latency.parquet"))
    kernels, ratios, depths = (np.array(table[name].tolist()) for name in ("ks", "e", "d"))
    there: BoolArray = (np.arange(_DEPTH) < depths[:, :, None]).reshape(kernels.shape)
    one_hot = [
        (column * there)[:, :, None] == choices for column, choices in ((kernels, (3, 5, 7)), (ratios, (3, 4, 6)))
    ]
    resolution = table["r"].to_numpy(np.float64)
    macs = _subnet_macs(kernels, ratios, there, resolution)
    latency = {device: table[device].to_numpy(np.float64) for device in (*OFA_KNOWN, *OFA_NEW)}
    flat = np.concatenate(one_hot, axis=2).reshape(len(table), -1).astype(np.float64)
    return _table(latency, flat, there.sum(axis=1), resolution, macs)


def transformers() -> Table:
    """HAT: each device's own 2000 networks, one below another.

    Its ten features in its units, about 1, then those of a decoder layer times the number of decoder layers.
    """
    frames = [pd.read_csv(path(f"hat-latency/wmt14ende_{device}_all.csv.gz")) for device in HAT]
    places = np.repeat(np.arange(len(HAT)), [len(frame) for frame in frames])
    whole = pd.concat(frames)
    features = whole[whole.columns[:10]].to_numpy(np.float64) / _HAT_UNITS
    total = (whole["latency_mean_encoder"] + whole["latency_mean_decoder"]).to_numpy(np.float64)
    latency = {device: np.where(places == place, total, np.nan) for place, device in enumerate(HAT)}
    layers, per_layer = features[:, [_DECODER_LAYERS]], features[:, _PER_DECODER_LAYER]
    return _table(latency, features, layers * per_layer)


@dataclass(frozen=True)
class Layers:
    """APQ's table of BitFusion (Wang et al., CVPR 2020): layers, their latencies in ms; head and tail of a network."""

    layers: tuple[Conv2d, ...]
    latency: FloatArray
    ends: float


def bit_flexible_layers() -> Layers:
    """Every entry of the published dictionary."""
    entries = json.loads(gzip.decompress(path("apq-bitfusion-lut/BitFusion_new.b1.json.gz").read_bytes()))
    found = {key: match for key in entries if (match := _ENTRY.fullmatch(key))}
    latency = np.array([entries[key]["latency"] for key in found])
    return Layers(tuple(map(_layer, found.values())), latency, entries["head"]["latency"] + entries["tail"]["latency"])


def path(name: str) -> Path:
    """A file in the folder that the environment variable NAS_DATA names.

    Raises:
        NasError: There is none.
    """
    folder = os.environ.get("NAS_DATA")
    if folder is None or not (Path(folder) / name).is_file():
        raise NasError(f"there is no {name} in the folder that NAS_DATA names ({folder}); set it to one that has it")
    return Path(folder) / name


def _table(latency: Mapping[str, FloatArray], *blocks: FloatArray) -> Table:
    columns = [block if block.ndim == 2 else block[:, None] for block in blocks]
    groups = np.repeat(np.arange(len(columns)), [block.shape[1] for block in columns])
    return Table(latency, np.concatenate(columns, axis=1).astype(np.float64), groups)


def _subnet_macs(kernels: IntArray, ratios: IntArray, there: BoolArray, resolution: FloatArray) -> FloatArray:
    """MACs of the blocks' three convolutions, shape (n,); of the rest, only the resolution differs."""
    macs, inputs, size = np.zeros(len(resolution)), 16, np.ceil(resolution / 2)
    for stage, (width, stride) in enumerate(_WIDTHS_AND_STRIDES):
        for block in range(_DEPTH):
            place, outer = stage * _DEPTH + block, size
            size = np.ceil(size / stride) if block == 0 else size
            middle = inputs * ratios[:, place]
            layers = outer**2 * inputs + size**2 * (kernels[:, place] ** 2 + width)
            macs += there[:, place] * middle * layers
            inputs = width
    return macs


def _layer(match: re.Match[str]) -> Conv2d:
    inputs, outputs, size, kernel, stride, _, groups = map(int, match[1].split(","))
    out = -(-size // stride)
    bits = Precision(int(match[2]), int(match[3]))
    shapes = (inputs, size, size), (outputs, out, out)
    return Conv2d(match[0], ("image",), *shapes, kernel, stride, groups, precision=bits)
