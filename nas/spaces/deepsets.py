"""`deepsets`: one network for every particle, the mean of what it gives, and a network of that mean.

Deep sets are Zaheer et al. (arXiv 1703.06114, section 2.2), here with a mean for the sum; for jets in a trigger,
"Sets are all you need" (arXiv 2402.01876, section 3).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from nas.errors import NasError
from nas.genotype import Gene
from nas.network import Conv2d, Input, Layer, Linear, Mean, Network, Shape
from nas.spaces.images import dense
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
class Tower:
    """Fully connected layers with ReLU: how many, and the widths of each."""

    depth: tuple[int, ...]
    width: tuple[int, ...]

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        require_choices("depth", self.depth)
        require_choices("width", self.width)
        if min(*self.depth, *self.width) < 1:
            raise NasError(f"depth and width must be at least 1; got {list(self.depth)} and {list(self.width)}")

    def genes(self, name: str, depth: int, precision: PrecisionChoices, spared: int = 0) -> list[Gene]:
        """Width and precision of layers `name1`, `name2`, ..., all but the last `spared`; `depth` is the gene's index.

        A network has as many of them as its depth, less `spared`.
        """
        genes: list[Gene] = []
        for index in range(1, max(self.depth) + 1 - spared):
            gate = depth_gate(depth, self.depth, index + spared)
            genes.append(gene(f"{name}{index}.width", "width", self.width, gate))
            genes += precision_genes(f"{name}{index}", precision, gate)
        return genes


@dataclass(frozen=True)
class DeepsetsChoices:
    """What a config says of a deepsets space.

    Attributes:
        phi: The layers that every particle goes through.
        rho: The layers behind the mean, before the classifier.
        particles: Choices of how many of the data's particles are read, the first ones; none for all. Powers of two,
            so that a mean over them is a shift.
        precision: Choices of each weighted layer.
    """

    phi: Tower
    rho: Tower
    particles: tuple[int, ...] = ()
    precision: PrecisionChoices = field(default_factory=PrecisionChoices)

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        require_particles(self.particles)

    def build(self, input_shape: Shape, classes: int) -> DeepsetsSpace:
        """The space over sets of this shape: (features, particles, 1)."""
        require_sets("deepsets", input_shape, self.particles)
        return DeepsetsSpace(self, input_shape, classes)


@dataclass(frozen=True)
class DeepsetsSpace:
    """`phi1`, `phi2`, ... and `latent` of every particle, mean, `rho1`, `rho2`, ... and the classifier.

    The last layer of phi, `latent3` at depth 3, and the classifier, `head2` behind `rho2`, are layers of their own for
    each depth, so that channels can be sorted by importance without changing any network. Everything else is shared.
    """

    choices: DeepsetsChoices
    input_shape: Shape
    classes: int

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        choices = self.choices
        phi, rho, precision = choices.phi, choices.rho, choices.precision
        genes = [gene("phi.depth", "depth", phi.depth), gene("rho.depth", "depth", rho.depth)]
        genes += [gene("particles", "resolution", choices.particles)] if choices.particles else []
        genes += phi.genes("phi", 0, precision, spared=1)
        genes += [gene("latent.width", "width", phi.width), *precision_genes("latent", precision)]
        genes += rho.genes("rho", 1, precision)
        return tuple(genes + precision_genes("head", precision))

    def lower(self, genotype: Sequence[int]) -> Network:
        values = chosen(self.genes, list(genotype))
        depth, features = int(values["phi.depth"]), self.input_shape[0]
        layers: list[Layer] = [Input("input", (features, int(values.get("particles", self.input_shape[1])), 1))]
        for index in range(1, depth):
            layers.append(positionwise(f"phi{index}", layers[-1], f"phi{index}", values))
        layers.append(positionwise(f"latent{depth}", layers[-1], "latent", values))
        return Network(patterned((*layers, *self._behind(layers[-1], values)), self.choices.precision))

    def _behind(self, source: Layer, values: Mapping[str, float]) -> list[Layer]:
        """What follows phi; the mean reads in the format of the layer that reads it."""
        depth = int(values["rho.depth"])
        layers: list[Layer] = [Mean("mean", (source.name,), source.out_shape, layer_precision(values, "rho1")[0])]
        for index in range(1, depth + 1):
            name, last = f"rho{index}", layers[-1]
            read, out = layer_precision(values, name), (int(values[f"{name}.width"]),)
            layers.append(Linear(name, (last.name,), last.out_shape, out, "relu", True, *read))
        return [*layers, dense(f"head{depth}", layers[-1], self.classes, values, "identity", "head")]

    def maximal(self) -> tuple[Network, ...]:
        top = [len(gene.choices) - 1 for gene in self.genes]
        depths = itertools.product(range(len(self.choices.phi.depth)), range(len(self.choices.rho.depth)))
        return tuple(self.lower([*depth, *top[2:]]) for depth in depths)


def require_particles(particles: tuple[int, ...]) -> None:
    """Refuse repeating numbers of particles, and those whose mean is no shift."""
    if particles:
        require_choices("particles", particles)
    if any(count < 1 or count.bit_count() != 1 for count in particles):
        raise NasError(f"particles must be powers of two, whose mean is a shift; got {list(particles)}")


def require_sets(space: str, shape: Shape, particles: tuple[int, ...]) -> None:
    """Refuse data that are not sets, and more particles than they have."""
    if len(shape) != 3 or shape[2] != 1:
        law = f"a space `{space}` reads sets, (features, particles, 1)"
        raise NasError(f"{law}; this data has shape {shape}; the data set `jets` gives such")
    if max(particles, default=0) > shape[1]:
        law = f"particles must be at most the data's, {shape[1]}"
        raise NasError(f"{law}; got {max(particles)}; drop it, or raise data.particles")


def positionwise(name: str, source: Layer, genes: str, values: Mapping[str, float]) -> Conv2d:
    """A fully connected layer of each position of `source`, with ReLU; its genes have the name `genes`."""
    precision, sparsity = layer_precision(values, genes)
    out = (int(values[f"{genes}.width"]), *source.out_shape[1:])
    return Conv2d(name, (source.name,), source.out_shape, out, 1, 1, 1, "relu", True, precision, sparsity)
