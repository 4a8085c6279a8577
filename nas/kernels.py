"""The kinds of kernels that run a layer on a processor, and how much each has to do (as by nn-Meter, MobiSys 2021)."""

from __future__ import annotations

import math

from nas.counts import macs
from nas.network import Activated, Add, Conv2d, Input, Layer, Linear, Mean, PairSum, Pool, RowMean, Scale

Amounts = tuple[float, float, float]
"""1 for the kernel itself, its MACs, and the elements it reads and writes."""


def kernels(layer: Layer) -> dict[str, Amounts]:
    """The kinds of kernels that run a layer, each with what it does: 1, MACs, elements read and written.

    Depthwise, pointwise and larger convolutions differ, and so do pools; a sum with ReLU is not a plain sum.
    """
    match layer:
        case Input():
            return {}
        case Conv2d():
            shape = "depthwise" if layer.depthwise else "pointwise" if layer.kernel == 1 else "conv"
            return _activated(layer, f"{shape}{layer.kernel}")
        case Linear():
            return _activated(layer, "linear")
        case Add():
            return _activated(layer, "add-relu" if layer.activation == "relu" else "add")
        case PairSum():
            return _activated(layer, "pair-sum-relu" if layer.activation == "relu" else "pair-sum")
        case Pool():
            return {f"{layer.kind}pool{layer.kernel}": _amounts(layer)}
        case Mean():
            return {"mean": _amounts(layer)}
        case RowMean():
            return {"row-mean": _amounts(layer)}
        case Scale():
            return {"scale": _amounts(layer)}


def _activated(layer: Activated, kind: str) -> dict[str, Amounts]:
    own = {kind: _amounts(layer)}
    match layer.activation:
        case "identity" | "relu":
            return own
        case "hswish" | "hsigmoid":
            return own | {layer.activation: (1.0, 0.0, 2.0 * math.prod(layer.out_shape))}


def _amounts(layer: Activated | Mean | RowMean | Pool | Scale) -> Amounts:
    return 1.0, float(macs(layer)), float(math.prod(layer.in_shape) + math.prod(layer.out_shape))
