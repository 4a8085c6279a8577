"""The supernet: one set of weights that holds every network of a space.

It is stateless. `supernet(x, network)` runs any network of the space on slices of the shared weights: the first
channels, the centre of a kernel after its transform (Once-for-All, section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.network import FLOAT_BITS, Conv2d, Input, Layer, Network, Weighted, nonzeros, weight_count
from supernet.quantize import act_format, prune_mask, quantize_act, quantize_bias, quantize_weight, weight_format
from supernet.run import activate, combine, product
from supernet.subnet import LayerState, Subnet

BATCH_NORM_EPS = 1e-5


class Supernet(nn.Module):
    """Shared weights of all networks of a space.

    BatchNorm always uses the statistics of the batch at hand: nothing is tracked, so no subnet ever sees another's
    statistics. `specialise` freezes them for one subnet from a calibration batch.
    """

    def __init__(self, maximal: Sequence[Network], kernels: Sequence[int], seed: int) -> None:
        """Initialise the weights.

        Args:
            maximal: Networks that together hold every weight, see `SearchSpace.maximal`.
            kernels: Kernel sizes a convolution larger than the smallest can shrink to; empty for none.
            seed: Seed of the initial weights (He normal).
        """
        super().__init__()
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

    def forward(self, images: Tensor, network: Network) -> Tensor:
        """Logits, shape (n, classes), with BatchNorm and activation formats taken from this very batch."""
        return self._run(images, network, None)

    @torch.no_grad()
    def specialise(self, network: Network, images: Tensor) -> Subnet:
        """Extract a subnet; its BatchNorm statistics and activation formats come from `images`."""
        states: dict[str, LayerState] = {}
        self._run(images, network, states)
        return Subnet(network, states)

    def _run(self, images: Tensor, network: Network, states: dict[str, LayerState] | None) -> Tensor:
        """Logits; `states`, where given, receives what each layer of an extracted subnet is made of."""
        tensors = {network.input.name: images.reshape(-1, *network.input.out_shape)}
        for layer in network.layers[1:]:
            inputs = [tensors[name] for name in layer.inputs]
            tensors[layer.name] = self._step(layer, inputs, states)
        return tensors[network.layers[-1].name]

    def _step(self, layer: Layer, inputs: list[Tensor], states: dict[str, LayerState] | None) -> Tensor:
        """The output of one layer, shape (n, *layer.out_shape)."""
        assert not isinstance(layer, Input)
        act = act_format(inputs, layer.precision.act_bits)
        if not isinstance(layer, Weighted):
            state, output = LayerState(act), combine(layer, inputs, act)
        else:
            x, shared = quantize_act(inputs[0], act), self.layer(layer.name)
            if states is None and layer.norm and layer.precision.weight_bits == FLOAT_BITS:
                return activate(layer, shared.normalised(layer, x))  # as below, with one product instead of two
            weight, bias = shared.folded(layer, x)
            frac = weight_format(weight, layer.precision.weight_bits)
            rounded = quantize_weight(weight, frac, layer.precision.weight_bits)
            output = activate(layer, product(layer, x, rounded, quantize_bias(bias, frac, act)))
            state = LayerState(act, weight, bias, frac)
        if states is not None:
            states[layer.name] = state
        return output


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

    def cut(self, layer: Weighted) -> Tensor:
        """The weight of one form of the layer, shape `layer.weight_shape`, pruned to its sparsity."""
        out, into = layer.weight_shape[:2]
        weight = self.weight[:out, :into]
        if isinstance(layer, Conv2d) and layer.kernel < weight.shape[-1]:
            weight = self._shrink(weight, layer.kernel)
        if layer.sparsity == 0:
            return weight
        return weight * prune_mask(weight, nonzeros(layer))

    def _shrink(self, weight: Tensor, kernel: int) -> Tensor:
        """Weight of shape (out, in, k, k) to (out, in, kernel, kernel), size by size from the largest down."""
        for size in sorted((int(k) for k in self.transforms), reverse=True):
            if size < kernel:
                break
            edge = (weight.shape[-1] - size) // 2
            centre = weight[:, :, edge : edge + size, edge : edge + size]
            weight = (centre.flatten(2) @ self.transforms[str(size)]).view_as(centre)
        return weight

    def normalised(self, layer: Weighted, x: Tensor) -> Tensor:
        """Product and BatchNorm with the statistics of this batch, shape (n, *layer.out_shape)."""
        out = layer.out_shape[0]
        y = product(layer, x, self.cut(layer), None)
        return F.batch_norm(y, None, None, self.gain[:out], self.bias[:out], True, 0.0, BATCH_NORM_EPS)

    def folded(self, layer: Weighted, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias with BatchNorm folded in, its statistics those of this batch (Jacob et al. 2018).

        Shapes `layer.weight_shape` and (out channels,).
        """
        out, weight = layer.out_shape[0], self.cut(layer)
        if not layer.norm:
            return weight, self.bias[:out]
        y = product(layer, x, weight, None)
        variance, mean = torch.var_mean(y, dim=[0, *range(2, y.dim())], correction=0)
        scale = self.gain[:out] * torch.rsqrt(variance + BATCH_NORM_EPS)
        return weight * scale.view(-1, *(1,) * (weight.dim() - 1)), self.bias[:out] - mean * scale


def _key(name: str) -> str:
    return name.replace(".", "/")
