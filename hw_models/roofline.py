"""Roofline: a layer takes as long as the slowest of its arithmetic, its traffic and its launch.

Williams, Waterman, Patterson: Roofline: an insightful visual performance model for multicore architectures,
CACM 52(4), 2009: attainable rate = min(peak, bandwidth * intensity). The launch is the least time of one op.

Zeros take as long as any weight, and as many bytes, with two exceptions: whole channels are not computed, and where a
device has rates for 2:4 sparsity (Mishra et al., arXiv 2104.08378), layers of that pattern are computed at these.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from hw_models.work import kind, work
from nas.errors import NasError
from nas.network import Conv2d, Input, Layer, Linear, Network
from nas.pruning import GROUP, parts, pattern

Bound = Literal["compute", "memory", "launch"]


@dataclass(frozen=True, slots=True)
class Roofline:
    """Rates of a device.

    Attributes:
        macs_per_s: Peak multiply-accumulates per second by operand width in bits; 32 stands for float.
        bytes_per_s: Peak bandwidth of main memory.
        launch_s: Least time of one layer.
        sparse_macs_per_s: As `macs_per_s`, zeros counted, where at least two of each four inputs have weights of zero.
    """

    macs_per_s: Mapping[int, float]
    bytes_per_s: float
    launch_s: float
    sparse_macs_per_s: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LayerTime:
    """The three times of a layer, of which the largest counts."""

    compute_s: float
    memory_s: float
    launch_s: float

    @property
    def latency_s(self) -> float:
        return max(self.compute_s, self.memory_s, self.launch_s)

    @property
    def bound(self) -> Bound:
        if self.latency_s == self.compute_s:
            return "compute"
        return "memory" if self.latency_s == self.memory_s else "launch"


def layer_time(layer: Layer, device: Roofline) -> LayerTime:
    """Times of a layer; operands go to the fastest unit that is at least as wide as both.

    Raises:
        NasError: The op is unknown, or no unit is wide enough.
    """
    if isinstance(layer, Input):
        return LayerTime(0.0, 0.0, 0.0)
    asked = work(layer)
    bits = max(asked.weight_bits, asked.act_bits)
    units = [*device.macs_per_s.items(), *(device.sparse_macs_per_s.items() if _half_zero(layer) else ())]
    rates = [rate for width, rate in units if width >= bits]
    if not rates:
        raise NasError(f"layer {layer.name}: the device computes up to {max(device.macs_per_s)} bits, not {bits}")
    return LayerTime(asked.macs / max(rates), asked.bytes / device.bytes_per_s, device.launch_s)


def _half_zero(layer: Layer) -> bool:
    """Whether at least two of each four inputs have weights of zero, by the pattern."""
    return isinstance(layer, Conv2d | Linear) and pattern(layer) == "n_of_m" and 2 * parts(layer)[0] <= GROUP


def latency_s(network: Network, device: Roofline) -> float:
    """Seconds for one input, the sum over layers."""
    return sum(layer_time(layer, device).latency_s for layer in network)


def explain(network: Network, time_of: Callable[[Layer], LayerTime]) -> str:
    """What binds most of the time and where, such as "62 % of the time memory-bound, mostly depthwise in stage2"."""
    times = {layer.name: time_of(layer) for layer in network}
    total = sum(time.latency_s for time in times.values())
    if not total:
        return "no layer takes time"
    bound, share = _largest((time.bound, time.latency_s) for time in times.values())
    places = [(_place(layer), times[layer.name]) for layer in network if not isinstance(layer, Input)]
    where, _ = _largest((place, time.latency_s) for place, time in places if time.bound == bound)
    return f"{share / total:.0%} of the time {bound}-bound, mostly {where}".replace("%", " %", 1)


def _place(layer: Layer) -> str:
    """The op and the layer's block, the part of its name before the first dot."""
    stage, dot, _ = layer.name.partition(".")
    return f"{kind(layer)} in {stage}" if dot else f"{kind(layer)} {stage}"


def _largest(parts: Iterable[tuple[str, float]]) -> tuple[str, float]:
    """The name with the largest sum, and the sum."""
    sums: dict[str, float] = defaultdict(float)
    for name, seconds in parts:
        sums[name] += seconds
    return max(sums.items(), key=lambda entry: entry[1])
