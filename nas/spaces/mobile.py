"""`mobile`: inverted residual blocks with elastic depth, kernel, expand ratio and resolution, as in Once-for-All.

Blocks are MobileNetV2's (arXiv 1801.04381, section 3.3) and, with squeeze-and-excitation and hard swish, MobileNetV3's
(arXiv 1905.02244, section 5). Once-for-All is arXiv 1908.09791.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from nas.errors import NasError
from nas.genotype import Gene
from nas.network import Layer, Mean, Network, Shape
from nas.spaces.images import (
    Nonlinearity,
    convolution,
    dense,
    entry,
    make_divisible,
    require_distinct,
    require_images,
    require_resolution,
    require_scaling,
    resolution_genes,
)
from nas.spaces.inverted import InvertedResidual
from nas.spaces.precision import (
    PrecisionChoices,
    chosen,
    depth_gate,
    gene,
    layer_precision,
    patterned,
    precision_genes,
    require_choices,
)


@dataclass(frozen=True)
class Stage:
    """Blocks of one width; the first one strides.

    `kernel` and `expand`, where given, take the place of the space's. Where the only expand ratio is 1, blocks have no
    expansion. `squeeze` puts squeeze-and-excitation behind the depthwise convolutions.
    """

    width: int
    stride: int
    depth: tuple[int, ...]
    kernel: tuple[int, ...] = ()
    expand: tuple[float, ...] = ()
    activation: Nonlinearity = "relu"
    squeeze: bool = False

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        require_choices("depth", self.depth)
        if min(self.width, self.stride, *self.depth) < 1:
            raise NasError(f"width, stride and depth must be at least 1; got {self}")
        if self.kernel:
            _require_kernels(self.kernel)
        if self.expand:
            require_scaling(1, expand=self.expand)


@dataclass(frozen=True)
class MobileChoices:
    """What a config says of a mobile space: stem, stages, the choices of every block, and what follows the last.

    Attributes:
        stem: Channels of the 3x3 convolution that comes first.
        stages: The blocks, stage by stage.
        kernel: Kernel sizes of depthwise convolutions.
        expand: Channels inside a block, as a multiple of those it reads.
        precision: Choices of each weighted layer.
        stem_stride: Stride of the stem.
        stem_activation: Activation of the stem.
        resolution: Choices of the edge of the square input, in pixels; none for the data's own size.
        final: Channels of a 1x1 convolution with hard swish behind the last stage; 0 for none.
        features: Width of a linear layer with hard swish between mean and classifier; 0 for none.
        width_multiple: All widths are this multiple of what is given.
        divisor: Channels are rounded to multiples of it, see `make_divisible`.
    """

    stem: int
    stages: tuple[Stage, ...]
    kernel: tuple[int, ...]
    expand: tuple[float, ...]
    precision: PrecisionChoices = field(default_factory=PrecisionChoices)
    stem_stride: int = 1
    stem_activation: Nonlinearity = "relu"
    resolution: tuple[int, ...] = ()
    final: int = 0
    features: int = 0
    width_multiple: float = 1.0
    divisor: int = 1

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        _require_kernels(self.kernel)
        require_scaling(self.divisor, expand=self.expand, width_multiple=(self.width_multiple,))
        if not self.stages or self.stem < 1:
            raise NasError("a mobile space needs a stem of at least 1 channel and at least one stage")
        if self.stem_stride < 1:
            raise NasError(f"stem_stride must be at least 1, got {self.stem_stride}")
        if min(self.final, self.features) < 0:
            raise NasError(f"final and features are widths, 0 for none; got {self.final} and {self.features}")
        require_resolution(self.resolution, self.stem_stride * math.prod(stage.stride for stage in self.stages))
        for block in self.blocks:
            channels = [block.middle(ratio) for ratio in block.expand]
            require_distinct(block.name, "expand", block.expand, channels, self.divisor)

    def scaled(self, width: int) -> int:
        """A width of the config, multiplied and rounded; 0 stays 0."""
        return make_divisible(width * self.width_multiple, self.divisor) if width else 0

    @cached_property
    def blocks(self) -> tuple[InvertedResidual, ...]:
        """Every block of the deepest network, in order."""
        blocks: list[InvertedResidual] = []
        for s, stage in enumerate(self.stages, 1):
            for b in range(1, max(stage.depth) + 1):
                block = InvertedResidual(
                    stage=s,
                    index=b,
                    gate=depth_gate(s - 1, stage.depth, b),
                    reads=blocks[-1].width if blocks else self.scaled(self.stem),
                    width=self.scaled(stage.width),
                    stride=stage.stride if b == 1 else 1,
                    kernel=stage.kernel or self.kernel,
                    expand=stage.expand or self.expand,
                    activation=stage.activation,
                    squeeze=stage.squeeze,
                    divisor=self.divisor,
                )
                blocks.append(block)
        return tuple(blocks)

    def build(self, input_shape: Shape, classes: int) -> MobileSpace:
        """The space over images of this shape."""
        require_images("mobile", input_shape, self.resolution)
        return MobileSpace(self, input_shape, classes)


@dataclass(frozen=True)
class MobileSpace:
    """stem 3x3, stages of inverted residuals, mean over positions, classifier."""

    choices: MobileChoices
    input_shape: Shape
    classes: int

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        choices = self.choices
        genes = [gene(f"s{s}.depth", "depth", stage.depth) for s, stage in enumerate(choices.stages, 1)]
        genes += resolution_genes(choices.resolution)
        genes += precision_genes("stem", choices.precision)
        for block in choices.blocks:
            genes += block.genes(choices.precision)
        for tail in self._tail:
            genes += precision_genes(tail, choices.precision)
        return tuple(genes)

    @property
    def _tail(self) -> tuple[str, ...]:
        """The weighted layers behind the last stage."""
        widths = {"final": self.choices.final, "features": self.choices.features, "head": self.classes}
        return tuple(name for name, width in widths.items() if width)

    def lower(self, genotype: Sequence[int]) -> Network:
        values, choices = chosen(self.genes, list(genotype)), self.choices
        images = entry(self.input_shape, values)
        stem = convolution(
            "stem", images, choices.scaled(choices.stem), values, 3, choices.stem_stride,
            activation=choices.stem_activation,
        )  # fmt: skip
        layers: list[Layer] = [images, stem]
        for block in choices.blocks:
            if block.present(values):
                layers += block.lower(layers[-1], values)
        return Network(patterned((*layers, *self._lower_tail(layers[-1], values)), self.choices.precision))

    def _lower_tail(self, source: Layer, values: Mapping[str, float]) -> list[Layer]:
        """The mean reads in the format of the layer that reads it."""
        choices, layers = self.choices, [source]
        if choices.final:
            layers.append(convolution("final", source, choices.scaled(choices.final), values, activation="hswish"))
        reader = "features" if choices.features else "head"
        last = layers[-1]
        layers.append(Mean("mean", (last.name,), last.out_shape, layer_precision(values, reader)[0]))
        if choices.features:
            layers.append(dense("features", layers[-1], choices.scaled(choices.features), values, "hswish"))
        layers.append(dense("head", layers[-1], self.classes, values, "identity"))
        return layers[1:]

    def maximal(self) -> tuple[Network, ...]:
        return (self.lower([len(gene.choices) - 1 for gene in self.genes]),)


def _require_kernels(kernels: tuple[int, ...]) -> None:
    require_choices("kernel", kernels)
    if any(kernel < 1 or kernel % 2 == 0 for kernel in kernels):
        raise NasError(f"kernel choices must be odd, got {list(kernels)}")
