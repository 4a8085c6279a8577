"""Data sets small enough to stay in memory, and on the training device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.errors import NasError
from nas.network import Shape
from supernet.data.augment import draws, in_unit_range, moved, moves, on_device
from supernet.data.shares import hold_out
from supernet.data.split import Augmentation, Dataset, Scaling, Step


@dataclass(frozen=True, eq=False)
class TensorSplit:
    """Images, shape (n, *input shape), bytes or float32, and labels, shape (n,), int64.

    Both go to a device once, at the first use there, and stay.
    """

    images: Tensor
    labels: Tensor
    _copies: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise NasError(f"a split needs one label per image; got {len(self.images)} and {len(self.labels)}")

    def __reduce__(self) -> tuple[type[TensorSplit], tuple[Tensor, Tensor]]:
        return TensorSplit, (self.images, self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def input_shape(self) -> Shape:
        return tuple(self.images.shape[1:])

    def stream(
        self, steps: Iterable[Step], augmentation: Augmentation, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Split.stream`; augmentation runs on the device."""
        self._require(augmentation)
        images, labels = self._on(device)
        for step in steps:
            plan = np.column_stack([step.indices[step.rows], moves(augmentation, draws(step))])
            plan_there = on_device(plan, device)
            chosen = plan_there[:, 0]
            batch = moved(images.index_select(0, chosen), plan_there[:, 1:], augmentation)
            yield in_unit_range(batch), labels.index_select(0, chosen)

    def first(self, count: int, device: torch.device) -> Tensor:
        """As `Split.first`."""
        return in_unit_range(self._on(device)[0][:count])

    def whole(self, device: torch.device, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Split.whole`."""
        images, labels = self._on(device)
        for start in range(0, len(self), batch):
            yield in_unit_range(images[start : start + batch]), labels[start : start + batch]

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._copies:
            self._copies[device] = (self.images.to(device), self.labels.to(device))
        return self._copies[device]

    def _require(self, augmentation: Augmentation) -> None:
        if augmentation.crop:
            raise NasError(f"augmentation: crop is for image folders; in-memory data takes 0, got {augmentation.crop}")
        if (augmentation.shift or augmentation.flip) and len(self.input_shape) != 3:
            law = "only images (channels, height, width) can be shifted or flipped"
            raise NasError(f"augmentation: {law}; this data has shape {self.input_shape}; set shift 0, flip false")


Part = tuple[NDArray[Any], NDArray[Any]]
"""Images and labels of one split, still numpy's."""


def tensor_dataset(
    name: str, classes: int, train: Part, validation: Part, test: Part, scaling: Scaling | None = None
) -> Dataset:
    """A data set in memory."""
    return Dataset(name, classes, _split(train), _split(validation), _split(test), scaling)


def _split(part: Part) -> TensorSplit:
    images, labels = part
    return TensorSplit(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)))


def official_dataset(name: str, classes: int, train: Part, test: Part, validation: float, seed: int) -> Dataset:
    """A data set in memory that brings its own test set; `validation` is a share of the training set."""
    images, labels = train
    rest, held = hold_out(labels, validation, seed)
    return tensor_dataset(name, classes, (images[rest], labels[rest]), (images[held], labels[held]), test)
