"""ExecuTorch on the CPU, its convolutions and products by XNNPACK, in single precision: what apps on phones run.

A model is read as the engine torch reads it, exported for one input, and lowered to a program, on the machine that
measures. That takes 3 to 18 s of a CPU for 10 to 100 layers, so a process lowers a model once, however often it opens
it. A mobile network at 224 pixels took 1.5 times as long as by the engine torch, on one core with AVX-512.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hw_models.machine import Cpu
from hw_models.torch_engine import Float32Array, Model, one_input
from nas.errors import NasError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.extension.pybindings import portable_lib

NAME = "executorch"
VERSION: str = version("executorch")
PROCESSOR = Cpu()

_PROGRAMS = 512


def predict(model: bytes, images: npt.NDArray[np.floating[Any]]) -> Float32Array:
    """Logits (n, classes) of images (n, ...), which are reshaped to what the model reads, one by one.

    Raises:
        NasError: An image has another number of values than the model reads, or the model quantizes.
    """
    shape, program = _lowered(model)
    if math.prod(images.shape[1:]) != math.prod(shape):
        raise NasError(f"images have shape {images.shape}; this model reads (n, {', '.join(map(str, shape))})")
    running, values = _loaded(program), torch.tensor(images.reshape(-1, 1, *shape), dtype=torch.float32)
    logits: Float32Array = np.concatenate([running.forward((image,))[0].numpy() for image in values])
    return logits


def repeated_call(model: bytes, threads: int = 1) -> Callable[[int], None]:
    """A function that runs the model so many times on one fixed input (batch 1).

    From then on, the whole process has this number of XNNPACK's threads.
    """
    shape, program = _lowered(model)
    portable_lib._unsafe_reset_threadpool(threads)
    running, values = _loaded(program), (one_input(shape),)

    def call(times: int) -> None:
        for _ in range(times):
            running.forward(values, clone_outputs=False)

    return call


class _Module(torch.nn.Module):
    """A model as torch exports it."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self._model = model

    def forward(self, images: Tensor) -> Tensor:
        return self._model(images)


@lru_cache(_PROGRAMS)
def _lowered(model: bytes) -> tuple[tuple[int, ...], bytes]:
    """Shape of one input, and the program for it."""
    running = Model(model, Tensor.contiguous)
    with warnings.catch_warnings(), torch.inference_mode(False):
        warnings.simplefilter("ignore")
        exported = torch.export.export(_Module(running), (one_input(running.shape),))
        lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
        return running.shape, lowered.to_executorch().buffer


def _loaded(program: bytes) -> Any:
    return portable_lib._load_for_executorch_from_buffer(program)
