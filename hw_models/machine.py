"""This machine, as far as a measurement depends on it."""

from __future__ import annotations

import gc
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from hw_models import onnx_runtime


def cpu_model() -> str:
    """The processor's name, as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> Mapping[str, str]:
    """Of everything that takes part in a measurement."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnx_runtime.VERSION,
        "system": platform.platform(),
    }


@contextmanager
def quiet(threads: int) -> Iterator[None]:
    """Hold this thread, and those it starts, on `threads` cores, and keep the garbage collector off; then restore.

    Where the system cannot pin threads (macOS, Windows) only the collector is stopped.
    """
    pinned, collecting = hasattr(os, "sched_setaffinity"), gc.isenabled()
    cores = os.sched_getaffinity(0) if pinned else set()
    try:
        if pinned:
            os.sched_setaffinity(0, sorted(cores)[-threads:])
        gc.disable()
        yield
    finally:
        if pinned:
            os.sched_setaffinity(0, cores)
        if collecting:
            gc.enable()
