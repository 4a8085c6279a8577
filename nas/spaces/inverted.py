"""The inverted residual: expand, depthwise, squeeze, project, and a skip connection where shapes allow it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nas.genotype import Gate, Gene
from nas.network import Add, Layer, Mean, Scale
from nas.spaces.images import Nonlinearity, convolution, dense, make_divisible, scaled
from nas.spaces.precision import PrecisionChoices, gene, layer_precision, precision_genes

_SQUEEZE = 4


@dataclass(frozen=True)
class InvertedResidual:
    """Block `index` of a stage and its choices; `reads` is the width of what it reads."""

    stage: int
    index: int
    gate: Gate | None
    reads: int
    width: int
    stride: int
    kernel: tuple[int, ...]
    expand: tuple[float, ...]
    activation: Nonlinearity
    squeeze: bool
    divisor: int

    @property
    def name(self) -> str:
        return f"s{self.stage}.b{self.index}"

    def present(self, values: Mapping[str, float]) -> bool:
        """Whether the stage is deep enough to have this block."""
        return self.index <= values[f"s{self.stage}.depth"]

    def middle(self, ratio: float) -> int:
        """Channels of the depthwise convolution."""
        return scaled(self.reads, ratio, self.divisor)

    @property
    def expands(self) -> bool:
        """Whether the block has an expansion: MobileNetV2's first block, whose ratio is 1, has none."""
        return self.expand != (1,)

    def genes(self, precision: PrecisionChoices) -> list[Gene]:
        """Kernel, ratio, and the precision of each part."""
        genes = [gene(f"{self.name}.kernel", "kernel", self.kernel, self.gate)]
        genes.append(gene(f"{self.name}.ratio", "width", self.expand, self.gate))
        parts = {"expand": self.expands, "depthwise": True, "squeeze": self.squeeze, "project": True}
        for part in (part for part, there in parts.items() if there):
            genes += precision_genes(f"{self.name}.{part}", precision, self.gate)
        return genes

    def lower(self, source: Layer, values: Mapping[str, float]) -> list[Layer]:
        """The layers for the chosen values of all genes.

        The Add reads in the format of the block's first layer, which reads the same tensor.
        """
        name, kernel, middle = self.name, int(values[f"{self.name}.kernel"]), self.middle(values[f"{self.name}.ratio"])
        layers: list[Layer] = [source]
        if self.expands:
            layers.append(convolution(f"{name}.expand", source, middle, values, activation=self.activation))
        layers.append(
            convolution(
                f"{name}.depthwise", layers[-1], middle, values, kernel, self.stride, middle, self.activation
            )
        )  # fmt: skip
        if self.squeeze:
            layers += _squeeze(f"{name}.squeeze", layers[-1], make_divisible(middle // _SQUEEZE, self.divisor), values)
        project = convolution(f"{name}.project", layers[-1], self.width, values)
        layers.append(project)
        if project.out_shape == source.out_shape:
            read, _ = layer_precision(values, layers[1].name)
            layers.append(Add(f"{name}.add", (source.name, project.name), project.out_shape, read))
        return layers[1:]


def _squeeze(name: str, source: Layer, width: int, values: Mapping[str, float]) -> list[Layer]:
    """Squeeze-and-excitation (arXiv 1709.01507, section 3): the mean of each channel decides its gate.

    All of it has one set of precision genes; mean and scale read the same tensor in the same format.
    """
    read, _ = layer_precision(values, name)
    mean = Mean(f"{name}.mean", (source.name,), source.out_shape, read)
    reduce = dense(f"{name}.reduce", mean, width, values, "relu", name)
    gates = dense(f"{name}.gates", reduce, source.out_shape[0], values, "hsigmoid", name)
    return [mean, reduce, gates, Scale(f"{name}.scale", (source.name, gates.name), source.out_shape, read)]
