"""Losses, decay and the running average against formulas written out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_trainings import PROGRESSIVE, begin

from supernet.optimise import Average, all_finite, distilled_loss, fresh_optimizer, set_cosine_rate

LOGITS = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], dtype=torch.float64)
TEACHER = torch.tensor([[0.3, 1.0, -1.0], [2.0, -0.5, 0.0]], dtype=torch.float64)
LABELS = torch.tensor([2, 0])


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_mixes_hard_and_soft_labels(weight: float, smoothing: float) -> None:
    log, soft = LOGITS.log_softmax(1), TEACHER.softmax(1)
    hard = torch.nn.functional.one_hot(LABELS, 3).double() * (1 - smoothing) + smoothing / 3
    by_hard, by_soft = -(hard * log).sum(1).mean(), -(soft * log).sum(1).mean()
    found = distilled_loss(LOGITS, LABELS, TEACHER, weight, smoothing)
    assert float(found) == pytest.approx(float((1 - weight) * by_hard + weight * by_soft), rel=1e-12)
    assert float(distilled_loss(LOGITS, LABELS, None, weight, smoothing)) == pytest.approx(float(by_hard), rel=1e-12)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_only_weights_of_products_decay(kind: str) -> None:
    supernet = begin().supernet
    training = replace(PROGRESSIVE, optimizer=kind, weight_decay=0.5, learning_rate=0.1)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter += 1
    before = {name: parameter.detach().clone() for name, parameter in supernet.named_parameters()}
    optimizer = fresh_optimizer(supernet, training)
    for parameter in supernet.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    shrunk = 1 - 0.1 * 0.5 if kind == "adamw" else 1 - 0.1 * 0.5 * 1.9  # Nesterov: gradient plus 0.9 momentum
    for name, parameter in supernet.named_parameters():
        decays = name.endswith(".weight")
        assert torch.allclose(parameter, before[name] * (shrunk if decays else 1), rtol=1e-6), name
        assert decays == (name.split(".")[-1] == "weight")
    assert {name.split(".")[2] for name in before} == {"weight", "gain", "bias", "transforms"}


def test_the_average_is_exponential_and_forgets_its_start() -> None:
    parameter = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    average, expected = Average([parameter], 0.5), 1.0
    for step, value in enumerate([2.0, -1.0, 4.0, 0.5, 3.0, 2.5, 7.0, 1.0, 2.0, 6.0]):
        with torch.no_grad():
            parameter.fill_(value)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    average.apply()
    assert parameter.item() == pytest.approx(expected, rel=1e-12)


def test_one_bad_value_is_found() -> None:
    values = [torch.zeros(3), torch.zeros(2, 2)]
    assert all_finite(values)
    for bad in (torch.nan, torch.inf):
        values[1][1, 0] = bad
        assert not all_finite(values)


def test_the_rate_falls_along_a_cosine() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    for progress, share in ((0.0, 1.0), (1 / 3, 0.75), (0.5, 0.5), (1.0, 0.0)):
        set_cosine_rate(optimizer, 0.2, progress)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2 * share)
