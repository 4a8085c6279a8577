"""Families of devices: how networks run on them, what can be told of it, and what a device's file has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Family = Literal[
    "onnxruntime", "unrolled-fpga", "folded-fpga", "bit-flexible", "roofline", "systolic", "microcontroller", "fitted"
]
Schedule = Literal["pipelined", "sequential"]
"""All layers at once, each on its own input: the slowest one counts; or one after the other: their sum counts."""

Positions = Literal["streamed", "parallel"]
"""One output position per cycle, out of line buffers; or all positions at once, as da4ml's RTL computes them."""

METRICS: Mapping[Family, tuple[str, ...]] = {
    "onnxruntime": ("error", "latency_s", "weight_bytes"),
    "unrolled-fpga": ("error", "latency_s", "weight_bytes", "lut", "ff", "dsp", "bram"),
    "folded-fpga": ("error", "latency_s", "interval_s", "weight_bytes", "lut", "ff", "dsp", "bram"),
    "bit-flexible": ("error", "latency_s", "weight_bytes", "energy_j"),
    "roofline": ("error", "latency_s", "weight_bytes", "energy_j"),
    "systolic": ("error", "latency_s", "weight_bytes", "energy_j"),
    "microcontroller": ("error", "latency_s", "weight_bytes", "peak_bytes", "energy_j"),
    "fitted": ("error", "latency_s", "weight_bytes"),
}
"""What a device family can tell of a network; all of it is minimised. Of energy, only a device whose file has it."""

COMMON_KEYS = ("family", "title", "weight_bits", "act_bits", "objectives")
FAMILY_KEYS: Mapping[Family, tuple[str, ...]] = {
    "onnxruntime": ("threads",),
    "unrolled-fpga": ("part", "clock_hz", "resources"),
    "folded-fpga": ("part", "clock_hz", "resources", "schedule"),
    "bit-flexible": ("clock_hz", "array"),
    "roofline": ("macs_per_s", "bytes_per_s", "launch_s"),
    "systolic": ("clock_hz", "array", "bytes_per_s"),
    "microcontroller": ("macs_per_s", "bytes_per_s", "launch_s", "flash_bytes", "sram_bytes"),
    "fitted": ("constant_s", "kernels"),
}
BENCH = ("engine", "host", "python")
"""What the file of a measured device may have."""

OPTIONAL_KEYS: Mapping[Family, tuple[str, ...]] = {
    "onnxruntime": BENCH,
    "unrolled-fpga": ("positions",),
    "bit-flexible": ("energy",),
    "roofline": ("energy", "sparse_macs_per_s"),
    "systolic": ("energy",),
    "microcontroller": ("energy",),
}


def metrics_of(family: Family, energy: bool) -> tuple[str, ...]:
    """What a device of a family can tell of a network, with or without energies in its file."""
    return tuple(metric for metric in METRICS[family] if energy or metric != "energy_j")
