"""OpenVINO on the CPU, in single precision: on processors with AMX it would compute in bfloat16 unless told.

It reports to its maker whenever it is imported, unless the package that does it is missing: here it seems to be.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from hw_models.machine import Cpu
from nas.errors import NasError

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino  # noqa: E402

Float32Array = npt.NDArray[np.float32]

NAME = "openvino"
VERSION: str = openvino.__version__.partition("-")[0]
PROCESSOR = Cpu()


@functools.cache
def _core() -> openvino.Core:
    """The one of this process, kept to its end.

    Each new one gives the thread another stack for signals and frees it with the last model it compiled. Of two whose
    lives overlap, the second one's end brings back the stack that the first one's has freed, and the next signal kills
    the process (seen in 2026.4; `intel_cpu/src/plugin.cpp`).
    """
    return openvino.Core()


def compiled(model: bytes, batch: int, threads: int = 1) -> Any:
    """An ONNX model compiled for one batch size.

    Cores are not pinned, so that the engine's threads stay on those this process is held on.

    Raises:
        NasError: OpenVINO does not read the model, as with weights of 2 bits.
    """
    core = _core()
    try:
        network = core.read_model(model)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise NasError(f"engine openvino: cannot read this model ({reason}); take another engine for it") from error
    network.reshape([batch, *_shape(network)])
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    return core.compile_model(network, "CPU", settings)


def predict(model: bytes, images: npt.NDArray[np.floating[Any]]) -> Float32Array:
    """Logits (n, classes) of images (n, ...), which are reshaped to what the model reads.

    Raises:
        NasError: An image has another number of values than the model reads.
    """
    running = compiled(model, len(images))
    shape = _shape(running)
    if math.prod(images.shape[1:]) != math.prod(shape):
        raise NasError(f"images have shape {images.shape}; this model reads (n, {', '.join(map(str, shape))})")
    logits: Float32Array = running(images.reshape(-1, *shape).astype(np.float32))[0]
    return logits


def repeated_call(model: bytes, threads: int = 1) -> Callable[[int], None]:
    """A function that runs the model so many times on one fixed input (batch 1), which stays bound."""
    running = compiled(model, 1, threads)
    request = running.create_infer_request()
    values = np.random.default_rng(0).normal(size=(1, *_shape(running))).astype(np.float32)
    request.set_input_tensor(openvino.Tensor(values))

    def call(times: int) -> None:
        for _ in range(times):
            request.infer(share_outputs=True, decode_strings=False)

    return call


def _shape(model: Any) -> tuple[int, ...]:
    """Shape of one input."""
    return tuple(side.get_length() for side in list(model.inputs[0].get_partial_shape())[1:])
