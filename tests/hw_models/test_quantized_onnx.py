"""Int8 models in ONNX Runtime, tensor by tensor, against integer arithmetic on the codes that each operation read."""

from __future__ import annotations

import platform
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parent))
from test_onnx_operations import ACTIVATIONS, paired, pooled, random_images, weighted
from test_onnx_operations import NETWORKS as BLOCKS

from hw_models.engines import load_engine
from hw_models.machine import cpu_model
from hw_models.onnx_model import stored_weight_bytes, to_onnx
from hw_models.onnx_runtime import predict, session_options, tensors
from hw_models.quantized_onnx import calibrated, channel_steps, int8_network, random_int8_model, to_int8_onnx
from hw_models.reference import REFERENCE, random_design
from nas.affine import Affine, multipliers, rescale
from nas.design import Design, LayerNumbers
from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from nas.network import Add, Conv2d, Input, Layer, Linear, Mean, Network, PairSum, Pool, RowMean, Scale, Weighted

NETWORKS = {"reference": REFERENCE, **{name: net for name, net in BLOCKS.items() if not name.endswith("28x27")}}


def saturates() -> bool:
    """Whether this processor adds pairs of products of bytes in 16 bits."""
    info = Path("/proc/cpuinfo")
    return platform.machine() in ("x86_64", "AMD64") and not (info.exists() and "vnni" in info.read_text())


@dataclass(frozen=True)
class Codes:
    """What an int8 model computed: the integers of each tensor, its zero point taken off, and the logits."""

    model: onnx.ModelProto
    integers: Mapping[str, IntArray]
    formats: Mapping[str, Affine]
    logits: FloatArray

    def real(self, name: str) -> FloatArray:
        return self.integers[name].astype(np.float64) * self.formats[name].step

    def constant(self, name: str) -> FloatArray:
        found = {tensor.name: tensor for tensor in self.model.graph.initializer}
        return np.array(numpy_helper.to_array(found[name]), dtype=np.float64)


def computed(network: Network, seed: int) -> Codes:
    design = random_design(network, seed)
    images = random_images(network, seed, 8)
    model = onnx.load_from_string(to_int8_onnx(design, calibrated(design, images)))
    names = [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.UINT8, None) for name in names)
    found = tensors(model.SerializeToString(), images)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    formats = {}
    for name in (name.removesuffix("/codes") for name in names):
        formats[name] = Affine(8, -int(constants[f"{name}/zero"]), float(constants[f"{name}/scale"]))
    integers = {name: found[f"{name}/codes"].astype(np.int64) + fmt.low for name, fmt in formats.items()}
    first, last = network.layers[0].name, network.layers[-1].name
    integers[first], formats[first] = integers["input"], formats["input"]
    assert last not in integers
    return Codes(model, integers, formats, found["output"])


def accumulated(layer: Weighted, codes: Codes) -> tuple[FloatArray, FloatArray]:
    """A layer's accumulators, exact, and their steps, broadcast against each other."""
    weight, bias = (codes.constant(f"{layer.name}.{part}/integers") for part in ("weight", "bias"))
    numbers = LayerNumbers(weight=weight, bias=bias)
    sums = weighted(layer, numbers, codes.integers[layer.inputs[0]].astype(np.float64))
    steps = codes.constant(f"{layer.name}.weight/scale") * codes.formats[layer.inputs[0]].step
    return sums, steps.reshape(-1, *(1,) * (sums.ndim - 2))


def require_close(name: str, expected: IntArray, codes: Codes) -> None:
    """One step apart at most, and rarely: the engine computes in single precision."""
    departure = np.abs(expected - codes.integers[name])
    assert departure.max() <= 1, name
    assert (departure > 0).sum() <= max(1, 0.03 * departure.size), name


def check(layer: Layer, codes: Codes) -> None:
    reads, name = layer.inputs, layer.name
    match layer:
        case Conv2d() | Linear():
            sums, steps = accumulated(layer, codes)
            if name not in codes.formats:
                np.testing.assert_allclose(codes.logits, sums * steps, rtol=1e-5, atol=1e-6)
                return
            wide = name if layer.activation in ("identity", "relu") else f"{name}.wide"
            fmt = codes.formats[wide]
            require_close(wide, rescale(sums.astype(np.int64), multipliers(steps / fmt.step), fmt), codes)
            if wide == name:
                return
            out = ACTIVATIONS[layer.activation](codes.real(wide))
        case Add():
            out = ACTIVATIONS[layer.activation](codes.real(reads[0]) + codes.real(reads[1]))
        case PairSum():
            out = ACTIVATIONS[layer.activation](paired(codes.real(reads[0]), codes.real(reads[1])))
        case RowMean():
            out = codes.real(reads[0]).mean(3, keepdims=True)
        case Mean():
            name = f"{name}.pooled"
            out = codes.real(reads[0]).mean((2, 3), keepdims=True)
            np.testing.assert_array_equal(codes.integers[layer.name], codes.integers[name][:, :, 0, 0])
        case Pool():
            out = pooled(layer, codes.real(reads[0]))
        case Scale():
            out = np.einsum("nchw,nc->nchw", codes.real(reads[0]), codes.real(reads[1]))
        case Input():
            return
    fmt = codes.formats[name]
    require_close(name, np.clip(np.rint(out / fmt.step), fmt.low, fmt.high).astype(np.int64), codes)


@pytest.mark.skipif(saturates(), reason=f"{cpu_model()} has no VNNI: ONNX Runtime saturates sums of products there")
@pytest.mark.parametrize("name", NETWORKS)
def test_every_tensor_is_that_of_integer_arithmetic(name: str) -> None:
    for seed in range(2):
        codes = computed(NETWORKS[name], seed)
        assert all(np.ptp(values) > 20 for values in codes.integers.values()), "a dead tensor proves nothing"
        for layer in NETWORKS[name]:
            check(layer, codes)


@pytest.mark.skipif(saturates(), reason=f"{cpu_model()} has no VNNI: ONNX Runtime saturates sums of products there")
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_logits_are_near_those_in_float(name: str, engine: str) -> None:
    pytest.importorskip(engine)
    network = NETWORKS[name]
    design, images = random_design(network, 3), random_images(network, 3, 32)
    expected = predict(to_onnx(design), images)
    logits = load_engine(engine).predict(to_int8_onnx(design, calibrated(design, images)), images)
    assert np.sqrt(np.mean((logits - expected) ** 2)) < 0.05 * np.std(expected)


def test_all_products_run_in_integers(tmp_path: Path) -> None:
    for name, network in NETWORKS.items():
        options = session_options(integers=True)
        options.log_severity_level = 3
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        ort.InferenceSession(random_int8_model(network, 0), options, providers=["CPUExecutionProvider"])
        run = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
        assert run["QLinearConv"] + run["QGemm"] == len(network.weighted), name
        assert run["Relu"] + run["Add"] + run["MaxPool"] + run["AveragePool"] == 0, name


def test_a_wide_enough_step_holds_a_bias_without_weights() -> None:
    weights = np.array([[0.0, 0.0], [1e-12, 0.0], [1.0, -2.0]])
    biases = np.array([0.0, 100.0, 100.0])
    steps = channel_steps(weights, biases, 0.01)
    assert steps[0] == 1
    assert steps[2] == np.float32(2 / 127)
    assert abs(biases / (steps * 0.01)).max() < 2**30 * 1.001


def test_the_file_is_smaller_and_repeats() -> None:
    network = NETWORKS["squeezed13x5"]
    model = random_int8_model(network, 0)
    assert model == random_int8_model(network, 0)
    assert model != random_int8_model(network, 1)
    weights = sum(int(np.prod(layer.weight_shape)) for layer in network.weighted)
    saved = stored_weight_bytes(to_onnx(random_design(network, 0))) - stored_weight_bytes(model)
    channels = sum(layer.out_shape[0] for layer in network.weighted)
    quantizers = model.count(b"QuantizeLinear")
    assert saved == 3 * weights - (4 + 1 + 4 + 4) * channels - 5 * quantizers


def test_a_key_of_its_own() -> None:
    network = int8_network(REFERENCE)
    assert network.key != REFERENCE.key
    assert int8_network(network) == network
    assert network.as_float() == REFERENCE


def test_formats_of_another_design_are_refused() -> None:
    other = random_design(NETWORKS["bottleneck8x8"], 0)
    formats = calibrated(other, random_images(other.network, 0))
    with pytest.raises(NasError, match=r"tensor \S+ has no format; calibrate the same design"):
        to_int8_onnx(Design(REFERENCE, random_design(REFERENCE, 0).numbers), formats)
