"""An extracted subnet: a plain module with weights of its own, BatchNorm folded, formats fixed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nas.affine import Affine, reading_together, symmetric_top
from nas.design import Design, LayerNumbers
from nas.fixed_point import FixedPoint
from nas.network import Network, Weighted
from supernet.prune import channel_norm, layer_mask, mask_bias
from supernet.quantize import LearnedStep, quantize_bias, quantize_weight
from supernet.run import Read, activate, product, run
from supernet.settings import Gradient, Tuned


@dataclass(frozen=True)
class LayerState:
    """One layer's folded, pruned but unrounded weight and bias, and its formats; None where it has none.

    `steps` are those of each output channel's weights, shape (out,).
    """

    act: FixedPoint | Affine | None
    weight: Tensor | None = None
    bias: Tensor | None = None
    steps: Tensor | None = None


class Subnet(nn.Module):
    """Runs one network. Weights are rounded to their formats at every use, so training is quantization-aware.

    Pruned weights stay zero: masks are fixed by the weights it was built from, see `supernet.prune.layer_mask`.
    """

    def __init__(self, network: Network, states: Mapping[str, LayerState]) -> None:
        super().__init__()
        self.network = network
        self.layers = nn.ModuleDict(
            {_key(layer.name): _FoldedLayer(layer, states[layer.name]) for layer in network.weighted}
        )
        self.acts = {layer.name: states[layer.name].act for layer in network.layers[1:]}
        self.gradient: Gradient = "clipped"
        self.learned = nn.ModuleDict()
        self.learned_by: dict[str, str] = {}

    def layer(self, name: str) -> _FoldedLayer:
        """The numbers of one layer with weights."""
        found = self.layers[_key(name)]
        assert isinstance(found, _FoldedLayer)
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Logits of shape (n, classes) for images of shape (n, *anything that flattens to the input shape)."""

        def weighted(layer: Weighted, x: Tensor, act: Read) -> Tensor:
            output: Tensor = self.layer(layer.name)(x, act, self.gradient)
            return output

        return run(self.network, images, lambda layer, inputs: self._read(layer.name), weighted, self.gradient)

    def tune_by(self, gradient: Tuned) -> None:
        """Let gradients pass the rounding so from now on.

        `lsq` makes free steps parameters, see `LearnedStep`; powers of two stay, their values tuned as by `clipped`.
        Layers that read a tensor in one format share its step, and so go on to do so.
        """
        if gradient != "lsq":
            self.gradient = gradient
            return
        together, of = reading_together(self.network), next(self.parameters())
        for name, act in self.acts.items():
            if not isinstance(act, Affine):
                continue
            key = _key(f"{together[name]}:{act}")
            if key not in self.learned:
                self.learned[key] = LearnedStep(of.new_tensor([act.step]), act.low, act.high)
            self.learned_by[name] = key
        for layer in self.network.weighted:
            self.layer(layer.name).learn()

    def design(self) -> Design:
        """The same network in numbers, free of torch; what exporters and the FPGA flow read."""
        acts = {name: self._act(name) for name in self.acts}
        numbers = {name: LayerNumbers(act) for name, act in acts.items()}
        weighted = {layer.name: self.layer(layer.name).numbers(acts[layer.name]) for layer in self.network.weighted}
        return Design(self.network, numbers | weighted)

    def _read(self, name: str) -> Read:
        if name not in self.learned_by:
            return self.acts[name]
        learned = self.learned[self.learned_by[name]]
        assert isinstance(learned, LearnedStep)
        return learned

    def _act(self, name: str) -> FixedPoint | Affine | None:
        """The format of a layer's inputs, as far as it is learned."""
        act, read = self.acts[name], self._read(name)
        if not (isinstance(act, Affine) and isinstance(read, LearnedStep)):
            return act
        return replace(act, step=float(read.used()))


class _FoldedLayer(nn.Module):
    def __init__(self, layer: Weighted, state: LayerState) -> None:
        super().__init__()
        assert state.weight is not None
        assert state.bias is not None
        self.layer = layer
        self.weight = nn.Parameter(state.weight.clone())
        self.bias = nn.Parameter(state.bias.clone())
        self.steps: Tensor | None
        self.mask: Tensor
        self.register_buffer("steps", state.steps)
        self.register_buffer("mask", layer_mask(layer, state.weight, channel_norm(state.weight, state.bias)))
        self.learned: LearnedStep | None = None

    def forward(self, x: Tensor, act: Read = None, gradient: Gradient = "clipped") -> Tensor:
        """The output, shape (n, *layer.out_shape), of inputs in a format."""
        return activate(self.layer, product(self.layer, x, *self.rounded(act, gradient)))

    def rounded(self, act: Read = None, gradient: Gradient = "clipped") -> tuple[Tensor, Tensor]:
        """Weight and bias on their grids."""
        weight, bits = self.weight * self.mask, self.layer.precision.weight_bits
        weight = self.learned(weight) if self.learned else quantize_weight(weight, self.steps, bits, gradient)
        return weight, quantize_bias(mask_bias(self.layer, self.bias, self.mask), self._steps(), act)

    def learn(self) -> None:
        """Make the steps parameters, if they are free."""
        if self.steps is not None and not _powers_of_two(self.steps):
            top = symmetric_top(self.layer.precision.weight_bits)
            self.learned = LearnedStep(self.steps, -top, top)

    @torch.no_grad()
    def numbers(self, act: FixedPoint | Affine | None) -> LayerNumbers:
        """In double precision, so that values are integers times their steps."""
        weight, bias = (value.to("cpu", torch.float64, copy=True) for value in self.rounded())
        found = self._steps()
        if found is None:
            return LayerNumbers(act, weight.numpy(), bias.numpy())
        steps = found.to("cpu", torch.float64, copy=True)
        wide = steps.view(-1, *(1,) * (weight.dim() - 1))
        weight, bias = torch.round(weight / wide) * wide, quantize_bias(bias, steps, act)
        if _powers_of_two(steps):
            return LayerNumbers(act, weight.numpy(), bias.numpy(), -torch.log2(steps).long().numpy())
        return LayerNumbers(act, weight.numpy(), bias.numpy(), weight_steps=steps.numpy())

    def _steps(self) -> Tensor | None:
        return self.steps if self.learned is None else self.learned.used()


def _powers_of_two(steps: Tensor) -> bool:
    """Asked of the mantissas: a GPU's logarithms are not exact."""
    return bool((torch.frexp(steps).mantissa == 0.5).all())


def _key(name: str) -> str:
    return name.replace(".", "/")


def from_design(design: Design) -> Subnet:
    """The module that computes a design; `from_design(subnet.design())` gives the subnet's outputs."""
    states = {name: _state(numbers) for name, numbers in design.numbers.items()}
    return Subnet(design.network, states).double()


def _state(numbers: LayerNumbers) -> LayerState:
    weight, bias, steps = (
        None if value is None else torch.from_numpy(value) for value in (numbers.weight, numbers.bias, numbers.steps)
    )
    return LayerState(numbers.act, weight, bias, steps)
