"""Random quantized designs for the tests."""

from __future__ import annotations

import numpy as np

from fpga.reference import integer_trace
from nas.counts import nonzeros
from nas.design import Design, LayerNumbers
from nas.fixed_point import FixedPoint
from nas.genotype import FloatArray
from nas.network import Add, Conv2d, Input, Layer, Linear, Mean, Network, Precision, Weighted
from nas.spaces import InteractionChoices, MlpChoices, MobileChoices
from nas.spaces.deepsets import Tower
from nas.spaces.mobile import Stage
from nas.spaces.precision import PrecisionChoices


def mixed_precision() -> PrecisionChoices:
    return PrecisionChoices((2, 3, 4, 6, 8), (3, 4, 6, 8), (0.75, 0.5, 0.0))


def mobile_network(
    seed: int, depth: int = 2, ratio: float = 2.0, input_shape: tuple[int, int, int] = (1, 8, 8)
) -> Network:
    """Stem, two stages with a skip connection, mixed random bits and sparsity."""
    stages = (Stage(8, 1, (depth,)), Stage(12, 2, (depth,)))
    return _random_member(MobileChoices(6, stages, (3,), (ratio,), mixed_precision()).build(input_shape, 10), seed)


def mlp_network(seed: int, features: int = 64) -> Network:
    return _random_member(MlpChoices((2,), (16,), mixed_precision()).build((features,), 10), seed)


def interaction_network(seed: int, particles: int = 8, width: int = 6) -> Network:
    """Two layers on pairs, two on particles, of mixed random bits and sparsity."""
    choices = InteractionChoices(Tower((2,), (width,)), Tower((2,), (width,)), (), mixed_precision())
    return _random_member(choices.build((3, particles, 1), 5), seed)


def residual_network(seed: int) -> Network:
    """A basic and a strided bottleneck block of ResNet, each with ReLU after its sum; random bits and sparsity."""
    rng = np.random.default_rng(seed)

    def precision() -> Precision:
        return Precision(int(rng.integers(2, 9)), int(rng.integers(3, 9)))

    def conv(name: str, source: Layer, channels: int, kernel: int, stride: int = 1, relu: bool = True) -> Conv2d:
        out = (channels, *(-(-size // stride) for size in source.out_shape[1:]))
        activation, sparsity = "relu" if relu else "identity", float(rng.choice([0.0, 0.5]))
        shapes = (source.out_shape, out)
        return Conv2d(name, (source.name,), *shapes, kernel, stride, 1, activation, True, precision(), sparsity)  # type: ignore[arg-type]

    image = Input("image", (1, 8, 8))
    stem = conv("stem", image, 6, 3)
    first = conv("b1.first", stem, 6, 3)
    second = conv("b1.second", first, 6, 3, relu=False)
    added = Add("b1.add", ("stem", "b1.second"), second.out_shape, precision(), "relu")
    reduce = conv("b2.reduce", added, 4, 1)
    middle = conv("b2.middle", reduce, 4, 3, 2)
    restore = conv("b2.restore", middle, 8, 1, relu=False)
    shortcut = conv("b2.shortcut", added, 8, 1, 2, relu=False)
    joined = Add("b2.add", ("b2.restore", "b2.shortcut"), restore.out_shape, precision(), "relu")
    mean = Mean("mean", ("b2.add",), joined.out_shape, precision())
    head = Linear("head", ("mean",), mean.out_shape, (10,), "identity", False, precision())
    return Network((image, stem, first, second, added, reduce, middle, restore, shortcut, joined, mean, head))


def _random_member(space: object, seed: int) -> Network:
    rng = np.random.default_rng(seed)
    genes = space.genes  # type: ignore[attr-defined]
    return space.lower([int(rng.integers(len(gene.choices))) for gene in genes])  # type: ignore[attr-defined]


def random_design(network: Network, seed: int) -> Design:
    """Weights on their grids, fraction bits per channel, and formats that fit the values they meet.

    Each layer's format comes from running the layers before it, so that no signal dies and a few values saturate.
    """
    rng = np.random.default_rng(seed)
    images = random_images(network, 32, seed)
    numbers: dict[str, LayerNumbers] = {}
    for index, layer in enumerate(network.layers[1:], 1):
        assert not isinstance(layer, Input)
        design = Design(Network(network.layers[:index]), numbers)
        reads = [values_of(design, images, source) for source in layer.inputs]
        numbers = numbers | {layer.name: random_numbers(layer, fitting(reads, layer.precision.act_bits), rng)}
    return Design(network, numbers)


def values_of(design: Design, images: FloatArray, name: str) -> FloatArray:
    if name == design.network.input.name:
        return images
    return integer_trace(design, images).outputs[name].values()


def fitting(tensors: list[FloatArray], bits: int) -> FixedPoint:
    """A format that holds all but about one value in a hundred."""
    signed = any(bool((values < 0).any()) for values in tensors)
    reach = max(float(np.quantile(np.abs(values), 0.99)) for values in tensors)
    return FixedPoint(signed, bits, bits - signed - int(np.ceil(np.log2(reach + 2.0**-8))))


def random_numbers(layer: Layer, act: FixedPoint, rng: np.random.Generator) -> LayerNumbers:
    """Weights uniform over the non-zero integers, biases positive so that ReLU leaves every channel alive."""
    if not isinstance(layer, Weighted):
        return LayerNumbers(act)
    channels, high = layer.out_shape[0], 2 ** (layer.precision.weight_bits - 1) - 1
    integers = rng.integers(1, high + 1, layer.weight_shape) * rng.choice([-1, 1], layer.weight_shape)
    flat = integers.reshape(-1)
    flat[rng.permutation(flat.size)[nonzeros(layer) :]] = 0
    frac = layer.precision.weight_bits - 1 + rng.integers(-1, 2, channels)
    reach = high * 2 ** (act.bits - 2)
    bias = rng.integers(0, reach + 1, channels) * 2.0 ** -(frac + act.frac_bits)
    weight = integers * 2.0 ** -frac.reshape(-1, *(1,) * (integers.ndim - 1))
    return LayerNumbers(act, weight, bias, frac)


def random_images(network: Network, count: int, seed: int) -> FloatArray:
    """Pixels in [0, 1), off every grid."""
    return np.random.default_rng(seed).random((count, *network.input.out_shape))
