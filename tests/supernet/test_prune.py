"""Masks against all masks there are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from nas.errors import NasError
from supernet.prune import channel_mask, channel_norm, n_of_m_mask, prune_mask

SHAPES = [(6, 8), (5, 4, 3, 3), (3, 12, 1, 1)]


def tied(*shape: int) -> Tensor:
    """Small integers: many magnitudes are equal, and their sums are exact."""
    return torch.from_numpy(np.random.default_rng(0).integers(-3, 4, shape).astype(np.float32))


def nested(masks: list[Tensor]) -> bool:
    return all(bool((small <= large).all()) for small, large in itertools.pairwise(masks))


def test_masks_keep_exactly_the_largest_and_are_nested() -> None:
    weight = tied(5, 4, 3, 3)
    masks = [prune_mask(weight, keep) for keep in range(1, weight.numel() + 1)]
    for keep, mask in enumerate(masks, 1):
        assert int(mask.sum()) == keep
        kept, dropped = weight.abs()[mask == 1], weight.abs()[mask == 0]
        assert keep == weight.numel() or kept.min() >= dropped.max()
    assert nested(masks)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 4), (1, 2)])
def test_each_group_keeps_the_best_of_all_its_masks(shape: tuple[int, ...], n: int, m: int) -> None:
    """Combinations come in lexical order, so that the first best one keeps the earlier of two ties."""
    weight = tied(*shape)
    mask = n_of_m_mask(weight, n, m)
    assert mask.shape == weight.shape
    assert int(mask.sum()) * m == weight.numel() * n
    for out, position in itertools.product(range(shape[0]), np.ndindex(*shape[2:])):
        for first in range(0, shape[1], m):
            at = (out, slice(first, first + m), *position)
            sizes = weight[at].abs().tolist()
            best = max(itertools.combinations(range(m), n), key=lambda kept: sum(sizes[i] for i in kept))
            assert mask[at].nonzero().flatten().tolist() == list(best)


@pytest.mark.parametrize("shape", SHAPES)
def test_denser_groups_keep_what_sparser_ones_keep(shape: tuple[int, ...]) -> None:
    masks = [n_of_m_mask(tied(*shape), n, 4) for n in (1, 2, 3, 4)]
    assert nested(masks)
    assert bool(masks[-1].all())


@pytest.mark.parametrize("shape", SHAPES)
def test_channels_of_the_largest_norm_are_kept_whole(shape: tuple[int, ...]) -> None:
    weight = tied(*shape)
    weight[1] = -weight[0].flip(0)
    norms = [float(np.abs(channel).sum()) for channel in weight.numpy()]
    assert norms[0] == norms[1]
    ranked = sorted(range(shape[0]), key=lambda channel: (-norms[channel], channel))
    masks = [channel_mask(weight, channel_norm(weight, torch.zeros(shape[0])), keep) for keep in range(1, shape[0] + 1)]
    for keep, mask in enumerate(masks, 1):
        assert mask.shape == weight.shape
        assert [bool(channel.all()) for channel in mask] == [channel in ranked[:keep] for channel in range(shape[0])]
        assert int(mask.sum()) == keep * weight[0].numel()
    assert nested(masks)


def test_a_channel_that_gives_something_comes_before_one_that_does_not() -> None:
    weight = torch.tensor([[0.0], [0.0], [1e-30], [0.0], [-2.0]])
    norm = channel_norm(weight, torch.tensor([0.0, 3.0, 0.0, -1.0, 0.5]))
    assert torch.equal(norm, torch.tensor([0.0, 3.0, 1e-30, 1.0, 2.5]))
    ranked = [1, 4, 3, 2, 0]
    for keep in range(1, 6):
        assert channel_mask(weight, norm, keep).flatten().nonzero().flatten().tolist() == sorted(ranked[:keep])


def test_every_mask_multiplies_a_weight_and_stops_the_gradient_of_its_zeros() -> None:
    weight = tied(4, 8).requires_grad_()
    for mask in (prune_mask(weight, 9), n_of_m_mask(weight, 2, 4), channel_mask(weight, weight[:, 0], 3)):
        assert mask.dtype == weight.dtype
        assert not mask.requires_grad
        (gradient,) = torch.autograd.grad((weight * mask).sum(), weight)
        assert torch.equal(gradient, mask)


@pytest.mark.parametrize(
    ("n", "m", "shape", "message"),
    [
        (2, 4, (3, 6, 3, 3), r"2:4 pruning: the inputs must be a multiple of 4; got 6 .*\(3, 6, 3, 3\); take 8 inputs"),
        (2, 4, (3, 1, 4, 4), "multiple of 4; got 1 .*take 4 inputs"),
        (5, 4, (3, 8), "n must be 1..m; got n 5, m 4; take 2:4"),
        (0, 4, (3, 8), "n must be 1..m; got n 0, m 4"),
    ],
)
def test_bad_groups_are_refused(n: int, m: int, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(NasError, match=message):
        n_of_m_mask(torch.ones(shape), n, m)


@pytest.mark.parametrize("keep", [0, 4])
def test_bad_channel_counts_are_refused(keep: int) -> None:
    with pytest.raises(NasError, match=rf"keep must be 1\.\.3, the output channels; got {keep}, take 3"):
        channel_mask(torch.ones(3, 2), torch.ones(3), keep)
