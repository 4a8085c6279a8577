"""Subnets in affine numbers: their designs against integer arithmetic, and steps that are learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_supernets import EXAMPLES, MIXED, QUANTIZED, some_images, some_networks, supernet_of

from nas.affine import Affine, multipliers, reading_together, rescale
from nas.design import Design
from nas.fixed_point import FixedPoint, quantize
from nas.genotype import FloatArray, IntArray
from nas.network import Add, Conv2d, Linear, Mean, Network
from supernet.data.tensor_split import TensorSplit
from supernet.evaluate import FineTuning, design_logits, fine_tune
from supernet.formats import Formats
from supernet.run import fit
from supernet.settings import Numbers
from supernet.subnet import Subnet, from_design

AFFINE = Formats("affine")
TUNING = FineTuning(epochs=2, batch=16, learning_rate=0.02, distillation=0.0, gradient="lsq")


def integer_logits(design: Design, images: FloatArray) -> FloatArray:
    """The network in integers alone: products, sums and `rescale`; the images are quantized by those that read them."""
    known: dict[str, tuple[IntArray, FloatArray]] = {}

    def read(name: str, act: Affine) -> IntArray:
        if name not in known:
            return quantize(images, act)
        integers, steps = known[name]
        factors = (steps / act.step).reshape(1, -1, *(1,) * (integers.ndim - 2))
        return rescale(integers, multipliers(factors), act)

    for layer in design.network.layers[1:]:
        act = design.numbers[layer.name].act
        assert isinstance(act, Affine)
        reads = [read(name, act) for name in layer.inputs]
        same = np.full(layer.out_shape[0], act.step)
        match layer:
            case Conv2d() | Linear():
                weight, bias = design.weight_integers(layer.name), design.bias_integers(layer.name)
                sums = products(layer, weight, reads[0]) + bias.reshape(1, -1, *(1,) * (len(layer.out_shape) - 1))
                known[layer.name] = activated(layer, sums), design.product_steps(layer.name)
            case Add():
                known[layer.name] = activated(layer, reads[0] + reads[1]), same
            case Mean():
                known[layer.name] = reads[0].sum(axis=(2, 3)), same / np.prod(layer.in_shape[1:])
            case _:
                raise AssertionError(layer)
    integers, steps = known[design.network.layers[-1].name]
    return np.asarray(integers * steps)


def products(layer: Conv2d | Linear, weight: IntArray, x: IntArray) -> IntArray:
    """In double precision, in which these integers are exact."""
    values, weights = torch.from_numpy(x).double(), torch.from_numpy(weight).double()
    if isinstance(layer, Linear):
        return F.linear(values, weights).long().numpy()
    sums = F.conv2d(values, weights, None, layer.stride, layer.kernel // 2, 1, layer.groups)
    return sums.long().numpy()


def activated(layer: Conv2d | Linear | Add, integers: IntArray) -> IntArray:
    assert layer.activation in ("relu", "identity")
    return np.maximum(integers, 0) if layer.activation == "relu" else integers


def labelled(network: Network, count: int, seed: int) -> TensorSplit:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand((count, *network.input.out_shape), generator=generator)
    return TensorSplit(images, torch.randint(network.layers[-1].out_shape[0], (count,), generator=generator))


@pytest.mark.parametrize("tuned", [False, True])
@pytest.mark.parametrize("example", ["mobile", "mlp", "deepsets"])
def test_logits_are_those_of_integer_arithmetic(example: str, tuned: bool) -> None:
    """A value rounded otherwise anywhere would show: the steps of the logits are far wider than the tolerance."""
    space = EXAMPLES[example](QUANTIZED)
    calibration, unseen = some_images(space, 64, 0), 1.5 * some_images(space, 64, 1) - 0.2
    for seed, network in enumerate(some_networks(space, 2 if tuned else 4, 0)):
        subnet = supernet_of(space, seed).float().specialise(network, calibration.float(), AFFINE)
        if tuned:
            fine_tune(subnet, None, labelled(network, 64, seed), TUNING, seed)
        design, images = subnet.design(), fit(unseen, network.input.out_shape).numpy()
        logits = design_logits(design, images)
        assert logits.std() > 0
        np.testing.assert_allclose(logits, integer_logits(design, images), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("precision", [QUANTIZED, MIXED])
@pytest.mark.parametrize("example", EXAMPLES)
def test_a_design_gives_the_subnet_back(example: str, precision: object) -> None:
    space = EXAMPLES[example](precision)  # type: ignore[arg-type]
    images = some_images(space, 32, 3)
    for network in some_networks(space, 3, 3):
        subnet = supernet_of(space, 3).specialise(network, images, AFFINE)
        design = subnet.design()
        back = from_design(design)
        assert torch.equal(back(images), subnet(images))
        for layer in network.layers[1:]:
            one, two = design.numbers[layer.name], back.design().numbers[layer.name]
            assert one.act == two.act
            for key in ("weight", "bias", "weight_frac", "weight_steps"):
                assert np.array_equal(getattr(one, key), getattr(two, key))


@pytest.mark.parametrize("numbers", ["fixed", "affine"])
@pytest.mark.parametrize("example", ["mobile", "squeezed", "resnet"])
def test_learned_steps_land_in_the_design(example: str, numbers: Numbers) -> None:
    space = EXAMPLES[example](QUANTIZED)
    images, moved = some_images(space, 32, 3), 0
    for network in some_networks(space, 2, 3):
        subnet = supernet_of(space, 3).float().specialise(network, images.float(), Formats(numbers))
        before = subnet.design()
        fine_tune(subnet, None, labelled(network, 64, 4), TUNING, 0)
        subnet.double()
        after = subnet.design()
        assert torch.equal(from_design(after)(images), subnet(images))
        for layer in network.layers[1:]:
            one, two = before.numbers[layer.name].act, after.numbers[layer.name].act
            assert isinstance(two, FixedPoint if numbers == "fixed" else Affine)
            assert one is not None
            assert (one.bits, one.low, one.high) == (two.bits, two.low, two.high)
            assert numbers == "affine" or one == two
            moved += one.step != two.step
        for layer in network.weighted:
            assert (after.numbers[layer.name].weight_frac is not None) == (numbers == "fixed")
            assert np.abs(after.weight_integers(layer.name)).max() < 2 ** (layer.precision.weight_bits - 1)
            after.bias_integers(layer.name)
    assert moved > 3 or numbers == "fixed"


@pytest.mark.parametrize("example", ["mobile", "squeezed", "resnet"])
def test_a_tensor_is_read_in_one_format_also_once_that_is_learned(example: str) -> None:
    space = EXAMPLES[example](QUANTIZED)
    network = uniform(space.maximal()[-1])
    subnet = supernet_of(space, 0).float().specialise(network, some_images(space, 32, 0).float(), AFFINE)
    for _ in range(2):
        design, together = subnet.design(), reading_together(network)
        formats: dict[str, set[object]] = {}
        for name, first in together.items():
            formats.setdefault(first, set()).add(design.numbers[name].act)
        assert all(len(found) == 1 for found in formats.values())
        assert len(formats) < len(together)
        fine_tune(subnet, None, labelled(network, 32, 0), TUNING, 0)


def uniform(network: Network) -> Network:
    """All layers with the precision of the last one."""
    precision = network.layers[-1].precision  # type: ignore[union-attr]
    return Network((network.layers[0], *(replace(layer, precision=precision) for layer in network.layers[1:])))  # type: ignore[type-var]


def test_gradients_of_a_subnet_are_a_choice() -> None:
    space = EXAMPLES["mlp"](QUANTIZED)
    network, images = uniform(space.maximal()[-1]), some_images(space, 32, 0).float()
    found: list[Subnet] = []
    for gradient in ("clipped", "identity", "lsq"):
        subnet = supernet_of(space, 0).float().specialise(network, images, AFFINE)
        fine_tune(subnet, None, labelled(network, 64, 0), replace(TUNING, gradient=gradient), 0)
        assert bool(subnet.learned) == (gradient == "lsq")
        found.append(subnet)
    logits = [subnet(images) for subnet in found]
    assert not any(torch.equal(one, other) for one, other in zip(logits, [*logits[1:], logits[0]], strict=True))


@pytest.mark.parametrize("chosen", [Formats("affine", "percentile"), Formats("fixed", "minmax")])
def test_no_epochs_leave_a_network_as_it_was_calibrated(chosen: Formats) -> None:
    space = EXAMPLES["mlp"](QUANTIZED)
    network, images = space.maximal()[-1], some_images(space, 64, 0).float()
    subnet = supernet_of(space, 0).float().specialise(network, images, chosen)
    before = subnet(images)
    fine_tune(subnet, None, labelled(network, 32, 0), replace(TUNING, epochs=0), 0)
    assert torch.equal(subnet(images), before)
    assert not torch.equal(supernet_of(space, 0).float().specialise(network, images)(images), before)
