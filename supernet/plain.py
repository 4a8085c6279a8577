"""A subnet as a plain module: ordinary convolutions and BatchNorm, nothing elastic, nothing shared."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from nas.counts import nonzeros
from nas.errors import NasError
from nas.network import FLOAT, Conv2d, Input, Network, Weighted
from supernet.batch_norm import EPS, Moments, Statistics
from supernet.batch_norm import fold as fold_norm
from supernet.elastic import Supernet
from supernet.run import activate, run
from supernet.subnet import LayerState, Subnet


class PlainNet(nn.Module):
    """One float network. In training mode, BatchNorm uses and tracks the batch's statistics; in evaluation its own.

    `cores` holds an `nn.Conv2d` or `nn.Linear` for each layer with weights, `norms` an `nn.BatchNorm` where it has one.
    """

    def __init__(self, network: Network) -> None:
        """Lay out the modules; their weights are undefined until a state is loaded with `assign=True`."""
        super().__init__()
        self.network = network
        self.cores = nn.ModuleDict({_key(layer): _core(layer) for layer in network.weighted})
        self.norms = nn.ModuleDict({_key(layer): _norm(layer) for layer in network.weighted if layer.norm})

    def core(self, layer: Weighted) -> nn.Conv2d | nn.Linear:
        """The convolution or matrix product of a layer."""
        return cast(nn.Conv2d | nn.Linear, self.cores[_key(layer)])

    def norm(self, layer: Weighted) -> nn.BatchNorm1d | nn.BatchNorm2d:
        """The BatchNorm of a layer that has one."""
        return cast(nn.BatchNorm1d | nn.BatchNorm2d, self.norms[_key(layer)])

    def forward(self, images: Tensor) -> Tensor:
        """Logits, shape (n, classes), of images as the supernet reads them."""

        def weighted(layer: Weighted, x: Tensor, act: None) -> Tensor:
            y: Tensor = self.core(layer)(x)
            return activate(layer, self.norm(layer)(y) if layer.norm else y)

        return run(self.network, images, lambda layer, inputs: None, weighted)


@torch.no_grad()
def extract(supernet: Supernet, network: Network, statistics: Statistics) -> PlainNet:
    """A network of the supernet with weights of its own, equal in outputs bit for bit.

    Args:
        supernet: Where the weights come from.
        network: A float network of the space; pruned weights come as zeros, and further training would fill them.
        statistics: What its BatchNorm normalises by in evaluation, see `Supernet.statistics`.

    Raises:
        NasError: The network is quantized.
    """
    _require_float(network)
    plain = PlainNet(network)
    for layer in network.weighted:
        core, (weight, gain, bias) = plain.core(layer), supernet.layer(layer.name).form(layer)
        core.weight = nn.Parameter(weight.clone())
        if not layer.norm:
            core.bias = nn.Parameter(bias.clone())
            continue
        norm = plain.norm(layer)
        norm.weight, norm.bias = nn.Parameter(gain.clone()), nn.Parameter(bias.clone())
        norm.running_mean, norm.running_var = (moment.clone() for moment in statistics[layer.name])
        norm.num_batches_tracked = torch.zeros((), dtype=torch.int64, device=gain.device)
    return plain


@torch.no_grad()
def fold(plain: PlainNet) -> Subnet:
    """The same function as in evaluation, with BatchNorm folded into the weights.

    Raises:
        NasError: A layer has more weights than its sparsity allows: training has filled pruned ones.
    """
    states = {layer.name: LayerState(None) for layer in plain.network.layers[1:]}
    for layer in plain.network.weighted:
        core = plain.core(layer)
        filled = int(core.weight.count_nonzero())
        if filled > nonzeros(layer):
            law = f"sparsity {layer.sparsity:g} leaves {nonzeros(layer)} weights, but {filled} are not zero"
            raise NasError(f"layer {layer.name}: {law}; fine-tune a pruned network as a Subnet, which keeps its zeros")
        weight, bias = core.weight, core.bias
        if layer.norm:
            norm = plain.norm(layer)
            moments = cast(Moments, (norm.running_mean, norm.running_var))
            weight, bias = fold_norm(weight, norm.weight, norm.bias, moments)
        states[layer.name] = LayerState(None, weight, bias)
    return Subnet(plain.network, states)


def _core(layer: Weighted) -> nn.Module:
    into, out, bias = layer.in_shape[0], layer.out_shape[0], not layer.norm
    if not isinstance(layer, Conv2d):
        return nn.Linear(into, out, bias, device="meta")
    return nn.Conv2d(
        into, out, layer.kernel, layer.stride, layer.kernel // 2, groups=layer.groups, bias=bias, device="meta"
    )


def _norm(layer: Weighted) -> nn.Module:
    norm = nn.BatchNorm2d if isinstance(layer, Conv2d) else nn.BatchNorm1d
    return norm(layer.out_shape[0], EPS, device="meta")


def _require_float(network: Network) -> None:
    for layer in network.layers[1:]:
        assert not isinstance(layer, Input)
        if layer.precision != FLOAT:
            raise NasError(
                f"layer {layer.name}: a plain network is float, this layer has {layer.precision}; specialise it"
            )


def _key(layer: Weighted) -> str:
    return layer.name.replace(".", "/")
