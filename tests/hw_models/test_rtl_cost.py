"""The price of whole networks in RTL: against designs that were synthesised, and the laws it has to keep."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from experiments.bench.fpga_corpus import Row, from_text, read_table
from experiments.bench.fpga_model import predicted
from hw_models.rtl_cost import parallel_cost, rtl_cost
from hw_models.unrolled import RESOURCES, layer_cost
from nas.errors import NasError
from nas.network import FLOAT, Conv2d, Input, Linear, Mean, Network, Precision
from predictors.prediction import spearman

QUANTIZED = Precision(4, 6)


def rows(use: str) -> list[Row]:
    return [row for row in read_table() if row.use == use]


def mlp(*widths: int, sparsity: float = 0.0, precision: Precision = QUANTIZED) -> Network:
    layers: list[Input | Linear] = [Input("input", widths[:1])]
    for index, (read, given) in enumerate(itertools.pairwise(widths)):
        layers.append(Linear(f"fc{index}", (layers[-1].name,), (read,), (given,), "relu", True, precision, sparsity))
    return Network(tuple(layers))


def test_luts_are_those_of_synthesis_where_nothing_was_fitted() -> None:
    tested = rows("test")
    truth = np.array([row.lut for row in tested])
    model = predicted(tested, "lut")
    assert len(tested) >= 20
    assert np.median(np.abs(model / truth - 1)) <= 0.10
    assert spearman(model, truth) >= 0.97


def test_no_tested_design_was_fitted_to() -> None:
    assert not {row.network for row in rows("test")} & {row.network for row in rows("fit")}


@pytest.mark.parametrize(("name", "most"), [("ff", 0.35), ("cycles", 0.2)])
def test_registers_and_cycles_are_near_those_of_synthesis(name: str, most: float) -> None:
    tested = rows("test")
    truth = np.array([getattr(row, name) for row in tested])
    assert np.median(np.abs(predicted(tested, name) / truth - 1)) <= most


def test_rank_correlation_shares_ranks() -> None:
    assert spearman(np.array([1.0, 2.0, 2.0, 3.0]), np.array([1.0, 5.0, 5.0, 9.0])) == pytest.approx(1)
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])) == pytest.approx(-1)


def test_dense_networks_cost_the_sum_of_their_layers() -> None:
    network = mlp(16, 24, 8, precision=Precision(8, 8))
    total = rtl_cost(network)
    for name in RESOURCES:
        assert total[name] == pytest.approx(sum(parallel_cost(layer)[name] for layer in network), rel=1e-3)


def test_channels_that_nothing_reads_take_no_hardware() -> None:
    """A classifier of few weights reads few channels; what computes the others goes."""
    hidden, sparse = mlp(16, 24, 5), mlp(16, 24, 5).layers
    head = dataclasses.replace(hidden.weighted[-1], sparsity=0.95)
    pruned = Network((*sparse[:-1], head))
    spared = rtl_cost(hidden)["lut"] - rtl_cost(pruned)["lut"]
    assert spared > 1.5 * (parallel_cost(hidden.layers[-1])["lut"] - parallel_cost(head)["lut"])


def test_sparser_networks_cost_less() -> None:
    costs = [rtl_cost(mlp(16, 24, 16, 5, sparsity=share)) for share in (0.0, 0.25, 0.5, 0.75, 0.9)]
    for one, sparser in itertools.pairwise(costs):
        assert all(sparser[name] <= one[name] for name in ("lut", "ff", "cycles"))


def test_more_bits_and_more_weights_never_cost_less() -> None:
    """Of any shape, also where some channels are constant and others not read."""
    rng = np.random.default_rng(0)
    for _ in range(1000):
        inputs, outputs = (int(rng.choice([1, 3, 8, 64])) for _ in range(2))
        precision, shares = Precision(*rng.integers(2, 9, 2).tolist()), rng.uniform(0.2, 1, 2).tolist()
        share = float(rng.choice([0.05, 0.25, 0.5, 0.75, 0.9]))
        layer = Linear("fc", ("x",), (inputs,), (outputs,), "relu", True, precision, share)
        more = [
            dataclasses.replace(layer, precision=Precision(precision.weight_bits + 1, precision.act_bits)),
            dataclasses.replace(layer, precision=Precision(precision.weight_bits, precision.act_bits + 1)),
            dataclasses.replace(layer, sparsity=share - 0.05),
        ]
        least = parallel_cost(layer, *shares)["lut"]
        assert all(parallel_cost(one, *shares)["lut"] >= least - 1e-9 for one in more)


def test_all_positions_at_once() -> None:
    """As many copies of a 1x1 convolution as positions; padding spares taps; a mean is a tree of adders."""
    one = Conv2d("c", ("x",), (4, 1, 1), (8, 1, 1), 1, precision=QUANTIZED)
    many = dataclasses.replace(one, in_shape=(4, 2, 4), out_shape=(8, 2, 4))
    assert parallel_cost(many)["lut"] == pytest.approx(8 * parallel_cost(one)["lut"])
    assert parallel_cost(many)["cycles"] == parallel_cost(one)["cycles"]
    window = Conv2d("w", ("x",), (4, 8, 8), (8, 8, 8), 3, precision=QUANTIZED)
    inner = layer_cost(window)["lut"] - 2 * 4 * 6  # without two rows of line buffers
    assert 0.75 * 64 * inner < parallel_cost(window)["lut"] < 64 * inner
    mean = Mean("m", ("x",), (8, 2, 4), QUANTIZED)
    assert parallel_cost(mean)["lut"] == pytest.approx(8 * 7 * 3 * 6)
    assert parallel_cost(dataclasses.replace(mean, in_shape=(8, 1, 1)))["lut"] == 0


def test_a_network_survives_its_text() -> None:
    for row in read_table():
        assert from_text(row.network).weighted


def test_floats_are_refused() -> None:
    with pytest.raises(NasError, match="float"):
        rtl_cost(mlp(4, 3, precision=FLOAT))
