from dataclasses import replace

import pytest

from nas.counts import macs, nonzeros, weight_bytes, weight_count
from nas.errors import NasError
from nas.network import Add, Conv2d, Input, Layer, Linear, Mean, Network, PairSum, Pattern, Precision, RowMean
from nas.pruning import pattern

INPUT = Input("input", (3, 8, 8))
CONV = Conv2d("conv", ("input",), (3, 8, 8), (6, 4, 4), 3, 2, precision=Precision(4, 8), sparsity=0.5)
DEPTHWISE = Conv2d("dw", ("conv",), (6, 4, 4), (6, 4, 4), 5, groups=6)
ADD = Add("add", ("conv", "dw"), (6, 4, 4))
MEAN = Mean("mean", ("add",), (6, 4, 4))
HEAD = Linear("head", ("mean",), (6,), (10,), precision=Precision(2, 6), sparsity=0.75)
NETWORK = Network((INPUT, CONV, DEPTHWISE, ADD, MEAN, HEAD))


@pytest.mark.parametrize(
    ("layer", "weights", "kept", "multiplies", "size"),
    [
        (INPUT, 0, 0, 0, 0.0),
        (CONV, 6 * 3 * 9, 81, 6 * 3 * 9 * 16, 6 * 3 * 9 / 2 + 24),
        (DEPTHWISE, 6 * 25, 150, 6 * 25 * 16, 6 * 25 * 4 + 24),
        (ADD, 0, 0, 0, 0.0),
        (MEAN, 0, 0, 0, 0.0),
        (HEAD, 60, 15, 60, 60 / 4 + 40),
    ],
)
def test_counts_by_hand(layer: Layer, weights: int, kept: int, multiplies: int, size: float) -> None:
    assert weight_count(layer) == weights
    assert nonzeros(layer) == kept
    assert macs(layer) == multiplies
    assert weight_bytes(layer) == size


def test_pairs_and_rows() -> None:
    pairs, rows = PairSum("pairs", ("a", "b"), (3, 5, 1)), RowMean("rows", ("pairs",), (3, 5, 5))
    assert (pairs.out_shape, rows.out_shape) == ((3, 5, 5), (3, 5, 1))
    one, two = (Conv2d(name, ("input",), (3, 8, 8), (6, 8, width), 1) for name, width in (("one", 1), ("two", 2)))
    with pytest.raises(NasError, match=r"reads shape \(6, 8, 1\), but 'two' gives \(6, 8, 2\)"):
        Network((INPUT, one, two, PairSum("pairs", ("one", "two"), (6, 8, 1))))


def test_pruning_is_exact_and_never_total() -> None:
    for count in range(1, 60):
        for percent in range(100):
            layer = Linear("l", ("i",), (count,), (1,), sparsity=percent / 100)
            assert nonzeros(layer) == max(1, count - count * percent // 100)


def test_patterns_prune_whole_parts() -> None:
    """Of a dense layer with whole groups all three; of others what their shapes and outputs allow."""
    dense = Conv2d("c", ("i",), (8, 4, 4), (6, 4, 4), 3, sparsity=0.5)
    patterns: tuple[Pattern, ...] = ("unstructured", "n_of_m", "channel")
    assert [nonzeros(replace(dense, pattern=each)) for each in patterns] == [216, 216, 216]
    for sparsity, channels, group in ((0.0, 6, 4), (0.3, 5, 3), (0.9, 1, 1), (0.99, 1, 1)):
        assert nonzeros(replace(dense, sparsity=sparsity, pattern="channel")) == channels * 72
        assert nonzeros(replace(dense, sparsity=sparsity, pattern="n_of_m")) == 108 * group
        assert macs(replace(dense, sparsity=sparsity, pattern="channel")) == channels * 72 * 16
        assert weight_bytes(replace(dense, sparsity=sparsity, pattern="channel")) == channels * (72 * 4 + 4)
        assert macs(replace(dense, sparsity=sparsity, pattern="n_of_m")) == macs(dense)


@pytest.mark.parametrize("asked", ["n_of_m", "channel"])
def test_layers_that_cannot_have_a_pattern_are_pruned_weight_by_weight(asked: Pattern) -> None:
    first = Conv2d("c", ("i",), (3, 4, 4), (8, 4, 4), 3)
    wide = Linear("l", ("i",), (8,), (8,), "relu", False)
    gates, logits = replace(wide, activation="hsigmoid"), replace(wide, activation="identity")
    layers = (first, replace(DEPTHWISE, sparsity=0.5), wide, gates, logits)
    able = {"n_of_m": [False, False, True, True, True], "channel": [True, True, True, False, False]}
    found = [pattern(replace(layer, pattern=asked)) for layer in layers]
    assert found == [asked if can else "unstructured" for can in able[asked]]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((INPUT, CONV, CONV), r"layer 2 \(conv\): names must be unique"),
        ((CONV,), r"layer 0 \(conv\): exactly the first layer must be an Input"),
        ((INPUT, Input("again", (1,))), r"layer 1 \(again\): exactly the first"),
        ((INPUT, DEPTHWISE), r"layer 1 \(dw\): reads 'conv', which is not an earlier layer"),
        (
            (INPUT, Mean("mean", ("input",), (6, 4, 4))),
            r"layer 1 \(mean\): reads shape \(6, 4, 4\), but 'input' gives \(3, 8, 8\)",
        ),
    ],
)
def test_faults_name_the_layer(layers: tuple[Layer, ...], message: str) -> None:
    with pytest.raises(NasError, match=message):
        Network(layers)


@pytest.mark.parametrize("bits", [1, 0, 17, 31])
def test_bits_are_checked(bits: int) -> None:
    with pytest.raises(NasError, match=f"weight_bits must be 2..16, or 32 for float; got {bits}"):
        Precision(weight_bits=bits)
    with pytest.raises(NasError, match=f"act_bits must be 2..16, or 32 for float; got {bits}"):
        Precision(act_bits=bits)


def test_who_reads_whom() -> None:
    assert [layer.name for layer in NETWORK.consumers["conv"]] == ["dw", "add"]
    assert NETWORK.consumers["head"] == ()
    assert NETWORK.weighted == (CONV, DEPTHWISE, HEAD)
    assert NETWORK.input == INPUT
    assert NETWORK.by_name["add"] == ADD


def test_as_float_keeps_the_architecture() -> None:
    plain = NETWORK.as_float()
    assert all(layer.precision == Precision() and layer.sparsity == 0 for layer in plain.weighted)
    assert [layer.out_shape for layer in plain] == [layer.out_shape for layer in NETWORK]
    assert plain.as_float() == plain != NETWORK


def test_the_key_is_the_description() -> None:
    again = Network(NETWORK.layers)
    assert again.key == NETWORK.key
    assert NETWORK.as_float().key != NETWORK.key
