"""Progressive shrinking: train the full network first, then let in ever smaller ones (Once-for-All, section 3.3).

Each phase opens more kinds of genes; the full network of the first phase teaches in all later ones. All randomness
of an epoch comes from (seed, phase, epoch), so a run killed and resumed equals an uninterrupted one, bit for bit.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nas.errors import NasError
from nas.genotype import GeneKind, SearchSpace, largest, opened, tilted_population
from nas.network import Network
from supernet.channels import sort_channels
from supernet.data import Split, batches, shift_images
from supernet.elastic import Supernet
from supernet.subnet import Subnet

PHASES: dict[str, tuple[GeneKind, ...]] = {
    "full": (),
    "kernel": ("kernel",),
    "depth": ("kernel", "depth"),
    "width": ("kernel", "depth", "width"),
    "precision": ("kernel", "depth", "width", "weight_bits", "act_bits", "sparsity"),
}


@dataclass(frozen=True)
class Training:
    """How a supernet is trained.

    Attributes:
        epochs: Epochs of each phase, by its name in `PHASES`.
        batch: Images per step.
        learning_rate: Peak of AdamW's rate; each phase anneals it by a cosine.
        weight_decay: AdamW's decoupled weight decay.
        distillation: Weight of the soft loss against the full network; the labels get the rest.
        subnets_per_step: Networks sampled per step; their gradients add up.
        shift: Augmentation, in pixels.
        calibration: Training images that give a subnet its BatchNorm statistics and activation formats.
    """

    epochs: dict[str, int]
    batch: int
    learning_rate: float
    weight_decay: float
    distillation: float
    subnets_per_step: int
    shift: int
    calibration: int


@dataclass(frozen=True)
class Epoch:
    """What one epoch did: its phase and its mean training loss."""

    phase: str
    epoch: int
    loss: float


class ProgressiveShrinking:
    """A supernet in training, with all that a checkpoint has to hold."""

    def __init__(self, space: SearchSpace, data: Split, training: Training, seed: int) -> None:
        """Start from random weights; `data` is the training split, and nothing else is ever read."""
        kernels = sorted({int(k) for gene in space.genes if gene.kind == "kernel" for k in gene.choices})
        self.space, self.data, self.training, self.seed = space, data, training, seed
        self.supernet = Supernet(space.maximal(), kernels, seed)
        self.full = space.lower(largest(space).tolist()).as_float()
        self.optimizer = self._fresh_optimizer()
        self.teacher: Subnet | None = None
        self.teacher_weights: dict[str, Tensor] | None = None
        self.done = 0

    @property
    def plan(self) -> tuple[tuple[str, int], ...]:
        """All epochs in order, as (phase, epoch in it)."""
        return tuple((phase, epoch) for phase in PHASES for epoch in range(self.training.epochs[phase]))

    def run(self, checkpoint: Path, report: Callable[[Epoch], None]) -> Supernet:
        """Train to the end, from `checkpoint` where it exists; it is replaced atomically after every epoch.

        Raises:
            NasError: The loss is no longer finite.
        """
        if checkpoint.exists():
            self.restore(checkpoint)
        for phase, epoch in self.plan[self.done :]:
            if epoch == 0:
                self._enter(phase)
            loss = self._epoch(phase, epoch)
            if not math.isfinite(loss):
                kept = f"the last good weights are in {checkpoint}" if self.done else "there are no good weights yet"
                raise NasError(
                    f"training, phase {phase}, epoch {epoch}: the loss is {loss}; lower supernet.learning_rate ({kept})"
                )
            self.done += 1
            save_atomically(self._state(), checkpoint)
            report(Epoch(phase, epoch, loss))
        return self.supernet

    def specialise(self, network: Network) -> Subnet:
        """Extract a subnet, calibrated on the first training images."""
        return self.supernet.specialise(network, self.data.images[: self.training.calibration])

    def full_subnet(self) -> Subnet:
        """The full network: as it was before shrinking, or as it is while no teacher is appointed."""
        return self.teacher or self.specialise(self.full)

    def _enter(self, phase: str) -> None:
        self.optimizer = self._fresh_optimizer()
        if phase != "full" and self.teacher_weights is None:
            self._appoint_teacher({key: value.clone() for key, value in self.supernet.state_dict().items()})
        if phase == "width":
            sort_channels(self.supernet, self.space.maximal())

    def _epoch(self, phase: str, epoch: int) -> float:
        rng = np.random.default_rng([self.seed, list(PHASES).index(phase), epoch])
        losses = []
        indices = batches(len(self.data), self.training.batch, rng)
        for step, batch in enumerate(indices):
            progress = (epoch + step / len(indices)) / self.training.epochs[phase]
            set_cosine_rate(self.optimizer, self.training.learning_rate, progress)
            images = shift_images(self.data.images[batch], self.training.shift, rng)
            losses.append(self._step(images, self.data.labels[batch], self._sample(phase, rng)))
        return sum(losses) / len(losses)

    def _sample(self, phase: str, rng: np.random.Generator) -> list[Network]:
        if phase == "full":
            return [self.full]
        population = tilted_population(
            self.space, self.training.subnets_per_step, rng, opened(self.space, PHASES[phase])
        )
        networks = [self.space.lower(genotype) for genotype in population.tolist()]
        return networks if phase == "precision" else [network.as_float() for network in networks]

    def _step(self, images: Tensor, labels: Tensor, networks: list[Network]) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        soft = None if self.teacher is None else self.teacher(images).detach()
        total = 0.0
        for network in networks:
            loss = distilled_loss(self.supernet(images, network), labels, soft, self.training.distillation)
            torch.autograd.backward(loss / len(networks))
            total += loss.item() / len(networks)
        torch.nn.utils.clip_grad_norm_(self.supernet.parameters(), 5.0)
        self.optimizer.step()
        return total

    def _fresh_optimizer(self) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            self.supernet.parameters(), self.training.learning_rate, weight_decay=self.training.weight_decay, fused=True
        )

    def _appoint_teacher(self, weights: dict[str, Tensor]) -> None:
        current = {key: value.clone() for key, value in self.supernet.state_dict().items()}
        self.supernet.load_state_dict(weights)
        self.teacher = self.specialise(self.full)
        self.teacher.requires_grad_(False)
        self.teacher_weights = weights
        self.supernet.load_state_dict(current)

    def _state(self) -> dict[str, Any]:
        return {
            "done": self.done,
            "supernet": self.supernet.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "teacher": self.teacher_weights,
        }

    def restore(self, checkpoint: Path) -> None:
        """Go back to where `checkpoint` was written."""
        state = torch.load(checkpoint, weights_only=True)
        self.done = state["done"]
        self.supernet.load_state_dict(state["supernet"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["teacher"] is not None:
            self._appoint_teacher(state["teacher"])


def one_thread() -> None:
    """Run torch on one thread in this process: sums come out the same on any number of cores."""
    torch.set_num_threads(1)


def distilled_loss(logits: Tensor, labels: Tensor, teacher: Tensor | None, weight: float) -> Tensor:
    """Cross-entropy against the labels and, with `weight`, against the teacher's soft labels (Hinton et al. 2015)."""
    hard = F.cross_entropy(logits, labels)
    if teacher is None:
        return hard
    return (1 - weight) * hard + weight * F.cross_entropy(logits, teacher.softmax(1))


def set_cosine_rate(optimizer: torch.optim.Optimizer, peak: float, progress: float) -> None:
    """Anneal the learning rate from `peak` at progress 0 to zero at progress 1."""
    for group in optimizer.param_groups:
        group["lr"] = peak * 0.5 * (1 + math.cos(math.pi * progress))


def save_atomically(state: Any, path: Path) -> None:
    """Write with `torch.save` so that `path` holds the old or the new state, whenever the process dies."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
