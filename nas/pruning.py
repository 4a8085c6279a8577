"""Which weights of a layer pruning takes together, and how many of them it leaves.

A layer's sparsity is the share of its parts that go, rounded down: of its weights, of the inputs in each group of
`GROUP`, or of its output channels. At least one part stays.
"""

from __future__ import annotations

import math

from nas.network import Pattern, Weighted

GROUP = 4
"""The M of N:M: tensor cores skip zeros where two of four are (Mishra et al., arXiv 2104.08378, section 3)."""


def pattern(layer: Weighted) -> Pattern:
    """The pattern of a layer's zeros: its own where that can be, unstructured elsewhere.

    N:M needs inputs in whole groups, which neither an image of 1 or 3 channels nor a depthwise convolution has. Pruned
    channels must be 0 behind the activation, and no logits: gates of squeeze-and-excitation and classifiers, which have
    neither BatchNorm nor such an activation, keep all of theirs.
    """
    if layer.pattern == "n_of_m" and layer.weight_shape[1] % GROUP:
        return "unstructured"
    if layer.pattern == "channel" and not (layer.norm or layer.activation in ("relu", "hswish")):
        return "unstructured"
    return layer.pattern


def parts(layer: Weighted) -> tuple[int, int]:
    """How many parts of a layer's weights pruning leaves, and how many there are, all of the same size."""
    match pattern(layer):
        case "unstructured":
            count = math.prod(layer.weight_shape)
        case "n_of_m":
            count = GROUP
        case "channel":
            count = layer.out_shape[0]
    return max(1, count - math.floor(count * layer.sparsity + 1e-9)), count


def filters(layer: Weighted) -> int:
    """Output channels that are computed: those that pruning takes whole, bias included, are 0 on any hardware."""
    return parts(layer)[0] if pattern(layer) == "channel" else layer.out_shape[0]


def dense_count(layer: Weighted) -> int:
    """Number of weights of the channels that are computed, zeros included: what hardware has that skips none."""
    return math.prod(layer.weight_shape[1:]) * filters(layer)
