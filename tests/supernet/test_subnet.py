"""Extracted subnets: their designs against integer arithmetic, and what fine-tuning keeps."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from small_supernets import EXAMPLES, FLOATS, MIXED, QUANTIZED, some_images, some_networks, supernet_of

from fpga import reference
from nas.counts import nonzeros
from nas.design import Design
from nas.network import Network
from supernet.data.tensor_split import TensorSplit
from supernet.evaluate import FineTuning, design_logits, error, fine_tune
from supernet.run import fit
from supernet.subnet import Subnet, from_design

TUNING = FineTuning(epochs=2, batch=16, learning_rate=0.02, distillation=0.5)


def extracted(example: str, network: Network | None = None, seed: int = 0) -> Subnet:
    """A random quantized subnet in float32, as every run has them."""
    space = EXAMPLES[example](QUANTIZED)
    network = network or some_networks(space, 1, seed)[0]
    return supernet_of(space, seed).float().specialise(network, some_images(space, 64, seed).float())


def labelled(subnet: Subnet, count: int, seed: int) -> TensorSplit:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand((count, *subnet.network.input.out_shape), generator=generator)
    classes = subnet.network.layers[-1].out_shape[0]
    return TensorSplit(images, torch.randint(classes, (count,), generator=generator))


@pytest.mark.parametrize("example", ["mobile", "mlp", "deepsets", "interaction"])
@pytest.mark.parametrize("single", [True, False])
def test_logits_equal_integer_arithmetic_bit_for_bit(example: str, single: bool) -> None:
    space = EXAMPLES[example](QUANTIZED)
    calibration, unseen = some_images(space, 64, 0), 1.5 * some_images(space, 64, 1) - 0.2
    for seed, network in enumerate(some_networks(space, 8, 0)):
        supernet = supernet_of(space, seed)
        if single:
            design = supernet.float().specialise(network, calibration.float()).design()
        else:
            design = supernet.specialise(network, calibration).design()
        images = fit(unseen, network.input.out_shape).numpy()
        logits = design_logits(design, images)
        assert logits.dtype == np.float64
        assert logits.std() > 0
        assert np.array_equal(logits, reference.run(design, images))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("example", ["mobile", "mlp", "deepsets", "interaction"])
def test_a_gpu_gives_the_very_logits_of_the_cpu(example: str) -> None:
    for seed in range(8):
        design = extracted(example, seed=seed).design()
        images = fit(some_images(EXAMPLES[example](QUANTIZED), 64, seed), design.network.input.out_shape).numpy()
        assert np.array_equal(design_logits(design, images, torch.device("cuda")), design_logits(design, images))


@pytest.mark.parametrize("example", EXAMPLES)
def test_numbers_are_on_the_grids_a_design_demands(example: str) -> None:
    zeros = 0
    for seed in range(10):
        design = extracted(example, seed=seed).design()
        for layer in design.network.weighted:
            top = 2 ** (layer.precision.weight_bits - 1) - 1
            integers, bias = design.weight_integers(layer.name), design.bias_integers(layer.name)
            assert np.abs(integers).max() <= top
            assert bias.shape == layer.out_shape[:1]
            act = design.numbers[layer.name].act
            assert act is not None
            assert act.bits == layer.precision.act_bits
            assert design.nonzeros(layer.name) <= nonzeros(layer)
            zeros += layer.sparsity > 0
    assert zeros > 10


@pytest.mark.parametrize("precision", [FLOATS, QUANTIZED, MIXED])
@pytest.mark.parametrize("example", EXAMPLES)
def test_a_design_gives_the_subnet_back(example: str, precision: object) -> None:
    space = EXAMPLES[example](precision)  # type: ignore[arg-type]
    images = some_images(space, 32, 3)
    for network in some_networks(space, 6, 3):
        subnet = supernet_of(space, 3).specialise(network, images)
        back = from_design(subnet.design())
        assert torch.equal(back(images), subnet(images))
        assert_equal(back.design(), subnet.design())


def assert_equal(first: Design, second: Design) -> None:
    for layer in first.network.layers[1:]:
        one, two = first.numbers[layer.name], second.numbers[layer.name]
        assert one.act == two.act
        for key in ("weight", "bias", "weight_frac"):
            assert np.array_equal(getattr(one, key), getattr(two, key))


def test_a_design_owns_its_numbers() -> None:
    space = EXAMPLES["mlp"](MIXED)
    for subnet in (supernet_of(space, 0).specialise(n, some_images(space, 16, 0)) for n in some_networks(space, 8, 0)):
        design = subnet.design()
        kept = copy.deepcopy(design)
        with torch.no_grad():
            for value in subnet.state_dict().values():
                value += 1
        assert_equal(design, kept)


@pytest.mark.parametrize("example", EXAMPLES)
def test_pruned_weights_stay_zero_and_reach_the_design(example: str) -> None:
    space = EXAMPLES[example](FLOATS)
    for network in some_networks(space, 2, 4):
        subnet = supernet_of(space, 4).float().specialise(network, some_images(space, 64, 4).float())
        before = subnet.design()
        assert all(before.nonzeros(layer.name) == nonzeros(layer) for layer in network.weighted)
        fine_tune(subnet, copy.deepcopy(subnet), labelled(subnet, 64, 4), TUNING, 0)
        after, moved = subnet.design(), 0
        for layer in network.weighted:
            old, new = before.numbers[layer.name].weight, after.numbers[layer.name].weight
            assert old is not None
            assert new is not None
            assert not new[old == 0].any()
            moved += (old != new).any()
        assert moved > len(network.weighted) / 2


def test_fine_tuning_keeps_grids_and_formats() -> None:
    for seed, example in enumerate(EXAMPLES):
        subnet = extracted(example, seed=seed)
        before = subnet.design()
        fine_tune(subnet, copy.deepcopy(subnet), labelled(subnet, 64, 4), TUNING, 0)
        after = subnet.design()
        for layer in after.network.layers[1:]:
            assert after.numbers[layer.name].act == before.numbers[layer.name].act
        for layer in after.network.weighted:
            assert np.array_equal(after.numbers[layer.name].weight_frac, before.numbers[layer.name].weight_frac)
            assert np.abs(after.weight_integers(layer.name)).max() < 2 ** (layer.precision.weight_bits - 1)
            after.bias_integers(layer.name)


def test_fine_tuning_learns_and_follows_its_seed() -> None:
    space = EXAMPLES["mlp"](QUANTIZED)
    network = space.maximal()[-1]
    data = labelled(extracted("mlp", network), 64, 5)
    tuning = FineTuning(epochs=20, batch=16, learning_rate=0.03, distillation=0.0)
    first, again, other = (extracted("mlp", network) for _ in range(3))
    start = error(first, data)
    for subnet, seed in ((first, 0), (again, 0), (other, 1)):
        fine_tune(subnet, subnet, data, tuning, seed)
    assert error(first, data) < start / 2
    states = [subnet.state_dict() for subnet in (first, again, other)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])


def test_fine_tuning_listens_to_its_teacher() -> None:
    """With all weight on the teacher, its answers are learned and the labels are not."""
    network = EXAMPLES["mlp"](QUANTIZED).maximal()[-1].as_float()
    student, teacher = extracted("mlp", network, 0), extracted("mlp", network, 1)
    data = labelled(student, 96, 6)
    answers = teacher(data.images).argmax(1)
    assert error(student, TensorSplit(data.images, answers)) > 0.6
    fine_tune(student, teacher, data, FineTuning(30, 16, 0.02, 1.0), 0)
    assert error(student, TensorSplit(data.images, answers)) < 0.4
    assert error(student, data) > 0.6


def test_error_counts_wrong_answers() -> None:
    subnet = extracted("mlp")
    data = labelled(subnet, 50, 7)
    wrong = sum(
        int(subnet(image[None])[0].tolist().index(max(subnet(image[None])[0].tolist())) != label)
        for image, label in zip(data.images, data.labels.tolist(), strict=True)
    )
    assert error(subnet, data) == wrong / 50
