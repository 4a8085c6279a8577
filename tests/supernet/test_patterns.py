"""Pruning patterns inside the supernet and in what is extracted from it, each against its definition."""

from __future__ import annotations

import copy
import dataclasses
import itertools

import numpy as np
import pytest
import torch
from small_supernets import EXAMPLES, some_images, some_networks, supernet_of
from torch import Tensor

from fpga import reference
from fpga.unrolling import products, unroll
from hw_models.onnx_model import to_onnx
from hw_models.onnx_runtime import predict
from nas.counts import nonzeros
from nas.fixed_point import quantize
from nas.genotype import SearchSpace
from nas.network import Network, Pattern, Weighted
from nas.pruning import pattern
from nas.spaces.precision import PrecisionChoices
from supernet.data.tensor_split import TensorSplit
from supernet.evaluate import FineTuning, design_logits, fine_tune
from supernet.plain import extract
from supernet.run import fit, run
from supernet.subnet import Subnet, _FoldedLayer, from_design

PATTERNS: tuple[Pattern, ...] = ("unstructured", "n_of_m", "channel")
SPARSITIES = (0.0, 0.25, 0.5, 0.75)
TUNING = FineTuning(epochs=2, batch=16, learning_rate=0.02, distillation=0.0)


@pytest.fixture(params=PATTERNS)
def asked(request: pytest.FixtureRequest) -> Pattern:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def folded(subnet: Subnet, layer: Weighted) -> _FoldedLayer:
    found = subnet.layers[layer.name.replace(".", "/")]
    assert isinstance(found, _FoldedLayer)
    return found


def sparse(example: str, asked: Pattern, bits: tuple[int, ...] = (32,)) -> SearchSpace:
    return EXAMPLES[example](PrecisionChoices(bits, tuple(max(3, b) for b in bits), SPARSITIES, asked))


def holds(layer: Weighted, kept: Tensor) -> bool:
    """Whether the weights that are kept, of `layer.weight_shape`, are so by the definition of the layer's pattern."""
    if int(kept.sum()) != nonzeros(layer):
        return False
    match pattern(layer):
        case "unstructured":
            return True
        case "n_of_m":
            groups = kept.reshape(layer.weight_shape[0], -1, 4, *layer.weight_shape[2:]).sum(2)
            return bool((groups == 4 - round(4 * layer.sparsity)).all())
        case "channel":
            return all(bool(channel.all()) or not bool(channel.any()) for channel in kept)


def test_masks_are_exact_of_their_pattern_and_nested(example: str, asked: Pattern) -> None:
    """What 75 % keeps, 50 % keeps too: of every form of every layer."""
    space, found = sparse(example, asked), set()
    supernet = supernet_of(space, 0)
    for network in some_networks(space, 4, 0):
        for layer in network.weighted:
            forms = [dataclasses.replace(layer, sparsity=sparsity) for sparsity in SPARSITIES]
            masks = [supernet.layer(layer.name).form(form)[0] != 0 for form in forms]
            assert all(holds(form, mask) for form, mask in zip(forms, masks, strict=True))
            assert not any(bool((sparser & ~denser).any()) for denser, sparser in itertools.pairwise(masks))
            found.add(pattern(layer))
    assert found == {asked, "unstructured"}


def test_channels_of_the_largest_gains_are_kept() -> None:
    space = sparse("resnet", "channel")
    supernet = supernet_of(space, 7)
    for layer in space.maximal()[0].weighted[:-1]:
        shared, out = supernet.layer(layer.name), layer.out_shape[0]
        with torch.no_grad():
            shared.gain.copy_(torch.linspace(-1, 0.7, out).roll(out // 3))
        pruned = dataclasses.replace(layer, sparsity=0.5)
        kept = shared.form(pruned)[0].flatten(1).any(1)
        assert shared.gain.abs()[kept].min() >= shared.gain.abs()[~kept].max()


def test_extracted_networks_equal_those_inside(example: str, asked: Pattern) -> None:
    space = sparse(example, asked)
    supernet, images = supernet_of(space, 1), some_images(space, 32, 1)
    for network in some_networks(space, 4, 1):
        inside = supernet(images, network, supernet.statistics(network, images))
        torch.testing.assert_close(supernet.specialise(network, images)(images), inside, rtol=1e-9, atol=1e-9)
        assert torch.equal(extract(supernet, network, supernet.statistics(network, images)).eval()(images), inside)


@pytest.mark.parametrize("example", ["mobile", "mlp", "deepsets"])
def test_designs_equal_integer_arithmetic_bit_for_bit(example: str, asked: Pattern) -> None:
    space = sparse(example, asked, (2, 4, 8))
    unseen = 1.5 * some_images(space, 64, 1) - 0.2
    for seed, network in enumerate(some_networks(space, 4, 2)):
        design = supernet_of(space, seed).specialise(network, some_images(space, 64, 0)).design()
        images = fit(unseen, network.input.out_shape).numpy()
        assert np.array_equal(design_logits(design, images), reference.run(design, images))
        for layer in network.weighted:
            assert design.nonzeros(layer.name) <= nonzeros(layer)


def outputs(subnet: Subnet, images: Tensor) -> dict[str, Tensor]:
    """What each weighted layer gives."""
    given: dict[str, Tensor] = {}

    def weighted(layer: Weighted, x: Tensor, _: object) -> Tensor:
        given[layer.name] = folded(subnet, layer)(x)
        return given[layer.name].clone()

    run(subnet.network, images, lambda layer, inputs: subnet.acts[layer.name], weighted)
    return given


@pytest.mark.parametrize("bits", [(32,), (4, 8)])
def test_pruned_channels_are_zero_and_only_those(example: str, bits: tuple[int, ...]) -> None:
    """Their bias goes too, so hardware may leave them out; logits and gates keep all of theirs."""
    space, seen = sparse(example, "channel", bits), 0
    images = some_images(space, 64, 3)
    for network in some_networks(space, 4, 3):
        subnet = supernet_of(space, 3).specialise(network, images)
        given = outputs(subnet, images)
        design = subnet.design()
        for layer in network.weighted:
            weight, bias = design.numbers[layer.name].weight, design.numbers[layer.name].bias
            assert weight is not None
            assert bias is not None
            if pattern(layer) != "channel":
                assert bits != (32,) or bool((bias != 0).all())  # bits may round one to 0
                continue
            gone = layer.out_shape[0] - nonzeros(layer) // int(np.prod(layer.weight_shape[1:]))
            empty = ~weight.reshape(len(weight), -1).any(1) & (bias == 0)
            assert empty.sum() >= gone if bits != (32,) else empty.sum() == gone
            assert not given[layer.name].transpose(0, 1)[torch.from_numpy(empty)].any()
            seen += int(gone)
        assert pattern(network.weighted[-1]) == "unstructured"
    assert seen


def labelled(network: Network, seed: int) -> TensorSplit:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand((64, *network.input.out_shape), generator=generator)
    return TensorSplit(images, torch.randint(network.layers[-1].out_shape[0], (64,), generator=generator))


@pytest.mark.parametrize("bits", [(32,), (8,)])
def test_fine_tuning_keeps_the_pattern(example: str, asked: Pattern, bits: tuple[int, ...]) -> None:
    space = sparse(example, asked, bits)
    network = some_networks(space, 1, 4)[0]
    subnet = supernet_of(space, 4).float().specialise(network, some_images(space, 64, 4).float())
    before = copy.deepcopy(subnet)
    fine_tune(subnet, None, labelled(network, 4), TUNING, 0)
    moved = 0
    for layer in network.weighted:
        old, new = folded(before, layer), folded(subnet, layer)
        assert holds(layer, old.mask != 0)
        assert torch.equal(old.mask, new.mask)
        assert not new.rounded()[0][old.mask == 0].any()
        if pattern(layer) == "channel":
            assert not new.rounded()[1][~(old.mask != 0).flatten(1).any(1)].any()
        moved += int((old.rounded()[0] != new.rounded()[0]).any())
    assert moved > len(network.weighted) / 2


def test_a_weight_that_happens_to_be_zero_is_trained(asked: Pattern) -> None:
    """A mask is that of the pattern, not that of the zeros."""
    space = sparse("mlp", asked)
    network = some_networks(space, 1, 5)[0]
    supernet = supernet_of(space, 5).float()
    with torch.no_grad():
        for layer in network.weighted:
            supernet.layer(layer.name).weight[:, ::2] = 0
            supernet.layer(layer.name).weight[1] = 0
    images = some_images(space, 64, 5).float()
    subnet = supernet.specialise(network, images)
    assert torch.allclose(subnet(images), supernet(images, network), rtol=1e-4, atol=1e-4)
    for layer in network.weighted:
        made = folded(subnet, layer)
        assert holds(layer, made.mask != 0)
        assert not bool(((made.weight != 0) & (made.mask == 0)).any())
    back = from_design(subnet.design())
    assert torch.equal(back(images.double()), subnet.double()(images.double()))
    assert all(holds(layer, folded(back, layer).mask != 0) for layer in network.weighted)


@pytest.mark.parametrize("example", ["mlp", "deepsets"])
def test_files_and_logic_carry_the_zeros(example: str, asked: Pattern) -> None:
    """ONNX Runtime and da4ml's adders give what the design gives; there is no adder for a zero."""
    floats, fixed = sparse(example, asked), sparse(example, asked, (4, 8))
    images = some_images(floats, 64, 6)
    design = supernet_of(floats, 6).specialise(some_networks(floats, 1, 6)[0], images).design()
    inputs = fit(images, design.network.input.out_shape).numpy()
    assert np.allclose(predict(to_onnx(design), inputs), design_logits(design, inputs), rtol=1e-4, atol=1e-4)

    design = supernet_of(fixed, 6).specialise(some_networks(fixed, 1, 6)[0], images).design()
    inputs = fit(images, design.network.input.out_shape).numpy()
    logic = unroll(design, [design.network.layers[-1].name])
    ports = [quantize(inputs, fmt).reshape(len(inputs), -1) * fmt.step for fmt in logic.formats]
    found = logic.comb.predict(np.concatenate(ports, axis=1), n_threads=1)
    assert np.array_equal(found, reference.run(design, inputs))
    assert products(design) <= sum(nonzeros(layer) * layer.positions for layer in design.network.weighted)
