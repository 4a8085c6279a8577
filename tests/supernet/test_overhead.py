"""What a step costs inside the supernet and extracted, on networks whose tensors can be counted."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from small_supernets import EXAMPLES, FLOATS, some_images, supernet_of
from torch import Tensor, nn

from nas.genotype import SearchSpace, largest
from nas.network import Network
from nas.spaces import MlpChoices, MobileChoices
from nas.spaces.mobile import Stage
from nas.spaces.precision import PrecisionChoices
from supernet.elastic import Supernet
from supernet.overhead import step_cost
from supernet.plain import extract

SPACES: dict[str, SearchSpace] = {
    "mlp": MlpChoices((1, 2), (64, 128), PrecisionChoices()).build((3, 16), 5),
    "mobile": MobileChoices(8, (Stage(16, 2, (1, 2)),), (3, 5), (1, 2), PrecisionChoices()).build((1, 16, 16), 5),
}


def supernet_and_batch(space: SearchSpace, count: int) -> tuple[Supernet, Tensor, Tensor]:
    return supernet_of(space, 0), some_images(space, count, 0), torch.arange(count) % 5


def biggest(space: SearchSpace) -> Network:
    return space.lower(largest(space).tolist()).as_float()


def bytes_of(module: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())


@pytest.mark.parametrize("name", SPACES)
def test_the_peak_holds_the_activations_and_not_much_more(name: str) -> None:
    """Backward needs what each layer with weights made, before BatchNorm and after; gradients come on top of it."""
    space = SPACES[name]
    network, costs = biggest(space), []
    for count in (64, 128):
        supernet, images, labels = supernet_and_batch(space, count)
        cost = step_cost(supernet, network, images, labels, None, 1)
        costs.append(cost)
        plain = extract(supernet, network, supernet.statistics(network, images))
        made = sum(torch.Size(layer.out_shape).numel() for layer in network.weighted if layer.norm)
        kept = 2 * made * count * images.element_size()
        for peak, model in ((cost.inside_bytes, supernet), (cost.alone_bytes, plain)):
            assert bytes_of(model) + kept <= peak <= 2 * bytes_of(model) + 3 * kept
    for before, after in ((costs[0].inside_bytes, costs[1].inside_bytes), (costs[0].alone_bytes, costs[1].alone_bytes)):
        assert 1.2 * before < after < 2 * before  # activations double, weights do not


def test_a_smaller_network_takes_less_memory() -> None:
    space = SPACES["mobile"]
    supernet, images, labels = supernet_and_batch(space, 128)
    smallest = space.lower([0] * len(space.genes)).as_float()
    small, large = (step_cost(supernet, network, images, labels, None, 1) for network in (smallest, biggest(space)))
    assert small.inside_bytes < large.inside_bytes
    assert small.alone_bytes < large.alone_bytes


@pytest.mark.parametrize("name", EXAMPLES)
def test_both_ways_are_the_same_step(name: str) -> None:
    """Equal losses; the gradients that measuring left in the supernet are those of that loss."""
    space = EXAMPLES[name](FLOATS)
    supernet, images, labels = supernet_and_batch(space, 16)
    network = space.lower(largest(space).tolist()).as_float()
    labels = labels % network.layers[-1].out_shape[0]
    cost = step_cost(supernet, network, images, labels, None, 2)
    assert cost.inside_s > 0
    assert cost.alone_s > 0
    left = {name: parameter.grad for name, parameter in supernet.named_parameters()}
    supernet.zero_grad(set_to_none=True)
    plain = extract(supernet, network, supernet.statistics(network, images)).train()
    inside, alone = (F.cross_entropy(logits, labels) for logits in (supernet(images, network), plain(images)))
    assert torch.equal(inside, alone)
    inside.backward()
    trained = 0
    for key, parameter in supernet.named_parameters():
        grad = left[key]
        assert (grad is None) == (parameter.grad is None), key
        if grad is not None and parameter.grad is not None:
            assert torch.equal(grad, parameter.grad), key
            trained += 1
    assert trained > 3


def test_products_can_be_cheaper_ones() -> None:
    """In bfloat16 the activations that wait for backward take half of the bytes."""
    space = SPACES["mlp"]
    supernet, images, labels = supernet_and_batch(space, 512)
    supernet.float()
    full, half = (step_cost(supernet, biggest(space), images.float(), labels, as_, 1) for as_ in (None, torch.bfloat16))
    assert half.inside_bytes < full.inside_bytes
    assert half.alone_bytes < full.alone_bytes
