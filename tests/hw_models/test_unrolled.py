"""The laws that the price of a layer has to keep; test_rtl_cost.py holds networks against synthesis."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from experiments.bench.demo import CONFIG
from hw_models.unrolled import DSP_BITS, RELU, RESOURCES, fill_cycles, layer_cost, unrollable, unsupported
from nas.counts import nonzeros
from nas.errors import NasError
from nas.network import Add, Conv2d, Input, Layer, Linear, Mean, PairSum, Pool, Precision, RowMean, Scale, Weighted

CONFIGS = CONFIG.parent
QUANTIZED = Precision(4, 4)


def with_precision(layer: Layer, weight: int, act: int) -> Layer:
    return dataclasses.replace(layer, precision=Precision(weight, act))  # type: ignore[call-arg]


def shapes() -> list[Weighted]:
    """Matrices, 3x3 and pointwise convolutions, depthwise convolutions."""
    linear = [Linear("x", ("in",), (i,), (o,), "relu") for i, o in ((64, 16), (16, 32), (32, 10), (64, 48))]
    sizes = ((1, 8, 3), (8, 12, 3), (8, 24, 1), (24, 8, 1), (24, 48, 1), (48, 16, 1))
    conv = [Conv2d("x", ("in",), (i, 4, 4), (o, 4, 4), k, 1, 1, "relu") for i, o, k in sizes]
    depthwise = [Conv2d("x", ("in",), (c, 4, 4), (c, 4, 4), k, 1, c, "relu") for c, k in ((16, 3), (24, 5))]
    return [*linear, *conv, *depthwise]


def others() -> list[Layer]:
    return [
        Add("add", ("a", "b"), (8, 4, 4), QUANTIZED),
        Add("add-relu", ("a", "b"), (8, 4, 4), QUANTIZED, "relu"),
        Mean("mean", ("a",), (8, 4, 4), QUANTIZED),
        PairSum("pairs", ("a", "b"), (8, 4, 1), QUANTIZED, "relu"),
        RowMean("rows", ("a",), (8, 5, 4), QUANTIZED),
        Conv2d("wide", ("a",), (4, 8, 300), (4, 8, 300), 3),
    ]


@pytest.mark.parametrize("layer", [*shapes(), *others()], ids=lambda layer: f"{type(layer).__name__}{layer.in_shape}")
def test_fewer_bits_never_cost_more(layer: Layer) -> None:
    bits = range(2, 17)
    lut = np.array([[layer_cost(with_precision(layer, w, a))["lut"] for a in bits] for w in bits])
    dsp = np.array([[layer_cost(with_precision(layer, w, a))["dsp"] for a in bits] for w in bits])
    for table in (lut, dsp):
        assert (np.diff(table, axis=0) >= 0).all()
        assert (np.diff(table, axis=1) >= 0).all()
    assert lut[-1, -1] > lut[0, 0]


@pytest.mark.parametrize("layer", shapes(), ids=lambda layer: f"{type(layer).__name__}{layer.in_shape}")
@pytest.mark.parametrize("precision", [Precision(2, 3), Precision(8, 8), Precision(12, 12)])
def test_fewer_weights_cost_less(layer: Layer, precision: Precision) -> None:
    costs = [
        layer_cost(dataclasses.replace(layer, precision=precision, sparsity=sparsity))  # type: ignore[call-arg]
        for sparsity in (0.0, 0.25, 0.5, 0.75, 0.9)
    ]
    for one, sparser in itertools.pairwise(costs):
        assert all(sparser[name] <= one[name] for name in (*RESOURCES, "cycles"))
    assert costs[-1]["lut"] < costs[2]["lut"] < costs[0]["lut"]  # rounding to 2 bits makes zeros, too


def test_small_multipliers_take_no_dsp_and_large_ones_one_per_weight() -> None:
    layer = Linear("fc", ("in",), (20,), (10,), sparsity=0.5)
    assert layer_cost(with_precision(layer, 8, 8))["dsp"] == 0
    assert layer_cost(with_precision(layer, DSP_BITS, 4))["dsp"] == 0
    assert layer_cost(with_precision(layer, DSP_BITS, DSP_BITS))["dsp"] == nonzeros(layer) == 100


def test_the_input_costs_its_positions_and_nothing_else() -> None:
    assert layer_cost(Input("in", (3, 8, 6))) == {"lut": 0, "ff": 0, "dsp": 0, "bram": 0, "cycles": 48}
    assert layer_cost(Input("in", (64,)))["cycles"] == 1


def test_line_buffers() -> None:
    def cost(width: int, kernel: int) -> dict[str, float]:
        shape = (4, 8, width)
        return layer_cost(Conv2d("c", ("in",), shape, shape, kernel, 1, 4, precision=QUANTIZED))

    assert cost(32, 3)["bram"] == 0
    assert cost(33, 3)["lut"] - cost(32, 3)["lut"] == 2 * 16  # one more shift register per bit of two rows
    assert cost(512, 3)["bram"] == 2
    assert cost(513, 3)["bram"] == 4
    assert cost(512, 1)["bram"] == 0
    assert fill_cycles(Conv2d("c", ("in",), (4, 8, 8), (4, 8, 8), 5)) == 2 * 9


@pytest.mark.parametrize("layer", [*shapes(), *others()[:5]], ids=lambda layer: type(layer).__name__)
def test_float_layers_are_refused_by_name(layer: Layer) -> None:
    with pytest.raises(NasError, match=f"{layer.name}.*act_bits"):
        layer_cost(with_precision(layer, 4, 32))
    if isinstance(layer, Conv2d | Linear):
        with pytest.raises(NasError, match=f"{layer.name}.*weight_bits"):
            layer_cost(with_precision(layer, 32, 4))


REFUSED: list[tuple[Layer, str]] = [
    (Conv2d("a", ("x",), (8, 4, 4), (8, 4, 4), 3, activation="hswish", precision=QUANTIZED), "activation hswish"),
    (Linear("b", ("x",), (8,), (8,), "hsigmoid", precision=QUANTIZED), "activation hsigmoid"),
    (Add("c", ("x", "y"), (8, 4, 4), QUANTIZED, "hswish"), "activation hswish"),
    (Pool("d", ("x",), (8, 4, 4), 3, 2, "max", QUANTIZED), "operation pool"),
    (Scale("e", ("x", "g"), (8, 4, 4), QUANTIZED), "operation scale"),
    (Mean("f", ("x",), (8, 7, 7), QUANTIZED), "mean over 49 positions"),
    (PairSum("g", ("x", "y"), (8, 4, 1), QUANTIZED, "hswish"), "activation hswish"),
    (RowMean("h", ("x",), (8, 4, 7), QUANTIZED), "mean over 7 positions"),
]


@pytest.mark.parametrize(("layer", "reason"), REFUSED)
def test_what_no_design_can_hold_is_refused_with_the_remedy(layer: Layer, reason: str) -> None:
    for call in (layer_cost, unrollable):
        with pytest.raises(NasError, match=f"layer {layer.name}: .*{reason} .*; .*choose"):
            call(layer)
    assert reason in (unsupported(layer) or "")


@pytest.mark.parametrize("layer", [*shapes(), *others(), Input("in", (3, 7, 7)), Mean("m", ("x",), (8, 2, 8))], ids=str)
def test_what_a_design_can_hold_is_not(layer: Layer) -> None:
    """Float or quantized: bits are another law."""
    assert unsupported(layer) is None


def test_relu_costs_for_each_bit_of_the_sum() -> None:
    plain, relu = (layer_cost(layer)["lut"] for layer in others()[:2])
    assert relu - plain == pytest.approx(RELU * 8 * (4 + 1))


def test_pairs_come_one_after_the_other() -> None:
    """A sum of pairs costs what a sum of single positions does, besides holding both lists, and takes n^2 cycles."""
    pairs, add = (op("s", ("a", "b"), (8, 16, 1), QUANTIZED, "relu") for op in (PairSum, Add))
    more = {name: cost - layer_cost(add)[name] for name, cost in layer_cost(pairs).items()}
    registers = 2 * 8 * 4  # one for each bit of a position: they are 32 long
    assert more == pytest.approx({"lut": registers, "ff": 0, "dsp": 0, "bram": 0, "cycles": 16 * 16 - 16})


def test_an_unknown_operation_is_refused() -> None:
    @dataclasses.dataclass(frozen=True)
    class Softmax:
        name: str = "softmax"

    with pytest.raises(NasError, match="softmax"):
        layer_cost(Softmax())  # type: ignore[arg-type]
