import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from hw_models.engines import load_engine
from hw_models.machine import Engine
from nas.design import Design, LayerNumbers
from nas.errors import NasError
from nas.genotype import SearchSpace, random_population
from nas.network import FLOAT_BITS, Layer, Network, Precision, Weighted
from nas.spaces.mlp import MlpChoices
from nas.spaces.mobile import MobileChoices, Stage

MakeDesign = Callable[[Network, int], Design]


@pytest.fixture
def installed_engine() -> Callable[[str], Engine]:
    """The engine of a name; without its package or its GPU the test is skipped."""

    def load(name: str) -> Engine:
        try:
            return load_engine(name)
        except NasError as error:
            pytest.skip(str(error))

    return load


@pytest.fixture
def mobile() -> SearchSpace:
    stages = (Stage(12, 1, (1, 2)), Stage(16, 2, (1, 2)), Stage(24, 2, (1, 2)))
    return MobileChoices(8, stages, (3, 5), (2, 3, 4)).build((1, 8, 8), 10)


@pytest.fixture
def mlp() -> SearchSpace:
    return MlpChoices((1, 2, 3), (16, 32, 48)).build((1, 8, 8), 10)


@pytest.fixture
def architectures() -> Callable[[SearchSpace, int], list[Network]]:
    """Distinct random architectures of a space."""

    def draw(space: SearchSpace, count: int) -> list[Network]:
        population = random_population(space, 20 * count, np.random.default_rng(7))
        distinct = {network.key: network for network in (space.lower(row.tolist()) for row in population)}
        return list(distinct.values())[:count]

    return draw


@pytest.fixture
def with_weight_bits() -> Callable[[Network, tuple[int, ...]], Network]:
    """The network with its weighted layers' widths set in turn to those given; activations float."""

    def change(network: Network, bits: tuple[int, ...]) -> Network:
        widths = {layer.name: bits[i % len(bits)] for i, layer in enumerate(network.weighted)}
        return Network(tuple(_with_bits(layer, widths) for layer in network))

    return change


def _with_bits(layer: Layer, widths: dict[str, int]) -> Layer:
    if not isinstance(layer, Weighted):
        return layer
    return dataclasses.replace(layer, precision=Precision(weight_bits=widths[layer.name]))


@pytest.fixture
def weight_only_design() -> MakeDesign:
    """Random numbers, each layer's weights on the power-of-two grids of its bits."""

    def make(network: Network, seed: int) -> Design:
        rng = np.random.default_rng(seed)
        return Design(network, {layer.name: _numbers(layer, rng) for layer in network.layers[1:]})

    return make


def _numbers(layer: Layer, rng: np.random.Generator) -> LayerNumbers:
    if not isinstance(layer, Weighted):
        return LayerNumbers()
    bias = rng.normal(scale=0.1, size=layer.out_shape[:1])
    if layer.precision.weight_bits == FLOAT_BITS:
        return LayerNumbers(weight=rng.normal(scale=0.3, size=layer.weight_shape), bias=bias)
    top = 2 ** (layer.precision.weight_bits - 1) - 1
    integers = rng.integers(-top, top, endpoint=True, size=layer.weight_shape)
    integers.flat[0], integers.flat[-1] = top, -top
    spread = int(np.log2(top + 1)) + 2
    frac = rng.integers(spread - 1, spread + 1, endpoint=True, size=layer.out_shape[:1])
    weight = integers * 2.0 ** -frac.reshape((-1,) + (1,) * (integers.ndim - 1))
    return LayerNumbers(weight=weight, bias=bias, weight_frac=frac)
