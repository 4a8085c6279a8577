"""Calibration of many subnets at once: BatchNorm statistics, folded weights and activation formats.

A layer's calibration depends on its record and on what it reads, so networks that begin alike share it. It lives as
long as the object that holds it: making it anew costs about as much as reading it from a file, and what is worth
keeping of a subnet, its error, is a number that the caller has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from nas.network import Network, Weighted
from supernet.elastic import Supernet
from supernet.quantize import quantize_act, quantize_bias, quantize_weight
from supernet.run import Reader, activate, batch_format, combine, product
from supernet.subnet import LayerState, Subnet
from supernet.trie import merge, run_all


class Calibrations:
    """Subnets of one supernet, what they share held and computed once; equal to each subnet alone, bit for bit.

    Memory is that of the weights of all distinct layers and, while images go through, `Walk.values_held` values per
    image. Both grow with the number of networks and shrink with what they share: take hundreds of small networks or
    tens of large ones at a time, in contiguous parts of `trie.shared_order`.
    """

    @torch.no_grad()
    def __init__(self, supernet: Supernet, networks: Sequence[Network], images: Tensor) -> None:
        """Calibrate.

        Args:
            supernet: Where the weights come from; it must not train while this is in use.
            networks: Networks of its space, in any order.
            images: What statistics and formats come from, of a shape as the supernet takes it.
        """
        self.networks, self.walk, self.device = tuple(networks), merge(networks), images.device
        states: dict[int, LayerState] = {}

        def calibrated(place: int, layer: Reader, inputs: list[Tensor]) -> Tensor:
            act = batch_format(layer, inputs)
            if not isinstance(layer, Weighted):
                states[place] = LayerState(act)
                return combine(layer, inputs, act)
            output, _, states[place] = supernet.calibrated(layer, quantize_act(inputs[0], act), act)
            return output

        for _ in run_all(self.walk, images, calibrated):
            pass
        self.states = states

    def specialise(self, index: int) -> Subnet:
        """One of the networks as a subnet with weights of its own."""
        network, places = self.networks[index], self.walk.places[index]
        states = {layer.name: self.states[place] for layer, place in zip(network.layers[1:], places[1:], strict=True)}
        return Subnet(network, states)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Index and logits, shape (n, classes), of every network, in the order of the walk."""

        def evaluated(place: int, layer: Reader, inputs: list[Tensor]) -> Tensor:
            state = self.states[place]
            if not isinstance(layer, Weighted):
                return combine(layer, inputs, state.act)
            return _output(layer, quantize_act(inputs[0], state.act), state)

        yield from run_all(self.walk, images, evaluated)


def _output(layer: Weighted, x: Tensor, state: LayerState) -> Tensor:
    """The output of one layer, shape (n, *layer.out_shape)."""
    assert state.weight is not None
    assert state.bias is not None
    weight = quantize_weight(state.weight, state.steps, layer.precision.weight_bits)
    return activate(layer, product(layer, x, weight, quantize_bias(state.bias, state.steps, state.act)))
