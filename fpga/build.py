"""How an hls4ml project computes: in wires or streams, with multipliers or adders, and how often it reuses each.

A weighted layer of n products takes n / reuse multipliers and as many times longer. hls4ml computes a layer that is
reused only for some factors; it takes another one where it is asked for one of the rest, which nobody wants to find
out in synthesis, so such a factor is refused here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fpga.folding_options import Option
from nas.errors import NasError
from nas.network import Conv2d, Network, PairSum, Weighted

Io = Literal["parallel", "stream"]
"""A tensor at once in wires, or position after position in a stream."""

Strategy = Literal["latency", "resource", "distributed_arithmetic"]
"""Multipliers with pipeline registers anywhere, multipliers that share weights in memory, or adders alone (da4ml)."""


@dataclass(frozen=True)
class Build:
    """A way to compute a network.

    Attributes:
        io: How tensors travel.
        strategy: How products are made.
        reuse: Products of each multiplier, by layer; 1 makes them at once, with the strategy latency, whose constant
            weights need no memory and whose zeros nothing. Layers that are not named have the strategy, and 1.
    """

    io: Io = "parallel"
    strategy: Strategy = "latency"
    reuse: Mapping[str, int] = field(default_factory=dict)

    def require(self, network: Network) -> None:
        """Refuse what hls4ml would not compute as asked.

        Raises:
            NasError: A factor is not valid for its layer, or of no weighted layer; or an operation or a strategy is not
                there for streams or reuse.
        """
        weighted = {layer.name: layer for layer in network.weighted}
        for name, factor in self.reuse.items():
            if name not in weighted:
                raise NasError(f"layer {name}: has no weights whose multipliers could be reused; take {list(weighted)}")
            valid = reuse_factors(weighted[name])
            if factor not in valid:
                near = nearest(weighted[name], factor)
                raise NasError(f"layer {name}: reuse must be one of {list(valid)}, got {factor}; the nearest is {near}")
        if self.strategy == "distributed_arithmetic" and max(self.reuse.values(), default=1) > 1:
            raise NasError("distributed_arithmetic has no multipliers to reuse: take strategy resource, or reuse 1")
        if self.io == "stream" and (pairs := [layer.name for layer in network if isinstance(layer, PairSum)]):
            raise NasError(f"layer {pairs[0]}: a sum over pairs needs all particles at once; take io parallel")


def reuse_factors(layer: Weighted) -> tuple[int, ...]:
    """The factors that hls4ml takes for a layer as they are, ascending.

    They divide the products of one position: by parts of the inputs of an output, or by whole multiples of them.
    A depthwise convolution is not reused.
    """
    outputs, inputs = layer.weight_shape[0], math.prod(layer.weight_shape[1:])
    if isinstance(layer, Conv2d) and layer.depthwise:
        return (1,)
    return tuple(
        factor
        for factor in range(1, inputs * outputs + 1)
        if inputs * outputs % factor == 0 and (inputs % factor == 0 if factor < inputs else factor % inputs == 0)
    )


def nearest(layer: Weighted, factor: int) -> int:
    """The valid factor that is nearest; of two, the smaller."""
    return min(reuse_factors(layer), key=lambda valid: abs(valid - factor))


def folded_build(network: Network, options: Mapping[str, Option]) -> Build:
    """The build of a folding: the nearest factors that hls4ml has, streams for images."""
    reuse = {
        layer.name: nearest(layer, math.prod(layer.weight_shape) // _multipliers(options[layer.name]))
        for layer in network.weighted
    }
    images = any(isinstance(layer, Conv2d) and layer.kernel > 1 for layer in network)
    return Build("stream" if images else "parallel", "resource", reuse)


def _multipliers(option: Option) -> int:
    return option.inputs * option.outputs * option.kernel
