"""Latency of a network on a measured device: a sum over layers, each priced by what it is and how much it does.

A kernel-level model in the manner of nn-Meter, as one regression: every kind of layer has a fixed cost, a cost per MAC
and a cost per element moved, none of them negative. A kind of layer that was never measured is an error, not 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from nas.errors import NasError
from nas.genotype import FloatArray
from nas.network import Add, Conv2d, Input, Layer, Linear, Mean, Network, macs
from predictors.prediction import Prediction

_TERMS = 3


@dataclass(frozen=True)
class LatencyPredictor:
    """Seconds per kind of layer: `costs[kind]` is (fixed, per MAC, per element); `spread` is the relative residual."""

    constant: float
    costs: dict[str, tuple[float, float, float]]
    spread: float

    def layer_latency(self, layer: Layer) -> float:
        """The layer's share of the latency, in seconds.

        Raises:
            NasError: No measured network held such a layer.
        """
        if isinstance(layer, Input):
            return 0.0
        if kind(layer) not in self.costs:
            raise NasError(
                f"layer {layer.name}: no {kind(layer)} was measured on this device (known: {', '.join(self.costs)}); "
                "measure networks that hold one"
            )
        return float(np.dot(self.costs[kind(layer)], _amounts(layer)))

    def predict(self, networks: Sequence[Network]) -> Prediction:
        """Latency in seconds of each network."""
        mean = np.array([self.constant + sum(map(self.layer_latency, network)) for network in networks])
        return Prediction(mean, mean * self.spread)

    def save(self, path: Path) -> None:
        """Write as JSON; floats keep every bit."""
        path.write_text(json.dumps({"constant": self.constant, "costs": self.costs, "spread": self.spread}, indent=1))


def load(path: Path) -> LatencyPredictor:
    """Read a saved predictor."""
    saved = json.loads(path.read_text())
    return LatencyPredictor(saved["constant"], {k: tuple(v) for k, v in saved["costs"].items()}, saved["spread"])


def fit(networks: Sequence[Network], latencies: FloatArray) -> LatencyPredictor:
    """Fit to measured latencies in seconds, shape (n,), by non-negative least squares of the relative error."""
    kinds = sorted({kind(layer) for network in networks for layer in network if not isinstance(layer, Input)})
    features = np.stack([_sums(network, kinds) for network in networks])
    scale: FloatArray = np.maximum(features.max(axis=0), 1.0)
    fitted, _ = nnls(features / scale / latencies[:, None], np.ones(len(latencies)))
    weights: FloatArray = fitted / scale
    residual = features @ weights / latencies - 1
    freedom = max(1, len(latencies) - int(np.count_nonzero(weights)))
    costs = {k: tuple(weights[1 + _TERMS * i : 1 + _TERMS * (i + 1)].tolist()) for i, k in enumerate(kinds)}
    return LatencyPredictor(float(weights[0]), costs, math.sqrt(float(residual @ residual) / freedom))


def kind(layer: Layer) -> str:
    """The kernel that runs a layer: depthwise, pointwise and larger convolutions differ."""
    match layer:
        case Conv2d():
            shape = "depthwise" if layer.depthwise else "pointwise" if layer.kernel == 1 else "conv"
            return f"{shape}{layer.kernel}"
        case Input() | Linear() | Add() | Mean():
            return type(layer).__name__.lower()


def _amounts(layer: Layer) -> tuple[float, float, float]:
    assert not isinstance(layer, Input)
    return 1.0, float(macs(layer)), float(math.prod(layer.in_shape) + math.prod(layer.out_shape))


def _sums(network: Network, kinds: Sequence[str]) -> FloatArray:
    total = np.zeros(1 + _TERMS * len(kinds))
    total[0] = 1.0
    for layer in network.layers[1:]:
        start = 1 + _TERMS * kinds.index(kind(layer))
        total[start : start + _TERMS] += _amounts(layer)
    return total
