"""Many subnets at once against each alone, and fine-tuning of plain modules."""

from __future__ import annotations

import copy
import math
import weakref
from itertools import combinations
from typing import Literal

import numpy as np
import pytest
import torch
from small_supernets import EXAMPLES, FLOATS, MIXED, QUANTIZED, some_images, some_networks, supernet_of
from torch import Tensor, nn

from nas.genotype import SearchSpace, canonical, random_population
from nas.network import Network
from supernet.calibrate import Calibrations
from supernet.data.split import NONE, Augmentation
from supernet.data.tensor_split import TensorSplit
from supernet.evaluate import FineTuning, error, errors, fine_tune
from supernet.layout import channels_last
from supernet.plain import PlainNet, extract, fold
from supernet.run import Reader
from supernet.trie import merge, run_all, shared_order

PRECISIONS = {"floats": FLOATS, "quantized": QUANTIZED, "mixed": MIXED}
CPU = torch.device("cpu")


def related(space: SearchSpace, count: int, seed: int) -> list[Network]:
    """Networks that begin like others, for some genes or for all, in random order."""
    rng = np.random.default_rng(seed)
    population = random_population(space, count, rng)
    for row in range(2, count):
        genes = rng.integers(population.shape[1] + 1)
        population[row, :genes] = population[rng.integers(row), :genes]
    return [space.lower(genotype) for genotype in rng.permutation(canonical(space, population)).tolist()]


def described(network: Network) -> list[str]:
    """Each layer, spelled out with all that it depends on."""
    found: dict[str, str] = {}
    for layer in network:
        found[layer.name] = f"{layer!r} of [{', '.join(found[source] for source in layer.inputs)}]"
    return list(found.values())


def random_split(network: Network, count: int, seed: int) -> TensorSplit:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, *network.input.out_shape), generator=generator, dtype=torch.uint8)
    return TensorSplit(images, torch.randint(network.layers[-1].out_shape[0], (count,), generator=generator))


def labelled_images(space: SearchSpace, count: int, seed: int) -> TensorSplit:
    """Images that all networks of a space can read, sets of as many members as the largest takes."""
    return TensorSplit(some_images(space, count, seed).float(), random_split(space.maximal()[0], count, seed).labels)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("example", EXAMPLES)
def test_many_subnets_equal_each_alone_bit_for_bit(example: str, precision: str) -> None:
    space = EXAMPLES[example](PRECISIONS[precision])
    supernet, networks = supernet_of(space, 0), related(space, 8, 0)
    calibration, unseen = some_images(space, 24, 0), some_images(space, 12, 1)
    calibrations = Calibrations(supernet, networks, calibration)
    logits = dict(calibrations.logits(unseen))
    assert sorted(logits) == list(range(8))
    for index, network in enumerate(networks):
        alone, shared = supernet.specialise(network, calibration), calibrations.specialise(index)
        assert shared.network == network
        assert shared.acts == alone.acts
        states = alone.state_dict(), shared.state_dict()
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
        assert logits[index].std() > 0
        assert torch.equal(logits[index], alone(unseen))


@pytest.mark.parametrize("example", EXAMPLES)
def test_each_distinct_layer_is_computed_once(example: str) -> None:
    networks = related(EXAMPLES[example](MIXED), 40, 1)
    distinct = {text for network in networks for text in described(network)}
    walk = merge(networks)
    assert len(walk.visits) == len(distinct) < sum(len(network.layers) for network in networks)
    for network, places in zip(networks, walk.places, strict=True):
        assert tuple(walk.visits[place].layer for place in places) == network.layers


def test_networks_of_two_resolutions_share_nothing() -> None:
    space = EXAMPLES["squeezed"](FLOATS)
    low, high = (next(n for n in some_networks(space, 20, 2) if n.input.out_shape[1] == edge) for edge in (6, 9))
    walk = merge([low, high])
    assert len(walk.visits) == len(low.layers) + len(high.layers)
    supernet, calibration = supernet_of(space, 2), some_images(space, 24, 2)
    for index, logits in Calibrations(supernet, [low, high], calibration).logits(calibration):
        assert torch.equal(logits, supernet.specialise((low, high)[index], calibration)(calibration))


def test_equal_networks_are_computed_once() -> None:
    space = EXAMPLES["mobile"](QUANTIZED)
    one, other = related(space, 2, 3)
    walk = merge([one, other, one, one])
    assert len(walk.visits) == len(merge([one, other]).visits)
    split = random_split(one, 50, 3)
    supernet = supernet_of(space, 3).float()
    found = errors(Calibrations(supernet, [one, other, one, one], split.first(32, CPU)), split)
    assert found[0] == found[2] == found[3]
    assert found[0] != found[1]


@pytest.mark.parametrize("example", EXAMPLES)
def test_errors_equal_each_error_alone(example: str) -> None:
    space = EXAMPLES[example](MIXED)
    networks, supernet = related(space, 12, 4), supernet_of(space, 4).float()
    split = labelled_images(space, 75, 4)
    images = split.first(32, CPU)
    found = errors(Calibrations(supernet, networks, images), split, batch=16)
    assert found == [error(supernet.specialise(network, images), split, batch=16) for network in networks]
    assert len(set(found)) > 2


def test_images_of_one_channel_are_computed_channels_last() -> None:
    """Both layouts are one there, and torch takes the slow one; whatever it takes, it has to be the same for all."""
    space = EXAMPLES["mobile"](FLOATS)
    networks = related(space, 12, 10)
    supernet = supernet_of(space, 10).float().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = random_split(networks[0], 40, 10).first(40, CPU)
    laid_out = channels_last(images)
    assert torch.equal(laid_out, images)
    assert laid_out.data_ptr() == images.data_ptr()
    wide = channels_last(torch.rand(2, 3, 4, 5))
    assert nn.functional.conv2d(laid_out, torch.rand(3, 1, 3, 3)).stride()[1] == wide.stride()[1] == 1
    assert channels_last(wide).data_ptr() == wide.data_ptr()
    for index, logits in Calibrations(supernet, networks, laid_out).logits(laid_out):
        assert torch.equal(logits, supernet.specialise(networks[index], laid_out)(laid_out))


def test_an_error_does_not_depend_on_the_batches() -> None:
    """In fixed point every sum is exact, so not one answer may differ."""
    space = EXAMPLES["squeezed"](QUANTIZED)
    network = related(space, 1, 5)[0]
    split = random_split(network, 75, 5)
    subnet = supernet_of(space, 5).float().specialise(network, split.first(32, CPU))
    wrong = int((subnet(split.first(75, CPU)).argmax(1) != split.labels).sum())
    assert 0 < wrong < 75
    assert {error(subnet, split, batch) for batch in (1, 7, 75, None)} == {wrong / 75}


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_walk_holds_what_somebody_still_reads(example: str) -> None:
    walk = merge(related(EXAMPLES[example](FLOATS), 30, 6))
    sizes = [math.prod(visit.layer.out_shape) for visit in walk.visits]
    readers = [[p for p, visit in enumerate(walk.visits) if q in visit.inputs] for q in range(len(sizes))]
    held = [sum(sizes[q] for q in range(p + 1) if q == p or max(readers[q], default=q) >= p) for p in range(len(sizes))]
    assert walk.values_held == max(held)

    alive: list[weakref.ref[Tensor]] = []
    most = 0

    def compute(place: int, layer: Reader, inputs: list[Tensor]) -> Tensor:
        nonlocal most
        output = torch.zeros(2, *layer.out_shape)
        alive.append(weakref.ref(output))
        tensors = [tensor for ref in alive if (tensor := ref()) is not None]
        most = max(most, sum(tensor.numel() for tensor in tensors))
        return output

    for _ in run_all(walk, torch.zeros(2, *walk.visits[0].layer.out_shape), compute):
        pass
    assert most <= 2 * walk.values_held
    assert sum(ref() is not None for ref in alive) <= 1  # the last logits, which the loop variable holds


@pytest.mark.parametrize("example", EXAMPLES)
def test_neighbours_in_order_have_most_in_common(example: str) -> None:
    networks = related(EXAMPLES[example](MIXED), 25, 7)
    order = shared_order(networks)
    assert sorted(order) == list(range(25))
    ordered = [networks[index].layers for index in order]

    def common(one: int, other: int) -> int:
        pairs = zip(ordered[one], ordered[other], strict=False)
        return next((depth for depth, (a, b) in enumerate(pairs) if a != b), len(ordered[one]))

    assert all(common(i, k) <= min(common(i, j), common(j, k)) for i, j, k in combinations(range(25), 3))


def plain(space: SearchSpace, seed: int) -> tuple[PlainNet, TensorSplit]:
    network = related(space, 1, seed)[0].as_float()
    supernet, split = supernet_of(space, seed).float(), random_split(network, 64, seed)
    return extract(supernet, network, supernet.statistics(network, split.first(64, CPU))), split


@pytest.mark.parametrize("example", ["resnet", "mlp"])
@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.03), ("adamw", 0.01)])
def test_a_plain_module_is_fine_tuned_with_its_batchnorm(
    example: str, optimizer: Literal["sgd", "adamw"], rate: float
) -> None:
    first, split = plain(EXAMPLES[example](FLOATS), 8)
    again, start = copy.deepcopy(first), loss(first.eval(), split)
    tuning = FineTuning(8, 16, rate, 0.0, optimizer=optimizer)
    for each in (first, again):
        fine_tune(each, None, split, tuning, 0)
        assert not each.training
    assert loss(first, split) < 0.85 * start
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    images = split.first(64, CPU)
    torch.testing.assert_close(fold(first)(images), first(images), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def loss(module: nn.Module, split: TensorSplit) -> float:
    return float(nn.functional.cross_entropy(module(split.first(len(split), CPU)), split.labels))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_only_weights_of_products_decay(optimizer: Literal["sgd", "adamw"]) -> None:
    """Nothing but decay moves a model whose gradient is zero."""

    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.core, self.norm = nn.Linear(6, 5), nn.BatchNorm1d(5)
            nn.init.ones_(self.core.bias)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.norm(self.core(x))
            return 0 * logits

    module = Frozen()
    before = {name: value.clone() for name, value in module.named_parameters()}
    split = TensorSplit(torch.rand(32, 6), torch.randint(5, (32,)))
    fine_tune(module, None, split, FineTuning(2, 16, 0.1, 0.0, NONE, optimizer, 0.5), 0)
    for name, value in module.named_parameters():
        if name == "core.weight":
            assert (value.abs() < 0.95 * before[name].abs()).all()
        else:
            assert torch.equal(value, before[name])


def test_fine_tuning_sees_every_image_of_every_epoch_augmented() -> None:
    class Recorder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(5))
            self.seen: list[Tensor] = []

        def forward(self, images: Tensor) -> Tensor:
            self.seen.append(images)
            return self.bias.expand(len(images), 5)

    images = torch.zeros(12, 1, 5, 5)
    images[:, 0, 2, 2] = torch.arange(1.0, 13)
    module = Recorder()
    split = TensorSplit(images, torch.zeros(12, dtype=torch.int64))
    fine_tune(module, None, split, FineTuning(3, 4, 0.1, 0.0, Augmentation(shift=2)), 0)
    seen = torch.stack(module.seen)
    epochs = seen.flatten(2).amax(2).view(3, 12)
    assert all(sorted(epoch.tolist()) == list(range(1, 13)) for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 3
    assert len(set(seen.flatten(2).argmax(2).flatten().tolist())) > 10


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("example", EXAMPLES)
def test_a_gpu_gives_the_same_errors_together_as_alone(example: str) -> None:
    device = torch.device("cuda")
    space = EXAMPLES[example](MIXED)
    networks, supernet = related(space, 12, 9), supernet_of(space, 9).float().to(device)
    split = labelled_images(space, 75, 9)
    images = split.first(32, device)
    found = errors(Calibrations(supernet, networks, images), split)
    assert found == [error(supernet.specialise(network, images), split) for network in networks]
