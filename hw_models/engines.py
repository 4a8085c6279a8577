"""The engines latency is measured with, each in the one file that wraps it.

An engine is a module with the names of `Engine`: its maker's package is imported when it is asked for, and no sooner.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hw_models.machine import Engine
from nas.errors import NasError

DEFAULT = "onnxruntime"


def _onnxruntime() -> Engine:
    from hw_models import onnx_runtime

    return onnx_runtime


def _openvino() -> Engine:
    from hw_models import openvino_engine

    return openvino_engine


def _executorch() -> Engine:
    from hw_models import executorch_engine

    return executorch_engine


def _torch() -> Engine:
    from hw_models import torch_engine

    return torch_engine


def _torch_cuda() -> Engine:
    from hw_models import torch_cuda_engine

    return torch_cuda_engine.single()


def _torch_cuda_fp16() -> Engine:
    from hw_models import torch_cuda_engine

    return torch_cuda_engine.half()


ENGINES: Mapping[str, Callable[[], Engine]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "executorch": _executorch,
    "torch": _torch,
    "torch-cuda": _torch_cuda,
    "torch-cuda-fp16": _torch_cuda_fp16,
}

_TORCH = "'torch>=2.9,<3' 'onnx>=1.23,<1.24'"

REQUIREMENTS: Mapping[str, str] = {
    "onnxruntime": "'onnxruntime>=1.19'",
    "openvino": "'openvino>=2026.4,<2027' (the extra of hwnas[openvino])",
    "executorch": "'executorch>=1.5,<1.6' " + _TORCH + " (the extra of hwnas[executorch])",
    "torch": _TORCH,
    "torch-cuda": _TORCH,
    "torch-cuda-fp16": _TORCH,
}
"""What pip installs for each engine."""


def load_engine(name: str) -> Engine:
    """The engine of this name.

    Raises:
        NasError: There is none, its package is not installed on this machine, or it has no GPU that it needs.
    """
    if name not in ENGINES:
        raise NasError(f"engine {name!r} is unknown; known are {', '.join(ENGINES)}")
    try:
        return ENGINES[name]()
    except ImportError as error:
        raise NasError(
            f"engine {name}: is not installed on the machine that measures ({error}); there, pip install "
            f"{REQUIREMENTS[name]}"
        ) from error
