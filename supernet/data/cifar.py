"""CIFAR-10 and CIFAR-100 in their official binary files (A. Krizhevsky: "Learning Multiple Layers of Features from
Tiny Images", 2009): records of the label bytes and 3 x 32 x 32 pixels, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nas.network import Shape
from supernet.data.files import corrupt, locate, require_labels
from supernet.data.shares import require_share
from supernet.data.split import Dataset

_SHAPE = (3, 32, 32)
_PIXELS = math.prod(_SHAPE)

Records = tuple[NDArray[Any], NDArray[Any]]


def read_records(path: Path, records: int, label_bytes: int, classes: int) -> Records:
    """Images (records, 3, 32, 32), bytes, and the last label byte of each record: CIFAR-100's fine label.

    Raises:
        NasError: The size is not that of so many records, or a label is out of range.
    """
    size = label_bytes + _PIXELS
    content = np.fromfile(path, dtype=np.uint8)
    if len(content) != records * size:
        law = f"must hold {records} records of {label_bytes} + {_PIXELS} bytes, {records * size} in all"
        raise corrupt(path, f"{law}; got {len(content)}")
    rows = content.reshape(records, size)
    labels = rows[:, label_bytes - 1]
    require_labels(path, labels, classes)
    return rows[:, label_bytes:].reshape(records, *_SHAPE), labels


@dataclass(frozen=True)
class Cifar10:
    """50000 + 10000 images (3, 32, 32), 10 classes; the official test set is the test split.

    Attributes:
        validation: Share of the official training set held out to score subnets, stratified by class.
    """

    validation: float = 0.1

    name: ClassVar[str] = "cifar10"
    input_shape: ClassVar[Shape] = _SHAPE
    classes: ClassVar[int] = 10
    label_bytes: ClassVar[int] = 1
    folder: ClassVar[str] = "cifar-10-batches-bin"
    archive: ClassVar[str] = "cifar-10-binary.tar.gz (MD5 c32a1d4ab5d03f1284b67883e8d87530)"
    train_files: ClassVar[tuple[str, ...]] = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
    test_file: ClassVar[str] = "test_batch.bin"
    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        require_share("validation", self.validation)

    def load(self, root: Path, seed: int) -> Dataset:
        """Read the files in `<folder>/`, below `root/<name>/` or `root/`, or in either of these themselves.

        Raises:
            NasError: A file is missing or corrupt.
        """
        from supernet.data.tensor_split import official_dataset

        batches = [self._read(root, name, 50000 // len(self.train_files)) for name in self.train_files]
        images, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
        test = self._read(root, self.test_file, 10000)
        return official_dataset(self.name, self.classes, (images, labels), test, self.validation, seed)

    def _read(self, root: Path, name: str, records: int) -> Records:
        folders = (f"{self.name}/{self.folder}", self.folder, self.name, "")
        layout = f"{self.folder}/ with {', '.join(self.train_files)} and {self.test_file}, as in {self.archive}"
        return read_records(locate(root, folders, (name,), layout), records, self.label_bytes, self.classes)


@dataclass(frozen=True)
class Cifar100(Cifar10):
    """CIFAR-10's numbers in 100 classes: the fine labels."""

    name: ClassVar[str] = "cifar100"
    classes: ClassVar[int] = 100
    label_bytes: ClassVar[int] = 2
    folder: ClassVar[str] = "cifar-100-binary"
    archive: ClassVar[str] = "cifar-100-binary.tar.gz (MD5 03b5dce01913d631647c71ecec9e9cb8)"
    train_files: ClassVar[tuple[str, ...]] = ("train.bin",)
    test_file: ClassVar[str] = "test.bin"
