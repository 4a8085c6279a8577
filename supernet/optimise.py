"""The loss, the optimizer, the learning rate and the running average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from supernet.settings import Training

MOMENTUM = 0.9


def distilled_loss(
    logits: Tensor, labels: Tensor, teacher: Tensor | None, weight: float, smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy against the labels and, with `weight`, against a teacher's soft labels (Hinton et al. 2015).

    Args:
        logits: Shape (n, classes).
        labels: Shape (n,).
        teacher: The teacher's logits, shape (n, classes); None for no teacher.
        weight: Of the soft labels, in [0, 1].
        smoothing: Share of the hard labels spread over all classes (Szegedy et al. 2016, section 7).
    """
    if teacher is not None and weight == 1:
        return F.cross_entropy(logits, teacher.softmax(1))
    hard = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    if teacher is None or weight == 0:
        return hard
    return (1 - weight) * hard + weight * F.cross_entropy(logits, teacher.softmax(1))


def fresh_optimizer(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    """An optimizer without a past. Weights of products decay; BatchNorm, biases and kernel transforms do not."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for name, p in named if name.endswith(".weight")], "weight_decay": training.weight_decay},
        {"params": [p for name, p in named if not name.endswith(".weight")], "weight_decay": 0.0},
    ]
    if training.optimizer == "sgd":
        sgd = torch.optim.SGD(groups, training.learning_rate, momentum=MOMENTUM, nesterov=True, fused=True)
        for _, parameter in named:  # the fused step wants them of all, and a sampled network has not all parameters
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return sgd
    return torch.optim.AdamW(groups, training.learning_rate, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def set_cosine_rate(optimizer: torch.optim.Optimizer, peak: float, progress: float) -> None:
    """Anneal the learning rate from `peak` at progress 0 to zero at progress 1."""
    set_rate(optimizer, peak * 0.5 * (1 + math.cos(math.pi * progress)))


class Average:
    """Exponential moving average of parameters, which starts at what they are."""

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        self.live = list(parameters)
        self.decay, self.values = decay, [parameter.detach().clone() for parameter in self.live]

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Take in the parameters after so many steps; early on the average forgets faster."""
        decay = min(self.decay, (1 + steps) / (10 + steps))
        get_ema_multi_avg_fn(decay)(self.values, self.live, 0)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def apply(self) -> None:
        """Put the average in the parameters' place."""
        copy_into(self.live, self.values)


@torch.no_grad()
def copy_into(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Overwrite tensors with others of the same shapes."""
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


@torch.no_grad()
def all_finite(parameters: Iterable[Tensor]) -> bool:
    """Whether every value is finite; waits for the device once."""
    return bool(torch.stack([parameter.isfinite().all() for parameter in parameters]).all())
