"""`resnet`: bottleneck blocks with elastic depth, width, expand ratio and resolution, as Once-for-All's ResNet50D.

Blocks are those of He et al. (arXiv 1512.03385, section 4.1); the deep stem and the pooled shortcut are ResNet-D's
(arXiv 1812.01187, section 4.2). Once-for-All is arXiv 1908.09791.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from nas.errors import NasError
from nas.genotype import Gene
from nas.network import Add, Layer, Linear, Mean, Network, Pool, Shape
from nas.spaces.bottleneck import Bottleneck
from nas.spaces.images import (
    convolution,
    dense,
    entry,
    require_distinct,
    require_images,
    require_resolution,
    require_scaling,
    resolution_genes,
    scaled,
)
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
class ResnetStage:
    """Blocks of one width; the first one strides."""

    width: int
    stride: int
    depth: tuple[int, ...]

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        require_choices("depth", self.depth)
        if min(self.width, self.stride, *self.depth) < 1:
            raise NasError(f"width, stride and depth must be at least 1; got {self}")


@dataclass(frozen=True)
class ResnetChoices:
    """What a config says of a resnet space.

    Attributes:
        stem: Channels that leave the stem; its first convolution has half of them.
        stages: The blocks, stage by stage.
        expand: Channels of a block's 3x3 convolution, as a share of those that leave it.
        width: Multiples of the widths of the stem and of each stage, each of which has a choice of its own.
        precision: Choices of each weighted layer.
        stem_depth: Whether the stem has a third, residual convolution: some of 0 and 1.
        stem_stride: Stride of the stem's first convolution.
        stem_pool: Whether a 3x3 maximum of stride 2 ends the stem.
        resolution: Choices of the edge of the square input, in pixels; none for the data's own size.
        divisor: Channels are rounded to multiples of it, see `make_divisible`.
    """

    stem: int
    stages: tuple[ResnetStage, ...]
    expand: tuple[float, ...]
    width: tuple[float, ...] = (1.0,)
    precision: PrecisionChoices = field(default_factory=PrecisionChoices)
    stem_depth: tuple[int, ...] = (0,)
    stem_stride: int = 1
    stem_pool: bool = False
    resolution: tuple[int, ...] = ()
    divisor: int = 8

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        require_scaling(self.divisor, expand=self.expand, width=self.width)
        require_choices("stem_depth", self.stem_depth)
        if not set(self.stem_depth) <= {0, 1}:
            raise NasError(f"stem_depth counts convolutions added to the stem, 0 or 1; got {list(self.stem_depth)}")
        if not self.stages or min(self.stem, self.stem_stride) < 1:
            raise NasError(
                "a resnet space needs a stem of at least 1 channel and stride 1, and at least one stage; "
                f"got stem {self.stem}, stem_stride {self.stem_stride} and {len(self.stages)} stages"
            )
        strides = (self.stem_stride, 1 + self.stem_pool, *(stage.stride for stage in self.stages))
        require_resolution(self.resolution, math.prod(strides))
        self._require_distinct_widths()

    def _require_distinct_widths(self) -> None:
        for name, width in {"stem": self.stem, **{f"s{s}": stage.width for s, stage in self._numbered}}.items():
            widths = [scaled(width, multiple, self.divisor) for multiple in self.width]
            require_distinct(name, "width", self.width, widths, self.divisor)
            for out in widths if name != "stem" else ():
                middles = [scaled(out, ratio, self.divisor) for ratio in self.expand]
                require_distinct(f"{name} of width {out}", "expand", self.expand, middles, self.divisor)

    @property
    def _numbered(self) -> enumerate[ResnetStage]:
        return enumerate(self.stages, 1)

    @cached_property
    def blocks(self) -> tuple[Bottleneck, ...]:
        """Every block of the deepest network, in order; the stem's depth gene comes before the stages'."""
        return tuple(
            Bottleneck(s, b, depth_gate(s, stage.depth, b), stage.width, stage.stride, self.expand, self.divisor)
            for s, stage in self._numbered
            for b in range(1, max(stage.depth) + 1)
        )

    def build(self, input_shape: Shape, classes: int) -> ResnetSpace:
        """The space over images of this shape."""
        require_images("resnet", input_shape, self.resolution)
        return ResnetSpace(self, input_shape, classes)


@dataclass(frozen=True)
class ResnetSpace:
    """Stem of two or three 3x3 convolutions, stages of bottlenecks, mean over positions, classifier."""

    choices: ResnetChoices
    input_shape: Shape
    classes: int

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        choices, stages = self.choices, range(1, len(self.choices.stages) + 1)
        genes = [gene("stem.depth", "depth", choices.stem_depth)]
        genes += [gene(f"s{s}.depth", "depth", stage.depth) for s, stage in enumerate(choices.stages, 1)]
        genes += resolution_genes(choices.resolution)
        genes += [gene(f"{part}.width", "width", choices.width) for part in ("stem", *(f"s{s}" for s in stages))]
        genes += precision_genes("stem.conv1", choices.precision)
        if 1 in choices.stem_depth:
            genes += precision_genes("stem.conv2", choices.precision, depth_gate(0, choices.stem_depth, 1))
        genes += precision_genes("stem.conv3", choices.precision)
        for block in choices.blocks:
            genes += block.genes(choices.precision)
        return tuple(genes + precision_genes("head", choices.precision))

    def lower(self, genotype: Sequence[int]) -> Network:
        values = chosen(self.genes, list(genotype))
        layers: list[Layer] = [entry(self.input_shape, values)]
        layers += self._stem(layers[-1], values)
        for block in self.choices.blocks:
            if block.present(values):
                layers += block.lower(layers[-1], values)
        last, (read, _) = layers[-1], layer_precision(values, "head")
        mean = Mean("mean", (last.name,), last.out_shape, read)
        head: Linear = dense("head", mean, self.classes, values, "identity")
        return Network(patterned((*layers, mean, head), self.choices.precision))

    def _stem(self, images: Layer, values: Mapping[str, float]) -> list[Layer]:
        """The Add reads in the format of the convolution beside it; the pool in that of the first block."""
        choices = self.choices
        width = scaled(choices.stem, values["stem.width"], choices.divisor)
        half = scaled(width, 0.5, choices.divisor)
        layers: list[Layer] = [
            convolution("stem.conv1", images, half, values, 3, choices.stem_stride, activation="relu")
        ]
        if values["stem.depth"]:
            first = layers[0]
            conv = convolution("stem.conv2", first, half, values, 3, activation="relu")
            layers += [conv, Add("stem.add", (first.name, conv.name), conv.out_shape, conv.precision)]
        layers.append(convolution("stem.conv3", layers[-1], width, values, 3, activation="relu"))
        if choices.stem_pool:
            read, _ = layer_precision(values, "s1.b1.reduce")
            layers.append(Pool("stem.pool", ("stem.conv3",), layers[-1].out_shape, 3, 2, "max", read))
        return layers

    def maximal(self) -> tuple[Network, ...]:
        return (self.lower([len(gene.choices) - 1 for gene in self.genes]),)
