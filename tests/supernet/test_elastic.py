"""The supernet against plain torch.nn modules built by hand, and against the subnets extracted from it."""

from __future__ import annotations

import copy
import dataclasses
import itertools

import numpy as np
import pytest
import torch
from small_supernets import EXAMPLES, FLOATS, MIXED, QUANTIZED, some_images, some_networks, supernet_of
from torch import Tensor, nn

from nas.network import Add, Conv2d, Linear, Mean, Network, Weighted, nonzeros, weight_count
from nas.spaces import SPACES
from nas.spaces.precision import PrecisionChoices
from supernet.elastic import ElasticLayer, Supernet

WEIGHTS_ONLY = PrecisionChoices((2, 4, 8), (32,), (0.5, 0.0))
ACTS_ONLY = PrecisionChoices((32,), (3, 4, 8), (0.5, 0.0))


def test_every_space_is_covered() -> None:
    built = {type(make(FLOATS)).__name__.removesuffix("Space").lower() for make in EXAMPLES.values()}
    assert built == set(SPACES)


@pytest.fixture(params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("precision", [FLOATS, QUANTIZED, MIXED])
def test_every_network_of_the_space_runs(example: str, precision: PrecisionChoices) -> None:
    space = EXAMPLES[example](precision)
    supernet, images = supernet_of(space, 0), some_images(space, 16, 0)
    for network in some_networks(space, 12, 0):
        logits = supernet(images, network)
        assert logits.shape == (16, *network.layers[-1].out_shape)
        assert logits.isfinite().all()
        assert logits.std() > 0


def sliced(shared: ElasticLayer, layer: Weighted) -> Tensor:
    """The weight of a layer: centre crops and transforms kernel by kernel, then all but the largest set to zero."""
    weight = shared.weight.detach()[: layer.weight_shape[0], : layer.weight_shape[1]].clone()
    if isinstance(layer, Conv2d) and layer.kernel < weight.shape[-1]:
        for size in sorted((int(key) for key in shared.transforms if int(key) >= layer.kernel), reverse=True):
            first = weight.shape[-1] // 2 - size // 2
            crop = weight.narrow(2, first, size).narrow(3, first, size).reshape(*weight.shape[:2], size * size)
            weight = torch.einsum("oip,pq->oiq", crop, shared.transforms[str(size)].detach())
            weight = weight.reshape(*crop.shape[:2], size, size)
    flat = weight.reshape(-1)
    for position in np.argsort(flat.abs().numpy(), kind="stable")[: weight_count(layer) - nonzeros(layer)]:
        flat[position] = 0
    return flat.reshape(layer.weight_shape)


def module_of(shared: ElasticLayer, layer: Weighted) -> nn.Module:
    out = layer.out_shape[0]
    core: nn.Module
    if isinstance(layer, Conv2d):
        core = nn.Conv2d(
            layer.in_shape[0], out, layer.kernel, layer.stride, layer.kernel // 2, groups=layer.groups,
            bias=not layer.norm, dtype=torch.float64,
        )  # fmt: skip
    else:
        core = nn.Linear(layer.in_shape[0], out, bias=not layer.norm, dtype=torch.float64)
    norm = (nn.BatchNorm2d if isinstance(layer, Conv2d) else nn.BatchNorm1d)(out, dtype=torch.float64)
    if layer.norm:
        norm.load_state_dict({"weight": shared.gain.detach()[:out], "bias": shared.bias.detach()[:out]}, strict=False)
        core.load_state_dict({"weight": sliced(shared, layer)})
    else:
        core.load_state_dict({"weight": sliced(shared, layer), "bias": shared.bias.detach()[:out]})
    relu = nn.ReLU() if layer.activation == "relu" else nn.Identity()
    return nn.Sequential(core, norm if layer.norm else nn.Identity(), relu).train()


def by_hand(supernet: Supernet, network: Network, images: Tensor) -> Tensor:
    tensors = {"input": images}
    for layer in network.layers[1:]:
        first = tensors[layer.inputs[0]]
        match layer:
            case Conv2d() | Linear():
                output = module_of(supernet.layer(layer.name), layer)(first)
            case Add():
                output = first + tensors[layer.inputs[1]]
            case Mean():
                output = nn.AdaptiveAvgPool2d(1)(first).flatten(1)
        assert output.shape[1:] == layer.out_shape
        tensors[layer.name] = output
    return output


@pytest.mark.parametrize("seed", range(2))
def test_float_networks_equal_plain_modules(example: str, seed: int) -> None:
    space = EXAMPLES[example](FLOATS)
    supernet, images = supernet_of(space, seed), some_images(space, 16, seed)
    for network in some_networks(space, 6, seed):
        torch.testing.assert_close(
            supernet(images, network), by_hand(supernet, network, images), rtol=1e-10, atol=1e-10
        )


@pytest.mark.parametrize(
    ("precision", "tolerance"), [(FLOATS, 1e-11), (QUANTIZED, 0.0), (WEIGHTS_ONLY, 0.0), (ACTS_ONLY, 1e-11)]
)
def test_a_subnet_computes_what_the_supernet_does(example: str, precision: PrecisionChoices, tolerance: float) -> None:
    space = EXAMPLES[example](precision)
    supernet, images = supernet_of(space, 1), some_images(space, 16, 1)
    for network in some_networks(space, 8, 1):
        subnet = supernet.specialise(network, images)
        assert (subnet(images) - supernet(images, network)).abs().max().item() <= tolerance


def test_a_subnet_treats_images_one_by_one(example: str) -> None:
    """The calibration batch alone gives statistics and formats."""
    space = EXAMPLES[example](FLOATS)
    network = some_networks(space, 1, 2)[0]
    supernet, images = supernet_of(space, 2), some_images(space, 16, 2)
    subnet, others = supernet.specialise(network, images), 3 * some_images(space, 5, 3)
    torch.testing.assert_close(subnet(others), torch.cat([subnet(image[None]) for image in others]))
    assert not torch.allclose(subnet(others), supernet(others, network))


def test_a_subnet_shares_no_storage(example: str) -> None:
    space = EXAMPLES[example](MIXED)
    supernet, images = supernet_of(space, 3), some_images(space, 16, 3)
    networks = [*some_networks(space, 6, 3), space.maximal()[-1].as_float()]
    subnets = [supernet.specialise(network, images) for network in networks]
    before = [subnet(images) for subnet in subnets]
    held = {value.untyped_storage().data_ptr() for value in supernet.state_dict().values()}
    for subnet in subnets:
        assert not held & {value.untyped_storage().data_ptr() for value in subnet.state_dict().values()}
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.zero_()
    assert all(torch.equal(subnet(images), logits) for subnet, logits in zip(subnets, before, strict=True))


def test_running_other_networks_changes_nothing(example: str) -> None:
    space = EXAMPLES[example](MIXED)
    supernet, images = supernet_of(space, 4), some_images(space, 16, 4)
    first, *others = some_networks(space, 6, 4)
    untouched = copy.deepcopy(supernet)
    for other in others:
        supernet(3 * images, other).sum().backward()
        supernet.specialise(other, 2 * images)
    logits = untouched(images, first)
    assert torch.equal(supernet(images, first), logits)
    assert torch.equal(supernet(images, first), logits)
    weights = untouched.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in supernet.state_dict().items())


def test_gradients_stay_within_the_network(example: str) -> None:
    space = EXAMPLES[example](FLOATS)
    smallest = space.lower([0] * len(space.genes)).as_float()
    supernet, images = supernet_of(space, 5), some_images(space, 16, 5)
    supernet(images, smallest).square().sum().backward()
    for layer in smallest.weighted:
        shared = supernet.layer(layer.name)
        gradient, (out, into) = shared.weight.grad, layer.weight_shape[:2]
        assert gradient is not None
        assert gradient[:out, :into].any()
        assert not gradient[out:].any()
        assert not gradient[:, into:].any()
        if layer.norm:
            assert shared.gain.grad is not None
            assert shared.gain.grad[:out].any()
            assert not shared.gain.grad[out:].any()
        assert all(
            transform.grad is not None for key, transform in shared.transforms.items() if int(key) >= _size(layer)
        )
    unused = supernet.layers.keys() - {layer.name.replace(".", "/") for layer in smallest.weighted}
    assert unused
    for name in unused:
        assert all(parameter.grad is None for parameter in supernet.layers[name].parameters())


def _size(layer: Weighted) -> int:
    return layer.kernel if isinstance(layer, Conv2d) else 0


def test_a_skip_connection_keeps_what_is_negative() -> None:
    """The stem's output, after its ReLU, has no sign; the block's output has one."""
    space = EXAMPLES["mobile"](PrecisionChoices((16,), (16,)))
    network = space.maximal()[0]
    supernet, images = supernet_of(space, 6), some_images(space, 64, 6)
    exact = supernet(images, network.as_float())
    assert (supernet(images, network) - exact).std().item() < 0.01 * exact.std().item()


def test_pruning_is_exact_to_one_weight() -> None:
    space = EXAMPLES["mobile"](FLOATS)
    supernet = supernet_of(space, 7)
    for layer in space.maximal()[0].weighted:
        masks = []
        for sparsity in (0.0, 0.1, 0.333, 0.5, 0.75, 0.99):
            pruned = dataclasses.replace(layer, sparsity=sparsity)
            weight = supernet.layer(layer.name).cut(pruned)
            assert int(weight.count_nonzero()) == nonzeros(pruned)
            masks.append(weight != 0)
        for dense, sparse in itertools.pairwise(masks):
            assert not (sparse & ~dense).any()


def test_initial_weights_follow_the_seed() -> None:
    space = EXAMPLES["mlp"](FLOATS)
    first, again, other = (Supernet(space.maximal(), (), seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert all(not torch.equal(first[key], other[key]) for key in first if key.endswith(".weight"))


def test_initial_weights_keep_the_variance() -> None:
    layer = Linear("wide", ("input",), (200,), (300,))
    weight = ElasticLayer(layer, (), torch.Generator().manual_seed(0)).weight
    assert weight.var().item() == pytest.approx(2 / 200, rel=0.02)
