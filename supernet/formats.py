"""The formats that suit what is quantized, from samples of it: post-training calibration.

Every value counts: where two formats lie close, a sample of the values decides by chance, which cost a trained network
of 4 bits up to 7.7 points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from nas.affine import Affine, affine_over, symmetric_top
from nas.errors import NasError
from nas.fixed_point import FixedPoint, Format
from nas.network import FLOAT_BITS
from supernet.quantize import quantize_weight
from supernet.settings import Numbers, Range

F = TypeVar("F", bound=Format)

PERCENTILE = 0.999
"""The share of values that the range `percentile` holds; of activations, both ends lose one half of the rest."""

_CANDIDATES = 3
_PARTS = tuple(part / 64 for part in range(1, 65))
_CHUNK = {"cpu": 1 << 15, "cuda": 1 << 26}
"""Values that are rounded at a time: few enough to stay in a CPU's caches, which is 20 times as fast."""

_LEAST, _MOST = 2.0**-20, 2.0**20
_BIAS_TOP = 2.0**30
_LEAST_WEIGHT = 2.0**-12
"""A channel of smaller weights is left to its bias."""


@dataclass(frozen=True)
class Formats:
    """How formats are chosen.

    Attributes:
        numbers: Which steps there are to choose from.
        range: What a format holds: all values (`minmax`), all but the largest (`percentile`), or as many as give the
            least squared error (`mse`).
    """

    numbers: Numbers = "fixed"
    range: Range = "mse"

    def act(self, inputs: Sequence[Tensor], bits: int) -> FixedPoint | Affine | None:
        """The format of `bits` bits that suits all inputs of a layer, of any shapes; None for `FLOAT_BITS`."""
        return (act_format if self.numbers == "fixed" else act_affine)(inputs, bits, self.range)

    def weight(self, weight: Tensor, bits: int, bias: Tensor, act: Format | None) -> Tensor | None:
        """Steps of each output channel of weights (out, ...), shape (out,); None for `FLOAT_BITS`.

        Free steps are so wide that the bias, in steps of the products with inputs in format `act`, has 32 bits.
        """
        if self.numbers == "fixed":
            return weight_format(weight, bits, self.range)
        steps = weight_steps(weight, bits, self.range)
        if steps is None or act is None:
            return steps
        return torch.maximum(steps, (bias.abs() / (act.step * _BIAS_TOP)).float().to(steps.dtype))


FIXED = Formats()
"""What supernets are trained in and their subnets searched."""


@torch.no_grad()
def act_format(
    inputs: Sequence[Tensor], bits: int, method: Range = "mse", share: float = PERCENTILE
) -> FixedPoint | None:
    """The fixed-point format of `bits` bits that suits all inputs of a layer; signed if any that it holds is negative.

    Args:
        inputs: Samples of what the layer reads, of any shapes.
        bits: The bits, the sign included; `FLOAT_BITS` gives None.
        method: The finest format that holds the whole range (`minmax`), or its `percentile`, and saturates nothing of
            it; or that of the least squared error (`mse`).
        share: Of the values, in (0, 1], that `percentile` holds.
    """
    if bits == FLOAT_BITS:
        return None
    flat = _flat(inputs)
    low, high = _held(flat, method, share)
    signed = low < 0
    if method != "mse":
        whole = FixedPoint(signed, bits, 0)
        return FixedPoint(signed, bits, -_ceil_log2(max(low / whole.low if signed else 0.0, high / whole.high)))
    frac = bits - signed - _ceil_log2(max(-low, high))
    return _best(flat, [FixedPoint(signed, bits, frac + more) for more in range(_CANDIDATES)])


@torch.no_grad()
def act_affine(inputs: Sequence[Tensor], bits: int, method: Range = "mse", share: float = PERCENTILE) -> Affine | None:
    """The affine format of `bits` bits that suits all inputs of a layer, arguments as of `act_format`.

    `mse` chooses among ranges that are 1/64, 2/64, ... of the whole one; then so for each end of it alone.
    """
    if bits == FLOAT_BITS:
        return None
    flat = _flat(inputs)
    low, high = (min(_MOST, max(-_MOST, end)) for end in _held(flat, method, share))
    if method != "mse":
        return affine_over(low, high, bits)
    best = _best(flat, [affine_over(low * part, high * part, bits) for part in _PARTS])
    if low < 0 < high:
        best = _best(flat, [best, *(affine_over(low * part, best.high * best.step, bits) for part in _PARTS)])
        best = _best(flat, [best, *(affine_over(best.low * best.step, high * part, bits) for part in _PARTS)])
    return best


@torch.no_grad()
def weight_format(weight: Tensor, bits: int, method: Range = "mse", share: float = PERCENTILE) -> Tensor | None:
    """Powers of two, the steps of each output channel of weights (out, ...), shape (out,); as `act_format`."""
    if bits == FLOAT_BITS:
        return None
    coarse = _power_of_two(_reach(weight, method, share) / symmetric_top(bits))
    options = [coarse / 2**finer for finer in range(_CANDIDATES)]
    return _best_steps(weight, bits, options if method == "mse" else options[:1])


@torch.no_grad()
def weight_steps(weight: Tensor, bits: int, method: Range = "mse", share: float = PERCENTILE) -> Tensor | None:
    """Free steps of each output channel of weights (out, ...), shape (out,), of single precision; as `act_affine`."""
    if bits == FLOAT_BITS:
        return None
    whole, parts = _reach(weight, method, share) / symmetric_top(bits), _PARTS if method == "mse" else (1.0,)
    return _best_steps(weight, bits, [(whole * part).float().to(weight.dtype) for part in parts])


def _flat(inputs: Sequence[Tensor]) -> Tensor:
    return torch.cat([values.detach().flatten() for values in inputs])


def _best(flat: Tensor, formats: Sequence[F]) -> F:
    """The first of those formats that have the least squared error."""
    chunks = torch.split(flat, _CHUNK[flat.device.type])
    scaled, rounded = torch.empty((2, len(chunks[0])), dtype=flat.dtype, device=flat.device)
    errors = torch.zeros((len(formats), len(chunks)), dtype=torch.float64, device=flat.device)
    for row, fmt in zip(errors, formats, strict=True):
        for place, chunk in enumerate(chunks):
            exact = torch.div(chunk, fmt.step, out=scaled[: len(chunk)])
            off = torch.add(exact, 0.5, out=rounded[: len(chunk)]).floor_().clamp_(fmt.low, fmt.high).sub_(exact)
            row[place] = off.dot(off) * fmt.step**2
    return formats[int(errors.sum(1).argmin())]


def _best_steps(weight: Tensor, bits: int, options: Sequence[Tensor]) -> Tensor:
    """Of steps of shape (out,), for each channel the first of those with the least squared error."""
    if len(options) == 1:
        return options[0]
    errors = [(quantize_weight(weight, steps, bits) - weight).square().flatten(1).sum(1) for steps in options]
    best: Tensor = torch.stack(list(options)).gather(0, torch.stack(errors).argmin(0, keepdim=True))[0]
    return best


def _reach(weight: Tensor, method: Range, share: float) -> Tensor:
    """The magnitude that each channel is to hold, shape (out,)."""
    rows = weight.detach().flatten(1).abs()
    out = math.floor(rows.shape[1] * (1 - _share(share)) + 1e-9) if method == "percentile" else 0
    return rows.kthvalue(rows.shape[1] - out, 1).values.clamp(_LEAST_WEIGHT, _MOST)


def _held(flat: Tensor, method: Range, share: float) -> tuple[float, float]:
    """The range that a format is to hold, or to choose within, widened to 0."""
    if method != "percentile":
        low, high = (float(end) for end in torch.aminmax(flat))
    else:
        out = math.floor(len(flat) * (1 - _share(share)) / 2 + 1e-9)
        low, high = (float(flat.kthvalue(rank).values) for rank in (1 + out, len(flat) - out))
    return min(0.0, low), max(0.0, high)


def _share(share: float) -> float:
    if not 0 < share <= 1:
        raise NasError(f"percentile: share must lie in (0, 1]; got {share:g}, take {PERCENTILE}")
    return share


def _power_of_two(values: Tensor) -> Tensor:
    """The least powers of two that are no less, exactly: a GPU's logarithms and powers are not exact."""
    mantissa = torch.frexp(values).mantissa
    return torch.where(mantissa == 0.5, values, values / mantissa)


def _ceil_log2(value: float) -> int:
    """Bounded, so that every tensor has a format: NaN, which compares as false, counts as the least."""
    return math.ceil(math.log2(min(_MOST, max(_LEAST, value))))
