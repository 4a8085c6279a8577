"""The supernet against plain torch.nn modules built by hand, and against the subnets extracted from it."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from typing import Literal

import numpy as np
import pytest
import torch
from small_supernets import EXAMPLES, FLOATS, MIXED, QUANTIZED, some_images, some_networks, supernet_of
from torch import Tensor, nn

import supernet.elastic as supernet_elastic
from nas.counts import nonzeros, weight_count
from nas.errors import NasError
from nas.network import Add, Conv2d, Linear, Mean, Network, PairSum, Pool, Precision, RowMean, Scale, Weighted
from nas.spaces import SPACES
from nas.spaces.precision import PrecisionChoices
from supernet.elastic import ElasticLayer, Supernet
from supernet.formats import act_format
from supernet.quantize import quantize_act
from supernet.run import batch_format, combine, fit, product
from supernet.settings import Gradient

ACTIVATIONS = {"identity": nn.Identity(), "relu": nn.ReLU(), "hswish": nn.Hardswish(), "hsigmoid": nn.Hardsigmoid()}
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
    for network in some_networks(space, 8, 0):
        logits = supernet(images, network)
        assert logits.shape == (16, *network.layers[-1].out_shape)
        assert logits.isfinite().all()
        assert logits.std() > 0


def sliced(shared: ElasticLayer, layer: Weighted) -> Tensor:
    """The weight of a layer: centre crops and transforms kernel by kernel, then all but the largest set to zero."""
    weight = shared.weight[: layer.weight_shape[0], : layer.weight_shape[1]].clone()
    if isinstance(layer, Conv2d) and layer.kernel < weight.shape[-1]:
        for size in sorted((int(key) for key in shared.transforms if int(key) >= layer.kernel), reverse=True):
            first = weight.shape[-1] // 2 - size // 2
            crop = weight.narrow(2, first, size).narrow(3, first, size).reshape(*weight.shape[:2], size * size)
            weight = torch.einsum("oip,pq->oiq", crop, shared.transforms[str(size)])
            weight = weight.reshape(*crop.shape[:2], size, size)
    flat = weight.reshape(-1)
    kept = torch.ones_like(flat)
    order = np.argsort(flat.detach().abs().numpy(), kind="stable")
    kept[order[: weight_count(layer) - nonzeros(layer)].copy()] = 0
    return (flat * kept).reshape(layer.weight_shape)


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
        core.load_state_dict({"weight": sliced(shared, layer).detach()})
    else:
        core.load_state_dict({"weight": sliced(shared, layer).detach(), "bias": shared.bias.detach()[:out]})
    return nn.Sequential(core, norm if layer.norm else nn.Identity(), ACTIVATIONS[layer.activation]).train()


def windows(layer: Pool, image: Tensor) -> Tensor:
    """Pooling by its definition, position by position."""
    reduce = torch.amax if layer.kind == "max" else torch.mean
    first = -((layer.kernel - 1) // 2)

    def span(index: int) -> slice:
        start = first + index * layer.stride
        return slice(max(start, 0), start + layer.kernel)

    _, height, width = layer.out_shape
    rows = [
        torch.stack([reduce(image[..., span(y), span(x)], dim=(-2, -1)) for x in range(width)], -1)
        for y in range(height)
    ]
    return torch.stack(rows, -2)


def by_hand(supernet: Supernet, network: Network, images: Tensor) -> Tensor:
    size = network.input.out_shape[1:]
    tensors = {
        "input": images
        if images.shape[2:] == size
        else images[:, :, : size[0]]
        if size[1] == 1
        else nn.functional.interpolate(images, size, mode="bilinear", antialias=True)
    }
    for layer in network.layers[1:]:
        first = tensors[layer.inputs[0]]
        match layer:
            case Conv2d() | Linear():
                output = module_of(supernet.layer(layer.name), layer)(first)
            case Add():
                output = ACTIVATIONS[layer.activation](first + tensors[layer.inputs[1]])
            case PairSum():
                second = tensors[layer.inputs[1]]
                rows = [first[:, :, :, 0] + second[:, :, sender] for sender in range(second.shape[2])]
                output = ACTIVATIONS[layer.activation](torch.stack(rows, 3))
            case RowMean():
                output = nn.AdaptiveAvgPool2d((None, 1))(first)
            case Mean():
                output = nn.AdaptiveAvgPool2d(1)(first).flatten(1)
            case Pool():
                output = windows(layer, first)
            case Scale():
                output = torch.einsum("nchw,nc->nchw", first, tensors[layer.inputs[1]])
        assert output.shape[1:] == layer.out_shape
        tensors[layer.name] = output
    return output


@pytest.mark.parametrize("seed", range(2))
def test_float_networks_equal_plain_modules(example: str, seed: int) -> None:
    space = EXAMPLES[example](FLOATS)
    supernet, images = supernet_of(space, seed), some_images(space, 16, seed)
    for network in some_networks(space, 4, seed):
        torch.testing.assert_close(
            supernet(images, network), by_hand(supernet, network, images), rtol=1e-10, atol=1e-10
        )


def test_gradients_of_a_cut_are_those_of_slices(example: str) -> None:
    space = EXAMPLES[example](FLOATS)
    supernet = supernet_of(space, 0)
    for network in some_networks(space, 4, 0):
        for layer in network.weighted:
            shared = supernet.layer(layer.name)
            held = [shared.weight, *shared.transforms.values()]
            upstream = torch.randn(layer.weight_shape, dtype=torch.float64)
            found, expected = (
                torch.autograd.grad(weight, held, upstream, allow_unused=True, materialize_grads=True)
                for weight in (shared.form(layer)[0], sliced(shared, layer))
            )
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("precision", "tolerance"), [(FLOATS, 1e-11), (QUANTIZED, 0.0), (WEIGHTS_ONLY, 0.0), (ACTS_ONLY, 1e-11)]
)
def test_a_subnet_computes_what_the_supernet_does(example: str, precision: PrecisionChoices, tolerance: float) -> None:
    space = EXAMPLES[example](precision)
    supernet, images = supernet_of(space, 1), some_images(space, 16, 1)
    for network in some_networks(space, 5, 1):
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


@pytest.mark.parametrize("kind", ["max", "mean"])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (1, 2), (2, 2), (3, 2), (4, 2), (2, 3), (5, 3), (4, 3)])
def test_pools_leave_padding_out(kind: Literal["max", "mean"], kernel: int, stride: int) -> None:
    for height, width in itertools.product(range(4, 9), (4, 5, 6)):
        image = torch.randn(2, 3, height, width, dtype=torch.float64) - 1
        layer = Pool("pool", ("input",), (3, height, width), kernel, stride, kind)
        torch.testing.assert_close(combine(layer, [image], None), windows(layer, image))


def test_a_pool_that_torch_lacks_is_refused() -> None:
    with pytest.raises(NasError, match=r"layer pool: a pool of kernel 2 needs a stride of at least 2"):
        combine(Pool("pool", ("input",), (1, 4, 4), 2, 1, "max"), [torch.zeros(1, 1, 4, 4)], None)


def test_a_scale_quantizes_its_map_alone() -> None:
    layer = Scale("scale", ("map", "gates"), (3, 4, 4), Precision(32, 3))
    image, gates = torch.rand(2, 3, 4, 4), torch.rand(2, 3)
    fmt = batch_format(layer, [image, -99 * gates])
    assert fmt == act_format([image], 3)
    rounded = quantize_act(image, fmt)
    assert not torch.equal(rounded, image)
    assert torch.equal(combine(layer, [image, gates], fmt), rounded * gates[:, :, None, None])


def test_images_are_resized_where_only_the_resolution_differs() -> None:
    images = torch.rand(2, 3, 8, 8)
    assert fit(images, (3, 8, 8)) is images
    assert torch.equal(fit(images, (192,)), images.flatten(1))
    assert torch.equal(fit(images.flatten(1), (3, 8, 8)), images)
    halved = fit(images, (3, 4, 4))
    assert halved.shape == (2, 3, 4, 4)
    triangle = torch.tensor([1.0, 3.0, 3.0, 1.0])  # antialiasing: every pixel counts
    inside = torch.einsum("nchw,h,w->nc", images[..., 1:5, 1:5], triangle, triangle) / 64
    torch.testing.assert_close(halved[..., 1, 1], inside)
    torch.testing.assert_close(fit(torch.full_like(images, 0.3), (3, 11, 5)), torch.full((2, 3, 11, 5), 0.3))


def test_of_sets_the_first_members_are_taken() -> None:
    sets = torch.rand(2, 3, 8, 1)
    assert fit(sets, (3, 8, 1)) is sets
    assert fit(sets, (3, 2, 1)).tolist() == [[feature[:2] for feature in one] for one in sets.tolist()]
    with pytest.raises(NasError, match="a network of 16 members cannot read sets of 8"):
        fit(sets, (3, 16, 1))


def test_the_order_of_a_set_changes_nothing() -> None:
    space = EXAMPLES["deepsets"](QUANTIZED)
    supernet, sets = supernet_of(space, 0), some_images(space, 16, 0)
    for network in some_networks(space, 4, 0):
        subnet, read = supernet.specialise(network, sets), network.input.out_shape[1]
        assert torch.equal(subnet(sets[:, :, :read].flip(2)), subnet(sets))


@pytest.mark.parametrize("name", ["mobile", "squeezed", "resnet"])
def test_images_of_any_layout_keep_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    space = EXAMPLES[name](FLOATS)
    supernet, images = supernet_of(space, 8), some_images(space, 16, 8)
    read: list[Tensor] = []

    def recorded(layer: Weighted, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        read.append(x)
        return product(layer, x, weight, bias)

    monkeypatch.setattr(supernet_elastic, "product", recorded)
    for network in some_networks(space, 4, 8):
        expected = supernet(images, network)
        read.clear()
        logits = supernet(images.to(memory_format=torch.channels_last), network)
        assert sum(x.dim() == 4 for x in read) > 5
        assert all(x.is_contiguous(memory_format=torch.channels_last) for x in read if x.dim() == 4)
        torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("precision", [FLOATS, MIXED])
def test_statistics_are_what_batch_norm_takes_from_the_batch(example: str, precision: PrecisionChoices) -> None:
    space = EXAMPLES[example](precision)
    supernet, images, others = supernet_of(space, 9), some_images(space, 16, 9), some_images(space, 16, 10)
    for network in some_networks(space, 3, 9):
        statistics = supernet.statistics(network, images)
        assert set(statistics) == {layer.name for layer in network.weighted if layer.norm}
        assert not any(moment.requires_grad for moments in statistics.values() for moment in moments)
        torch.testing.assert_close(
            supernet(images, network, statistics), supernet(images, network), rtol=1e-10, atol=1e-10
        )
        alone = torch.cat([supernet(image[None], network.as_float(), statistics) for image in others])
        torch.testing.assert_close(supernet(others, network.as_float(), statistics), alone, rtol=1e-10, atol=1e-10)


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
            weight, _, _ = supernet.layer(layer.name).form(pruned)
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


def test_the_identity_passes_gradients_where_the_clipped_one_stops() -> None:
    """Equal logits; a stop at every saturated value or none, down to the input."""
    space = EXAMPLES["mobile"](PrecisionChoices((2,), (2,)))
    images = some_images(space, 16, 11).requires_grad_()
    supernet, network = supernet_of(space, 11), some_networks(space, 1, 11)[0]
    found = {}
    gradients: tuple[Gradient, ...] = ("clipped", "identity")
    for gradient in gradients:
        supernet.gradient = gradient
        logits = supernet(images, network)
        weight = supernet.layer(network.weighted[0].name).weight
        found[gradient] = logits, *torch.autograd.grad(logits.square().sum(), [images, weight])
    assert torch.equal(found["clipped"][0], found["identity"][0])
    fmt = act_format([images], 2)
    assert fmt is not None
    saturated = images.detach() / fmt.step > fmt.high
    assert saturated.any()
    assert not found["clipped"][1][saturated].any()
    assert found["identity"][1][saturated].any()
    assert not torch.equal(found["clipped"][2], found["identity"][2])
