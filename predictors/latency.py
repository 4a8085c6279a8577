"""Latency of a network on a measured device: a sum over layers, each priced by what it is and how much it does.

A kernel-level model in the manner of nn-Meter, as one regression: every kind of kernel has a fixed cost, a cost per MAC
and a cost per element moved, none of them negative. A layer runs one kernel, and a second one for an activation that
works on every element, as hard swish does; ReLU comes with the first. A kind of kernel that was never measured is an
error, not 0.
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
from nas.genotype import FloatArray, IntArray
from nas.kernels import kernels
from nas.network import Layer, Network
from predictors.prediction import Prediction

_TERMS = 3
_FOLDS = 5
_PRIOR = 1e-4
"""Precision of the prior on costs, in units of a measurement's."""


@dataclass(frozen=True)
class LatencyPredictor:
    """Seconds per kind of kernel: `costs[kind]` is (fixed, per MAC, per element); `spread` is the relative error."""

    constant: float
    costs: dict[str, tuple[float, float, float]]
    spread: float

    def layer_latency(self, layer: Layer) -> float:
        """The layer's share of the latency, in seconds.

        Raises:
            NasError: No measured network held such a layer.
        """
        seconds = 0.0
        for kind, amounts in kernels(layer).items():
            if kind not in self.costs:
                raise NasError(
                    f"layer {layer.name}: no {kind} was measured on this device (known: {', '.join(self.costs)}); "
                    "measure networks that hold one"
                )
            seconds += float(np.dot(self.costs[kind], amounts))
        return seconds

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
    """Fit to measured latencies in seconds, shape (n,), by non-negative least squares of the relative error.

    The spread is that of networks left out of the fit, a fifth at a time: with few of them a fit has none.
    """
    kinds = sorted({kind for network in networks for layer in network for kind in kernels(layer)})
    features = np.stack([_sums(network, kinds) for network in networks])
    weights, parts = _weights(features, latencies), np.arange(len(latencies)) % _FOLDS
    costs = {k: tuple(weights[1 + _TERMS * i : 1 + _TERMS * (i + 1)].tolist()) for i, k in enumerate(kinds)}
    off = np.zeros(len(latencies))
    for part in np.unique(parts):
        held, kept = parts == part, parts != part
        if kept.any():
            off[held] = features[held] @ _weights(features[kept], latencies[kept]) / latencies[held] - 1
    return LatencyPredictor(float(weights[0]), costs, math.sqrt(float(off @ off) / len(off)))


def _weights(features: FloatArray, latencies: FloatArray) -> FloatArray:
    """Seconds per unit of each feature, none negative, shape (columns,)."""
    scale: FloatArray = np.maximum(features.max(axis=0), 1.0)
    fitted, _ = nnls(features / scale / latencies[:, None], np.ones(len(latencies)))
    weights: FloatArray = fitted / scale
    return weights


def informative(networks: Sequence[Network], count: int) -> IntArray:
    """Which of some networks to measure: those that pin down the kernels' costs, shape (min(count, n),), ascending.

    Greedy D-optimal design (Fedorov, 1972): each time the network whose latency, relative to its size, the costs of
    those chosen before leave most uncertain. A weak prior on the costs makes the choice unique before there are as many
    networks as costs.
    """
    kinds = sorted({kind for network in networks for layer in network for kind in kernels(layer)})
    features = np.stack([_sums(network, kinds) for network in networks])
    scaled = features / np.maximum(features.max(axis=0), 1.0)
    scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
    covariance = np.eye(scaled.shape[1]) / _PRIOR
    chosen: list[int] = []
    while len(chosen) < min(count, len(networks)):
        spread = scaled @ covariance
        variance = np.einsum("ij,ij->i", spread, scaled)
        variance[chosen] = -1.0
        best = int(variance.argmax())
        covariance -= np.outer(spread[best], spread[best]) / (1 + variance[best])
        chosen.append(best)
    return np.sort(np.array(chosen, dtype=np.int64))


def _sums(network: Network, kinds: Sequence[str]) -> FloatArray:
    total = np.zeros(1 + _TERMS * len(kinds))
    total[0] = 1.0
    for layer in network.layers[1:]:
        for kind, amounts in kernels(layer).items():
            start = 1 + _TERMS * kinds.index(kind)
            total[start : start + _TERMS] += amounts
    return total
