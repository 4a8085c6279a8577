"""What each layer does to its inputs: one implementation for the supernet and for extracted subnets."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from nas.fixed_point import FixedPoint
from nas.network import Add, Conv2d, Linear, Mean, Weighted
from supernet.quantize import quantize_act


def product(layer: Weighted, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolution or matrix product, without activation; x has shape (n, *layer.in_shape)."""
    match layer:
        case Conv2d():
            return F.conv2d(x, weight, bias, layer.stride, layer.kernel // 2, 1, layer.groups)
        case Linear():
            return F.linear(x, weight, bias)


def activate(layer: Weighted, x: Tensor) -> Tensor:
    """The layer's activation."""
    return F.relu(x) if layer.activation == "relu" else x


def combine(layer: Add | Mean, inputs: list[Tensor], act: FixedPoint | None) -> Tensor:
    """Layers without weights: read the inputs in format `act`, then add them or take the mean over positions."""
    read = [quantize_act(x, act) for x in inputs]
    match layer:
        case Add():
            return read[0] + read[1]
        case Mean():
            return read[0].mean((2, 3))
