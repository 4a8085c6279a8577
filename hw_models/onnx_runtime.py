"""ONNX Runtime on the CPU: how every model of the `onnxruntime` device family is run.

Its reports to the maker are off: they are nobody's wish here, and their thread disturbs what is measured.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

from hw_models.machine import Cpu
from nas.errors import NasError

Float32Array = npt.NDArray[np.float32]

NAME = "onnxruntime"
VERSION: str = ort.__version__
PROCESSOR = Cpu()


def session_options(threads: int = 1, *, integers: bool = False) -> ort.SessionOptions:
    """Options to compute in order on `threads` threads, the weights dequantized once while a model loads.

    ONNX Runtime keeps a DequantizeLinear for fusion with quantized kernels, which needs quantized activations;
    without these it would run at each inference, which makes small networks four times slower.
    `session.disable_quant_qdq` lets constant folding take it; `integers` keeps it, for models that do quantize their
    activations.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.disable_quant_qdq", "0" if integers else "1")
    return options


def session(model: bytes, threads: int = 1) -> ort.InferenceSession:
    """A session on the CPU with `session_options`: in integers if the model quantizes activations."""
    options = session_options(threads, integers=b"QuantizeLinear" in model)  # a DequantizeLinear has a small q
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def predict(model: bytes, images: npt.NDArray[np.floating[Any]]) -> Float32Array:
    """Logits (n, classes) of images (n, ...), which are reshaped to what the model reads.

    Raises:
        NasError: An image has another number of values than the model reads.
    """
    return next(iter(tensors(model, images).values()))


def tensors(model: bytes, images: npt.NDArray[np.floating[Any]]) -> dict[str, npt.NDArray[Any]]:
    """All outputs of a model by their names, as `predict`."""
    running = session(model)
    shape = running.get_inputs()[0].shape[1:]
    if math.prod(images.shape[1:]) != math.prod(shape):
        raise NasError(f"images have shape {images.shape}; this model reads (n, {', '.join(map(str, shape))})")
    outputs = running.run(None, {"input": images.reshape(-1, *shape).astype(np.float32)})
    return dict(zip((output.name for output in running.get_outputs()), outputs, strict=True))


def repeated_call(model: bytes, threads: int = 1) -> Callable[[int], None]:
    """A function that runs the model so many times on one fixed input (batch 1).

    Input and output stay bound, which leaves out 7 to 10 us a call of conversions in Python.
    """
    running = session(model, threads)
    shape = (1, *running.get_inputs()[0].shape[1:])
    binding = running.io_binding()
    binding.bind_cpu_input("input", np.random.default_rng(0).normal(size=shape).astype(np.float32))
    binding.bind_output("output")

    def call(times: int) -> None:
        for _ in range(times):
            running.run_with_iobinding(binding)

    return call
