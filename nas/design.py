"""A network with its numbers: what the supernet hands to every exporter, free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nas.affine import Affine
from nas.errors import NasError
from nas.fixed_point import FixedPoint
from nas.genotype import FloatArray, IntArray
from nas.network import Network, Weighted

_ARRAYS = ("weight", "bias", "weight_frac", "weight_steps")
_SLACK = 2.0**-16
"""What the division of a bias, an integer below 2**32, by a product of free steps may leave."""


@dataclass(frozen=True)
class LayerNumbers:
    """The numbers of one layer; BatchNorm is folded into them.

    Attributes:
        act: Format in which the layer reads its inputs; None for float.
        weight: Values of shape `layer.weight_shape`; on the grid of the steps where quantized. None without weights.
        bias: Values of shape (out channels,); on the grid of the products where quantized.
        weight_frac: Fraction bits of each output channel's weights, shape (out channels,), whose steps are powers of
            two; None for float and for free steps.
        weight_steps: Free steps of each output channel's weights, of single precision, shape (out channels,).
    """

    act: FixedPoint | Affine | None = None
    weight: FloatArray | None = None
    bias: FloatArray | None = None
    weight_frac: IntArray | None = None
    weight_steps: FloatArray | None = None

    @property
    def steps(self) -> FloatArray | None:
        """Steps of each output channel's weights, of either kind, shape (out channels,)."""
        return self.weight_steps if self.weight_frac is None else np.exp2(-self.weight_frac.astype(np.float64))


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
        if numbers.weight is None or numbers.steps is None:
            raise NasError(f"layer {name}: has no quantized weights")
        axes = (-1,) + (1,) * (numbers.weight.ndim - 1)
        return _exact(numbers.weight / numbers.steps.reshape(axes), f"layer {name}: weight")

    def bias_integers(self, name: str) -> IntArray:
        """A quantized layer's bias in steps of the products, shape (out channels,)."""
        bias, act = self.numbers[name].bias, self.numbers[name].act
        assert bias is not None
        slack = 0.0 if isinstance(act, FixedPoint) else _SLACK
        return _exact(bias / self.product_steps(name), f"layer {name}: bias", slack)

    def product_steps(self, name: str) -> FloatArray:
        """Steps of a quantized layer's products and accumulators, shape (out channels,)."""
        numbers = self.numbers[name]
        if numbers.act is None or numbers.steps is None:
            raise NasError(f"layer {name}: is not quantized; its act_bits and weight_bits must be below 32")
        return numbers.steps * numbers.act.step

    def product_frac(self, name: str) -> IntArray:
        """Fraction bits of a layer's products and accumulators in fixed point, shape (out channels,)."""
        numbers, steps = self.numbers[name], self.product_steps(name)
        if numbers.weight_frac is None or not isinstance(numbers.act, FixedPoint):
            raise NasError(f"layer {name}: has steps up to {steps.max():g}; fixed point needs powers of two")
        return numbers.weight_frac + numbers.act.frac_bits


def _exact(values: FloatArray, what: str, slack: float = 0.0) -> IntArray:
    rounded = np.round(values)
    if np.abs(values - rounded).max(initial=0) > slack:
        raise NasError(f"{what}: values are off their grid by up to {np.abs(values - rounded).max():.3g} steps")
    return rounded.astype(np.int64)


def save_design(design: Design, path: Path) -> None:
    """Write the numbers as plain arrays; the network itself is known by its genotype."""
    arrays: dict[str, np.ndarray] = {}
    for name, numbers in design.numbers.items():
        match numbers.act:
            case FixedPoint(signed, bits, frac_bits):
                arrays[f"{name}/act"] = np.array([signed, bits, frac_bits])
            case Affine(bits, low, step):
                arrays[f"{name}/affine"] = np.array([bits, low, step])
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
    act: FixedPoint | Affine | None = None
    if (fixed := arrays.get(f"{name}/act")) is not None:
        act = FixedPoint(bool(fixed[0]), int(fixed[1]), int(fixed[2]))
    if (affine := arrays.get(f"{name}/affine")) is not None:
        act = Affine(int(affine[0]), int(affine[1]), float(affine[2]))
    return LayerNumbers(act, *(arrays.get(f"{name}/{key}") for key in _ARRAYS))
