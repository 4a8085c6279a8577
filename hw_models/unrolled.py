"""Cost of fully unrolled fixed-point kernels on an FPGA, layer by layer, from the layer's record alone.

Every non-zero weight has hardware of its own: a chain of adders, one per signed digit, into its output channel's
sum. A convolution computes one output position per cycle out of a line buffer. The layers form one stream: an
image takes the cycles of its positions, and then each layer's delay. `hw_models.rtl_cost` prices RTL that computes all
positions at once from the same terms.

The adders of a layer cost, in LUTs,

    CHAIN * digits * act_bits / sharing
    digits  = kept * (weight_bits / 3 + 1 / 9), at least 1 for each: the mean length of the canonical signed digit form
    kept    = weights that neither pruning nor rounding makes 0: rounding leaves 1 - ROUNDED / 2^weight_bits of all
    sharing = (1 + 2 * outputs per input * density^2) ** SHARE, density = digits per weight and bit

since a pair of digits is shared by those output channels that hold both (da4ml, arXiv 2507.04535, finds them greedily).
A channel that is read costs READ_LUT_PER_BIT for each of its bits, to be rounded and saturated, which takes a ReLU
along. The constants are least squares against what yosys makes of small networks with trained weights and mixed bits
(tests/hw_models/calibration.py repeats the fit). Over 38 networks that were left out, LUTs are off by 12 % in the
median, most where 90 % of the weights or whole channels are gone; cycles are right for most, flip-flops off by 25 %.

A product whose operands both have DSP_BITS bits or more takes a DSP block, a smaller one takes LUTs: the change that
synthesis makes at about ten bits (Coelho et al., arXiv 2006.10159). So up to 8 bits the DSP count is honestly 0.

A layer behind a stride waits longer for its positions than counted here; its record does not know of the stride.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nas.errors import NasError
from nas.network import (
    FLOAT_BITS,
    Add,
    Conv2d,
    Input,
    Layer,
    Linear,
    Mean,
    PairSum,
    RowMean,
    nonzeros,
    weight_count,
)

CHAIN = 1.423
SHARE = 0.344
"""Constants of the adders, dimensionless; see the module's formula."""

ROUNDED = 1.5
"""Of weights spread as a normal distribution, in a format as wide as the largest of a channel."""

READ_LUT_PER_BIT = 0.3
"""LUTs to round and saturate one channel, per bit of the result; the least that the fit may choose.

Rough: the cost depends on the format of what is read, which the record does not hold.
"""

FF_PER_LUT = 0.26
"""Pipeline registers per LUT of adders and of reading."""

TREE_LEVELS = 1.567
"""Adder levels of a sum for each doubling of its digits; rounding and saturating add none that a fit could tell."""

INPUT = "input"
"""What every space calls the network's input."""

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
    costs = [reading(known, Live()), computing(known, Live()), storage(known) | {"cycles": fill_cycles(known)}]
    return summed(costs)


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
    """Rounding and saturating one position of each tensor that is read; the network's input comes rounded."""
    if isinstance(layer, Input) or INPUT in layer.inputs:
        return {}
    bits = len(layer.inputs) * layer.in_shape[0] * live.inputs * read_share(layer, live.outputs) * act_bits(layer)
    lut = READ_LUT_PER_BIT * bits
    return {"lut": lut, "ff": FF_PER_LUT * lut}


def read_share(layer: Unrolled, outputs: float = 1.0) -> float:
    """Expected share of the channels that a layer reads, were zeros anywhere; the others need no hardware.

    `outputs` is the share of its own channels that something reads.
    """
    if not isinstance(layer, Conv2d | Linear):
        return outputs
    readers = outputs * weight_count(layer) / layer.in_shape[0]
    return 1.0 - math.pow(1.0 - _kept(layer) / weight_count(layer), readers)


def filled_share(layer: Unrolled, inputs: float) -> float:
    """Expected share of a layer's outputs that are not constant, where that share of its inputs is not."""
    if not isinstance(layer, Conv2d | Linear):
        return inputs
    terms = inputs * weight_count(layer) / layer.out_shape[0]
    return 1.0 - math.pow(1.0 - _kept(layer) / weight_count(layer), terms)


def computing(layer: Input | Unrolled, live: Live) -> dict[str, float]:
    """One position of the output."""
    match layer:
        case Conv2d() | Linear():
            return _weighted(layer, live)
        case Add() | PairSum():
            sums = live.outputs * layer.in_shape[0] * (act_bits(layer) + 1.0)
            return {"lut": sums, "ff": FF_PER_LUT * sums, "cycles": 1 / LEVELS_PER_CYCLE}
        case Input() | Mean() | RowMean():
            return {}


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


def _kept(layer: Conv2d | Linear) -> float:
    """Weights that are not zero: pruning takes the smallest ones, rounding all below half a step."""
    weight = _quantized(layer, layer.precision.weight_bits, "weight_bits")
    return min(float(nonzeros(layer)), weight_count(layer) * (1 - ROUNDED * math.ldexp(1.0, -weight)))


def _weighted(layer: Conv2d | Linear, live: Live) -> dict[str, float]:
    act, weight = act_bits(layer), layer.precision.weight_bits
    count, outputs = live.taps * live.inputs * live.outputs * _kept(layer), live.outputs * layer.out_shape[0]
    groups, window = (layer.groups, layer.kernel**2) if isinstance(layer, Conv2d) else (1, 1)
    shape = (layer.in_shape[0] * window * live.taps * live.inputs, outputs / groups)
    in_dsp = min(act, weight) >= DSP_BITS
    adders = _wide_lut(count, shape, outputs, act, weight) if in_dsp else _adder_lut(count, shape, act, weight)
    return {
        "lut": adders,
        "ff": FF_PER_LUT * adders,
        "dsp": float(nonzeros(layer)) if in_dsp else 0.0,
        "cycles": TREE_LEVELS * math.log2(1 + count * _digits(weight) / outputs) / LEVELS_PER_CYCLE,
    }


def _digits(weight_bits: int) -> float:
    return max(1.0, weight_bits / 3 + 1 / 9)


def _adder_lut(count: float, shape: tuple[float, float], act: int, weight: int) -> float:
    """The module's formula; `shape` is (inputs of all groups, output channels that read each)."""
    inputs, readers = shape
    digits = count * _digits(weight)
    density = digits / (inputs * readers * weight)
    return CHAIN * digits * act / math.pow(1 + 2 * readers * density**2, SHARE)


def _wide_lut(count: float, shape: tuple[float, float], outputs: float, act: int, weight: int) -> float:
    """The tree that sums the products of DSP blocks, but never less than the adders that fewer bits would take."""
    tree = count * (act + weight + math.log2(1 + count / outputs))
    narrower = [(DSP_BITS - 1, weight), (act, DSP_BITS - 1)]
    return max(tree, *(_adder_lut(count, shape, *bits) for bits in narrower))
