"""Score and fine-tune subnets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from nas.design import Design
from nas.genotype import FloatArray
from supernet.data import Split, batches, shift_images
from supernet.subnet import Subnet, from_design
from supernet.train import distilled_loss, set_cosine_rate


@dataclass(frozen=True)
class FineTuning:
    """Quantization-aware fine-tuning of an extracted subnet: Adam, cosine schedule, distillation."""

    epochs: int
    batch: int
    learning_rate: float
    distillation: float
    shift: int


@torch.no_grad()
def error(subnet: Subnet, data: Split) -> float:
    """Share of images classified wrongly, in [0, 1]."""
    return float((subnet(data.images).argmax(1) != data.labels).double().mean())


@torch.no_grad()
def design_logits(design: Design, images: FloatArray) -> FloatArray:
    """Logits of a design, computed by torch in float64, shape (n, classes); exact for a quantized one."""
    logits: FloatArray = from_design(design)(torch.from_numpy(images)).numpy()
    return logits


def fine_tune(subnet: Subnet, teacher: Subnet, data: Split, tuning: FineTuning, seed: int) -> None:
    """Train a subnet in place, its formats and zeros fixed, against labels and a teacher."""
    optimizer = torch.optim.Adam(subnet.parameters(), lr=tuning.learning_rate, fused=True)
    rng = np.random.default_rng(seed)
    for epoch in range(tuning.epochs):
        indices = batches(len(data), tuning.batch, rng)
        for step, batch in enumerate(indices):
            set_cosine_rate(optimizer, tuning.learning_rate, (epoch + step / len(indices)) / tuning.epochs)
            images = shift_images(data.images[batch], tuning.shift, rng)
            with torch.no_grad():
                soft = teacher(images)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(distilled_loss(subnet(images), data.labels[batch], soft, tuning.distillation))
            optimizer.step()
