"""What each layer does to its inputs: one implementation for the supernet and for all that is extracted from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.affine import Affine
from nas.errors import NasError
from nas.fixed_point import FixedPoint, Format
from nas.network import (
    Activated,
    Add,
    Conv2d,
    Input,
    Linear,
    Mean,
    Network,
    PairSum,
    Pool,
    RowMean,
    Scale,
    Shape,
    Weighted,
)
from supernet.formats import FIXED, Formats
from supernet.quantize import LearnedStep, quantize_act
from supernet.settings import Gradient

Unweighted = Add | PairSum | Mean | RowMean | Pool | Scale
Reader = Weighted | Unweighted
"""A layer that reads others: any but the input."""

Read = Format | LearnedStep | None
"""How a layer reads its inputs: in a format that is fixed, in one that is being learned, or as they come."""

R = TypeVar("R", bound=Read)


def run(
    network: Network,
    images: Tensor,
    act: Callable[[Reader, list[Tensor]], R],
    weighted: Callable[[Weighted, Tensor, R], Tensor],
    gradient: Gradient = "clipped",
) -> Tensor:
    """Logits, shape (n, classes), layer by layer; a tensor goes once its last reader has run.

    Args:
        network: What to run.
        images: Shape (n, *anything that fits the network's input), see `fit`.
        act: The format in which a layer reads these inputs.
        weighted: The output of a layer with weights, of its input in that format.
        gradient: How gradients pass the rounding to a format.
    """
    tensors = {network.input.name: fit(images, network.input.out_shape)}
    last = {source: layer for layer in network.layers for source in layer.inputs}
    for layer in network.layers[1:]:
        assert not isinstance(layer, Input)
        inputs = [tensors[name] for name in layer.inputs]
        for name in layer.inputs:
            if last[name] is layer:
                tensors.pop(name, None)
        fmt = act(layer, inputs)
        if isinstance(layer, Weighted):
            tensors[layer.name] = weighted(layer, quantize_act(inputs[0], fmt, gradient), fmt)
        else:
            tensors[layer.name] = combine(layer, inputs, fmt, gradient)
    return tensors[network.layers[-1].name]


def fit(images: Tensor, shape: Shape) -> Tensor:
    """Images as a network reads them, shape (n, *shape): resized where only the resolution differs.

    Resizing is bilinear with antialiasing; of images one pixel wide, which are sets, it takes the first members.
    Anything else that holds as many values per image is reshaped.

    Raises:
        NasError: The network reads more members than a set has.
    """
    if images.shape[1:] == shape:
        return images
    if images.dim() == 4 and len(shape) == 3 and images.shape[1] == shape[0]:
        if images.shape[3] == shape[2] == 1:
            return _first_members(images, shape[1])
        return F.interpolate(images, shape[1:], mode="bilinear", align_corners=False, antialias=True)
    return images.reshape(-1, *shape)


def _first_members(sets: Tensor, count: int) -> Tensor:
    if sets.shape[2] < count:
        raise NasError(f"a network of {count} members cannot read sets of {sets.shape[2]}; give it larger sets")
    return sets[:, :, :count]


def product(layer: Weighted, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolution or matrix product, without activation; x has shape (n, *layer.in_shape)."""
    match layer:
        case Conv2d():
            return F.conv2d(x, weight, bias, layer.stride, layer.kernel // 2, 1, layer.groups)
        case Linear():
            return F.linear(x, weight, bias)


def activate(layer: Activated, x: Tensor) -> Tensor:
    """The layer's activation."""
    match layer.activation:
        case "identity":
            return x
        case "relu":
            return torch.relu_(x)  # in place: every caller has just made x, and nothing that made it looks at it again
        case "hswish":
            return F.hardswish(x)
        case "hsigmoid":
            return F.hardsigmoid(x)


def batch_format(layer: Reader, inputs: list[Tensor], formats: Formats = FIXED) -> FixedPoint | Affine | None:
    """The format that suits what a layer reads of this batch; None for float."""
    return formats.act(_formatted(layer, inputs), layer.precision.act_bits)


def combine(layer: Unweighted, inputs: list[Tensor], act: Read, gradient: Gradient = "clipped") -> Tensor:
    """The output of a layer without weights, which reads its inputs in format `act`."""
    read = [quantize_act(x, act, gradient) for x in _formatted(layer, inputs)]
    match layer:
        case Add():
            return activate(layer, read[0] + read[1])
        case PairSum():
            return activate(layer, read[0] + read[1].transpose(2, 3))
        case Mean():
            return read[0].mean((2, 3))
        case RowMean():
            return read[0].mean(3, keepdim=True)
        case Pool():
            return _pool(layer, read[0])
        case Scale():
            return read[0] * inputs[1][:, :, None, None]


def _formatted(layer: Reader, inputs: list[Tensor]) -> list[Tensor]:
    """The inputs that a layer reads in its activation format: all of them, but of a Scale its map alone."""
    return inputs[:1] if isinstance(layer, Scale) else inputs


def _pool(layer: Pool, x: Tensor) -> Tensor:
    kernel, stride = layer.kernel, layer.stride
    even = kernel % 2 == 0  # there, the last window may reach past the end
    if even and stride == 1:
        raise NasError(f"layer {layer.name}: a pool of kernel {kernel} needs a stride of at least 2, or an odd kernel")
    if layer.kind == "max":
        pooled = F.max_pool2d(x, kernel, stride, (kernel - 1) // 2, ceil_mode=even)
    else:
        pooled = F.avg_pool2d(x, kernel, stride, (kernel - 1) // 2, ceil_mode=even, count_include_pad=False)
    height, width = layer.out_shape[1:]
    return pooled if pooled.shape[2:] == (height, width) else pooled[:, :, :height, :width]
