"""Genes every weighted layer has, in every space: its weight bits, activation bits and sparsity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from nas.errors import NasError
from nas.genotype import Gate, Gene, GeneKind
from nas.network import FLOAT_BITS, Layer, Pattern, Precision, Weighted
from nas.pruning import GROUP


@dataclass(frozen=True)
class PrecisionChoices:
    """Choices each weighted layer has of its own, in any order; 32 bits stand for float.

    `pattern` is that of the zeros of all layers where it can be, see `nas.pruning`.
    """

    weight_bits: tuple[int, ...] = (FLOAT_BITS,)
    act_bits: tuple[int, ...] = (FLOAT_BITS,)
    sparsity: tuple[float, ...] = (0.0,)
    pattern: Pattern = "unstructured"

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for name in ("weight_bits", "act_bits", "sparsity"):
            require_choices(name, getattr(self, name))
        for weight in self.weight_bits:
            Precision(weight_bits=weight)
        for act in self.act_bits:
            Precision(act_bits=act)
        if not all(0 <= s < 1 for s in self.sparsity):
            raise NasError(f"sparsity must lie in [0, 1), the share of zeros; got {list(self.sparsity)}")
        if self.pattern == "n_of_m" and any(s * GROUP % 1 for s in self.sparsity):
            law = f"sparsity must be multiples of 1/{GROUP} for pattern n_of_m, which takes some of {GROUP} inputs"
            raise NasError(f"{law}; got {list(self.sparsity)}")


def require_choices(name: str, choices: tuple[float, ...]) -> None:
    """Refuse an empty or repeating list of choices."""
    if not choices or len(set(choices)) != len(choices):
        raise NasError(f"{name} must list distinct choices, at least one; got {list(choices)}")


def gene(name: str, kind: GeneKind, choices: tuple[float, ...], gate: Gate | None = None) -> Gene:
    """A gene with its choices put in order."""
    return Gene(name, kind, tuple(sorted(choices, reverse=kind == "sparsity")), gate)


def depth_gate(depth: int, choices: tuple[int, ...], block: int) -> Gate | None:
    """The gate of the genes of block 1, 2, ... under the depth gene at index `depth`; None where it is always there."""
    least = next(index for index, count in enumerate(sorted(choices)) if count >= block)
    return Gate(depth, least) if least else None


def precision_genes(layer: str, choices: PrecisionChoices, gate: Gate | None = None) -> list[Gene]:
    """The three genes of one weighted layer."""
    return [
        gene(f"{layer}.weight_bits", "weight_bits", choices.weight_bits, gate),
        gene(f"{layer}.act_bits", "act_bits", choices.act_bits, gate),
        gene(f"{layer}.sparsity", "sparsity", choices.sparsity, gate),
    ]


def layer_precision(values: Mapping[str, float], layer: str) -> tuple[Precision, float]:
    """Read a layer's precision and sparsity from the chosen values of all genes."""
    precision = Precision(int(values[f"{layer}.weight_bits"]), int(values[f"{layer}.act_bits"]))
    return precision, values[f"{layer}.sparsity"]


def patterned(layers: Sequence[Layer], choices: PrecisionChoices) -> tuple[Layer, ...]:
    """Layers of a space with these choices, their zeros in its pattern."""
    if choices.pattern == "unstructured":
        return tuple(layers)
    return tuple(replace(layer, pattern=choices.pattern) if isinstance(layer, Weighted) else layer for layer in layers)


def chosen(genes: tuple[Gene, ...], genotype: tuple[int, ...] | list[int]) -> dict[str, float]:
    """The value each gene takes; every index is checked."""
    if len(genotype) != len(genes):
        raise NasError(f"a genotype of this space has {len(genes)} genes, got {len(genotype)}")
    for gene_, index in zip(genes, genotype, strict=True):
        if not 0 <= index < len(gene_.choices):
            raise NasError(f"gene {gene_.name}: index must be 0..{len(gene_.choices) - 1}, got {index}")
    return {gene_.name: gene_.choices[index] for gene_, index in zip(genes, genotype, strict=True)}
