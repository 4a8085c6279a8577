"""The bottleneck block: reduce 1x1, convolve 3x3, restore 1x1, beside a shortcut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nas.genotype import Gate, Gene
from nas.network import Add, Layer, Pool
from nas.spaces.images import convolution, scaled
from nas.spaces.precision import PrecisionChoices, gene, layer_precision, precision_genes


@dataclass(frozen=True)
class Bottleneck:
    """Block `index` of a stage and its choices; `width` and `stride` are the stage's."""

    stage: int
    index: int
    gate: Gate | None
    width: int
    stride: int
    expand: tuple[float, ...]
    divisor: int

    @property
    def name(self) -> str:
        return f"s{self.stage}.b{self.index}"

    @property
    def first(self) -> bool:
        """Whether the block strides, and has a convolution as its shortcut."""
        return self.index == 1

    def present(self, values: Mapping[str, float]) -> bool:
        """Whether the stage is deep enough to have this block."""
        return self.index <= values[f"s{self.stage}.depth"]

    def genes(self, precision: PrecisionChoices) -> list[Gene]:
        """Ratio, and the precision of each convolution."""
        genes = [gene(f"{self.name}.ratio", "width", self.expand, self.gate)]
        for part in ("reduce", "conv", "restore", "shortcut")[: 3 + self.first]:
            genes += precision_genes(f"{self.name}.{part}", precision, self.gate)
        return genes

    def lower(self, source: Layer, values: Mapping[str, float]) -> list[Layer]:
        """The layers for the chosen values of all genes.

        The Add reads in the format of the block's first layer, which without a shortcut layer reads the same tensor.
        """
        name, stride = self.name, self.stride if self.first else 1
        width = scaled(self.width, values[f"s{self.stage}.width"], self.divisor)
        middle = scaled(width, values[f"{name}.ratio"], self.divisor)
        reduce = convolution(f"{name}.reduce", source, middle, values, activation="relu")
        conv = convolution(f"{name}.conv", reduce, middle, values, 3, stride, activation="relu")
        restore = convolution(f"{name}.restore", conv, width, values)
        shortcut = self._shortcut(source, width, values) if self.first else []
        skip = [source, *shortcut][-1]
        add = Add(f"{name}.add", (skip.name, restore.name), restore.out_shape, reduce.precision, "relu")
        return [reduce, conv, restore, *shortcut, add]

    def _shortcut(self, source: Layer, width: int, values: Mapping[str, float]) -> list[Layer]:
        """The mean of each window where the block strides, then a 1x1 convolution, both of one precision."""
        name, stride, pool = f"{self.name}.shortcut", self.stride, list[Layer]()
        if stride > 1:
            read, _ = layer_precision(values, name)
            pool = [Pool(f"{self.name}.pool", (source.name,), source.out_shape, stride, stride, "mean", read)]
        return [*pool, convolution(name, [source, *pool][-1], width, values)]
