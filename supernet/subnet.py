"""An extracted subnet: a plain module with weights of its own, BatchNorm folded, formats fixed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nas.design import Design, LayerNumbers
from nas.fixed_point import FixedPoint
from nas.network import Layer, Network, Weighted
from supernet.prune import layer_mask, mask_bias
from supernet.quantize import quantize_bias, quantize_weight
from supernet.run import activate, product, run


@dataclass(frozen=True)
class LayerState:
    """One layer's folded, pruned but unrounded weight and bias, and its formats; None where it has none."""

    act: FixedPoint | None
    weight: Tensor | None = None
    bias: Tensor | None = None
    weight_frac: Tensor | None = None


class Subnet(nn.Module):
    """Runs one network. Weights are rounded to their formats at every use, so training is quantization-aware.

    Pruned weights stay zero: masks are fixed by the weights it was built from, see `supernet.prune.layer_mask`.
    """

    def __init__(self, network: Network, states: Mapping[str, LayerState]) -> None:
        super().__init__()
        self.network = network
        self.layers = nn.ModuleDict(
            {_key(layer): _FoldedLayer(layer, states[layer.name]) for layer in network.weighted}
        )
        self.acts = {layer.name: states[layer.name].act for layer in network.layers[1:]}

    def forward(self, images: Tensor) -> Tensor:
        """Logits of shape (n, classes) for images of shape (n, *anything that flattens to the input shape)."""

        def weighted(layer: Weighted, x: Tensor, act: FixedPoint | None) -> Tensor:
            output: Tensor = self.layers[_key(layer)](x)
            return output

        return run(self.network, images, lambda layer, inputs: self.acts[layer.name], weighted)

    def design(self) -> Design:
        """The same network in numbers, free of torch; what exporters and the FPGA flow read."""
        numbers = {layer.name: LayerNumbers(self.acts[layer.name]) for layer in self.network.layers[1:]}
        for layer in self.network.weighted:
            folded = self.layers[_key(layer)]
            assert isinstance(folded, _FoldedLayer)
            numbers[layer.name] = folded.numbers()
        return Design(self.network, numbers)


class _FoldedLayer(nn.Module):
    def __init__(self, layer: Weighted, state: LayerState) -> None:
        super().__init__()
        assert state.weight is not None
        assert state.bias is not None
        self.layer, self.act = layer, state.act
        self.weight = nn.Parameter(state.weight.clone())
        self.bias = nn.Parameter(state.bias.clone())
        self.frac: Tensor | None
        self.mask: Tensor
        self.register_buffer("frac", state.weight_frac)
        self.register_buffer("mask", layer_mask(layer, state.weight, state.bias))

    def rounded(self) -> tuple[Tensor, Tensor]:
        weight = quantize_weight(self.weight * self.mask, self.frac, self.layer.precision.weight_bits)
        return weight, quantize_bias(mask_bias(self.layer, self.bias, self.mask), self.frac, self.act)

    def forward(self, x: Tensor) -> Tensor:
        return activate(self.layer, product(self.layer, x, *self.rounded()))

    @torch.no_grad()
    def numbers(self) -> LayerNumbers:
        weight, bias = (value.to(torch.float64, copy=True).numpy() for value in self.rounded())
        frac = None if self.frac is None else self.frac.numpy().astype(np.int64)
        return LayerNumbers(self.act, weight, bias, frac)


def _key(layer: Layer) -> str:
    return layer.name.replace(".", "/")


def from_design(design: Design) -> Subnet:
    """The module that computes a design; `from_design(subnet.design())` gives the subnet's outputs."""
    states = {name: _state(numbers) for name, numbers in design.numbers.items()}
    return Subnet(design.network, states).double()


def _state(numbers: LayerNumbers) -> LayerState:
    weight, bias, frac = (
        None if value is None else torch.from_numpy(value)
        for value in (numbers.weight, numbers.bias, numbers.weight_frac)
    )
    return LayerState(numbers.act, weight, bias, frac)
