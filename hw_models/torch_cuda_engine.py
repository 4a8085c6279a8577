"""PyTorch on an NVIDIA GPU, in single or half precision: a CUDA graph of each model, replayed, timed by CUDA events.

Launched one by one, kernels of small networks wait for the CPU; a captured graph launches them all at once. Latency is
the GPU's time of one replay after another: what the CPU takes to launch the first of them is left out, and so is the
copy of the input. Single precision is IEEE's: TF32, which torch else takes for convolutions, is off.

On an H200, three mobile networks at 224 pixels took 880 to 940 us with channels last, 740 to 800 us with channels first
(half precision: 620 to 710 and 560 to 630), and two to five times as long with kernels launched one by one. Two
campaigns over 24 of them in processes of their own: Kendall tau 1.00, largest disagreement 0.7 %, in both precisions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hw_models import torch_engine
from hw_models.nvml import Gpu
from hw_models.torch_engine import Float32Array, Model, one_input
from nas.errors import NasError

_WARM_UP = 3
_HEAD_START = 100_000
"""Clocks, some 50 us, that the GPU waits while the CPU launches the first replay."""


@dataclass(frozen=True)
class CudaEngine:
    """An engine as `hw_models.machine.Engine` has it, on the first GPU that the process may see.

    Raises:
        NasError: There is none.
    """

    NAME: str
    precision: torch.dtype
    VERSION: str = torch.__version__

    def __post_init__(self) -> None:
        if not torch.cuda.is_available():
            built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
            raise NasError(
                f"engine {self.NAME}: torch {self.VERSION}, {built}, sees no NVIDIA GPU on the machine that measures; "
                "install a driver and torch's build for CUDA there, or take engine torch"
            )

    @property
    def PROCESSOR(self) -> Gpu:
        return Gpu(torch.cuda.get_device_name(), str(torch.cuda.get_device_properties().uuid))

    def predict(self, model: bytes, images: npt.NDArray[np.floating[Any]]) -> Float32Array:
        """As `hw_models.torch_engine.predict`."""
        with _kernels():
            return torch_engine.predict(model, images, self._place)

    def repeated_call(self, model: bytes, threads: int = 1) -> Callable[[int], float]:
        """A function that runs the model so many times on one fixed input (batch 1), and tells the GPU's seconds.

        From then on, the whole process has this number of torch's threads.
        """
        torch.set_num_threads(threads)
        with torch.inference_mode(), _kernels():
            running = Model(model, self._place)
            values = self._place(one_input(running.shape))
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP):
                    running(values)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                running(values)
        return _Replay(graph, running, values)

    def _place(self, values: Tensor) -> Tensor:
        return values.to("cuda", self.precision)


class _Replay:
    """Replays a graph; what it reads lives as long."""

    def __init__(self, graph: torch.cuda.CUDAGraph, *reads: object) -> None:
        self._graph, self._reads = graph, reads
        self._start, self._end = _event(), _event()

    def __call__(self, times: int) -> float:
        torch.cuda._sleep(_HEAD_START)  # type: ignore[no-untyped-call]
        self._start.record()
        for _ in range(times):
            self._graph.replay()
        self._end.record()
        self._end.synchronize()
        milliseconds: float = self._start.elapsed_time(self._end)
        return 1e-3 * milliseconds


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def single() -> CudaEngine:
    """In single precision, as IEEE has it."""
    return CudaEngine("torch-cuda", torch.float32)


def half() -> CudaEngine:
    """In half precision, on tensor cores where there are."""
    return CudaEngine("torch-cuda-fp16", torch.float16)


@contextmanager
def _kernels() -> Iterator[None]:
    """Kernels that cuDNN's rules choose, not its timings, which would be others in every session."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=False):
        yield
