"""A design for sets cut into what one position goes through and the rest: large RTL, synthesised in small pieces.

The RTL has the same hardware once for every position, so the whole takes what the pieces take times their counts, or
less: synthesis removes what the rest does not read from the whole alone. Registers fall elsewhere.
"""

from __future__ import annotations

import dataclasses
import math

from nas.design import Design
from nas.network import Conv2d, Input, Layer, Mean, Network, Shape


def pieces(design: Design) -> list[tuple[Design, int]]:
    """Designs, and how many of each make the whole: one position, and the mean with all behind it.

    A design that has anything but 1x1 convolutions before its first mean is its only piece.
    """
    layers = design.network.layers
    index = next((place for place, layer in enumerate(layers) if isinstance(layer, Mean)), 0)
    mean, before = layers[index], layers[1:index]
    if not isinstance(mean, Mean) or not all(map(_pointwise, before)):
        return [(design, 1)]
    whole, name = design.network.input, design.network.input.name
    one = Network((Input(name, _one(whole.out_shape)), *map(_narrow, before), _narrow(mean)))
    rest = Network((Input(name, mean.in_shape), dataclasses.replace(mean, inputs=(name,)), *layers[index + 1 :]))
    count = math.prod(mean.in_shape[1:])
    return [(_part(design, one), count), (_part(design, rest), 1)]


def _pointwise(layer: Layer) -> bool:
    return isinstance(layer, Conv2d) and (layer.kernel, layer.stride) == (1, 1)


def _one(shape: Shape) -> Shape:
    return (shape[0], 1, 1)


def _narrow(layer: Layer) -> Layer:
    match layer:
        case Conv2d():
            return dataclasses.replace(layer, in_shape=_one(layer.in_shape), out_shape=_one(layer.out_shape))
        case Mean():
            return dataclasses.replace(layer, in_shape=_one(layer.in_shape))
        case _:
            raise AssertionError(layer)


def _part(design: Design, network: Network) -> Design:
    return Design(network, {layer.name: design.numbers[layer.name] for layer in network.layers[1:]})
