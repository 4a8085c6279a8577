"""Trainings of a tiny space on a few digits, in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from small_supernets import QUANTIZED
from torch import Tensor

from nas.genotype import SearchSpace
from nas.spaces import MobileChoices
from nas.spaces.mobile import Stage
from supernet.data.digits import Digits
from supernet.data.split import Augmentation, Dataset, Split
from supernet.data.tensor_split import TensorSplit
from supernet.distributed import ALONE, Ranks
from supernet.metrics import Progress
from supernet.settings import Training
from supernet.train import CPU, SupernetTraining

EPOCHS = {"full": (1,), "kernel": (1,), "depth": (1, 1), "width": (1, 1), "precision": (2,)}
PROGRESSIVE = Training(
    "progressive",
    EPOCHS,
    batch=16,
    learning_rate=5e-3,
    subnets_per_step=dict.fromkeys(EPOCHS, 2) | {"full": 1},
    optimizer="adamw",
    weight_decay=1e-4,
    label_smoothing=0.1,
    distillation=0.5,
    ema=0.9,
    clip=5.0,
    pruning_ramp=0.75,
    augmentation=Augmentation(1),
    calibration=64,
    log_steps=2,
    checkpoint_steps=3,
)
"""4 steps an epoch, so that checkpoints and reports fall within epochs."""

SANDWICH = replace(
    PROGRESSIVE,
    strategy="sandwich",
    epochs={"train": (3,), "precision": (1,)},
    subnets_per_step={"train": 3},
    optimizer="sgd",
    warmup=0.2,
    distillation=1.0,
)
UNIFORM = replace(SANDWICH, strategy="uniform", epochs={"train": (3,)}, subnets_per_step={"train": 2}, ema=0.0)
TRAININGS: Mapping[str, Training] = {"progressive": PROGRESSIVE, "sandwich": SANDWICH, "uniform": UNIFORM}


@cache
def space() -> SearchSpace:
    """Two resolutions, three depths: a phase of two stages opens them one by one."""
    stages = (Stage(4, 1, (1, 2)), Stage(6, 2, (1, 2, 3)))
    return MobileChoices(4, stages, (3, 5), (1, 1.5, 2), QUANTIZED, resolution=(6, 8)).build((1, 8, 8), 10)


@cache
def digits_data() -> Dataset:
    return Digits().load(Path(), 0)


def few_digits() -> TensorSplit:
    train = digits_data().train
    return TensorSplit(train.first(64, CPU).clone(), train.labels[:64])


def begin(
    training: Training = PROGRESSIVE, seed: int = 0, data: Split | None = None, ranks: Ranks = ALONE
) -> SupernetTraining:
    return SupernetTraining(space(), data or few_digits(), training, seed, torch.device("cpu"), ranks)


def ignore(_: Progress) -> None:
    pass


class InDouble(SupernetTraining):
    """In double precision: in single, rounding in another order now and then turns a ReLU over, and losses part."""

    def __init__(self, settings: Training, ranks: Ranks = ALONE) -> None:
        usual = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            super().__init__(space(), few_digits(), settings, 0, torch.device("cpu"), ranks)
        finally:
            torch.set_default_dtype(usual)

    def laid_out(self, images: Tensor) -> Tensor:
        return super().laid_out(images).double()


DISTRIBUTED: Mapping[str, Training] = {
    "progressive": replace(
        PROGRESSIVE,
        epochs={"full": (1,), "kernel": (1,), "depth": (1, 1), "width": (1,)},
        optimizer="sgd",
        learning_rate=0.05,
        log_steps=1,
        checkpoint_steps=10,
    ),
    "sandwich": replace(SANDWICH, epochs={"train": (5,)}, log_steps=1, checkpoint_steps=10),
}
"""20 steps, each reported."""
