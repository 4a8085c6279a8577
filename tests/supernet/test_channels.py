"""Sorting channels against loops over single weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_supernets import EXAMPLES, FLOATS, some_images, supernet_of

from nas.genotype import SearchSpace, canonical, choice_counts, largest
from nas.network import Add, Conv2d, Input, Mean, Network
from supernet.channels import Group, channel_groups, sort_channels
from supernet.elastic import Supernet


def full_width(space: SearchSpace, count: int) -> list[Network]:
    """Networks of every depth and kernel, all widths at their largest."""
    population = np.random.default_rng(0).integers(0, choice_counts(space), (count, len(space.genes)))
    for column, gene in enumerate(space.genes):
        if gene.kind in ("width", "sparsity"):
            population[:, column] = largest(space)[column]
    return [space.lower(genotype) for genotype in canonical(space, population).tolist()]


def importance(supernet: Supernet, readers: list[str]) -> list[float]:
    """Sum of the magnitudes of all weights that read each channel."""
    weights = [supernet.layer(reader).weight.detach() for reader in readers]
    return [
        sum(float(row[channel].abs().sum()) for w in weights for row in w) for channel in range(weights[0].shape[1])
    ]


READERS = {
    "mobile": [
        *([f"{block}.project"] for block in ("s1.b1", "s1.b2", "s2.b1", "s2.b2", "s2.b3")),
        ["s1.b1.expand", "s1.b2.expand", "s2.b1.expand"],
        ["s2.b2.expand", "s2.b3.expand", "head"],
    ],
    "narrow": [
        *([f"{block}.project"] for block in ("s1.b1", "s1.b2", "s2.b1")),
        ["s1.b1.expand"],
        ["s1.b2.expand", "s2.b1.expand"],
        ["head"],
    ],
    "squeezed": [
        *([f"{block}.squeeze.reduce", f"{block}.project"] for block in ("s2.b1", "s2.b2", "s3.b1", "s3.b2")),
        *([f"{block}.squeeze.gates"] for block in ("s2.b1", "s2.b2", "s3.b1", "s3.b2")),
        ["s1.b1.project", "s1.b2.project", "s2.b1.expand"],
        ["s2.b2.expand", "s3.b1.expand", "s3.b2.expand", "final"],
        ["features"],
        ["head"],
    ],
    "resnet": [
        *([f"{block}.conv"] for block in ("s1.b1", "s1.b2", "s2.b1", "s2.b2", "s2.b3")),
        *([f"{block}.restore"] for block in ("s1.b1", "s1.b2", "s2.b1", "s2.b2", "s2.b3")),
        ["stem.conv2", "stem.conv3"],
        ["s1.b1.reduce", "s1.b1.shortcut"],
        ["s1.b2.reduce", "s2.b1.reduce", "s2.b1.shortcut"],
        ["s2.b2.reduce", "s2.b3.reduce", "head"],
    ],
    "mlp": [["fc2", "head1"], ["fc3", "head2"], ["fc4"], ["head4"]],
    "deepsets": [["phi2", "latent2"], ["latent3"], ["rho1"], ["rho2", "head1"], ["head2"]],
    "interaction": [["edge2", "message2"], ["message3"], ["node1.received", "latent1.received"], ["latent2"], ["head"]],
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_tied_channels_form_one_group(example: str) -> None:
    groups = channel_groups(EXAMPLES[example](FLOATS).maximal())
    assert sorted(sorted(group.readers) for group in groups) == sorted(map(sorted, READERS[example]))


def test_channels_of_the_input_and_of_the_logits_keep_their_order() -> None:
    shape = (3, 4, 4)
    layers = (
        Input("input", shape),
        Conv2d("depthwise", ("input",), shape, shape, 3, 1, 3),
        Conv2d("inside", ("depthwise",), shape, shape, 3),
        Conv2d("side", ("inside",), shape, shape, 3),
        Add("skip", ("input", "side"), shape),
        Conv2d("last", ("inside",), shape, shape, 1),
        Conv2d("gated", ("skip",), shape, shape, 1),
        Add("sum", ("last", "gated"), shape),
        Mean("mean", ("sum",), shape),
    )
    assert channel_groups([Network(layers)]) == [Group(("inside",), ("side", "last"))]


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("seed", range(2))
def test_sorting_changes_no_network_of_full_width(example: str, seed: int) -> None:
    space = EXAMPLES[example](FLOATS)
    supernet, images = supernet_of(space, seed), some_images(space, 16, seed)
    networks = full_width(space, 8)
    assert len({tuple(layer.name for layer in network) for network in networks}) > 1
    before = [supernet(images, network) for network in networks]
    sort_channels(supernet, space.maximal())
    for network, logits in zip(networks, before, strict=True):
        torch.testing.assert_close(supernet(images, network), logits, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("example", EXAMPLES)
def test_importance_descends(example: str) -> None:
    space = EXAMPLES[example](FLOATS)
    supernet = supernet_of(space, 0)
    before = [importance(supernet, readers) for readers in READERS[example]]
    sort_channels(supernet, space.maximal())
    for readers, unsorted in zip(READERS[example], before, strict=True):
        assert importance(supernet, readers) == pytest.approx(sorted(unsorted, reverse=True), rel=1e-12)
    assert example == "narrow" or any(values != sorted(values, reverse=True) for values in before)


@pytest.mark.parametrize("example", EXAMPLES)
def test_sorting_again_changes_nothing(example: str) -> None:
    space = EXAMPLES[example](FLOATS)
    supernet = supernet_of(space, 0)
    sort_channels(supernet, space.maximal())
    once = {key: value.clone() for key, value in supernet.state_dict().items()}
    sort_channels(supernet, space.maximal())
    assert all(torch.equal(value, once[key]) for key, value in supernet.state_dict().items())
