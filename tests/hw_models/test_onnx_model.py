import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F

from hw_models.onnx_model import storage_bits, stored_weight_bytes, to_onnx
from hw_models.onnx_runtime import predict, session_options
from nas.counts import weight_bytes, weight_count
from nas.design import Design
from nas.errors import NasError
from nas.genotype import FloatArray, SearchSpace
from nas.network import Add, Conv2d, Input, Layer, Linear, Mean, Network, Precision

MIXES = [(32,), (2,), (3,), (4,), (8,), (16,), (2, 3, 4, 5, 8, 12, 32)]
Draw = Callable[[SearchSpace, int], list[Network]]
Change = Callable[[Network, tuple[int, ...]], Network]
Make = Callable[[Network, int], Design]


def float64_logits(design: Design, images: FloatArray) -> FloatArray:
    """The design by torch's functional ops in double precision, straight from its numbers."""
    values: dict[str, torch.Tensor] = {}
    for layer in design.network:
        numbers = design.numbers.get(layer.name)
        read = [values[name] for name in layer.inputs]
        match layer:
            case Input():
                out = torch.tensor(images).reshape(-1, *layer.out_shape)
            case Conv2d() | Linear():
                assert numbers is not None
                weight, bias = torch.tensor(numbers.weight), torch.tensor(numbers.bias)
                if isinstance(layer, Conv2d):
                    out = F.conv2d(read[0], weight, bias, layer.stride, layer.kernel // 2, groups=layer.groups)
                else:
                    out = read[0] @ weight.T + bias
                out = out.clamp(min=0) if layer.activation == "relu" else out
            case Add():
                out = read[0] + read[1]
            case Mean():
                out = read[0].mean((2, 3))
        values[layer.name] = out
    return out.numpy()


@pytest.fixture
def images() -> FloatArray:
    return np.random.default_rng(3).normal(size=(16, 1, 8, 8))


@pytest.mark.parametrize("bits", MIXES, ids=str)
@pytest.mark.parametrize("space", ["mobile", "mlp"])
def test_the_file_computes_the_design(
    space: str,
    bits: tuple[int, ...],
    request: pytest.FixtureRequest,
    architectures: Draw,
    with_weight_bits: Change,
    weight_only_design: Make,
    images: FloatArray,
) -> None:
    for seed, network in enumerate(architectures(request.getfixturevalue(space), 4)):
        design = weight_only_design(with_weight_bits(network, bits), seed)
        expected = float64_logits(design, images)
        logits = predict(to_onnx(design), images)
        assert logits.shape == (16, 10)
        assert np.abs(expected).max() > 0.1
        assert np.abs(logits - expected).max() <= 1e-5 * max(1, np.abs(expected).max())


def test_even_kernels_strides_and_rectangles(weight_only_design: Make) -> None:
    network = Network(
        (
            Input("x", (3, 9, 5)),
            Conv2d("a", ("x",), (3, 9, 5), (6, 5, 3), 5, stride=2, groups=3, activation="relu"),
            Conv2d("b", ("a",), (6, 5, 3), (4, 5, 3), 1),
            Mean("c", ("b",), (4, 5, 3)),
        )
    )
    design = weight_only_design(network, 0)
    images = np.random.default_rng(0).normal(size=(7, 3, 9, 5))
    np.testing.assert_allclose(predict(to_onnx(design), images), float64_logits(design, images), atol=1e-5)


class Twin(torch.nn.Module):
    """A design as a torch module, for the exporter of torch."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.network = design.network
        self.weights = torch.nn.ParameterDict()
        for layer in design.network.weighted:
            numbers = design.numbers[layer.name]
            for kind, values in (("w", numbers.weight), ("b", numbers.bias)):
                name = f"{kind}_{layer.name.replace('.', '_')}"
                self.weights[name] = torch.nn.Parameter(torch.tensor(values, dtype=torch.float32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = {self.network.layers[0].name: x}
        for layer in self.network.layers[1:]:
            values[layer.name] = self._layer(layer, [values[name] for name in layer.inputs])
        return values[self.network.layers[-1].name]

    def _layer(self, layer: Layer, read: list[torch.Tensor]) -> torch.Tensor:
        if isinstance(layer, Add):
            return read[0] + read[1]
        if isinstance(layer, Mean):
            return read[0].mean((2, 3))
        assert isinstance(layer, Conv2d | Linear)
        name = layer.name.replace(".", "_")
        weight, bias = self.weights[f"w_{name}"], self.weights[f"b_{name}"]
        if isinstance(layer, Linear):
            out = F.linear(read[0], weight, bias)
        else:
            out = F.conv2d(read[0], weight, bias, layer.stride, layer.kernel // 2, groups=layer.groups)
        return F.relu(out) if layer.activation == "relu" else out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_exporter_of_torch_gives_the_same_logits(
    mobile: SearchSpace, architectures: Draw, weight_only_design: Make, images: FloatArray
) -> None:
    design = weight_only_design(architectures(mobile, 1)[0], 1)
    program = torch.onnx.export(
        Twin(design).eval(), (torch.zeros(16, 1, 8, 8),), input_names=["input"], dynamo=True, verbose=False
    )
    assert program is not None
    theirs = predict(program.model_proto.SerializeToString(), images)
    np.testing.assert_allclose(predict(to_onnx(design), images), theirs, atol=1e-5)


def test_one_image_gives_what_a_batch_gives(mlp: SearchSpace, architectures: Draw, weight_only_design: Make) -> None:
    model = to_onnx(weight_only_design(architectures(mlp, 1)[0], 1))
    images = np.random.default_rng(3).normal(size=(5, 1, 8, 8))
    single = np.concatenate([predict(model, image[None]) for image in images])
    np.testing.assert_allclose(predict(model, images), single, atol=1e-5)


def test_images_of_another_size_are_refused(mlp: SearchSpace, architectures: Draw, weight_only_design: Make) -> None:
    """Also where four of them make one: a batch of 16x16 is no batch of 8x8."""
    model = to_onnx(weight_only_design(architectures(mlp, 1)[0], 1))
    with pytest.raises(NasError, match=r"\(2, 1, 16, 16\).*reads \(n, 64\)"):
        predict(model, np.zeros((2, 1, 16, 16)))


def test_bytes_fall_with_the_bits_and_are_what_the_file_holds(
    mobile: SearchSpace, architectures: Draw, with_weight_bits: Change, weight_only_design: Make
) -> None:
    network = architectures(mobile, 1)[0]
    stored, files = [], []
    for bits in (2, 4, 8, 16, 32):
        quantized = with_weight_bits(network, (bits,))
        model = to_onnx(weight_only_design(quantized, 0))
        stored.append(stored_weight_bytes(model))
        files.append(len(model))
        ideal = sum(weight_bytes(layer) for layer in quantized)
        channels = sum(layer.out_shape[0] for layer in quantized.weighted)
        scales = 0 if bits == 32 else 4 * channels
        assert 0 <= stored[-1] - ideal - scales < len(quantized.weighted)
    assert stored == sorted(set(stored))
    assert files == sorted(set(files))


@pytest.mark.parametrize(("bits", "stored"), [(2, 2), (3, 4), (4, 4), (5, 8), (8, 8), (9, 16), (16, 16), (32, 32)])
def test_a_width_goes_into_the_smallest_type_that_holds_it(
    bits: int, stored: int, mlp: SearchSpace, architectures: Draw, with_weight_bits: Change, weight_only_design: Make
) -> None:
    network = with_weight_bits(architectures(mlp, 1)[0], (bits,))
    graph = onnx.load_from_string(to_onnx(weight_only_design(network, 0))).graph
    sizes = {tensor.name: len(tensor.raw_data) for tensor in graph.initializer}
    assert storage_bits(bits) == stored
    for layer in network.weighted:
        name = f"{layer.name}.weight" if bits == 32 else f"{layer.name}.weight.integers"
        assert sizes[name] == -(-weight_count(layer) * stored // 8)


def test_quantized_activations_are_refused(mobile: SearchSpace, architectures: Draw, weight_only_design: Make) -> None:
    network = architectures(mobile, 1)[0]
    for name in ("stem", "mean", "head"):
        layers = tuple(
            dataclasses.replace(layer, precision=Precision(act_bits=8))
            if layer.name == name and not isinstance(layer, Input)
            else layer
            for layer in network
        )
        with pytest.raises(NasError, match=f"layer {name}: act_bits must be 32"):
            to_onnx(weight_only_design(Network(layers), 0))


def test_equal_designs_give_equal_files(mobile: SearchSpace, architectures: Draw, weight_only_design: Make) -> None:
    network = architectures(mobile, 1)[0]
    assert to_onnx(weight_only_design(network, 5)) == to_onnx(weight_only_design(network, 5))
    assert to_onnx(weight_only_design(network, 5)) != to_onnx(weight_only_design(network, 6))


def test_no_weight_is_dequantized_at_inference(
    mobile: SearchSpace, architectures: Draw, with_weight_bits: Change, weight_only_design: Make, tmp_path: Path
) -> None:
    """So latency cannot depend on the bits: the graph the engine runs is the same for every width."""
    network = architectures(mobile, 1)[0]
    graphs = []
    for bits in (2, 4, 8, 32):
        options = session_options()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(tmp_path / f"{bits}.onnx")
        ort.InferenceSession(
            to_onnx(weight_only_design(with_weight_bits(network, (bits,)), 0)),
            options,
            providers=["CPUExecutionProvider"],
        )
        graphs.append([node.op_type for node in onnx.load(tmp_path / f"{bits}.onnx").graph.node])
    assert "DequantizeLinear" not in graphs[0]
    assert graphs.count(graphs[0]) == len(graphs)
