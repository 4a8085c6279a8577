"""Latency of a network on a measured device: a sum over layers, each priced by what it is and how much it does.

A kernel-level model in the manner of nn-Meter (Zhang et al., MobiSys 2021), in two steps. First a regression: every
kind of kernel has a fixed cost, a cost per MAC and a cost per element moved, none of them negative. A layer runs one
kernel, and a second one for an activation that works on every element, as hard swish does; ReLU comes with the first.
Then, where networks left out of the fit say that it helps, what the lines miss: a Gaussian process on every kind's
price over the shapes of its layers, learned from sums over networks (Rasmussen & Williams, 2006, sections 2.2 and 9.4),
since vector units and caches make no line. Both are sums over layers, so tables and integer programs hold them.

A kind of kernel that was never measured is an error, not 0. A layer's share may be negative, a network's is not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from operator import itemgetter
from pathlib import Path

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import nnls

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from nas.kernels import kernels
from nas.network import Input, Layer, Network
from predictors.gaussian_process import matern
from predictors.grouped_linear import Basis, Samples, evidence, most_evident, posterior, samples
from predictors.prediction import Prediction
from predictors.regressors import calibration

_TERMS = 3
_PARTS = 20
_PRIOR = 1e-4
"""Precision of the prior on costs, in units of a measurement's."""
_LENGTHS = (0.5, 1.0, 2.0)
"""Length-scales that are tried, in doublings of channels or of a side."""
_THETA = np.array([-0.5, -1.0])
"""Means of the logarithms of the process's and the noise's standard deviation, in those of what the lines miss."""
_JITTER = 1e-6

Shape = tuple[float, float, float, float]


@dataclass(frozen=True)
class Bends:
    """What a line misses of a kind's price: weights in seconds of Matern-5/2 functions about measured shapes."""

    shapes: tuple[Shape, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class LatencyPredictor:
    """Seconds per kind of kernel: `costs[kind]` is (fixed, per MAC, per element); `spread` is the relative error.

    `bends` are empty where lines alone predict better; `length` is their length-scale.
    """

    constant: float
    costs: dict[str, tuple[float, float, float]]
    spread: float
    bends: dict[str, Bends] = field(default_factory=dict)
    length: float = 1.0

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
            seconds += self._bent(kind, _shape(layer)) if kind in self.bends else 0.0
        return seconds

    def _bent(self, kind: str, shape: Shape) -> float:
        """What the line misses, in seconds; layers that differ in bits alone, and are many, share it."""
        if (kind, shape) not in self._found:
            bends = self.bends[kind]
            self._found[kind, shape] = float(_alike([shape], bends.shapes, self.length)[0] @ bends.weights)
        return self._found[kind, shape]

    @cached_property
    def _found(self) -> dict[tuple[str, Shape], float]:
        """What `_bent` has given."""
        return {}

    def predict(self, networks: Sequence[Network]) -> Prediction:
        """Latency in seconds of each network; intervals of 1.645 standard deviations hold 90 % of measurements."""
        mean = np.array([self.constant + sum(map(self.layer_latency, network)) for network in networks])
        return Prediction(mean, mean * self.spread)

    def save(self, path: Path) -> None:
        """Write as JSON; floats keep every bit."""
        path.write_text(json.dumps(asdict(self), indent=1))


def load(path: Path) -> LatencyPredictor:
    """Read a saved predictor."""
    saved = json.loads(path.read_text())
    costs = {kind: tuple(terms) for kind, terms in saved["costs"].items()}
    bends = {k: Bends(tuple(map(tuple, b["shapes"])), tuple(b["weights"])) for k, b in saved["bends"].items()}
    return LatencyPredictor(saved["constant"], costs, saved["spread"], bends, saved["length"])


@dataclass(frozen=True)
class _Work:
    """What networks run.

    Attributes:
        kinds: Of kernels.
        kernels: Every kind with each of its shapes.
        sums: 1, and each kind's amounts, shape (networks, 1 + 3 * kinds).
        counts: How often each network runs each kernel, shape (networks, kernels).
    """

    kinds: list[str]
    kernels: list[tuple[str, Shape]]
    sums: FloatArray
    counts: FloatArray


@dataclass(frozen=True)
class _Process:
    """A Gaussian process on the prices of kernels, as a linear model of independent weights.

    Attributes:
        length: Its length-scale.
        theta: Logarithms of its and of the noise's standard deviation, in that of what the lines miss.
        columns: What a network has of each weight, shape (networks, m).
        functions: What each weight puts on the functions about the kernels' shapes, shape (kernels, m).
    """

    length: float
    theta: FloatArray
    columns: FloatArray
    functions: FloatArray


def fit(networks: Sequence[Network], latencies: FloatArray, *, lines: bool = False) -> LatencyPredictor:
    """Fit to measured latencies in seconds, shape (n,), by the relative error.

    Networks left out of the fit, in up to 20 parts, say whether lines alone predict better, and how wide the intervals
    must be: with few networks a fit leaves no error of its own. With `lines`, there are lines alone in any case.
    """
    work = _work(networks)
    told, process = _left_out(work, latencies, None), None
    if not lines:
        bent = _process(work, latencies)
        bent_told = _left_out(work, latencies, bent)
        if ((bent_told / latencies - 1) ** 2).sum() < ((told / latencies - 1) ** 2).sum():
            told, process = bent_told, bent
    line, weights = _learned(work, np.arange(len(latencies)), latencies, process)
    costs = {k: tuple(line[1 + _TERMS * i : 1 + _TERMS * (i + 1)].tolist()) for i, k in enumerate(work.kinds)}
    spread = calibration(Prediction(told, told), latencies)
    if process is None:
        return LatencyPredictor(float(line[0]), costs, spread)
    return LatencyPredictor(float(line[0]), costs, spread, _bends(work, process.functions @ weights), process.length)


def _process(work: _Work, latencies: FloatArray) -> _Process:
    """The process under which what the lines miss is most likely."""
    kinds, shapes = [kind for kind, _ in work.kernels], [shape for _, shape in work.kernels]
    same, line = np.array(kinds)[:, None] == kinds, work.sums @ _weights(work.sums, latencies)
    found: list[tuple[float, _Process]] = []
    for length in _LENGTHS:
        factor = np.linalg.cholesky(_alike(shapes, shapes, length) * same + _JITTER * np.eye(len(shapes)))
        turn, rows = np.linalg.qr((work.counts @ factor).T)
        basis, values, _ = _relative(rows.T, line, latencies)
        sampled = samples(basis, np.arange(len(latencies)), values)
        theta, likelihood = most_evident(_THETA, partial(_evidence, sampled))
        functions = solve_triangular(factor, turn, lower=True, trans="T")
        found.append((likelihood, _Process(length, theta, rows.T, functions)))
    return max(found, key=itemgetter(0))[1]


def _evidence(sampled: Samples, theta: FloatArray) -> float:
    return float(evidence(theta, sampled))


def _relative(
    columns: FloatArray, line: FloatArray, latencies: FloatArray
) -> tuple[Basis, FloatArray, tuple[float, float]]:
    """What is to be bent: a basis, and values in units of their standard deviation.

    Also gives that standard deviation, relative to the line, and the seconds that a 1 in the columns stands for.
    """
    missed = latencies / line - 1
    unit = float(missed.std()) or 1.0
    seconds = 1 / math.sqrt(float(((columns / line[:, None]) ** 2).sum(axis=1).mean()))
    basis = Basis(columns * (seconds / line[:, None]), np.zeros(columns.shape[1], dtype=np.int64))
    return basis, missed / unit, (unit, seconds)


def _learned(
    work: _Work, rows: IntArray, latencies: FloatArray, process: _Process | None
) -> tuple[FloatArray, FloatArray]:
    """Seconds per unit of each sum, and the process's weights in seconds, from some networks' latencies."""
    sums, known = work.sums[rows], latencies[rows]
    weights = _weights(sums, known)
    if process is None:
        return weights, np.zeros(0)
    basis, values, (unit, seconds) = _relative(process.columns[rows], sums @ weights, known)
    told = posterior(basis, process.theta, np.arange(len(rows)), values)
    level = 1 + unit * (told.level - float(told.centre @ told.weights))
    return weights * level, unit * seconds * math.exp(process.theta[0]) * told.weights


def _left_out(work: _Work, latencies: FloatArray, process: _Process | None) -> FloatArray:
    """What is told of each network without itself, shape (n,)."""
    part, told = np.arange(len(latencies)) % _PARTS, latencies.copy()
    for held in (part == number for number in range(1 + int(part.max()) if len(part) > 1 else 0)):
        line, weights = _learned(work, np.flatnonzero(~held), latencies, process)
        told[held] = work.sums[held] @ line
        if process is not None:
            told[held] += process.columns[held] @ weights
    return told


def _bends(work: _Work, weights: FloatArray) -> dict[str, Bends]:
    bends = {}
    for kind in work.kinds:
        rows = [row for row, (other, _) in enumerate(work.kernels) if other == kind]
        bends[kind] = Bends(tuple(work.kernels[row][1] for row in rows), tuple(weights[rows].tolist()))
    return bends


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
    features = _work(networks).sums
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


def _work(networks: Sequence[Network]) -> _Work:
    run = [[(kind, amounts, _shape(layer)) for layer in network for kind, amounts in kernels(layer).items()]
           for network in networks]  # fmt: skip
    found = sorted({(kind, shape) for each in run for kind, _, shape in each})
    kinds, place = sorted({kind for kind, _ in found}), {kernel: number for number, kernel in enumerate(found)}
    sums, counts = np.zeros((len(run), 1 + _TERMS * len(kinds))), np.zeros((len(run), len(found)))
    sums[:, 0] = 1.0
    for row, each in enumerate(run):
        for kind, amounts, shape in each:
            start = 1 + _TERMS * kinds.index(kind)
            sums[row, start : start + _TERMS] += amounts
            counts[row, place[kind, shape]] += 1
    return _Work(kinds, found, sums, counts)


def _shape(layer: Layer) -> Shape:
    """Logarithms to base 2: channels read and written, mean side of what is read and written."""
    out = layer.out_shape
    into = out if isinstance(layer, Input) else layer.in_shape
    return (
        math.log2(into[0]),
        math.log2(out[0]),
        math.log2(math.prod(into[1:])) / 2,
        math.log2(math.prod(out[1:])) / 2,
    )


def _alike(shapes: Sequence[Shape], others: Sequence[Shape], length: float) -> FloatArray:
    """Matern-5/2 of the distances between shapes, shape (shapes, others)."""
    offsets = (np.array(shapes)[:, None] - np.array(others)) / length
    return matern((offsets**2).sum(axis=2))[0]
