"""Pools, scales and activations in ONNX Runtime against loops over windows and formulas in double precision."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hw_models.onnx_model import layer_bytes, stored_weight_bytes, to_onnx
from hw_models.onnx_runtime import predict
from hw_models.reference import random_design
from nas.design import Design, LayerNumbers
from nas.genotype import FloatArray
from nas.network import (
    Activation,
    Add,
    Conv2d,
    Input,
    Layer,
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
from nas.spaces import InteractionChoices
from nas.spaces.deepsets import Tower

Change = Callable[[Network, tuple[int, ...]], Network]
Make = Callable[[Network, int], Design]

ACTIVATIONS: dict[Activation, Callable[[FloatArray], FloatArray]] = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "hswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "hsigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
}


def pooled(layer: Pool, x: FloatArray) -> FloatArray:
    """Each window cut to the image, then its largest or its mean value."""
    out = np.full((len(x), *layer.out_shape), np.nan)
    for row, column in itertools.product(*map(range, layer.out_shape[1:])):
        start = (row * layer.stride - (layer.kernel - 1) // 2, column * layer.stride - (layer.kernel - 1) // 2)
        top, left = (max(0, first) for first in start)
        window = x[:, :, top : start[0] + layer.kernel, left : start[1] + layer.kernel]
        out[:, :, row, column] = window.max((2, 3)) if layer.kind == "max" else window.mean((2, 3))
    return out


def paired(first: FloatArray, second: FloatArray) -> FloatArray:
    """Each sum by itself: entry (i, j) is that of the i-th and the j-th."""
    count = first.shape[2]
    out = np.empty((*first.shape[:2], count, count))
    for i, j in itertools.product(range(count), repeat=2):
        out[:, :, i, j] = first[:, :, i, 0] + second[:, :, j, 0]
    return out


def weighted(layer: Conv2d | Linear, numbers: LayerNumbers, x: FloatArray) -> FloatArray:
    weight, bias = torch.tensor(numbers.weight), torch.tensor(numbers.bias)
    if isinstance(layer, Linear):
        return F.linear(torch.tensor(x), weight, bias).numpy()
    return F.conv2d(torch.tensor(x), weight, bias, layer.stride, layer.kernel // 2, 1, layer.groups).numpy()


def evaluated(design: Design, images: FloatArray) -> dict[str, FloatArray]:
    """Every layer's output."""
    tensors: dict[str, FloatArray] = {}
    for layer in design.network:
        reads = [tensors[name] for name in layer.inputs]
        match layer:
            case Input():
                out = images
            case Conv2d() | Linear():
                out = ACTIVATIONS[layer.activation](weighted(layer, design.numbers[layer.name], reads[0]))
            case Add():
                out = ACTIVATIONS[layer.activation](reads[0] + reads[1])
            case PairSum():
                out = ACTIVATIONS[layer.activation](paired(*reads))
            case Mean():
                out = reads[0].mean((2, 3))
            case RowMean():
                out = np.stack([reads[0][:, :, row].mean(2) for row in range(layer.in_shape[1])], 2)[..., None]
            case Pool():
                out = pooled(layer, reads[0])
            case Scale():
                out = np.einsum("nchw,nc->nchw", *reads)
        tensors[layer.name] = out
    return tensors


def squeezed(height: int, width: int) -> Network:
    """An inverted residual of MobileNetV3, strided and then not, and its head of two layers."""
    shape, half = (8, height, width), (24, -(-height // 2), -(-width // 2))
    small = (12, *half[1:])
    layers: tuple[Layer, ...] = (
        Input("image", (3, height, width)),
        Conv2d("stem", ("image",), (3, height, width), shape, 3, activation="hswish"),
        Conv2d("expand", ("stem",), shape, (24, height, width), 1, activation="hswish"),
        Conv2d("depthwise", ("expand",), (24, height, width), half, 5, 2, 24, "hswish"),
        *gated("depthwise", half),
        Conv2d("project", ("depthwise.scale",), half, small, 1),
        Conv2d("depthwise2", ("project",), small, small, 3, 1, 12, "relu"),
        *gated("depthwise2", small),
        Add("add", ("project", "depthwise2.scale"), small),
        Conv2d("last", ("add",), small, (20, *half[1:]), 1, activation="hswish"),
        Mean("mean", ("last",), (20, *half[1:])),
        Linear("features", ("mean",), (20,), (16,), "hswish", norm=False),
        Linear("head", ("features",), (16,), (10,), norm=False),
    )
    return Network(layers)


def gated(name: str, shape: Shape) -> tuple[Layer, ...]:
    """Squeeze-and-excitation of a layer's output."""
    channels = shape[0]
    return (
        Mean(f"{name}.mean", (name,), shape),
        Linear(f"{name}.squeeze", (f"{name}.mean",), (channels,), (6,), "relu", norm=False),
        Linear(f"{name}.excite", (f"{name}.squeeze",), (6,), (channels,), "hsigmoid", norm=False),
        Scale(f"{name}.scale", (name, f"{name}.excite"), shape),
    )


def bottleneck(height: int, width: int) -> Network:
    """Stem, pool and one strided bottleneck of ResNet-D, whose shortcut is a mean pool and a convolution."""
    shape, half = (16, height, width), (16, -(-height // 2), -(-width // 2))
    quarter = (-(-half[1] // 2), -(-half[2] // 2))
    layers: tuple[Layer, ...] = (
        Input("image", (3, height, width)),
        Conv2d("stem", ("image",), (3, height, width), shape, 3, activation="relu"),
        Pool("pool", ("stem",), shape, 3, 2, "max"),
        Conv2d("reduce", ("pool",), half, (4, *half[1:]), 1, activation="relu"),
        Conv2d("middle", ("reduce",), (4, *half[1:]), (4, *quarter), 3, 2, activation="relu"),
        Conv2d("restore", ("middle",), (4, *quarter), (32, *quarter), 1),
        Pool("shortcut.pool", ("pool",), half, 2, 2, "mean"),
        Conv2d("shortcut", ("shortcut.pool",), (16, *quarter), (32, *quarter), 1),
        Add("add", ("restore", "shortcut"), (32, *quarter), activation="relu"),
        Mean("mean", ("add",), (32, *quarter)),
        Linear("head", ("mean",), (32,), (10,), norm=False),
    )
    return Network(layers)


def interaction(particles: int) -> Network:
    """Pairs of particles, their messages' means, and the mean of all particles."""
    choices = InteractionChoices(Tower((2,), (16,)), Tower((2,), (24,)))
    space = choices.build((3, particles, 1), 10)
    return space.lower([0] * len(space.genes))


NETWORKS = {"interaction8": interaction(8), "interaction5": interaction(5)} | {
    f"{build.__name__}{height}x{width}": build(height, width)
    for build in (squeezed, bottleneck)
    for height, width in ((8, 8), (7, 10), (13, 5), (28, 27))
}


def random_images(network: Network, seed: int, count: int = 5) -> FloatArray:
    return np.random.default_rng(seed).normal(size=(count, *network.input.out_shape))


def require_equal(design: Design, images: FloatArray) -> dict[str, FloatArray]:
    """The model's logits are those of `evaluated`, to the rounding of single precision."""
    tensors = evaluated(design, images)
    expected = tensors[design.network.layers[-1].name]
    assert np.abs(predict(to_onnx(design), images) - expected).max() <= 1e-5 * max(1, np.abs(expected).max())
    return tensors


@pytest.mark.parametrize("name", NETWORKS)
def test_whole_networks(name: str) -> None:
    network = NETWORKS[name]
    for seed in range(3):
        tensors = require_equal(random_design(network, seed), random_images(network, seed))
        assert all(np.ptp(values) > 1e-3 for values in tensors.values()), "a dead tensor proves nothing"


@pytest.mark.parametrize("kind", ["max", "mean"])
@pytest.mark.parametrize("kernel", range(1, 6))
@pytest.mark.parametrize("stride", range(1, 5))
def test_pools_of_any_window(kind: str, kernel: int, stride: int) -> None:
    """Values below 0 alone, so that a padding that counted would be a maximum and draw a mean up.

    Behind a convolution the engine pools in blocks of channels, by other kernels than at the input.
    """
    for size, source in itertools.product(((7, 10), (8, 3)), ("image", "same")):
        shape = (16, *size)
        same = Conv2d("same", ("image",), shape, shape, 1)
        pool = Pool("pool", (source,), shape, kernel, stride, kind)  # type: ignore[arg-type]
        layers = (Input("image", shape), same, pool) if source == "same" else (Input("image", shape), pool)
        identity = LayerNumbers(weight=np.eye(16).reshape(same.weight_shape), bias=np.zeros(16))
        design = Design(Network(layers), {"same": identity, "pool": LayerNumbers()})
        images = -1 - np.random.default_rng(kernel).random((3, *shape))
        assert require_equal(design, images)["pool"].shape == (3, 16, -(-size[0] // stride), -(-size[1] // stride))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("operation", ["convolution", "linear", "sum", "sum of pairs"])
def test_activations_after_every_operation(activation: Activation, operation: str) -> None:
    """The identity and then the activation, at its kinks and on both sides of them."""
    shape = (1, 1, 1) if operation in ("convolution", "sum of pairs") else (1,)
    layer: Layer
    match operation:
        case "convolution":
            layer = Conv2d("layer", ("image",), shape, shape, 1, activation=activation)
        case "linear":
            layer = Linear("layer", ("image",), shape, shape, activation)
        case "sum of pairs":
            layer = PairSum("layer", ("image", "image"), shape, activation=activation)
        case _:
            layer = Add("layer", ("image", "image"), shape, activation=activation)
    images = np.linspace(-6, 6, 97).reshape(-1, *shape)
    assert {-3.0, 0.0, 3.0} <= set(images.ravel())
    one = np.ones(layer.weight_shape) if isinstance(layer, Weighted) else None
    design = Design(Network((Input("image", shape), layer)), {"layer": LayerNumbers(weight=one, bias=np.zeros(1))})
    require_equal(design, images)


@pytest.mark.parametrize("name", ["squeezed7x10", "bottleneck7x10"])
def test_few_bits_and_what_they_take_in_the_file(name: str, with_weight_bits: Change, weight_only_design: Make) -> None:
    for bits in (2, 4, 8, 32):
        network = with_weight_bits(NETWORKS[name], (bits,))
        design = weight_only_design(network, bits)
        require_equal(design, random_images(network, bits))
        assert stored_weight_bytes(to_onnx(design)) == sum(map(layer_bytes, network))
