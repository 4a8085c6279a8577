"""The RTL against the integer reference: da4ml's interpreter on many designs, Verilator on those that compile soon."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from designs import interaction_network, mlp_network, mobile_network, random_design, random_images, residual_network

from fpga import unrolling
from fpga.reference import integer_trace, run
from fpga.rtl import compare, emit, sample_images
from fpga.unrolling import Logic, pipelined, unroll
from fpga.verilator import (
    EXPECTED,
    OUTPUTS,
    Interface,
    Word,
    compile_testbench,
    from_vhdl,
    hex_lines,
    load_interface,
    simulate,
    values,
)
from nas.design import Design, LayerNumbers
from nas.errors import NasError
from nas.fixed_point import FixedPoint, quantize
from nas.genotype import FloatArray
from nas.network import Add, Conv2d, Input, Linear, Mean, Network, Precision

PART, CLOCK_HZ, LIMIT_S = "xczu3eg-sbva484-1-e", 200e6, 300.0

needs_verilator = pytest.mark.skipif(
    not (shutil.which("verilator") and shutil.which("g++")), reason="verilator or g++ is not installed"
)


def small_mlp(seed: int) -> Design:
    """Three layers of mixed bits, half of the weights pruned in one of them."""
    layers = (
        Input("in", (6,)),
        Linear("first", ("in",), (6,), (8,), "relu", precision=Precision(4, 6), sparsity=0.5),
        Linear("second", ("first",), (8,), (6,), "relu", precision=Precision(3, 4)),
        Linear("head", ("second",), (6,), (4,), precision=Precision(5, 5)),
    )
    return random_design(Network(layers), seed)


def small_conv(seed: int) -> Design:
    """A stem, a depthwise convolution whose input is added to its output, a strided pointwise one, a mean, a head."""
    image, inner = (2, 4, 4), (3, 4, 4)
    layers = (
        Input("image", image),
        Conv2d("stem", ("image",), image, inner, 3, 1, 1, "relu", precision=Precision(3, 4), sparsity=0.5),
        Conv2d("depthwise", ("stem",), inner, inner, 3, 1, 3, "relu", precision=Precision(3, 4)),
        Add("sum", ("stem", "depthwise"), inner, Precision(4, 4)),
        Conv2d("pointwise", ("sum",), inner, (4, 2, 2), 1, 2, precision=Precision(3, 5)),
        Mean("mean", ("pointwise",), (4, 2, 2), Precision(5, 5)),
        Linear("head", ("mean",), (4,), (3,), precision=Precision(4, 6)),
    )
    return random_design(Network(layers), seed)


def traced(design: Design) -> Logic:
    return unroll(design, [design.network.layers[-1].name])


def interpreted(design: Design, images: FloatArray) -> FloatArray:
    """What da4ml's own interpreter makes of the traced logic."""
    logic = traced(design)
    inputs = [quantize(images, fmt).reshape(len(images), -1) * fmt.step for fmt in logic.formats]
    outputs: FloatArray = logic.comb.predict(np.concatenate(inputs, axis=1), n_threads=1)
    return outputs


DESIGNS = {
    "mlp": random_design(mlp_network(1, 16), 1),
    "mobile": random_design(mobile_network(3, depth=1, input_shape=(1, 4, 4)), 3),
    "residual": random_design(residual_network(0), 0),
    "small conv": small_conv(0),
    "interaction": random_design(interaction_network(1, width=4), 1),
}


@pytest.mark.parametrize("name", DESIGNS)
def test_the_traced_logic_is_exact(name: str) -> None:
    design = DESIGNS[name]
    images = sample_images(design, 200, 0)
    expected = run(design, images)
    assert expected.std(axis=0).max() > 0
    assert np.array_equal(interpreted(design, images), expected)


def test_an_input_that_layers_read_in_two_formats_comes_in_both() -> None:
    layers = (
        Input("in", (3,)),
        Linear("fine", ("in",), (3,), (3,), precision=Precision(4, 8)),
        Add("sum", ("fine", "in"), (3,), Precision(4, 3)),
    )
    weights = np.array([[1.0, 2.0, -3.0], [0.0, 0.0, 0.0], [4.0, 0.5, 0.0]])
    fine = LayerNumbers(FixedPoint(False, 8, 8), weights, np.zeros(3), np.array([0, 0, 1]))
    design = Design(Network(layers), {"fine": fine, "sum": LayerNumbers(FixedPoint(True, 3, 1))})
    assert traced(design).formats == (FixedPoint(False, 8, 8), FixedPoint(True, 3, 1))
    images = random_images(design.network, 500, 0)
    assert np.array_equal(interpreted(design, images), run(design, images))


def test_what_is_too_large_to_unroll_is_refused(tmp_path: Path) -> None:
    design = random_design(mobile_network(3, input_shape=(1, 32, 32)), 3)
    with pytest.raises(NasError, match=r"non-zero weights, .* above 100000"):
        emit(design, tmp_path / "project", PART, CLOCK_HZ, random_images(design.network, 1, 0))
    assert list(tmp_path.iterdir()) == []


def test_words_side_by_side_are_read_as_written() -> None:
    words = (Word(True, 5, 2), Word(False, 0, 0), Word(False, 9, -3), Word(True, 40, 20), Word(True, 1, 0))
    rng = np.random.default_rng(0)
    integers = np.stack([rng.integers(-word.signed * 2**39, 2**39, 50) for word in words], axis=1)
    for column, word in enumerate(words):
        span = 2**word.bits
        low = span // 2 if word.signed else 0
        integers[:, column] = (integers[:, column] + low) % span - low
    lines = hex_lines([word.bits for word in words], integers).split()
    assert {len(line) for line in lines} == {14}  # of 55 bits
    assert np.array_equal(values(words, lines), integers * 2.0 ** -np.array([word.frac_bits for word in words]))
    assert hex_lines([4, 8], np.array([[1, -2]])) == "fe1\n"


def test_the_project_is_whole_and_explains_itself(tmp_path: Path) -> None:
    design = small_mlp(0)
    images = random_images(design.network, 20, 0)
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "stale").touch()
    project = emit(design, tmp_path / "project", PART, CLOCK_HZ, images)
    assert [path.name for path in tmp_path.iterdir()] == ["project"]
    assert not (project / "stale").exists()
    assert PART in (project / "README.md").read_text()
    assert "set clock_period 5.0" in (project / "src/network.xdc").read_text()
    interface = load_interface(project)
    assert interface.latency_cycles == len(pipelined(traced(design).comb).solutions) > 1
    expected = (project / EXPECTED).read_text().split()
    assert np.array_equal(values(interface.outputs, expected), run(design, images))


def test_any_layers_output_can_be_taken() -> None:
    design = small_conv(0)
    names = ["sum", "stem"]
    images = random_images(design.network, 50, 0)
    logic, expected = unroll(design, names), integer_trace(design, images).outputs
    inputs = quantize(images, logic.formats[0]).reshape(50, -1) * logic.formats[0].step
    joined = np.concatenate([expected[name].values().reshape(50, -1) for name in names], axis=1)
    assert np.array_equal(logic.comb.predict(inputs, n_threads=1), joined)


def test_images_of_another_shape_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NasError, match="emit it first"):
        simulate(tmp_path, np.zeros((1, 6)), LIMIT_S)
    with pytest.raises(NasError, match=r"the RTL reads \(n, \(6,\)\)"):
        Interface((6,), (FixedPoint(False, 4, 4),), (Word(True, 4, 0),), 1).input_words(np.zeros((1, 5)))


def test_a_missing_simulator_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    design = small_mlp(0)
    images = random_images(design.network, 1, 0)
    project = emit(design, tmp_path / "project", PART, CLOCK_HZ, images)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NasError, match=r"verilator .*apt install verilator"):
        simulate(project, images, LIMIT_S)


@needs_verilator
@pytest.mark.parametrize("design", [small_mlp(0), small_conv(1)], ids=["mlp", "conv"])
def test_the_rtl_is_exact(design: Design, tmp_path: Path) -> None:
    images = sample_images(design, 2000, 1)
    project = emit(design, tmp_path / "project", PART, CLOCK_HZ, images)
    verification = compare(design, project, images, LIMIT_S)
    assert (verification.samples, verification.mismatches, verification.first_differing_layer) == (2000, 0, None)
    subprocess.run([compile_testbench(project, LIMIT_S)], cwd=project, check=True, capture_output=True)
    assert (project / OUTPUTS).read_text() == (project / EXPECTED).read_text()


@needs_verilator
@pytest.mark.skipif(shutil.which("ghdl") is None, reason="ghdl is not installed")
def test_the_vhdl_is_exact(tmp_path: Path) -> None:
    design = tiny()
    images = sample_images(design, 2000, 2)
    project = emit(design, tmp_path / "project", PART, CLOCK_HZ, images)
    assert compare(design, from_vhdl(project, LIMIT_S), images, LIMIT_S).mismatches == 0


def tiny() -> Design:
    layers = (
        Input("in", (2,)),
        Linear("first", ("in",), (2,), (2,), precision=Precision(3, 3)),
        Linear("second", ("first",), (2,), (2,), precision=Precision(3, 3)),
    )
    return random_design(Network(layers), 0)


@needs_verilator
@pytest.mark.slow
def test_a_layer_that_goes_wrong_on_the_way_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    design, whole = tiny(), unrolling._weights
    images = random_images(design.network, 50, 0)

    def flipped(design: Design, layer: Any) -> Any:
        weights, bias = whole(design, layer)
        return (-weights if layer.name == "second" else weights), bias

    monkeypatch.setattr(unrolling, "_weights", flipped)
    verification = compare(design, emit(design, tmp_path / "wrong", PART, CLOCK_HZ, images), images, LIMIT_S)
    assert (verification.mismatches > 0, verification.first_differing_layer) == (True, "second")
    monkeypatch.undo()
    with pytest.raises(NasError, match="not an emission of this design"):
        compare(design, tmp_path / "wrong", images, LIMIT_S)


def test_a_layer_off_its_grid_is_refused(tmp_path: Path) -> None:
    design = tiny()
    weight = design.numbers["second"].weight
    assert weight is not None
    numbers = {**design.numbers, "second": dataclasses.replace(design.numbers["second"], weight=weight + 0.01)}
    with pytest.raises(NasError, match="layer second: weight: values are off their grid"):
        emit(Design(design.network, numbers), tmp_path / "project", PART, CLOCK_HZ, np.zeros((1, 2)))
