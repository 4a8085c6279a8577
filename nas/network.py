"""The narrow waist: a network as a tuple of shape-resolved layers.

Everything else reads this description. The supernet runs it, the cost models price it, the exporters write it. Shapes
are computed here, weights, MACs and bytes in `nas.counts`, what pruning leaves of them in `nas.pruning`, and nowhere
else. Shapes carry no batch dimension: `(channels, height, width)` for images, `(features,)` for vectors.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal

from nas.errors import NasError

Shape = tuple[int, ...]
Activation = Literal["identity", "relu", "hswish", "hsigmoid"]
"""`hswish`: x * hsigmoid(x), and `hsigmoid`: clip(x + 3, 0, 6) / 6 (MobileNetV3, arXiv 1905.02244, section 5.2)."""

Pattern = Literal["unstructured", "n_of_m", "channel"]
"""What pruning takes: the smallest weights, wherever they are; those of each group of inputs (N:M); output channels."""

FLOAT_BITS = 32
"""Bit width that stands for IEEE single precision: a tensor of 32 bits is not quantized."""


@dataclass(frozen=True, slots=True)
class Precision:
    """Bit widths of one layer: of its weights, and of the activations it reads (HAQ's convention).

    The input side belongs to the layer, so a layer's cost depends on its own record alone.
    """

    weight_bits: int = FLOAT_BITS
    act_bits: int = FLOAT_BITS

    def __post_init__(self) -> None:
        for name in ("weight_bits", "act_bits"):
            bits = getattr(self, name)
            if not (2 <= bits <= 16 or bits == FLOAT_BITS):
                raise NasError(f"{name} must be 2..16, or {FLOAT_BITS} for float; got {bits}")


FLOAT = Precision()


@dataclass(frozen=True, slots=True)
class Input:
    """Where the data enters."""

    name: str
    out_shape: Shape
    inputs: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True, slots=True)
class Conv2d:
    """Convolution with zero padding `kernel // 2`, bias, and BatchNorm while it trains (`norm`)."""

    name: str
    inputs: tuple[str, ...]
    in_shape: Shape
    out_shape: Shape
    kernel: int
    stride: int = 1
    groups: int = 1
    activation: Activation = "identity"
    norm: bool = True
    precision: Precision = FLOAT
    sparsity: float = 0.0
    pattern: Pattern = "unstructured"

    @property
    def weight_shape(self) -> Shape:
        return (self.out_shape[0], self.in_shape[0] // self.groups, self.kernel, self.kernel)

    @property
    def depthwise(self) -> bool:
        return self.groups > 1

    @property
    def positions(self) -> int:
        """Number of output positions, each one use of every weight."""
        return self.out_shape[1] * self.out_shape[2]


@dataclass(frozen=True, slots=True)
class Linear:
    """Matrix product with bias, and BatchNorm while it trains (`norm`)."""

    name: str
    inputs: tuple[str, ...]
    in_shape: Shape
    out_shape: Shape
    activation: Activation = "identity"
    norm: bool = True
    precision: Precision = FLOAT
    sparsity: float = 0.0
    pattern: Pattern = "unstructured"
    positions: ClassVar[int] = 1

    @property
    def weight_shape(self) -> Shape:
        return (self.out_shape[0], self.in_shape[0])


@dataclass(frozen=True, slots=True)
class Add:
    """Element-wise sum of two tensors, both read in one format, and an activation of it."""

    name: str
    inputs: tuple[str, ...]
    in_shape: Shape
    precision: Precision = FLOAT
    activation: Activation = "identity"

    @property
    def out_shape(self) -> Shape:
        return self.in_shape


@dataclass(frozen=True, slots=True)
class PairSum:
    """`out[:, i, j] = first[:, i] + second[:, j]`: `(c, n, 1)` twice gives `(c, n, n)`; else as Add.

    With a convolution before each input, it is a matrix product of all pairs, at 2 n products instead of n^2.
    """

    name: str
    inputs: tuple[str, ...]
    in_shape: Shape
    precision: Precision = FLOAT
    activation: Activation = "identity"

    @property
    def out_shape(self) -> Shape:
        return (*self.in_shape[:2], self.in_shape[1])


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean over all positions: `(c, h, w) -> (c,)`."""

    name: str
    inputs: tuple[str, ...]
    in_shape: Shape
    precision: Precision = FLOAT

    @property
    def out_shape(self) -> Shape:
        return self.in_shape[:1]


@dataclass(frozen=True, slots=True)
class RowMean:
    """Mean of every row: `(c, h, w) -> (c, h, 1)`."""

    name: str
    inputs: tuple[str, ...]
    in_shape: Shape
    precision: Precision = FLOAT

    @property
    def out_shape(self) -> Shape:
        return (*self.in_shape[:2], 1)


@dataclass(frozen=True, slots=True)
class Pool:
    """Largest or mean value of each window, padding left out: `(c, h, w) -> (c, ceil(h / stride), ceil(w / stride))`.

    Padding is `(kernel - 1) // 2` on all sides; a window that reaches past the end counts what is there.
    """

    name: str
    inputs: tuple[str, ...]
    in_shape: Shape
    kernel: int
    stride: int
    kind: Literal["max", "mean"]
    precision: Precision = FLOAT

    @property
    def out_shape(self) -> Shape:
        return (self.in_shape[0], *(math.ceil(size / self.stride) for size in self.in_shape[1:]))


@dataclass(frozen=True, slots=True)
class Scale:
    """Each channel of the first input, `(c, h, w)`, times its gate in the second, `(c,)`: squeeze-and-excitation.

    `precision.act_bits` is the map's; the gates, in [0, 1], are read as they come.
    """

    name: str
    inputs: tuple[str, ...]
    in_shape: Shape
    precision: Precision = FLOAT

    @property
    def out_shape(self) -> Shape:
        return self.in_shape


Weighted = Conv2d | Linear
Activated = Weighted | Add | PairSum
Layer = Input | Conv2d | Linear | Add | PairSum | Mean | RowMean | Pool | Scale


@dataclass(frozen=True)
class Network:
    """Layers in topological order; the first is the input, the last gives the logits.

    Raises NasError where a name occurs twice, an input is not an earlier layer, or shapes do not chain.
    """

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        shapes: dict[str, Shape] = {}
        for index, layer in enumerate(self.layers):
            where = f"layer {index} ({layer.name})"
            if layer.name in shapes:
                raise NasError(f"{where}: names must be unique; rename one of them")
            if (index == 0) != isinstance(layer, Input):
                raise NasError(f"{where}: exactly the first layer must be an Input")
            for source in layer.inputs:
                if source not in shapes:
                    raise NasError(f"{where}: reads {source!r}, which is not an earlier layer")
                if shapes[source] != (expected := _read_shape(layer, source)):
                    raise NasError(f"{where}: reads shape {expected}, but {source!r} gives {shapes[source]}")
            shapes[layer.name] = layer.out_shape

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    @property
    def input(self) -> Input:
        first = self.layers[0]
        assert isinstance(first, Input)
        return first

    @property
    def weighted(self) -> tuple[Weighted, ...]:
        """The layers that hold weights."""
        return tuple(layer for layer in self.layers if isinstance(layer, Weighted))

    @cached_property
    def by_name(self) -> Mapping[str, Layer]:
        return {layer.name: layer for layer in self.layers}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Layer, ...]]:
        """For each layer's name, the layers that read it."""
        return {each.name: tuple(layer for layer in self if each.name in layer.inputs) for each in self}

    def as_float(self) -> Network:
        """The same architecture, dense and unquantized."""
        return Network(tuple(_float_layer(layer) for layer in self.layers))

    @cached_property
    def key(self) -> str:
        """Short hash of the description, the same on every machine."""
        return hashlib.sha256(repr(self.layers).encode()).hexdigest()[:16]


def _read_shape(layer: Layer, source: str) -> Shape:
    """The shape a layer expects of one of its inputs."""
    assert not isinstance(layer, Input)
    return layer.in_shape[:1] if isinstance(layer, Scale) and source == layer.inputs[1] else layer.in_shape


def _float_layer(layer: Layer) -> Layer:
    if isinstance(layer, Weighted):
        return replace(layer, precision=FLOAT, sparsity=0.0, pattern="unstructured")
    return layer if isinstance(layer, Input) else replace(layer, precision=FLOAT)
