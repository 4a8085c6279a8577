"""What the measurement harness builds its models from: float designs with random numbers, and the reference."""

from __future__ import annotations

import math

import numpy as np

from nas.design import Design, LayerNumbers
from nas.network import Add, Conv2d, Input, Layer, Linear, Mean, Network, Weighted

REFERENCE = Network(
    (
        Input("input", (1, 8, 8)),
        Conv2d("stem", ("input",), (1, 8, 8), (16, 8, 8), 3, activation="relu"),
        Conv2d("expand", ("stem",), (16, 8, 8), (48, 8, 8), 1, activation="relu"),
        Conv2d("depthwise", ("expand",), (48, 8, 8), (48, 8, 8), 5, groups=48, activation="relu"),
        Conv2d("project", ("depthwise",), (48, 8, 8), (16, 8, 8), 1),
        Add("add", ("stem", "project"), (16, 8, 8)),
        Conv2d("dense", ("add",), (16, 8, 8), (32, 4, 4), 3, stride=2, activation="relu"),
        Mean("mean", ("dense",), (32, 4, 4)),
        Linear("head", ("mean",), (32,), (10,), norm=False),
    )
)
"""The fixed network every measurement is held against; a change of it is a new version of the harness."""


def random_design(network: Network, seed: int) -> Design:
    """A float design with He-normal weights: latency does not depend on their values.

    The numbers follow from the seed and the architecture alone, so they do not change with what else is measured.
    """
    architecture = network.as_float()
    rng = np.random.default_rng([seed, int(architecture.key, 16)])
    return Design(architecture, {layer.name: _numbers(layer, rng) for layer in architecture.layers[1:]})


def _numbers(layer: Layer, rng: np.random.Generator) -> LayerNumbers:
    if not isinstance(layer, Weighted):
        return LayerNumbers()
    spread = math.sqrt(2 / math.prod(layer.weight_shape[1:]))
    return LayerNumbers(
        weight=rng.normal(scale=spread, size=layer.weight_shape),
        bias=rng.normal(scale=0.1, size=layer.out_shape[:1]),
    )
