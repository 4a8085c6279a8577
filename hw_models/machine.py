"""This machine, its processors and what an engine is, as far as a measurement depends on them."""

from __future__ import annotations

import gc
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hw_models.power import POWERCAP, Meter, find_meter

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_BOARD = Path("/proc/device-tree/model")
_CLOCKS = Path("/sys/devices/system/cpu")


def cpu_model() -> str:
    """The processor's name, as the system tells it; of a board without one, the board's."""
    if names := _cpu_info("model name"):
        return names[0]
    if _BOARD.exists():
        return _BOARD.read_text(encoding="utf-8").rstrip("\0\n ")
    return platform.processor() or platform.machine()


class Processor(Protocol):
    """What runs an engine's models."""

    @property
    def name(self) -> str:
        """As the system or its driver tells it."""
        ...

    def clock_hz(self) -> float | None:
        """Mean clock of its cores at this moment; None where it is not told."""
        ...

    def versions(self) -> Mapping[str, str]:
        """Of what it needs beside the operating system."""
        ...

    def meter(self) -> tuple[Meter | None, str]:
        """What counts its energy, and the counter's name; or none, and why."""
        ...


class Engine(Protocol):
    """What runs ONNX models, in single precision or, where a model is quantized, in its integers.

    Those of torch, and executorch, run float models only; `torch-cuda-fp16` rounds them to half precision.
    """

    @property
    def NAME(self) -> str:
        """Its key in `ENGINES`."""
        ...

    @property
    def VERSION(self) -> str:
        """As its maker counts them."""
        ...

    @property
    def PROCESSOR(self) -> Processor:
        """What runs the models."""
        ...

    def repeated_call(self, model: bytes, threads: int = 1) -> Callable[[int], float | None]:
        """A function that runs the model so many times on one fixed input (batch 1).

        It returns the seconds they took by the processor's own clock; None where that is the program's clock.
        """
        ...

    def predict(self, model: bytes, images: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
        """Logits (n, classes) of images (n, ...), which are reshaped to what the model reads."""
        ...


@dataclass(frozen=True)
class Cpu:
    """The CPUs of this machine.

    Attributes:
        powercap: Where their counters of energy are.
    """

    powercap: Path = POWERCAP

    @property
    def name(self) -> str:
        return cpu_model()

    def clock_hz(self) -> float | None:
        clocks = [1e3 * float(path.read_text()) for path in _CLOCKS.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
        clocks = clocks or [1e6 * float(megahertz) for megahertz in _cpu_info("cpu MHz")]
        return sum(clocks) / len(clocks) if clocks else None

    def versions(self) -> Mapping[str, str]:
        return {}

    def meter(self) -> tuple[Meter | None, str]:
        return find_meter(self.powercap)


def versions(engine: Engine) -> Mapping[str, str]:
    """Of everything that takes part in a measurement."""
    return {
        "python": platform.python_version(),
        "numpy": version("numpy"),
        engine.NAME: engine.VERSION,
        "system": platform.platform(),
        **engine.PROCESSOR.versions(),
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
