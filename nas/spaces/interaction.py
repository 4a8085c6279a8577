"""`interaction`: a message for every pair of particles, each particle's mean message, and the mean of all particles.

Interaction networks for jets are JEDI-net (Moreno et al., arXiv 1908.05318, section 3); in a trigger, "Sets are all you
need" (arXiv 2402.01876, section 3). Of particles x_1, ..., x_n:

    e_ij = edge([x_i, x_j]),  h_i = node([x_i, mean over j of e_ij]),  logits = head(mean over i of h_i)

Unlike there, a particle sends a message to itself, too: n^2 pairs and not n (n - 1), so that a mean is a shift.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from nas.genotype import Gene
from nas.network import Add, Conv2d, Input, Layer, Mean, Network, PairSum, Precision, RowMean, Shape
from nas.spaces.deepsets import Tower, positionwise, require_particles, require_sets
from nas.spaces.images import dense
from nas.spaces.precision import PrecisionChoices, chosen, gene, layer_precision, patterned, precision_genes


@dataclass(frozen=True)
class InteractionChoices:
    """What a config says of an interaction space.

    Attributes:
        edge: The layers that every pair goes through.
        node: The layers that every particle goes through, with what it was sent.
        particles: Choices of how many of the data's particles are read, the first ones; none for all. Powers of two,
            so that a mean over them is a shift.
        precision: Choices of each layer; the two products that make a first layer share one.
    """

    edge: Tower
    node: Tower
    particles: tuple[int, ...] = ()
    precision: PrecisionChoices = field(default_factory=PrecisionChoices)

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        require_particles(self.particles)

    def build(self, input_shape: Shape, classes: int) -> InteractionSpace:
        """The space over sets of this shape: (features, particles, 1)."""
        require_sets("interaction", input_shape, self.particles)
        return InteractionSpace(self, input_shape, classes)


@dataclass(frozen=True)
class InteractionSpace:
    """`edge1`, ... and `message` of every pair, `node1`, ... and `latent` of every particle, mean and `head`.

    A first layer, whose input is a concatenation, is the sum of two products. The last layer of a tower, `message2` at
    depth 2, is a layer of its own for each depth, so that channels can be sorted by importance without changing any
    network. Everything else is shared.
    """

    choices: InteractionChoices
    input_shape: Shape
    classes: int

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        choices = self.choices
        edge, node, precision = choices.edge, choices.node, choices.precision
        genes = [gene("edge.depth", "depth", edge.depth), gene("node.depth", "depth", node.depth)]
        genes += [gene("particles", "resolution", choices.particles)] if choices.particles else []
        for index, (tower, name, last) in enumerate(((edge, "edge", "message"), (node, "node", "latent"))):
            genes += tower.genes(name, index, precision, spared=1)
            genes += [gene(f"{last}.width", "width", tower.width), *precision_genes(last, precision)]
        return tuple(genes + precision_genes("head", precision))

    def lower(self, genotype: Sequence[int]) -> Network:
        values = chosen(self.genes, list(genotype))
        features, particles = self.input_shape[0], int(values.get("particles", self.input_shape[1]))
        entry = Input("input", (features, particles, 1))
        (name, genes), *deeper = _names("edge", "message", values)
        layers: list[Layer] = [entry, *_joined(PairSum, name, genes, {"receiver": entry, "sender": entry}, values)]
        for name, genes in deeper:
            layers.append(positionwise(name, layers[-1], genes, values))
        (name, genes), *deeper = _names("node", "latent", values)
        gathered = RowMean(f"{name}.gathered", (layers[-1].name,), layers[-1].out_shape, _reads(values, genes))
        layers += [gathered, *_joined(Add, name, genes, {"own": entry, "received": gathered}, values)]
        for name, genes in deeper:
            layers.append(positionwise(name, layers[-1], genes, values))
        mean = Mean("mean", (layers[-1].name,), layers[-1].out_shape, _reads(values, "head"))
        head = dense("head", mean, self.classes, values, "identity")
        return Network(patterned((*layers, mean, head), self.choices.precision))

    def maximal(self) -> tuple[Network, ...]:
        top = [len(gene.choices) - 1 for gene in self.genes]
        depths = itertools.product(range(len(self.choices.edge.depth)), range(len(self.choices.node.depth)))
        return tuple(self.lower([*depth, *top[2:]]) for depth in depths)


def _names(tower: str, last: str, values: Mapping[str, float]) -> list[tuple[str, str]]:
    """The layers of a tower, each with the name of its genes."""
    depth = int(values[f"{tower}.depth"])
    return [*((f"{tower}{index}",) * 2 for index in range(1, depth)), (f"{last}{depth}", last)]


def _reads(values: Mapping[str, float], reader: str) -> Precision:
    """A mean reads in the format of the layer that reads it."""
    return Precision(act_bits=int(values[f"{reader}.act_bits"]))


def _joined(
    op: type[PairSum | Add], name: str, genes: str, sources: Mapping[str, Layer], values: Mapping[str, float]
) -> list[Layer]:
    """A fully connected layer of two sources, with ReLU: a product of each, and their sum, which reads as they do."""
    precision, sparsity = layer_precision(values, genes)
    products = [
        Conv2d(
            f"{name}.{part}", (source.name,), source.out_shape, (int(values[f"{genes}.width"]), *source.out_shape[1:]),
            1, 1, 1, "identity", True, precision, sparsity,
        )
        for part, source in sources.items()
    ]  # fmt: skip
    inputs = tuple(product.name for product in products)
    return [*products, op(name, inputs, products[0].out_shape, precision, "relu")]
