"""Interaction networks all the way: fake quantization, integers, hls4ml's C simulation and the RTL in Verilator."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from designs import interaction_network, random_design, random_images

from fpga import hls, reference, rtl
from fpga.adders import adder_graph_cost
from fpga.build import Build, Strategy
from fpga.folding_options import layer_options
from hw_models.unrolled import layer_cost
from nas.design import Design, LayerNumbers
from nas.fixed_point import FixedPoint
from nas.genotype import FloatArray, random_population
from nas.network import Add, Input, Layer, Mean, Network, PairSum, Precision, RowMean
from nas.spaces import InteractionChoices
from nas.spaces.deepsets import Tower
from nas.spaces.precision import PrecisionChoices
from supernet.data.jets import Jets
from supernet.elastic import Supernet
from supernet.evaluate import design_logits

PART, CLOCK_HZ, LIMIT_S = "xczu3eg-sbva484-1-e", 200e6, 300.0
JETS = Path(os.environ.get("NAS_DATA", "data"))


@pytest.mark.hls
@pytest.mark.parametrize(("strategy", "seed"), [("latency", 2), ("distributed_arithmetic", 0)])
def test_hls4ml_adds_every_pair_exactly(strategy: Strategy, seed: int, tmp_path: Path) -> None:
    """With seed 2, some layers give numbers that are rounded away whole."""
    design = random_design(interaction_network(seed, width=3 - seed // 2), seed)
    images = random_images(design.network, 200, 0)
    assert reference.run(design, images).std(axis=0).max() > 0
    project = hls.emit(design, tmp_path / "project", PART, CLOCK_HZ, Build(strategy=strategy))
    assert hls.compare(design, project, images).mismatches == 0
    found = 0
    for name in ("edge1.sender", "message2", "node1.received"):
        weight = design.numbers[name].weight
        assert weight is not None
        numbers = {**design.numbers, name: dataclasses.replace(design.numbers[name], weight=-weight)}
        wrong = Design(design.network, numbers)
        verification = hls.compare(wrong, project, images)
        matters = not np.array_equal(reference.run(wrong, images), reference.run(design, images))
        assert (verification.mismatches > 0, verification.first_differing_layer) == (matters, name if matters else None)
        found += matters
    assert found > 0


def test_a_sum_of_pairs_is_a_sum_a_position_a_cycle() -> None:
    """As an adder graph and in the analytic model: it also holds both lists, and takes n^2 cycles instead of n."""

    def cost(layer: Layer) -> tuple[Mapping[str, float], Mapping[str, float]]:
        network = Network((Input("x", layer.in_shape), layer))  # type: ignore[union-attr]
        design = Design(network, {"layer": LayerNumbers(FixedPoint(True, 4, 1))})
        return adder_graph_cost(design, CLOCK_HZ).layers["layer"], layer_cost(layer)

    pairs, sums = (cost(op("layer", ("x", "x"), (6, 8, 1), Precision(4, 4), "relu")) for op in (PairSum, Add))
    for one, other in zip(pairs, sums, strict=True):
        more = {"lut": 2 * 6 * 4, "ff": 0, "dsp": 0, "bram": 0, "cycles": 8 * 8 - 8}
        assert {name: one[name] - other[name] for name in one} == pytest.approx(more)
    assert cost(RowMean("layer", ("x",), (6, 8, 8), Precision(4, 4))) == cost(
        Mean("layer", ("x",), (6, 8, 1), Precision(4, 4))
    )


def test_foldings_of_a_sum_of_pairs_share_its_channels_among_the_pairs() -> None:
    pairs = PairSum("pairs", ("a", "b"), (6, 8, 1), Precision(4, 4), "relu")
    assert [option.cycles for option in layer_options(pairs)] == [64, 2 * 64, 3 * 64, 6 * 64]
    assert [option.inputs for option in layer_options(pairs)] == [6, 3, 2, 1]


def jets_design(seed: int) -> tuple[Design, FloatArray]:
    """A small network of 8 particles and mixed bits, calibrated on jets, and 400 jets of the test set."""
    data = Jets("jets/jets_constituents.h5", 8, ("j1_ptrel", "j1_etarel", "j1_phirel"), test_from=80500).load(JETS, 0)
    precision = PrecisionChoices((2, 3, 4, 6), (3, 4, 6), (0.75, 0.5, 0.0))
    space = InteractionChoices(Tower((2,), (3,)), Tower((2,), (3,)), (8,), precision).build(data.input_shape, 5)
    network = space.lower(random_population(space, 1, np.random.default_rng(seed))[0].tolist())
    supernet, cpu = Supernet(space.maximal(), (), seed), torch.device("cpu")
    design = supernet.specialise(network, data.train.first(512, cpu)).design()
    return design, data.test.first(400, cpu).double().numpy()


@pytest.mark.hls
@pytest.mark.slow
@pytest.mark.skipif(not (JETS / "jets").is_dir(), reason="NAS_DATA names no folder that holds jets")
@pytest.mark.skipif(not (shutil.which("verilator") and shutil.which("g++")), reason="no verilator or no g++")
def test_four_ways_to_compute_are_one(tmp_path: Path) -> None:
    design, jets = jets_design(0)
    logits = design_logits(design, jets)
    assert logits.std(axis=0).min() > 0
    assert len({layer.precision for layer in design.network.weighted}) > 3
    assert np.array_equal(reference.run(design, jets), logits)
    project = hls.emit(design, tmp_path / "hls", PART, CLOCK_HZ)
    assert np.array_equal(hls.simulate(project, jets), logits)
    verification = rtl.compare(design, rtl.emit(design, tmp_path / "rtl", PART, CLOCK_HZ, jets[:10]), jets, LIMIT_S)
    assert (verification.samples, verification.mismatches, verification.first_differing_layer) == (400, 0, None)
