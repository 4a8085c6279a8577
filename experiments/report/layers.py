"""A finished network layer by layer, as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nas.counts import macs, weight_count
from nas.design import Design
from nas.genotype import SearchSpace
from nas.network import FLOAT_BITS, Conv2d, Input, Layer, Linear, PairSum, Pool, RowMean, Shape, Weighted


@dataclass(frozen=True)
class LayerRow:
    """One layer.

    Attributes:
        name: The layer's name.
        kind: `convolution`, `depthwise`, `pointwise`, `linear`, `add`, `pair sum`, `mean`, `row mean`, `max pool`,
            `mean pool`, `scale` or `input`.
        kernel: Side of a convolution's or a pool's window; None elsewhere.
        stride: None where there is none.
        shape: Channels or features in and out, and an image's positions: `8 → 24 @ 8×8`, `@ 8×8 → 4×4` where they
            change.
        weight_bits: None without weights.
        act_bits: Bits in which the layer reads; None for the input.
        weights: Number of weights, zeros included.
        kept: Weights that are really not zero.
        macs: Multiply-accumulates, zeros included.
        costs: What the layer costs on its device, by metric; empty where a device's cost has no such parts.
    """

    name: str
    kind: str
    kernel: int | None
    stride: int | None
    shape: str
    weight_bits: int | None
    act_bits: int | None
    weights: int
    kept: int
    macs: int
    costs: Mapping[str, float]

    @property
    def zeros(self) -> float:
        """Share of weights that are zero."""
        return 1 - self.kept / self.weights if self.weights else 0.0

    @property
    def compressed(self) -> bool:
        """Whether the layer has weights, and any of them pruned or quantized, or what they multiply."""
        return bool(self.weights) and (self.zeros > 0 or {self.weight_bits, self.act_bits} != {FLOAT_BITS})


def layer_rows(design: Design, costs: Mapping[str, Mapping[str, float]]) -> tuple[LayerRow, ...]:
    """Every layer of a design with its costs, as stage `finalize` left them."""
    return tuple(_row(design, layer, costs[layer.name]) for layer in design.network.layers)


def _row(design: Design, layer: Layer, costs: Mapping[str, float]) -> LayerRow:
    return LayerRow(
        name=layer.name,
        kind=kind(layer),
        kernel=layer.kernel if isinstance(layer, Conv2d | Pool) else None,
        stride=layer.stride if isinstance(layer, Conv2d | Pool) else None,
        shape=_shape(layer.out_shape if isinstance(layer, Input) else layer.in_shape, layer.out_shape),
        weight_bits=layer.precision.weight_bits if isinstance(layer, Weighted) else None,
        act_bits=None if isinstance(layer, Input) else layer.precision.act_bits,
        weights=weight_count(layer),
        kept=design.nonzeros(layer.name) if isinstance(layer, Weighted) else 0,
        macs=macs(layer),
        costs=costs,
    )


def layer_order(space: SearchSpace) -> list[str]:
    """Names of all layers of a space as they follow each other, the alternative last ones together."""
    distance: dict[str, int] = {}
    for network in space.maximal():
        for behind, layer in enumerate(reversed(network.layers)):
            distance[layer.name] = max(behind, distance.get(layer.name, 0))
    return sorted(distance, key=lambda name: -distance[name])


def kind(layer: Layer) -> str:
    """What a reader calls such a layer."""
    match layer:
        case Conv2d() if layer.depthwise:
            return "depthwise"
        case Conv2d() if layer.kernel == 1:
            return "pointwise"
        case Conv2d():
            return "convolution"
        case Linear():
            return "linear"
        case PairSum():
            return "pair sum"
        case RowMean():
            return "row mean"
        case Pool():
            return f"{layer.kind} pool"
        case _:
            return type(layer).__name__.lower()


def _shape(inward: Shape, outward: Shape) -> str:
    channels = f"{inward[0]} → {outward[0]}"
    positions = ["×".join(map(str, shape[1:])) for shape in (inward, outward) if len(shape) > 1]
    return f"{channels} @ {' → '.join(dict.fromkeys(positions))}" if positions else channels
