"""Batch normalisation against torch's modules, and over processes against one process with the whole batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import two_processes
from torch import Tensor, nn

from supernet.batch_norm import EPS, fold, measure, moments, normalise

SHAPES = [(7, 3), (4, 3, 5, 2)]


def some(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = 3 + 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    gain, bias = torch.randn((2, shape[1]), generator=generator, dtype=torch.float64)
    return y, gain, bias


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("training", [True, False])
def test_outputs_are_those_of_torchs_modules(shape: tuple[int, ...], training: bool) -> None:
    y, gain, bias = some(shape)
    given = (bias.abs(), gain.square())
    module = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(3, EPS, dtype=torch.float64).train(training)
    state = {"weight": gain, "bias": bias, "running_mean": given[0], "running_var": given[1]}
    module.load_state_dict(state, strict=False)
    expected = module(y)
    assert torch.equal(normalise(y, gain, bias, None if training else given, False), expected)
    if training:
        output, by = measure(y, gain, bias)
        assert torch.equal(output, expected)
        torch.testing.assert_close(normalise(y, gain, bias, by, False), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_moments_and_their_gradients(shape: tuple[int, ...]) -> None:
    y = some(shape)[0].requires_grad_()
    mean, variance = moments(y, False)
    flat = y.transpose(0, 1).flatten(1)
    torch.testing.assert_close(mean, flat.mean(1))
    torch.testing.assert_close(variance, flat.var(1, correction=0))
    assert torch.autograd.gradcheck(lambda values: moments(values, False), y)


def test_moments_of_half_precision_are_wide() -> None:
    y = torch.randn(64, 3, 4, 4).bfloat16()
    for found, expected in zip(measure(y, None, None)[1], measure(y.float(), None, None)[1], strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_folding_a_product() -> None:
    x, (weight, gain, bias) = torch.rand(9, 3, dtype=torch.float64), some((3, 3))
    y = x @ weight.T
    by = moments(y, False)
    folded, shift = fold(weight, gain, bias, by)
    torch.testing.assert_close(x @ folded.T + shift, normalise(y, gain, bias, None, False))


def test_several_processes_equal_one_with_the_whole_batch(tmp_path: Path) -> None:
    """Parts of unequal size; a mean over other parts of the batch would differ."""
    bounds = [0, 10, two_processes.BATCH]
    torch.multiprocessing.spawn(two_processes.train, (str(tmp_path), bounds), len(bounds) - 1)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(len(bounds) - 1)]
    for (supernet, network), *results in zip(two_processes.cases(), *parts, strict=True):
        expected, gradients = two_processes.outcome(supernet, network, slice(None))
        close = {"rtol": 1e-9, "atol": 1e-9}
        torch.testing.assert_close(torch.cat([logits for logits, _, _ in results]), expected, **close)
        alone = supernet(two_processes.images()[: bounds[1]], network)
        assert not torch.allclose(alone, expected[: bounds[1]], rtol=1e-3)
        for _, found, _ in results:
            assert found.keys() == gradients.keys()
            for name, gradient in gradients.items():
                torch.testing.assert_close(found[name], gradient, **close)
        torch.testing.assert_close(results[0][2], supernet.statistics(network, two_processes.images()), **close)
