"""Cost of fully unrolled fixed-point kernels on an FPGA, layer by layer, from the layer's record alone.

Every non-zero weight has hardware of its own: a chain of adders, one per signed digit, into its output channel's
sum. A convolution computes one output position per cycle out of a line buffer. The layers form one stream: an
image takes the cycles of its positions, and then each layer's delay. `hw_models.rtl_cost` prices RTL that computes all
positions at once from the same terms.

A layer's sums cost, in LUTs,

    ADDER * (digits - sums) * (act_bits + WEIGHT_SPREAD * weight_bits) / sharing
    digits  = kept * (1 + (weight_bits - 2) * (3 - density^2) / 9): of the canonical signed digit form, which has a
              third of a digit for each bit of a uniform weight; bells have fewer, but not what pruning leaves of them
    kept    = weights that neither pruning nor rounding makes 0: rounding leaves 1 - ROUNDED / 2^weight_bits of all
    density = kept of all
    sums    = outputs that have a digit: n digits take n - 1 adders
    sharing = (1 + inputs * (outputs - 1) * filling^2) ** SHARE, filling = digits for each weight and bit

since a pair of digits is shared by those output channels that hold both (da4ml, arXiv 2507.04535, finds them greedily).
A sum behind which a ReLU is takes RELU LUTs for each of its bits: its bias, the ReLU, and rounding and saturation. So
does each bit that an addition of two tensors reads.
`digits`, `kept` and WEIGHT_SPREAD describe trained weights of 1200 layers and da4ml's graphs of them; the others are
least squares against yosys, over 86 networks with trained weights and mixed bits (tests/hw_models/calibration.py).

A product whose operands both have DSP_BITS bits or more takes a DSP block, a smaller one takes LUTs: the change that
synthesis makes at about ten bits (Coelho et al., arXiv 2006.10159). So up to 8 bits the DSP count is honestly 0.

A layer behind a stride waits longer for its positions than counted here; its record does not know of the stride.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nas.counts import nonzeros, weight_count
from nas.errors import NasError
from nas.network import FLOAT_BITS, Activated, Add, Conv2d, Input, Layer, Linear, Mean, PairSum, RowMean

ADDER, SHARE, RELU = 1.332, 0.135, 0.691
"""Constants of the module's formulas, dimensionless."""

WEIGHT_SPREAD = 0.15
"""By how much of a weight's width the sums of shifted terms are wider than these, in the mean of a tree."""

ROUNDED = 1.8
"""Of trained weights, in a format as wide as the largest of a channel."""

FF_PER_LUT = 0.265
"""Pipeline registers per LUT of adders and ReLUs."""

TREE_LEVELS = 1.532
"""Adder levels of a sum for each doubling of its digits; rounding and saturating add none that a fit could tell."""

LEVELS_PER_CYCLE = 5
"""Adder levels between registers: about 5 ns in UltraScale+ fabric, so for clocks up to 200 MHz."""

DSP_BITS = 10
SHIFT_REGISTER_BITS = 32
"""Bits of delay in one LUT (SRL32, UG574)."""

DEEPEST_SHIFT_REGISTER = 256
"""Longer image rows go to block RAM."""

BRAM18_WIDTH, BRAM18_DEPTH = 36, 512
"""One BRAM18 as simple dual port (UG573)."""

RESOURCES = ("lut", "ff", "dsp", "bram")

Unrolled = Conv2d | Linear | Add | PairSum | Mean | RowMean
"""The operations of a design."""

_SPACE = "an FPGA design needs ReLU, no squeeze-and-excitation and no pooling: choose such a space for this device"


def layer_cost(layer: Layer) -> dict[str, float]:
    """What a layer adds to a stream: `lut`, `ff`, `dsp`, `bram` (of 18 Kbit) and `cycles` of latency.

    Cycles are fractions, since a cycle holds the adders of several layers.

    Raises:
        NasError: The layer is not quantized, or it is one that no design can hold.
    """
    known = layer if isinstance(layer, Input) else unrollable(layer)
    return summed([reading(known, Live()), computing(known, Live()), storage(known) | {"cycles": fill_cycles(known)}])


def summed(costs: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Resources and cycles of several parts; what a part does not name it does not take."""
    parts = list(costs)
    return {name: sum(part.get(name, 0.0) for part in parts) for name in (*RESOURCES, "cycles")}


@dataclass(frozen=True, slots=True)
class Live:
    """Shares of a layer that are there.

    Attributes:
        taps: Of the kernel's taps, those not in the padding.
        inputs: Of the channels that it reads, those that are not constant.
        outputs: Of the channels that it gives, those that something reads.
    """

    taps: float = 1.0
    inputs: float = 1.0
    outputs: float = 1.0


def unsupported(layer: Layer) -> str | None:
    """Why no design can hold a layer, and the remedy; None where one can. Bit widths are not looked at."""
    match layer:
        case Conv2d() | Linear() | Add() | PairSum() if layer.activation not in ("identity", "relu"):
            return f"activation {layer.activation} cannot be unrolled; {_SPACE}"
        case Mean() | RowMean() if averaged(layer).bit_count() != 1:
            return (
                f"a mean over {averaged(layer)} positions is no shift; "
                "choose an input size and strides that leave a power of two of positions"
            )
        case Input() | Conv2d() | Linear() | Add() | PairSum() | Mean() | RowMean():
            return None
        case _:
            return f"operation {type(layer).__name__.lower()} cannot be unrolled; {_SPACE}"


def unrollable(layer: Layer) -> Unrolled:
    """The layer, as one that a design can hold.

    Raises:
        NasError: No design can hold it, see `unsupported`.
    """
    reason = unsupported(layer)
    if reason is not None or not isinstance(layer, Unrolled):
        raise NasError(f"layer {layer.name}: {reason or 'an input computes nothing'}")
    return layer


def averaged(layer: Mean | RowMean) -> int:
    """How many positions each mean is over."""
    return layer.in_shape[2] if isinstance(layer, RowMean) else math.prod(layer.in_shape[1:])


def fill_cycles(layer: Input | Unrolled) -> float:
    """Cycles that a layer adds to the stream: all positions at the input, half a window in a convolution.

    Of n^2 pairs, the first n sums leave while their terms arrive.
    """
    match layer:
        case Input():
            return float(math.prod(layer.out_shape[1:]))
        case Conv2d():
            return float(layer.kernel // 2 * (layer.in_shape[2] + 1))
        case PairSum():
            return float(layer.in_shape[1] * (layer.in_shape[1] - 1))
        case Linear() | Add() | Mean() | RowMean():
            return 0.0


def storage(layer: Input | Unrolled) -> dict[str, float]:
    """Line buffers and windows of a convolution, terms of pairs, accumulators of a mean: `lut`, `ff`, `dsp`, `bram`."""
    cost = dict.fromkeys(RESOURCES, 0.0)
    match layer:
        case Conv2d() if layer.kernel > 1:
            bits = layer.in_shape[0] * act_bits(layer)
            rows, length = layer.kernel - 1, layer.in_shape[2]
            cost["ff"] = float(layer.kernel**2 * bits)
            if length > DEEPEST_SHIFT_REGISTER:
                cost["bram"] = float(rows * math.ceil(bits / BRAM18_WIDTH) * math.ceil(length / BRAM18_DEPTH))
            else:
                cost["lut"] = float(rows * bits * math.ceil(length / SHIFT_REGISTER_BITS))
        case PairSum():
            rows = math.ceil(layer.in_shape[1] / SHIFT_REGISTER_BITS)
            cost["lut"] = float(2 * layer.in_shape[0] * act_bits(layer) * rows)
        case Mean() | RowMean():
            width = act_bits(layer) + math.log2(averaged(layer))
            cost["lut"] = cost["ff"] = layer.in_shape[0] * width
    return cost


def reading(layer: Input | Unrolled, live: Live) -> dict[str, float]:
    """Rounding and saturating one position of the terms of a sum, which no ReLU gives."""
    if not isinstance(layer, Add | PairSum):
        return {}
    lut = RELU * len(layer.inputs) * layer.in_shape[0] * live.outputs * act_bits(layer)
    return {"lut": lut, "ff": FF_PER_LUT * lut}


def filled_share(layer: Unrolled, live: Live) -> float:
    """Expected share of a layer's outputs that are not constant, were zeros anywhere."""
    if not isinstance(layer, Conv2d | Linear):
        return live.inputs
    groups, window = grouped(layer)
    reads = live.inputs * (1.0 - math.pow(1.0 - kept_share(layer), window * live.taps))
    return 1.0 - math.pow(1.0 - reads, layer.in_shape[0] / groups)


def grouped(layer: Conv2d | Linear) -> tuple[int, int]:
    """Groups, and taps of the kernel."""
    return (layer.groups, layer.kernel**2) if isinstance(layer, Conv2d) else (1, 1)


def computing(layer: Input | Unrolled, live: Live) -> dict[str, float]:
    """One position of the output."""
    match layer:
        case Conv2d() | Linear():
            return _weighted(layer, live)
        case Add() | PairSum():
            bits = live.outputs * layer.in_shape[0] * (act_bits(layer) + grown(layer))
            lut = bits + _relu(layer, bits)
            return {"lut": lut, "ff": FF_PER_LUT * lut, "cycles": 1 / LEVELS_PER_CYCLE}
        case Input() | Mean() | RowMean():
            return {}


def _relu(layer: Activated, bits: float) -> float:
    return RELU * bits if layer.activation == "relu" else 0.0


def grown(layer: Unrolled) -> float:
    """By how many bits a layer's outputs are wider than what it reads; a product by +-1, of 2 bits, is no wider."""
    match layer:
        case Conv2d() | Linear():
            return layer.precision.weight_bits - 2 + math.log2(1 + nonzeros(layer) / layer.out_shape[0])
        case Add() | PairSum():
            return 1.0
        case Mean() | RowMean():
            return math.log2(averaged(layer))


def act_bits(layer: Unrolled) -> int:
    """Bits in which a layer reads.

    Raises:
        NasError: It reads floats.
    """
    return _quantized(layer, layer.precision.act_bits, "act_bits")


def _quantized(layer: Layer, bits: int, what: str) -> int:
    if bits == FLOAT_BITS:
        raise NasError(f"layer {layer.name}: {what} is {FLOAT_BITS} (float); an FPGA design needs 2..16 bits")
    return bits


def kept_share(layer: Conv2d | Linear) -> float:
    """Share of weights that are not zero: pruning takes the smallest ones, rounding all below half a step."""
    weight = _quantized(layer, layer.precision.weight_bits, "weight_bits")
    return min(nonzeros(layer) / weight_count(layer), 1 - ROUNDED * math.ldexp(1.0, -weight))


def _weighted(layer: Conv2d | Linear, live: Live) -> dict[str, float]:
    act, weight = act_bits(layer), layer.precision.weight_bits
    outputs = live.outputs * layer.out_shape[0]
    count = live.taps * live.inputs * live.outputs * kept_share(layer) * weight_count(layer)
    in_dsp = min(act, weight) >= DSP_BITS
    adders = _wide_lut(layer, live, count) if in_dsp else _adder_lut(layer, live, count, act, weight)
    lut = adders + _relu(layer, filled_share(layer, live) * outputs * (act + grown(layer)))
    return {
        "lut": lut,
        "ff": FF_PER_LUT * lut,
        "dsp": float(nonzeros(layer)) if in_dsp else 0.0,
        "cycles": TREE_LEVELS * math.log2(1 + count * _digits(layer, weight) / outputs) / LEVELS_PER_CYCLE,
    }


def _digits(layer: Conv2d | Linear, weight_bits: int) -> float:
    """Of a weight that is not zero, in the mean."""
    return 1 + (weight_bits - 2) * (3 - kept_share(layer) ** 2) / 9


def _adder_lut(layer: Conv2d | Linear, live: Live, count: float, act: int, weight: int) -> float:
    """The module's formula."""
    groups, window = grouped(layer)
    outputs, inputs = live.outputs * layer.out_shape[0], live.taps * live.inputs * window * layer.in_shape[0] / groups
    digits = count * _digits(layer, weight)
    filling = digits / (inputs * outputs * weight)
    sharing = math.pow(1 + inputs * max(outputs / groups - 1, 0) * filling**2, SHARE)
    adders = max(digits - filled_share(layer, live) * outputs, 0.0)
    return ADDER * adders * (act + WEIGHT_SPREAD * weight) / sharing


def _wide_lut(layer: Conv2d | Linear, live: Live, count: float) -> float:
    """The tree that sums the products of DSP blocks, but never less than the adders that fewer bits would take."""
    act, weight = layer.precision.act_bits, layer.precision.weight_bits
    tree = count * (act + weight + math.log2(1 + count / (live.outputs * layer.out_shape[0])))
    narrower = [(DSP_BITS - 1, weight), (act, DSP_BITS - 1)]
    return max(tree, *(_adder_lut(layer, live, count, *bits) for bits in narrower))
