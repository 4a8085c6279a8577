"""PyTorch on the CPU, one operation after the other (eager) and channels last, in single precision.

The ONNX file is read node by node into torch's functions, for the engines of GPUs too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper
from torch import Tensor

from hw_models.machine import Cpu
from nas.errors import NasError

Float32Array = npt.NDArray[np.float32]

NAME = "torch"
VERSION: str = torch.__version__.partition("+")[0]
PROCESSOR = Cpu()

Operation = Callable[..., Tensor]
Place = Callable[[Tensor], Tensor]
"""Puts a tensor where it is computed with, in the precision and the layout in which it is."""

_PLAIN: Mapping[str, Operation] = {
    "Relu": F.relu,
    "HardSwish": F.hardswish,
    "HardSigmoid": F.hardsigmoid,
    "Gemm": F.linear,
    "Add": torch.add,
    "Mul": torch.mul,
    "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True),
    "Flatten": lambda x: x.flatten(1),
    "Unsqueeze": lambda x, _axes: x[:, :, None, None],
    "Transpose": lambda x: x.transpose(2, 3),
}


class Model:
    """An ONNX model's operations, each with the names it reads and the one it gives, and its constants."""

    def __init__(self, model: bytes, place: Place) -> None:
        graph = onnx.load_from_string(model).graph
        self.shape = tuple(side.dim_value for side in graph.input[0].type.tensor_type.shape.dim)[1:]
        self.steps = [(_operation(n), list(n.input), n.output[0]) for n in graph.node if n.op_type != "Constant"]
        self.constants = {t.name: place(torch.tensor(numpy_helper.to_array(t))) for t in graph.initializer}
        self.constants |= {node.output[0]: torch.empty(0) for node in graph.node if node.op_type == "Constant"}

    def __call__(self, images: Tensor) -> Tensor:
        values = {**self.constants, "input": images}
        for operation, reads, gives in self.steps:
            values[gives] = operation(*[values[name] for name in reads])
        return values["output"]


def channels_last(values: Tensor) -> Tensor:
    """Images and kernels, with their channels next to each other in memory; other tensors as they are."""
    return values.contiguous(memory_format=torch.channels_last) if values.ndim == 4 else values


def predict(model: bytes, images: npt.NDArray[np.floating[Any]], place: Place = channels_last) -> Float32Array:
    """Logits (n, classes) of images (n, ...), which are reshaped to what the model reads.

    Raises:
        NasError: An image has another number of values than the model reads, or the model quantizes.
    """
    running = Model(model, place)
    if math.prod(images.shape[1:]) != math.prod(running.shape):
        raise NasError(f"images have shape {images.shape}; this model reads (n, {', '.join(map(str, running.shape))})")
    with torch.inference_mode():
        values = torch.tensor(images.reshape(-1, *running.shape), dtype=torch.float32)
        logits: Float32Array = running(place(values)).float().numpy(force=True)
    return logits


def repeated_call(model: bytes, threads: int = 1) -> Callable[[int], None]:
    """A function that runs the model so many times on one fixed input (batch 1).

    From then on, the whole process has this number of torch's threads.
    """
    torch.set_num_threads(threads)
    running = Model(model, channels_last)
    values = channels_last(one_input(running.shape))

    def call(times: int) -> None:
        with torch.inference_mode():
            for _ in range(times):
                running(values)

    return call


def one_input(shape: tuple[int, ...]) -> Tensor:
    """A fixed input of this shape, batch 1."""
    values = np.random.default_rng(0).normal(size=(1, *shape))
    return torch.tensor(values, dtype=torch.float32)


def _operation(node: onnx.NodeProto) -> Operation:
    if node.op_type in _PLAIN:
        return _PLAIN[node.op_type]
    options = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type not in ("Conv", "MaxPool", "AveragePool"):
        raise NasError(
            f"engines torch, torch-cuda and executorch run float models, not {node.op_type}; take another one"
        )
    stride, kernel, (top, left, bottom, right) = options["strides"], options["kernel_shape"], options["pads"]
    if node.op_type == "Conv":
        return lambda x, weight, bias: F.conv2d(x, weight, bias, stride, (top, left), 1, options["group"])
    sides = (left, right, top, bottom)
    if node.op_type == "MaxPool":
        return lambda x: F.max_pool2d(F.pad(x, sides, value=-math.inf), kernel, stride)
    return lambda x: F.avg_pool2d(F.pad(x, sides), kernel, stride) / _share_inside(x, sides, kernel, stride)


def _share_inside(x: Tensor, sides: tuple[int, ...], kernel: list[int], stride: list[int]) -> Tensor | float:
    """How much of each window is not padding, which the mean does not count."""
    return F.avg_pool2d(F.pad(torch.ones_like(x[:1, :1]), sides), kernel, stride) if any(sides) else 1.0
