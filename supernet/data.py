"""Data sets as in-memory tensors in three disjoint splits.

train: fits weights and calibrates. validation: scores subnets, so it feeds the predictor and the search.
test: read by the finalize stage alone, after every decision has been taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from nas.network import Shape


@dataclass(frozen=True)
class Split:
    """Images of shape (n, *input shape), float32, and labels of shape (n,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A data set, split; `input_shape` is one image's shape."""

    name: str
    classes: int
    train: Split
    validation: Split
    test: Split

    @property
    def input_shape(self) -> Shape:
        return tuple(self.train.images.shape[1:])


def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's 1797 handwritten digits: images (n, 1, 8, 8) on the grid of 1/16 in [0, 1], and labels."""
    bunch = load_digits()
    return bunch.images[:, None] / 16.0, bunch.target


DATASETS: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {"digits": digits}


def load_dataset(name: str, validation: float, test: float, seed: int) -> Dataset:
    """Load a data set and split it, stratified by class.

    Args:
        name: A key of `DATASETS`.
        validation: Share of all images held out to score subnets.
        test: Share of all images held out for finalize.
        seed: Seed of the split.
    """
    images, labels = DATASETS[name]()
    indices = np.arange(len(labels))
    rest, held = train_test_split(indices, test_size=test, stratify=labels, random_state=seed)
    share = validation / (1 - test)
    train, valid = train_test_split(rest, test_size=share, stratify=labels[rest], random_state=seed)

    def take(chosen: np.ndarray) -> Split:
        return Split(
            torch.from_numpy(images[chosen].astype(np.float32)), torch.from_numpy(labels[chosen].astype(np.int64))
        )

    return Dataset(name, int(labels.max()) + 1, take(train), take(valid), take(held))


def shift_images(images: Tensor, pixels: int, rng: np.random.Generator) -> Tensor:
    """Augmentation: move each image by up to `pixels` in each direction, zeros coming in; shape unchanged."""
    if pixels == 0:
        return images
    count, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (pixels,) * 4)
    rows, columns = (torch.from_numpy(rng.integers(0, 2 * pixels + 1, (count, 1))) for _ in range(2))
    row, column = rows + torch.arange(height), columns + torch.arange(width)
    batch = torch.arange(count)[:, None, None]
    return padded.permute(0, 2, 3, 1)[batch, row[:, :, None], column[:, None, :]].permute(0, 3, 1, 2).contiguous()


def batches(count: int, size: int, rng: np.random.Generator) -> list[Tensor]:
    """Shuffled indices in batches of exactly `size`; the rest that fills no batch waits for another shuffle."""
    order = torch.from_numpy(rng.permutation(count))
    return [order[start : start + size] for start in range(0, max(count - size, 0) + 1, size)]
