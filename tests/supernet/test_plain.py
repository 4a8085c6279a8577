"""Extracted plain modules against the supernet, exactly, and against the subnets and designs they fold into."""

from __future__ import annotations

import copy

import pytest
import torch
from small_supernets import EXAMPLES, FLOATS, QUANTIZED, some_images, some_networks, supernet_of
from torch import Tensor, nn

from nas.errors import NasError
from nas.network import Network, Weighted
from nas.spaces.precision import PrecisionChoices
from supernet.elastic import Supernet
from supernet.plain import PlainNet, extract, fold
from supernet.subnet import from_design

DENSE = PrecisionChoices()


@pytest.fixture(params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def extractions(example: str, precision: PrecisionChoices, seed: int) -> tuple[Supernet, list[Network], Tensor]:
    space = EXAMPLES[example](precision)
    return supernet_of(space, seed), some_networks(space, 4, seed), some_images(space, 16, seed)


def extracted(supernet: Supernet, network: Network, images: Tensor) -> PlainNet:
    return extract(supernet, network, supernet.statistics(network, images))


def test_outputs_equal_the_supernets_exactly(example: str) -> None:
    supernet, networks, images = extractions(example, FLOATS, 0)
    others = images.flip(0) ** 2
    for network in networks:
        statistics = supernet.statistics(network, images)
        plain = extract(supernet, network, statistics)
        assert torch.equal(plain.eval()(others), supernet(others, network, statistics))
        assert torch.equal(plain.train()(others), supernet(others, network))


def test_gradients_equal_the_supernets(example: str) -> None:
    supernet, networks, images = extractions(example, DENSE, 1)
    network = networks[0]
    plain = extracted(supernet, network, images)
    plain(images).square().sum().backward()
    supernet(images, network).square().sum().backward()
    checked = 0
    for layer in network.weighted:
        shared, core, out = supernet.layer(layer.name), plain.core(layer), layer.out_shape[0]
        assert shared.bias.grad is not None
        bias = plain.norm(layer).bias if layer.norm else core.bias
        torch.testing.assert_close(shared.bias.grad[:out], bias.grad, rtol=1e-10, atol=1e-10)
        if shared.weight.shape[2:] == core.weight.shape[2:]:
            assert shared.weight.grad is not None
            cut = shared.weight.grad[:out, : layer.weight_shape[1]]
            torch.testing.assert_close(cut, core.weight.grad, rtol=1e-10, atol=1e-10)
            checked += 1
    assert checked > 1


def test_modules_are_ordinary(example: str) -> None:
    supernet, networks, images = extractions(example, FLOATS, 2)
    ordinary = {nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.BatchNorm1d, nn.ModuleDict, PlainNet}
    held = {value.untyped_storage().data_ptr() for value in supernet.state_dict().values()}
    random = torch.get_rng_state()
    for network in networks:
        statistics = supernet.statistics(network, images)
        plain = extract(supernet, network, statistics)
        assert {type(module) for module in plain.modules()} <= ordinary
        given = {moment.untyped_storage().data_ptr() for moments in statistics.values() for moment in moments}
        assert not (held | given) & {value.untyped_storage().data_ptr() for value in plain.state_dict().values()}
        for layer in network.weighted:
            assert (plain.core(layer).bias is None) == layer.norm
        assert all(parameter.requires_grad and parameter.is_leaf for parameter in plain.parameters())
    assert torch.equal(torch.get_rng_state(), random)


def test_statistics_are_the_moments_of_what_batch_norm_reads(example: str) -> None:
    supernet, networks, images = extractions(example, FLOATS, 3)
    network = networks[0]
    statistics = supernet.statistics(network, images)
    plain = extract(supernet, network, statistics).train()
    seen: dict[str, Tensor] = {}

    def watch(layer: Weighted) -> None:
        plain.norm(layer).register_forward_pre_hook(lambda module, read: seen.update({layer.name: read[0].detach()}))

    for layer in network.weighted:
        if layer.norm:
            watch(layer)
    plain(images)
    assert seen.keys() == statistics.keys()
    for name, y in seen.items():
        values = y.transpose(0, 1).flatten(1)
        torch.testing.assert_close(statistics[name][0], values.mean(1))
        torch.testing.assert_close(statistics[name][1], values.var(1, correction=0))


def trained(plain: PlainNet, images: Tensor) -> PlainNet:
    optimizer = torch.optim.SGD(plain.train().parameters(), 0.01)
    for _ in range(3):
        optimizer.zero_grad()
        plain(images).square().mean().backward()
        optimizer.step()
    return plain.eval()


def test_a_tuned_module_folds_into_a_subnet_and_a_design(example: str) -> None:
    supernet, networks, images = extractions(example, DENSE, 4)
    for network in networks[:2]:
        start = extracted(supernet, network, images)
        plain = trained(copy.deepcopy(start), images)
        assert not torch.allclose(plain(images), start.eval()(images))
        subnet = fold(plain)
        expected = plain(images)
        torch.testing.assert_close(subnet(images), expected, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(from_design(subnet.design())(images), expected, rtol=1e-10, atol=1e-10)
        before = subnet(images)
        trained(plain, images)
        assert torch.equal(subnet(images), before)


def test_a_folded_extraction_is_the_specialised_subnet(example: str) -> None:
    supernet, networks, images = extractions(example, FLOATS, 5)
    for network in networks:
        subnet, folded = supernet.specialise(network, images), fold(extracted(supernet, network, images))
        for key, value in subnet.state_dict().items():
            torch.testing.assert_close(folded.state_dict()[key], value, rtol=1e-12, atol=1e-12)


def test_a_state_makes_the_module_again(example: str) -> None:
    supernet, networks, images = extractions(example, FLOATS, 6)
    plain = trained(extracted(supernet, networks[0], images), images)
    again = PlainNet(networks[0])
    again.load_state_dict(plain.state_dict(), assign=True)
    assert torch.equal(again.eval()(images), plain(images))


def test_quantized_networks_are_refused() -> None:
    supernet, networks, images = extractions("mlp", QUANTIZED, 7)
    with pytest.raises(NasError, match=r"layer fc1: a plain network is float, .*weight_bits=.*specialise"):
        extracted(supernet, networks[0], images)


def test_pruned_weights_that_training_filled_are_refused() -> None:
    supernet, networks, images = extractions("mlp", PrecisionChoices(sparsity=(0.75,)), 8)
    plain = extracted(supernet, networks[0], images)
    fold(plain)
    with pytest.raises(NasError, match=r"layer fc1: sparsity 0.75 leaves \d+ weights, but \d+ are not zero; fine-tune"):
        fold(trained(plain, images))
