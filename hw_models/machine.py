"""This machine, as far as a measurement depends on it."""

from __future__ import annotations

import gc
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from hw_models.engines import Engine

_BOARD = Path("/proc/device-tree/model")
_CLOCKS = Path("/sys/devices/system/cpu")


def cpu_model() -> str:
    """The processor's name, as the system tells it; of a board without one, the board's."""
    if names := _cpu_info("model name"):
        return names[0]
    if _BOARD.exists():
        return _BOARD.read_text(encoding="utf-8").rstrip("\0\n ")
    return platform.processor() or platform.machine()


def clock_hz() -> float | None:
    """Mean clock of all cores at this moment; None where the system does not tell it."""
    clocks = [1e3 * float(path.read_text()) for path in _CLOCKS.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    clocks = clocks or [1e6 * float(megahertz) for megahertz in _cpu_info("cpu MHz")]
    return sum(clocks) / len(clocks) if clocks else None


def versions(engine: Engine) -> Mapping[str, str]:
    """Of everything that takes part in a measurement."""
    return {
        "python": platform.python_version(),
        "numpy": version("numpy"),
        engine.NAME: engine.VERSION,
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


def _cpu_info(key: str) -> list[str]:
    """What Linux tells of each core under a key."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return []
    fields = [line.partition(":") for line in info.read_text(encoding="utf-8").splitlines()]
    return [value.strip() for name, _, value in fields if name.strip() == key]
