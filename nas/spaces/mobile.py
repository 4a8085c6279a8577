"""`mobile`: inverted residual blocks (MobileNetV2) with elastic depth, kernel and expand ratio, as in Once-for-All."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from nas.errors import NasError
from nas.genotype import Gate, Gene
from nas.network import Add, Conv2d, Input, Layer, Linear, Mean, Network, Shape
from nas.spaces.precision import PrecisionChoices, chosen, gene, layer_precision, precision_genes, require_choices


@dataclass(frozen=True)
class Stage:
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
class MobileChoices:
    """What a config says of a mobile space: stem width, stages, and the choices of every block."""

    stem: int
    stages: tuple[Stage, ...]
    kernel: tuple[int, ...]
    expand: tuple[float, ...]
    precision: PrecisionChoices = field(default_factory=PrecisionChoices)

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        require_choices("kernel", self.kernel)
        require_choices("expand", self.expand)
        if not self.stages or self.stem < 1:
            raise NasError("a mobile space needs a stem of at least 1 channel and at least one stage")
        if any(kernel < 1 or kernel % 2 == 0 for kernel in self.kernel):
            raise NasError(f"kernel choices must be odd, got {list(self.kernel)}")
        if min(self.expand) <= 0:
            raise NasError(f"expand ratios must be positive, got {list(self.expand)}")

    def build(self, input_shape: Shape, classes: int) -> MobileSpace:
        """The space over images of this shape."""
        if len(input_shape) != 3:
            raise NasError(f"a mobile space reads images (channels, height, width); this data has shape {input_shape}")
        return MobileSpace(self, input_shape, classes)


@dataclass(frozen=True)
class MobileSpace:
    """stem 3x3, stages of inverted residuals, mean over positions, classifier."""

    choices: MobileChoices
    input_shape: Shape
    classes: int

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        precision = self.choices.precision
        genes = [gene(f"s{s}.depth", "depth", stage.depth) for s, stage in enumerate(self.choices.stages, 1)]
        genes += precision_genes("stem", precision)
        for s, stage in enumerate(self.choices.stages, 1):
            depths = sorted(stage.depth)
            for b in range(1, depths[-1] + 1):
                least = next(index for index, depth in enumerate(depths) if depth >= b)
                gate = Gate(s - 1, least) if least else None
                block = f"s{s}.b{b}"
                genes.append(gene(f"{block}.kernel", "kernel", self.choices.kernel, gate))
                genes.append(gene(f"{block}.ratio", "width", self.choices.expand, gate))
                for layer in ("expand", "depthwise", "project"):
                    genes += precision_genes(f"{block}.{layer}", precision, gate)
        return tuple(genes + precision_genes("head", precision))

    def lower(self, genotype: Sequence[int]) -> Network:
        values = chosen(self.genes, list(genotype))
        precision, sparsity = layer_precision(values, "stem")
        height, width = self.input_shape[1:]
        layers: list[Layer] = [Input("input", self.input_shape)]
        stem_shape = (self.choices.stem, height, width)
        layers.append(
            Conv2d("stem", ("input",), self.input_shape, stem_shape, 3, 1, 1, "relu", True, precision, sparsity)
        )
        for s, stage in enumerate(self.choices.stages, 1):
            for b in range(1, int(values[f"s{s}.depth"]) + 1):
                layers += _block(f"s{s}.b{b}", layers[-1], stage.width, stage.stride if b == 1 else 1, values)
        precision, sparsity = layer_precision(values, "head")
        last = layers[-1]
        layers.append(Mean("mean", (last.name,), last.out_shape, precision))
        layers.append(
            Linear("head", ("mean",), last.out_shape[:1], (self.classes,), "identity", False, precision, sparsity)
        )
        return Network(tuple(layers))

    def maximal(self) -> tuple[Network, ...]:
        return (self.lower([len(gene.choices) - 1 for gene in self.genes]),)


def _block(name: str, source: Layer, width: int, stride: int, values: Mapping[str, float]) -> list[Layer]:
    """Expand, depthwise and project; an Add where shapes allow the skip connection.

    The Add reads in the format of the expansion, which reads the same tensor.
    """
    channels, height, wide = source.out_shape
    kernel, middle = int(values[f"{name}.kernel"]), max(1, round(channels * values[f"{name}.ratio"]))
    inner = (middle, height, wide)
    strided = (middle, math.ceil(height / stride), math.ceil(wide / stride))
    out = (width, *strided[1:])
    expand, depthwise, project = (f"{name}.{part}" for part in ("expand", "depthwise", "project"))
    read, zeros = layer_precision(values, expand)
    layers: list[Layer] = [
        Conv2d(expand, (source.name,), source.out_shape, inner, 1, 1, 1, "relu", True, read, zeros),
        Conv2d(
            depthwise, (expand,), inner, strided, kernel, stride, middle, "relu", True,
            *layer_precision(values, depthwise),
        ),
        Conv2d(
            project, (depthwise,), strided, out, 1, 1, 1, "identity", True, *layer_precision(values, project)
        ),
    ]  # fmt: skip
    if out == source.out_shape:
        layers.append(Add(f"{name}.add", (source.name, project), out, read))
    return layers
