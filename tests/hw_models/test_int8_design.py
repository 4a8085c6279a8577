"""Subnets in affine numbers of 8 bits as int8 files: the design's own numbers, in integer kernels."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "supernet"))
from small_supernets import EXAMPLES, some_images, some_networks, supernet_of
from test_quantized_onnx import saturates

from hw_models.machine import cpu_model
from hw_models.onnx_model import to_onnx
from hw_models.onnx_runtime import predict, session_options
from hw_models.quantized_onnx import engine_model, own_formats
from nas.affine import Affine
from nas.design import Design
from nas.errors import NasError
from nas.fixed_point import FixedPoint
from nas.genotype import FloatArray
from nas.spaces.precision import PrecisionChoices
from supernet.evaluate import design_logits
from supernet.formats import FIXED, Formats
from supernet.run import fit

AFFINE = Formats("affine")
INT8 = PrecisionChoices((8, 4), (8,), (0.5, 0.0))


def designed(example: str, seed: int, formats: Formats = AFFINE) -> tuple[Design, FloatArray]:
    """A random network of an example space, and images that it has not seen."""
    space = EXAMPLES[example](INT8)
    network = some_networks(space, 1, seed)[0]
    subnet = supernet_of(space, seed).float().specialise(network, some_images(space, 64, 0).float(), formats)
    return subnet.design(), fit(some_images(space, 64, 1), network.input.out_shape).numpy()


@pytest.mark.skipif(saturates(), reason=f"{cpu_model()} has no VNNI: ONNX Runtime saturates sums of products there")
@pytest.mark.parametrize("example", EXAMPLES)
def test_engines_compute_what_the_design_does(example: str) -> None:
    """But for ties, which they round to even, and the coarse rounding before a hard swish."""
    for seed in range(3):
        design, images = designed(example, seed)
        expected, logits = design_logits(design, images), predict(engine_model(design), images)
        assert np.sqrt(np.mean((logits - expected) ** 2)) < (0.2 if example == "squeezed" else 0.02) * expected.std()


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_numbers_in_the_file_are_the_designs(example: str) -> None:
    design, _ = designed(example, 4)
    model = onnx.load_from_string(engine_model(design))
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for layer in design.network.weighted:
        numbers, name = design.numbers[layer.name], layer.name
        assert numbers.steps is not None
        assert np.array_equal(found[f"{name}.weight/scale"], numbers.steps)
        assert np.array_equal(found[f"{name}.weight/integers"], design.weight_integers(name))
        assert np.array_equal(found[f"{name}.bias/integers"], design.bias_integers(name))
        source = "input" if layer.inputs[0] == design.network.input.name else layer.inputs[0]
        assert isinstance(numbers.act, Affine)
        scale, zero = (tensor for part in ("scale", "zero") for tensor in [reads(found, source, part)])
        assert (float(scale), int(zero)) == (numbers.act.step, numbers.act.zero)


def reads(found: dict[str, np.ndarray], source: str, part: str) -> np.ndarray:
    """The mean over positions is quantized before it is flattened, in the same format."""
    return found.get(f"{source}/{part}", found.get(f"{source}.pooled/{part}", np.zeros(0)))


@pytest.mark.parametrize("example", EXAMPLES)
def test_all_products_run_in_integers(example: str, tmp_path: Path) -> None:
    design, _ = designed(example, 5)
    options = session_options(integers=True)
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(engine_model(design), options, providers=["CPUExecutionProvider"])
    run = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert run["QLinearConv"] + run["QGemm"] == len(design.network.weighted), run


def test_float_activations_keep_their_file_and_other_formats_are_refused() -> None:
    space = EXAMPLES["mlp"](PrecisionChoices((4,), (32,)))
    subnet = supernet_of(space, 0).float().specialise(space.maximal()[-1], some_images(space, 8, 0).float())
    assert engine_model(subnet.design()) == to_onnx(subnet.design())
    design, _ = designed("mlp", 0, FIXED)
    first = design.network.layers[1].name
    with pytest.raises(NasError, match=rf"layer {first}: reads FixedPoint.*; in an int8 model all layers read affine"):
        engine_model(design)
    act = design.numbers[first].act
    assert isinstance(act, FixedPoint)
    design, _ = designed("resnet", 0)
    add = next(layer for layer in design.network if layer.name.endswith(".add"))
    other = replace(design.numbers[add.name], act=Affine(8, 0, 0.5))
    with pytest.raises(NasError, match=r"layer \S+: reads \S+ in Affine.*, another layer in Affine"):
        own_formats(Design(design.network, {**design.numbers, add.name: other}))
