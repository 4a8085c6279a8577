"""Projects in streams, with reused multipliers and by distributed arithmetic, held against the integer reference."""

from __future__ import annotations

from pathlib import Path

import pytest
from designs import mlp_network, mobile_network, random_design, random_images, residual_network

from fpga.build import Build, folded_build, nearest, reuse_factors
from fpga.folded import folded
from fpga.hls import Verification, compare, emit
from hw_models.device import load_device
from nas.errors import NasError
from nas.network import Input, Linear, Network, Precision

PART, CLOCK_HZ = "xczu3eg-sbva484-1-e", 200e6


def mismatches(network: Network, build: Build, folder: Path) -> Verification:
    design = random_design(network, 5)
    return compare(design, emit(design, folder / "project", PART, CLOCK_HZ, build), random_images(network, 30, 1))


@pytest.mark.hls
@pytest.mark.parametrize(
    "build", [Build("parallel", "resource", {"fc1": 4}), Build("stream", "resource", {"fc1": 64, "fc2": 16})]
)
def test_a_reused_multiplier_computes_what_the_integers_do(build: Build, tmp_path: Path) -> None:
    assert mismatches(mlp_network(1), build, tmp_path) == Verification(30, 0, None)
    text = (tmp_path / "project/README.md").read_text()
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in text.splitlines()}
    assert all(rows[layer].endswith(f" | {factor} |") for layer, factor in build.reuse.items())
    assert f"io_{build.io}" in text


@pytest.mark.hls
@pytest.mark.slow
def test_adders_alone_compute_what_the_integers_do(tmp_path: Path) -> None:
    network = mlp_network(1, 16)
    assert mismatches(network, Build(strategy="distributed_arithmetic"), tmp_path) == Verification(30, 0, None)


@pytest.mark.hls
@pytest.mark.slow
def test_streams_that_fork_keep_the_format_of_each_reader(tmp_path: Path) -> None:
    """The sums of skip connections read what convolutions read too, in formats of their own."""
    assert mismatches(residual_network(2), Build("stream"), tmp_path) == Verification(30, 0, None)


@pytest.mark.hls
@pytest.mark.slow
def test_a_folded_network_is_built_in_streams_as_its_folding_says(tmp_path: Path) -> None:
    network = mobile_network(3)
    options = folded(network, load_device("pynq-z2-folded")).options
    build = folded_build(network, options)
    assert (build.io, build.strategy) == ("stream", "resource")
    assert mismatches(network, build, tmp_path) == Verification(30, 0, None)


def test_the_factors_are_those_that_hls4ml_takes() -> None:
    from hls4ml.backends import get_backend

    backend = get_backend("Vitis")
    for inputs, outputs in [(16, 64), (7, 5), (12, 1), (1, 9)]:
        layer = Linear("fc", ("in",), (inputs,), (outputs,))
        assert reuse_factors(layer) == tuple(backend.get_valid_reuse_factors(inputs, outputs))
        for asked in range(1, 80):
            taken = backend.get_closest_reuse_factor(list(reuse_factors(layer)), asked)
            assert nearest(layer, asked) == taken


def test_what_hls4ml_would_not_compute_as_asked_is_refused() -> None:
    quantized = Precision(4, 4)
    network = Network((Input("in", (6,)), Linear("fc", ("in",), (6,), (4,), precision=quantized)))
    with pytest.raises(
        NasError, match=r"layer fc: reuse must be one of \[1, 2, 3, 6, 12, 24\], got 5; the nearest is 6"
    ):
        Build("parallel", "resource", {"fc": 5}).require(network)
    with pytest.raises(NasError, match=r"layer in: has no weights .* take \['fc'\]"):
        Build("parallel", "resource", {"in": 2}).require(network)
    with pytest.raises(NasError, match="no multipliers to reuse"):
        Build("parallel", "distributed_arithmetic", {"fc": 2}).require(network)
