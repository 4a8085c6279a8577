"""What callers that do not stream yet still use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from supernet.data.augment import moved
from supernet.data.digits import Digits
from supernet.data.split import Augmentation, Dataset


def load_dataset(name: str, validation: float, test: float, seed: int) -> Dataset:
    """scikit-learn's digits, split."""
    return {"digits": Digits}[name](validation, test).load(Path(), seed)


def shift_images(images: Tensor, pixels: int, rng: np.random.Generator) -> Tensor:
    """Augmentation: move each image by up to `pixels` in each direction, zeros coming in; shape unchanged."""
    if pixels == 0:
        return images
    offsets = [rng.integers(0, 2 * pixels + 1, (len(images), 1)) for _ in range(2)]
    return moved(images, torch.from_numpy(np.hstack([*offsets, np.zeros_like(offsets[0])])), Augmentation(pixels))


def batches(count: int, size: int, rng: np.random.Generator) -> list[Tensor]:
    """Shuffled indices in batches of exactly `size`; the rest that fills no batch waits for another shuffle."""
    order = torch.from_numpy(rng.permutation(count))
    return [order[start : start + size] for start in range(0, max(count - size, 0) + 1, size)]
