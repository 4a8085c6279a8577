"""The supernet: one set of weights that holds every network of a space.

It is stateless. `supernet(x, network)` runs any network of the space on parts of the shared weights: the first
channels, the centre of a kernel after its transform (Once-for-All, section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.affine import Affine, one_per_tensor
from nas.counts import weight_count
from nas.fixed_point import FixedPoint
from nas.network import FLOAT_BITS, Conv2d, Network, Shape, Weighted
from supernet.batch_norm import Moments, Statistics, fold, measure, moments, normalise
from supernet.formats import FIXED, Formats
from supernet.prune import channel_norm, layer_mask, mask_bias
from supernet.quantize import quantize_bias, quantize_weight
from supernet.run import Reader, activate, batch_format, product, run
from supernet.settings import Gradient
from supernet.subnet import LayerState, Subnet


class Supernet(nn.Module):
    """Shared weights of all networks of a space.

    BatchNorm uses the statistics of the batch at hand unless it is given others. Nothing is tracked, so no subnet
    ever sees another's: `statistics` measures those of one subnet, and `specialise` folds them into its weights.
    """

    def __init__(
        self,
        maximal: Sequence[Network],
        kernels: Sequence[int],
        seed: int,
        synchronised: bool = False,
        gradient: Gradient = "clipped",
    ) -> None:
        """Initialise the weights.

        Args:
            maximal: Networks that together hold every weight, see `SearchSpace.maximal`.
            kernels: Kernel sizes a convolution larger than the smallest can shrink to; empty for none.
            seed: Seed of the initial weights (He normal).
            synchronised: Whether BatchNorm's batch is that of all processes, where there are several.
            gradient: How gradients pass the rounding of quantized layers.
        """
        super().__init__()
        self.synchronised, self.gradient = synchronised, gradient
        layers: dict[str, Weighted] = {}
        for network in maximal:
            for layer in network.weighted:
                known = layers.setdefault(layer.name, layer)
                if weight_count(layer) > weight_count(known):
                    layers[layer.name] = layer
        generator = torch.Generator().manual_seed(seed)
        self.layers = nn.ModuleDict(
            {_key(name): ElasticLayer(layer, kernels, generator) for name, layer in layers.items()}
        )

    def layer(self, name: str) -> ElasticLayer:
        """The shared weights of one layer."""
        found = self.layers[_key(name)]
        assert isinstance(found, ElasticLayer)
        return found

    def forward(self, images: Tensor, network: Network, statistics: Statistics | None = None) -> Tensor:
        """Logits, shape (n, classes); activation formats are those of this very batch.

        Args:
            images: In [0, 1], shape (n, *anything that fits the network's input), see `supernet.run.fit`. Tensors
                keep their layout; `images.contiguous` leaves that of single-channel images alone, `images.to` does not.
            network: A network of the space.
            statistics: What BatchNorm normalises by; None for the statistics of this very batch.
        """

        def weighted(layer: Weighted, x: Tensor, act: FixedPoint | Affine | None) -> Tensor:
            given = statistics[layer.name] if statistics is not None and layer.norm else None
            return self._weighted(layer, x, act, given)

        return run(network, images, batch_format, weighted, self.gradient)

    @torch.no_grad()
    def statistics(self, network: Network, images: Tensor) -> Statistics:
        """Measure what BatchNorm normalises by where `images`, of a shape as in `forward`, are the batch."""
        measured: dict[str, Moments] = {}

        def weighted(layer: Weighted, x: Tensor, act: FixedPoint | Affine | None) -> Tensor:
            output, by, _ = self.calibrated(layer, x, act)
            if by is not None:
                measured[layer.name] = by
            return output

        run(network, images, batch_format, weighted)
        return measured

    @torch.no_grad()
    def specialise(self, network: Network, images: Tensor, formats: Formats = FIXED) -> Subnet:
        """Extract a subnet; its BatchNorm statistics and activation formats come from `images`."""
        states = self._states(network, images, partial(batch_format, formats=formats), formats)
        if formats.numbers == "affine":
            acts = one_per_tensor(network, {name: state.act for name, state in states.items()})
            states = self._states(network, images, lambda layer, inputs: acts[layer.name], formats)
        return Subnet(network, states)

    def _states(
        self,
        network: Network,
        images: Tensor,
        choose: Callable[[Reader, list[Tensor]], FixedPoint | Affine | None],
        formats: Formats,
    ) -> dict[str, LayerState]:
        """What each layer is made of where it reads in the formats that are chosen as it reads."""
        states: dict[str, LayerState] = {}

        def act(layer: Reader, inputs: list[Tensor]) -> FixedPoint | Affine | None:
            states[layer.name] = LayerState(choose(layer, inputs))
            return states[layer.name].act

        def weighted(layer: Weighted, x: Tensor, act: FixedPoint | Affine | None) -> Tensor:
            output, _, states[layer.name] = self.calibrated(layer, x, act, formats)
            return output

        run(network, images, act, weighted)
        return states

    @torch.no_grad()
    def calibrated(
        self, layer: Weighted, x: Tensor, act: FixedPoint | Affine | None, formats: Formats = FIXED
    ) -> tuple[Tensor, Moments | None, LayerState]:
        """One layer of a subnet, its statistics those of x alone, read in format `act`, shape (n, *layer.in_shape).

        Its weights get such steps as `formats` chooses.

        Returns:
            Its output, shape (n, *layer.out_shape); what its BatchNorm normalises by; and what it is made of.
        """
        weight, gain, bias = self.layer(layer.name).form(layer)
        if not layer.norm:
            output, state = _rounded(layer, x, act, weight, bias, formats)
            return output, None, state
        output, by = measure(product(layer, x, weight, None), gain, bias)
        folded = fold(weight, gain, bias, by)
        if layer.precision.weight_bits == FLOAT_BITS:
            return activate(layer, output), by, LayerState(act, *folded)
        output, state = _rounded(layer, x, act, *folded, formats)
        return output, by, state

    def _weighted(self, layer: Weighted, x: Tensor, act: FixedPoint | Affine | None, given: Moments | None) -> Tensor:
        """The output of one layer, shape (n, *layer.out_shape)."""
        weight, gain, bias = self.layer(layer.name).form(layer)
        if not layer.norm:
            return _rounded(layer, x, act, weight, bias, FIXED, self.gradient)[0]
        if layer.precision.weight_bits == FLOAT_BITS:  # as below, with one product instead of two
            return activate(layer, normalise(product(layer, x, weight, None), gain, bias, given, self.synchronised))
        by = given or moments(product(layer, x, weight, None), self.synchronised)
        return _rounded(layer, x, act, *fold(weight, gain, bias, by), FIXED, self.gradient)[0]


def _rounded(
    layer: Weighted,
    x: Tensor,
    act: FixedPoint | Affine | None,
    weight: Tensor,
    bias: Tensor,
    formats: Formats,
    gradient: Gradient = "clipped",
) -> tuple[Tensor, LayerState]:
    """The output of one layer whose BatchNorm is folded in, its numbers rounded, and what the layer is made of."""
    bits = layer.precision.weight_bits
    steps = formats.weight(weight, bits, bias, act)
    rounded = quantize_weight(weight, steps, bits, gradient)
    output = activate(layer, product(layer, x, rounded, quantize_bias(bias, steps, act)))
    return output, LayerState(act, weight, bias, steps)


class ElasticLayer(nn.Module):
    """The largest weight of one layer, and how any smaller form of the layer is cut from it.

    `gain` and `bias`, shape (out channels,), are BatchNorm's; without BatchNorm, `bias` is the layer's own.
    `transforms["3"]`, shape (9, 9), makes a 3x3 kernel of the centre of the next larger one.
    """

    def __init__(self, layer: Weighted, kernels: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        fan_in = math.prod(layer.weight_shape[1:])
        self.weight = nn.Parameter(torch.randn(layer.weight_shape, generator=generator) * math.sqrt(2 / fan_in))
        self.gain = nn.Parameter(torch.ones(layer.out_shape[0]), requires_grad=layer.norm)
        self.bias = nn.Parameter(torch.zeros(layer.out_shape[0]))
        sizes = sorted(k for k in kernels if isinstance(layer, Conv2d) and k < layer.kernel)
        self.transforms = nn.ParameterDict({str(k): nn.Parameter(torch.eye(k * k)) for k in sizes})

    def form(self, layer: Weighted) -> tuple[Tensor, Tensor, Tensor]:
        """One form of the layer, pruned: weight, shape `layer.weight_shape`, gain and bias, shape (out channels,).

        A channel is as important as its gain is large: BatchNorm undoes the scale of its weights ("Network slimming",
        Liu et al. 2017).
        """
        weight, shape = self._cut(layer), layer.out_shape[:1]
        gain, bias = _crop(self.gain, shape), _crop(self.bias, shape)
        if layer.sparsity == 0:
            return weight, gain, bias
        mask = layer_mask(layer, weight, gain.abs() if layer.norm else channel_norm(weight, bias))
        return weight * mask, gain, mask_bias(layer, bias, mask)

    def _cut(self, layer: Weighted) -> Tensor:
        """The weight of one form of the layer, shape `layer.weight_shape`."""
        channels = layer.weight_shape[:2]
        weight: Tensor = self.weight
        if isinstance(layer, Conv2d) and layer.kernel < weight.shape[-1]:
            for size in sorted((int(k) for k in self.transforms if int(k) >= layer.kernel), reverse=True):
                centre = _crop(weight, (*channels, size, size))
                weight = (centre.flatten(2) @ self.transforms[str(size)]).view_as(centre)
        return _crop(weight, layer.weight_shape)


def _crop(weight: Tensor, shape: Shape) -> Tensor:
    """The first channels and the centre of the kernel.

    As one operation, negative padding: its gradient fills the full shape once, where that of each slice does again.
    """
    if weight.shape == shape:
        return weight
    spare = [have - want for have, want in zip(weight.shape, shape, strict=True)]
    padding = [side for size in reversed(spare[2:]) for side in (-(size // 2), -(size // 2))]
    return F.pad(weight, [*padding, *(side for size in reversed(spare[:2]) for side in (0, -size))])


def _key(name: str) -> str:
    return name.replace(".", "/")
