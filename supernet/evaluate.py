"""Score subnets, one or many, and fine-tune them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from nas.design import Design
from nas.genotype import FloatArray
from nas.network import Network
from supernet.calibrate import Calibrations
from supernet.data.split import NONE, Augmentation, Split, Step, order
from supernet.layout import channels_last
from supernet.optimise import MOMENTUM, distilled_loss, set_cosine_rate
from supernet.run import fit
from supernet.settings import Tuned
from supernet.subnet import Subnet, from_design

_POSITIONS = {"cpu": 1 << 16, "cuda": 1 << 21}
"""Pixels of the images that go through at a time where no batch is given: tensors small enough that a CPU's memory is
used again instead of mapped anew, or large enough to fill a GPU. The same for all networks, so that sums are too."""

_LEAST_BATCH = 16

_DOUBLES = {"cpu": 1 << 14, "cuda": 1 << 19}
"""The same in float64."""

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class FineTuning:
    """How an extracted subnet is trained further: cosine schedule, distillation.

    Attributes:
        epochs: Passes over the training images; a rest that fills no batch waits for another pass.
        batch: Images per step.
        learning_rate: At the first step; it falls to zero by a cosine.
        distillation: Weight of the teacher's soft labels in the loss; the labels get the rest.
        augmentation: How training images are varied.
        optimizer: `adamw`, or `sgd` with Nesterov momentum 0.9.
        weight_decay: Of the weights of products; BatchNorm and biases do not decay.
        gradient: How gradients pass the rounding of a `Subnet`.
    """

    epochs: int
    batch: int
    learning_rate: float
    distillation: float
    augmentation: Augmentation = NONE
    optimizer: Literal["sgd", "adamw"] = "adamw"
    weight_decay: float = 0.0
    gradient: Tuned = "clipped"


@torch.no_grad()
def error(model: nn.Module, data: Split, batch: int | None = None) -> float:
    """Share of images that a model in evaluation mode classifies wrongly, in [0, 1]; runs where its weights are."""
    device = _device(model)
    wrong = torch.zeros((), dtype=torch.int64, device=device)
    for images, labels in _batches(data, device, batch):
        wrong += (model(images).argmax(1) != labels).sum()
    return int(wrong) / len(data)


@torch.no_grad()
def errors(calibrations: Calibrations, data: Split, batch: int | None = None) -> list[float]:
    """The `error` of each network, in the networks' order; equal to that of each subnet alone."""
    wrong = torch.zeros(len(calibrations.networks), dtype=torch.int64, device=calibrations.device)
    for images, labels in _batches(data, calibrations.device, batch):
        for index, logits in calibrations.logits(images):
            wrong[index] += (logits.argmax(1) != labels).sum()
    return [count / len(data) for count in wrong.tolist()]


def all_images(data: Split, network: Network) -> FloatArray:
    """All images of a split as a network reads them, shape (n, *input shape), for those who compute without torch."""
    images: FloatArray = fit(data.first(len(data), torch.device("cpu")), network.input.out_shape).double().numpy()
    return images


@torch.no_grad()
def design_logits(design: Design, images: FloatArray, device: torch.device = _CPU) -> FloatArray:
    """Logits of a design, computed by torch in float64 on a device, shape (n, classes).

    Exact for a design of an FPGA, and so the same on every device: all that it computes are integers times powers of
    two. cuDNN stays out, for some of its convolutions transform what they multiply.
    """
    subnet = from_design(design).to(device)
    count = max(_LEAST_BATCH, _DOUBLES[device.type] // math.prod(design.network.input.out_shape[1:]))
    with torch.backends.cudnn.flags(enabled=False):
        parts = [subnet(part.to(device)).cpu() for part in torch.split(torch.from_numpy(images), count)]
    logits: FloatArray = torch.cat(parts).numpy()
    return logits


def fine_tune(model: nn.Module, teacher: nn.Module | None, data: Split, tuning: FineTuning, seed: int) -> None:
    """Train a model in place, where its weights are, against labels and a teacher; leave it in evaluation mode.

    A `Subnet` is trained as it is quantized. It keeps its zeros, and its formats unless their steps are learned. A
    `PlainNet` trains with BatchNorm.

    Args:
        model: What to train: images in, logits out.
        teacher: What else to learn from, in evaluation mode and on the same device; None for labels alone.
        data: The training split.
        tuning: How.
        seed: Of the order and augmentation of images; the same seed gives the same weights.
    """
    batches = [batch for epoch in range(tuning.epochs) for batch in order(len(data), tuning.batch, seed, epoch)]
    steps = [Step(batch, (seed, index)) for index, batch in enumerate(batches)]
    if isinstance(model, Subnet):
        model.tune_by(tuning.gradient)
    optimizer = _optimizer(model, tuning)
    model.train()
    for index, (images, labels) in enumerate(data.stream(steps, tuning.augmentation, _device(model))):
        set_cosine_rate(optimizer, tuning.learning_rate, index / len(steps))
        images = channels_last(images)
        soft = _taught(teacher, images)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(distilled_loss(model(images), labels, soft, tuning.distillation))
        optimizer.step()
    model.eval()


@torch.no_grad()
def _taught(teacher: nn.Module | None, images: Tensor) -> Tensor | None:
    if teacher is None:
        return None
    soft: Tensor = teacher(images)
    return soft


def _optimizer(model: nn.Module, tuning: FineTuning) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": tuning.weight_decay},
        {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
    ]
    if tuning.optimizer == "sgd":
        return torch.optim.SGD(groups, tuning.learning_rate, momentum=MOMENTUM, nesterov=True, fused=True)
    return torch.optim.AdamW(groups, tuning.learning_rate, fused=True)


def _batches(data: Split, device: torch.device, batch: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    fitting = max(_LEAST_BATCH, _POSITIONS[device.type] // math.prod(data.input_shape[1:]))
    for images, labels in data.whole(device, batch or fitting):
        yield channels_last(images), labels


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
