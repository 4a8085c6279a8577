"""Cost of fully unrolled fixed-point kernels on an FPGA, layer by layer, from the layer's record alone.

Every non-zero weight has hardware of its own: a chain of adders, one per signed digit, into its output channel's
sum. A convolution computes one output position per cycle out of a line buffer. The layers form one stream: an
image takes the cycles of its positions, and then each layer's delay.

The adders of a layer cost, in LUTs,

    CHAIN * digits * (act_bits + WEIGHT_WIDTH * weight_bits + TREE_WIDTH * log2(1 + terms)) / sharing
    digits  = nonzeros * (weight_bits / 3 + 1 / 9), the mean length of the canonical signed digit form
    terms   = nonzeros per output channel, which widen its sum
    sharing = (1 + outputs per input * density^2 / SHARE_SCALE) ** SHARE, density = digits per weight and bit

since a pair of digits is shared by those output channels that hold both (da4ml, arXiv 2507.04535, finds them greedily).
The five constants are least squares against da4ml's cost of random layers (weight bits 2 to 8, activation bits 3 to 8,
sparsity 0 to 0.75; matrices, 3x3, pointwise and depthwise convolutions); tests/hw_models/calibration.py repeats
the fit. Over its 339 layers the relative error of the LUTs is 6 % in the median, 17 % at the 90th percentile and at
most 74 %, too high, at 2 weight bits: there all weights are +-1 and coincide often.

A product whose operands both have DSP_BITS bits or more takes a DSP block, a smaller one takes LUTs: the change that
synthesis makes at about ten bits (Coelho et al., arXiv 2006.10159). So up to 8 bits the DSP count is honestly 0.

A layer behind a stride waits longer for its positions than counted here; its record does not know of the stride.
"""

from __future__ import annotations

import math

from nas.errors import NasError
from nas.network import FLOAT_BITS, Add, Conv2d, Input, Layer, Linear, Mean, PairSum, RowMean, nonzeros

CHAIN = 0.93
WEIGHT_WIDTH = 0.14
TREE_WIDTH = 0.30
SHARE_SCALE = 0.18
SHARE = 0.15
"""Constants of the adders, dimensionless; see the module's formula."""

OUTPUT_LUT_PER_BIT = 0.5
"""ReLU takes half a LUT per bit of the sum: a LUT6 holds two functions of 5 inputs (UG574)."""

READ_LUT_PER_BIT = 0.9
"""LUTs to round and saturate one channel, per bit of the result; fitted to Add and Mean layers of random designs.

Rough (median error 37 %): the cost depends on the format of what is read, which the record does not hold.
"""

FF_PER_LUT = 0.2
"""Pipeline registers per LUT of adders; the median over the calibration layers, 80 % lie in 0.15 to 0.32."""

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
    """What a layer adds to the design: `lut`, `ff`, `dsp`, `bram` (of 18 Kbit) and `cycles` of latency.

    Raises:
        NasError: The layer is not quantized, or it is one that no design can hold.
    """
    known = layer if isinstance(layer, Input) else unrollable(layer)
    logic, held = _logic(known), storage(known)
    cost = {name: logic.get(name, 0.0) + held[name] for name in RESOURCES}
    return cost | {"cycles": fill_cycles(known) + logic["cycles"]}


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
            bits = layer.in_shape[0] * _act_bits(layer)
            rows, length = layer.kernel - 1, layer.in_shape[2]
            cost["ff"] = float(layer.kernel**2 * bits)
            if length > DEEPEST_SHIFT_REGISTER:
                cost["bram"] = float(rows * math.ceil(bits / BRAM18_WIDTH) * math.ceil(length / BRAM18_DEPTH))
            else:
                cost["lut"] = float(rows * bits * math.ceil(length / SHIFT_REGISTER_BITS))
        case PairSum():
            rows = math.ceil(layer.in_shape[1] / SHIFT_REGISTER_BITS)
            cost["lut"] = float(2 * layer.in_shape[0] * _act_bits(layer) * rows)
        case Mean() | RowMean():
            width = _act_bits(layer) + math.log2(averaged(layer))
            cost["lut"] = cost["ff"] = layer.in_shape[0] * width
    return cost


def _logic(layer: Input | Unrolled) -> dict[str, float]:
    match layer:
        case Input():
            return {"cycles": 0.0}
        case Conv2d() | Linear():
            return _weighted(layer)
        case Add() | PairSum():
            read, sums = _read(layer, 2), float(layer.in_shape[0] * _act_bits(layer))
            relu = OUTPUT_LUT_PER_BIT * (sums + layer.in_shape[0]) if layer.activation == "relu" else 0.0
            return {"lut": read["lut"] + sums + relu, "ff": read["ff"] + sums, "cycles": read["cycles"] + 1}
        case Mean() | RowMean():
            return _read(layer, 1)


def _act_bits(layer: Unrolled) -> int:
    return _quantized(layer, layer.precision.act_bits, "act_bits")


def _quantized(layer: Layer, bits: int, what: str) -> int:
    if bits == FLOAT_BITS:
        raise NasError(f"layer {layer.name}: {what} is {FLOAT_BITS} (float); an FPGA design needs 2..16 bits")
    return bits


def _read(layer: Unrolled, tensors: int) -> dict[str, float]:
    """Rounding and saturating one position of each tensor, and one cycle for it."""
    bits = float(tensors * layer.in_shape[0] * _act_bits(layer))
    return {"lut": READ_LUT_PER_BIT * bits, "ff": bits, "cycles": 1.0}


def _weighted(layer: Conv2d | Linear) -> dict[str, float]:
    act, weight = _act_bits(layer), _quantized(layer, layer.precision.weight_bits, "weight_bits")
    outputs, count = layer.out_shape[0], nonzeros(layer)
    groups, window = (layer.groups, layer.kernel**2) if isinstance(layer, Conv2d) else (1, 1)
    shape = (layer.in_shape[0] * window, outputs // groups)
    read, in_dsp = _read(layer, 1), min(act, weight) >= DSP_BITS
    adders = _wide_lut(count, shape, outputs, act, weight) if in_dsp else _adder_lut(count, shape, outputs, act, weight)
    width = act + weight + math.log2(1 + count / outputs)
    levels = 1 + math.log2(1 + count * _digits(weight) / outputs)
    return {
        "lut": adders + OUTPUT_LUT_PER_BIT * outputs * width + read["lut"],
        "ff": FF_PER_LUT * adders + read["ff"],
        "dsp": float(count) if in_dsp else 0.0,
        "cycles": math.ceil(levels / LEVELS_PER_CYCLE) + read["cycles"],
    }


def _digits(weight_bits: int) -> float:
    return weight_bits / 3 + 1 / 9


def _adder_lut(count: int, shape: tuple[int, int], outputs: int, act: int, weight: int) -> float:
    """The module's formula; `shape` is (inputs of all groups, output channels that read each)."""
    inputs, readers = shape
    digits = count * _digits(weight)
    density = digits / (inputs * readers * weight)
    sharing = math.pow(1 + readers * density**2 / SHARE_SCALE, SHARE)
    return CHAIN * digits * (act + WEIGHT_WIDTH * weight + TREE_WIDTH * math.log2(1 + count / outputs)) / sharing


def _wide_lut(count: int, shape: tuple[int, int], outputs: int, act: int, weight: int) -> float:
    """The tree that sums the products of DSP blocks, but never less than the adders that fewer bits would take."""
    tree = count * (act + weight + math.log2(1 + count / outputs))
    narrower = [(DSP_BITS - 1, weight), (act, DSP_BITS - 1)]
    return max(tree, *(_adder_lut(count, shape, outputs, *bits) for bits in narrower))
