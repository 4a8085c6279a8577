"""`mlp`: fully connected networks with elastic depth and widths, the classic of the LHC triggers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from nas.errors import NasError
from nas.genotype import Gene
from nas.network import Input, Layer, Linear, Network, Shape
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
class MlpChoices:
    """What a config says of an mlp space: how many hidden layers, and the widths of each."""

    depth: tuple[int, ...]
    width: tuple[int, ...]
    precision: PrecisionChoices = field(default_factory=PrecisionChoices)

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        require_choices("depth", self.depth)
        require_choices("width", self.width)
        if min(*self.depth, *self.width) < 1:
            raise NasError(f"depth and width must be at least 1; got {list(self.depth)} and {list(self.width)}")

    def build(self, input_shape: Shape, classes: int) -> MlpSpace:
        """The space over vectors, or flattened images, of this shape."""
        return MlpSpace(self, math.prod(input_shape), classes)


@dataclass(frozen=True)
class MlpSpace:
    """Hidden layers `fc1`, `fc2`, ... with ReLU, and one classifier per depth: `head2` reads `fc2`.

    A classifier of its own for each depth lets the hidden channels be sorted by importance without changing
    any network.
    """

    choices: MlpChoices
    features: int
    classes: int

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        precision = self.choices.precision
        genes = [gene("depth", "depth", self.choices.depth)]
        for index in range(1, max(self.choices.depth) + 1):
            gate = depth_gate(0, self.choices.depth, index)
            genes.append(gene(f"fc{index}.width", "width", self.choices.width, gate))
            genes += precision_genes(f"fc{index}", precision, gate)
        return tuple(genes + precision_genes("head", precision))

    def lower(self, genotype: Sequence[int]) -> Network:
        values = chosen(self.genes, list(genotype))
        depth = int(values["depth"])
        layers: list[Layer] = [Input("input", (self.features,))]
        for index in range(1, depth + 1):
            name, source = f"fc{index}", layers[-1]
            out = (int(values[f"{name}.width"]),)
            read = layer_precision(values, name)
            layers.append(Linear(name, (source.name,), source.out_shape, out, "relu", True, *read))
        read, source = layer_precision(values, "head"), layers[-1]
        head = Linear(f"head{depth}", (source.name,), source.out_shape, (self.classes,), "identity", False, *read)
        return Network(patterned((*layers, head), self.choices.precision))

    def maximal(self) -> tuple[Network, ...]:
        top = [len(gene.choices) - 1 for gene in self.genes]
        return tuple(self.lower([depth, *top[1:]]) for depth in range(len(self.choices.depth)))
