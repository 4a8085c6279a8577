"""hls4ml projects against the integer reference, by compiling and running their C simulation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from designs import mlp_network, mobile_network, random_design, random_images, residual_network

from fpga.adders import adder_graph_cost
from fpga.csim import tabulated
from fpga.hls import compare, emit, simulate
from fpga.layer_list import layer_list
from fpga.reference import integer_trace, run
from nas.design import Design, LayerNumbers
from nas.errors import NasError
from nas.fixed_point import FixedPoint
from nas.genotype import FloatArray
from nas.network import Add, Conv2d, Input, Layer, Linear, Mean, Network, Pool, Precision, Scale

PART, CLOCK_HZ = "xczu3eg-sbva484-1-e", 200e6


@pytest.fixture(scope="session")
def mobile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Design, Path]:
    """Depthwise layers, a skip connection, a mean, mixed bits, pruned weights."""
    design = random_design(mobile_network(3), 3)
    return design, emit(design, tmp_path_factory.mktemp("mobile") / "project", PART, CLOCK_HZ)


@pytest.fixture(scope="session")
def mlp(tmp_path_factory: pytest.TempPathFactory) -> tuple[Design, Path]:
    design = random_design(mlp_network(1), 1)
    return design, emit(design, tmp_path_factory.mktemp("mlp") / "project", PART, CLOCK_HZ)


def with_flipped_weight(design: Design, name: str, images: FloatArray) -> Design:
    """The design with the sign of one of the layer's weights changed, one of those that logits depend on."""
    weight, logits = design.numbers[name].weight, run(design, images)
    assert weight is not None
    for index in np.argsort(-np.abs(weight), axis=None):
        flipped = weight.copy()
        flipped.flat[index] *= -1
        numbers = {**design.numbers, name: dataclasses.replace(design.numbers[name], weight=flipped)}
        if not np.array_equal(run(Design(design.network, numbers), images), logits):
            return Design(design.network, numbers)
    raise AssertionError(f"no weight of {name} matters")


def two_layers(first: FloatArray, first_frac: list[int], act: FixedPoint) -> Design:
    """A linear layer with these weights, read in format `act` by an identity."""
    outputs, inputs = first.shape
    layers = (
        Input("in", (inputs,)),
        Linear("first", ("in",), (inputs,), (outputs,), precision=Precision(8, 8)),
        Linear("second", ("first",), (outputs,), (outputs,), precision=Precision(8, act.bits)),
    )
    zeros, frac = np.zeros(outputs), np.zeros(outputs, np.int64)
    return Design(
        Network(layers),
        {
            "first": LayerNumbers(FixedPoint(False, 8, 4), first, zeros, np.array(first_frac)),
            "second": LayerNumbers(act, np.eye(outputs), zeros, frac),
        },
    )


def test_the_project_is_whole_and_explains_itself(mlp: tuple[Design, Path]) -> None:
    design, project = mlp
    readme = (project / "README.md").read_text()
    assert PART in readme
    assert "200 MHz" in readme
    assert all(f"| {layer.name} |" in readme for layer in design.network.layers[1:])
    assert (project / "firmware" / "design.cpp").exists()
    assert [path.name for path in project.parent.iterdir()] == ["project"]
    assert str(project.parent) not in (project / "hls4ml_config.yml").read_text()


def test_a_failed_emission_leaves_nothing_behind(mlp: tuple[Design, Path], tmp_path: Path) -> None:
    design, _ = mlp
    numbers = {**design.numbers, "fc1": dataclasses.replace(design.numbers["fc1"], act=None)}
    with pytest.raises(NasError, match="fc1"):
        emit(Design(design.network, numbers), tmp_path / "project", PART, CLOCK_HZ)
    assert list(tmp_path.iterdir()) == []


def test_an_emission_replaces_an_older_one(mlp: tuple[Design, Path], tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "stale").touch()
    emit(mlp[0], tmp_path / "project", PART, CLOCK_HZ)
    assert not (tmp_path / "project" / "stale").exists()
    assert (tmp_path / "project" / "README.md").exists()


def test_what_hls4ml_cannot_do_is_refused_by_name() -> None:
    grouped = Conv2d("grouped", ("in",), (4, 4, 4), (4, 4, 4), 3, groups=2, precision=Precision(4, 4))
    with pytest.raises(NasError, match="grouped"):
        layer_list(random_design(Network((Input("in", (4, 4, 4)), grouped)), 0))
    mean = Network((Input("in", (2, 3, 3)), Mean("mean", ("in",), (2, 3, 3), Precision(4, 4))))
    with pytest.raises(NasError, match="mean"):
        layer_list(Design(mean, {"mean": LayerNumbers(FixedPoint(False, 4, 4))}))


IMAGE = (4, 4, 4)
REFUSED: list[tuple[Layer, str]] = [
    (Conv2d("odd", ("in",), IMAGE, IMAGE, 3, activation="hswish", precision=Precision(4, 4)), "activation hswish"),
    (Linear("odd", ("mean",), (4,), (4,), "hsigmoid", precision=Precision(4, 4)), "activation hsigmoid"),
    (Add("odd", ("in", "in"), IMAGE, Precision(4, 4), "hswish"), "activation hswish"),
    (Pool("odd", ("in",), IMAGE, 2, 2, "max", Precision(4, 4)), "operation pool"),
    (Scale("odd", ("in", "mean"), IMAGE, Precision(4, 4)), "operation scale"),
]


@pytest.mark.parametrize(("layer", "reason"), REFUSED)
def test_operations_that_no_design_has_are_refused_everywhere(layer: Layer, reason: str, tmp_path: Path) -> None:
    network = Network((Input("in", IMAGE), Mean("mean", ("in",), IMAGE, Precision(4, 4)), layer))
    act = FixedPoint(False, 4, 0)
    weight = np.ones(layer.weight_shape) if isinstance(layer, Conv2d | Linear) else None
    numbers = LayerNumbers(act, weight, np.zeros(4), np.zeros(4, np.int64))
    design = Design(network, {"mean": LayerNumbers(act), "odd": numbers})
    for use in (
        lambda: run(design, np.zeros((1, *IMAGE))),
        lambda: adder_graph_cost(design, CLOCK_HZ),
        lambda: emit(design, tmp_path / "project", PART, CLOCK_HZ),
    ):
        with pytest.raises(NasError, match=f"layer odd: {reason} .*choose such a space"):
            use()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_compiler_is_named(mlp: tuple[Design, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NasError, match=r"g\+\+"):
        simulate(mlp[1], np.zeros((1, 64)))


def test_a_folder_without_a_design_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NasError, match="emit"):
        simulate(tmp_path, np.zeros((1, 64)))


@pytest.mark.hls
def test_mlp_is_exact(mlp: tuple[Design, Path]) -> None:
    design, project = mlp
    verification = compare(design, project, random_images(design.network, 500, 0))
    assert (verification.samples, verification.mismatches, verification.first_differing_layer) == (500, 0, None)


@pytest.mark.hls
def test_mobile_is_exact(mobile: tuple[Design, Path]) -> None:
    design, project = mobile
    images = random_images(design.network, 200, 0)
    assert run(design, images).std(axis=0).min() > 0
    verification = compare(design, project, images)
    assert (verification.samples, verification.mismatches, verification.first_differing_layer) == (200, 0, None)


@pytest.fixture(scope="session")
def residual(tmp_path_factory: pytest.TempPathFactory) -> tuple[Design, Path]:
    """Two sums with ReLU, read in signed formats: an unsigned one would hide a missing ReLU."""
    drawn = random_design(residual_network(0), 0)
    acts = {name: drawn.numbers[name].act for name in ("b2.reduce", "b2.shortcut", "mean")}
    signed = {name: FixedPoint(True, act.bits + 1, act.frac_bits) for name, act in acts.items() if act}
    read = {name: dataclasses.replace(drawn.numbers[name], act=act) for name, act in signed.items()}
    design = Design(drawn.network, {**drawn.numbers, **read})
    return design, emit(design, tmp_path_factory.mktemp("residual") / "project", PART, CLOCK_HZ)


@pytest.mark.hls
def test_sums_with_relu_are_exact(residual: tuple[Design, Path]) -> None:
    design, project = residual
    images = random_images(design.network, 200, 0)
    assert run(design, images).std(axis=0).max() > 0
    assert compare(design, project, images).mismatches == 0
    for name in ("b1.second", "b2.restore", "b2.shortcut"):
        verification = compare(with_flipped_weight(design, name, images), project, images)
        assert verification.first_differing_layer == name


@pytest.mark.hls
def test_relu_left_out_of_a_sum_is_found(residual: tuple[Design, Path]) -> None:
    design, project = residual
    layers = tuple(
        dataclasses.replace(layer, activation="identity") if isinstance(layer, Add) else layer
        for layer in design.network
    )
    verification = compare(Design(Network(layers), design.numbers), project, random_images(design.network, 50, 0))
    assert (verification.mismatches > 0, verification.first_differing_layer) == (True, "b1.add")


@pytest.mark.hls
def test_images_beyond_the_input_format_saturate_alike(mlp: tuple[Design, Path]) -> None:
    design, project = mlp
    images = np.random.default_rng(0).normal(0, 4, (200, 64))
    assert compare(design, project, images).mismatches == 0


@pytest.mark.hls
@pytest.mark.parametrize("name", ["stem", "s1.b2.depthwise", "s1.b2.project", "s2.b1.expand", "head"])
def test_one_flipped_weight_is_found_and_its_layer_named(mobile: tuple[Design, Path], name: str) -> None:
    design, project = mobile
    images = random_images(design.network, 50, 0)
    verification = compare(with_flipped_weight(design, name, images), project, images)
    assert verification.mismatches > 0
    assert verification.first_differing_layer == name


COARSE = np.array([[4.0, 0.0], [0.0, -4.0], [4.0, 4.0]])
UNLIKE = np.array([[8.0, 0.0], [0.0, 2.0**-4], [-(2.0**-3), 2.0**-4]])


@pytest.mark.hls
@pytest.mark.parametrize(
    ("weights", "frac", "act"),
    [(COARSE, [-2, -2, -2], FixedPoint(True, 8, 5)), (UNLIKE, [-3, 4, 4], FixedPoint(True, 14, 6))],
    ids=["saturation_finer_than_the_source", "channels_of_unlike_formats"],
)
def test_formats_are_kept_where_hls4ml_would_narrow_them(
    tmp_path: Path, weights: FloatArray, frac: list[int], act: FixedPoint
) -> None:
    design = two_layers(weights, frac, act)
    project = emit(design, tmp_path / "project", PART, CLOCK_HZ)
    images = np.random.default_rng(0).random((300, 2)) * 16
    reads = integer_trace(design, images).reads["second"][0]
    assert np.abs(reads).max() > 2 ** (act.bits - 2)  # the largest values use the top bits
    assert (reads % 2 == 1).any()  # and some the lowest
    assert compare(design, project, images).mismatches == 0


def test_line_buffers_are_tabulated_only_where_they_are_whole() -> None:
    whole = "if (partition ==   0) {\n buffer[0][0] = data[3]; buffer[0][1] = 0;\n }"
    assert "{3, -1}" in tabulated(whole)
    partial = "if (partition ==   0) {\n buffer[0][1] = data[3];\n }"
    assert tabulated(partial) == partial
