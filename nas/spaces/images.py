"""What the spaces over images share: rounded channels, elastic resolution, and layers that follow a layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from nas.errors import NasError
from nas.genotype import Gene
from nas.network import Activation, Conv2d, Input, Layer, Linear, Shape
from nas.spaces.precision import gene, layer_precision, require_choices

Nonlinearity = Literal["relu", "hswish"]


def make_divisible(channels: float, divisor: int) -> int:
    """The nearest multiple of `divisor`, halves up, at least `divisor` and never below 90 % of `channels`.

    The rule of MobileNetV2 (arXiv 1801.04381) and its successors.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def scaled(channels: int, ratio: float, divisor: int) -> int:
    """A multiple of a number of channels, rounded to an integer and then to a multiple of `divisor`."""
    return make_divisible(round(channels * ratio), divisor)


def require_distinct(where: str, name: str, ratios: tuple[float, ...], channels: list[int], divisor: int) -> None:
    """Refuse ratios that round to equal numbers of channels: two genotypes would mean one network."""
    seen: dict[int, float] = {}
    for ratio, count in zip(ratios, channels, strict=True):
        if count in seen:
            law = f"each {name} choice must give its own number of channels, a multiple of {divisor}"
            raise NasError(
                f"{where}: {law}; {seen[count]:g} and {ratio:g} both give {count}; drop one, or lower the divisor"
            )
        seen[count] = ratio


def require_scaling(divisor: int, **ratios: tuple[float, ...]) -> None:
    """Refuse a divisor below 1, and lists of ratios that are empty, repeat or are not positive."""
    if divisor < 1:
        raise NasError(f"divisor must be at least 1, which rounds to whole channels; got {divisor}")
    for name, choices in ratios.items():
        require_choices(name, choices)
        if min(choices) <= 0:
            raise NasError(f"{name} ratios must be positive, got {list(choices)}")


def require_resolution(resolution: tuple[int, ...], stride: int) -> None:
    """Refuse repeating resolutions, and those that the network's total stride would shrink to nothing."""
    if resolution:
        require_choices("resolution", resolution)
        if min(resolution) < stride:
            law = f"resolution must be at least the product of all strides, {stride}"
            raise NasError(f"{law}; got {min(resolution)}; raise it or lower strides")


def require_images(space: str, shape: Shape, resolution: tuple[int, ...]) -> None:
    """Refuse data that are not images, or not square ones where the resolution is elastic."""
    if len(shape) != 3:
        raise NasError(f"a {space} space reads images (channels, height, width); this data has shape {shape}")
    if resolution and shape[1] != shape[2]:
        law = "resolution lists edges of square images"
        raise NasError(f"a {space} space: {law}; this data has shape {shape}; leave resolution out")


def resolution_genes(resolution: tuple[int, ...]) -> list[Gene]:
    """The gene of the input's edge; none where the data says it."""
    return [gene("resolution", "resolution", resolution)] if resolution else []


def entry(shape: Shape, values: Mapping[str, float]) -> Input:
    """The input: images of this shape, (channels, height, width), at the chosen resolution."""
    edge = int(values.get("resolution", 0))
    return Input("input", (shape[0], edge, edge) if edge else shape)


def convolution(
    name: str,
    source: Layer,
    width: int,
    values: Mapping[str, float],
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    activation: Activation = "identity",
) -> Conv2d:
    """A convolution that reads `source`, with BatchNorm and precision genes of its own."""
    height, wide = (math.ceil(size / stride) for size in source.out_shape[1:])
    precision, sparsity = layer_precision(values, name)
    shapes = source.out_shape, (width, height, wide)
    return Conv2d(name, (source.name,), *shapes, kernel, stride, groups, activation, True, precision, sparsity)


def dense(
    name: str, source: Layer, width: int, values: Mapping[str, float], activation: Activation, genes: str | None = None
) -> Linear:
    """A matrix product without BatchNorm that reads `source`; its precision genes have the name `genes`, or its own."""
    precision, sparsity = layer_precision(values, genes or name)
    return Linear(name, (source.name,), source.out_shape, (width,), activation, False, precision, sparsity)
