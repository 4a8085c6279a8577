"""A network with its numbers: what the supernet hands to every exporter, free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nas.errors import NasError
from nas.fixed_point import FixedPoint
from nas.genotype import FloatArray, IntArray
from nas.network import Network, Weighted

_ARRAYS = ("weight", "bias", "weight_frac")


@dataclass(frozen=True)
class LayerNumbers:
    """The numbers of one layer; BatchNorm is folded into them.

    Attributes:
        act: Format in which the layer reads its inputs; None for float.
        weight: Values of shape `layer.weight_shape`; on the grid `2**-frac` where quantized. None without weights.
        bias: Values of shape (out channels,); on the grid of the products where quantized.
        weight_frac: Fraction bits of each output channel's weights, shape (out channels,); None for float.
    """

    act: FixedPoint | None = None
    weight: FloatArray | None = None
    bias: FloatArray | None = None
    weight_frac: IntArray | None = None


@dataclass(frozen=True)
class Design:
    """A network and the numbers of each of its layers but the input."""

    network: Network
    numbers: Mapping[str, LayerNumbers]

    def __post_init__(self) -> None:
        for layer in self.network.layers[1:]:
            numbers = self.numbers.get(layer.name)
            if numbers is None:
                raise NasError(f"layer {layer.name}: the design has no numbers for it")
            if not isinstance(layer, Weighted):
                continue
            if numbers.weight is None or numbers.bias is None or numbers.weight.shape != layer.weight_shape:
                raise NasError(f"layer {layer.name}: needs a bias and weights of shape {layer.weight_shape}")

    def nonzeros(self, name: str) -> int:
        """Weights of a layer that are really not zero, after pruning and rounding."""
        weight = self.numbers[name].weight
        return 0 if weight is None else int(np.count_nonzero(weight))

    def weight_integers(self, name: str) -> IntArray:
        """A quantized layer's weights as integers, shape `layer.weight_shape`."""
        numbers = self.numbers[name]
        if numbers.weight is None or numbers.weight_frac is None:
            raise NasError(f"layer {name}: has no quantized weights")
        axes = (-1,) + (1,) * (numbers.weight.ndim - 1)
        return _exact(numbers.weight * 2.0 ** numbers.weight_frac.reshape(axes), f"layer {name}: weight")

    def bias_integers(self, name: str) -> IntArray:
        """A quantized layer's bias as integers with `product_frac` fraction bits, shape (out channels,)."""
        bias = self.numbers[name].bias
        assert bias is not None
        return _exact(bias * 2.0 ** self.product_frac(name), f"layer {name}: bias")

    def product_frac(self, name: str) -> IntArray:
        """Fraction bits of a quantized layer's products and accumulators, shape (out channels,)."""
        numbers = self.numbers[name]
        if numbers.act is None or numbers.weight_frac is None:
            raise NasError(f"layer {name}: is not quantized; its act_bits and weight_bits must be below 32")
        return numbers.weight_frac + numbers.act.frac_bits


def _exact(values: FloatArray, what: str) -> IntArray:
    rounded = np.round(values)
    if not np.array_equal(rounded, values):
        raise NasError(f"{what}: values are off their grid by up to {np.abs(values - rounded).max():.3g} steps")
    return rounded.astype(np.int64)


def save_design(design: Design, path: Path) -> None:
    """Write the numbers as plain arrays; the network itself is known by its genotype."""
    arrays: dict[str, np.ndarray] = {}
    for name, numbers in design.numbers.items():
        if numbers.act is not None:
            arrays[f"{name}/act"] = np.array([numbers.act.signed, numbers.act.bits, numbers.act.frac_bits])
        for key in _ARRAYS:
            value = getattr(numbers, key)
            if value is not None:
                arrays[f"{name}/{key}"] = value
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load_design(network: Network, path: Path) -> Design:
    """Read a saved design of `network`, bit for bit."""
    with np.load(path) as arrays:
        return Design(network, {layer.name: _numbers(layer.name, arrays) for layer in network.layers[1:]})


def _numbers(name: str, arrays: Mapping[str, np.ndarray]) -> LayerNumbers:
    act = arrays.get(f"{name}/act")
    fmt = None if act is None else FixedPoint(bool(act[0]), int(act[1]), int(act[2]))
    weight, bias, weight_frac = (arrays.get(f"{name}/{key}") for key in _ARRAYS)
    return LayerNumbers(fmt, weight, bias, weight_frac)
