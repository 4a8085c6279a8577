"""Image folders in ImageNet's layout: one folder of images per class."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from nas.errors import NasError
from nas.genotype import IntArray
from nas.network import Shape
from supernet.data.shares import hold_out, require_share
from supernet.data.split import Dataset

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp")


@dataclass(frozen=True)
class ImageFolder:
    """`train/<class>/*.jpg` and `val/<class>/*.jpg` (or .png, .bmp, .ppm, .webp); `val` is the test split.

    Attributes:
        path: The folder that holds `train` and `val`, below `data.root`.
        image_size: Height and width to which images are scaled.
        classes: Number of class folders; their names, sorted, are numbered from 0.
        validation: Share of `train` held out to score subnets, stratified by class.
        workers: Processes that decode; 0: the training process itself.
    """

    path: str
    image_size: int
    classes: int
    validation: float = 0.05
    workers: int = 4

    name: ClassVar[str] = "folder"
    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        require_share("validation", self.validation)
        if self.image_size < 1 or self.classes < 2 or self.workers < 0:
            raise NasError(f"data: image_size must be at least 1, classes 2 and workers 0; got {self}")

    @property
    def input_shape(self) -> Shape:
        return (3, self.image_size, self.image_size)

    def load(self, root: Path, seed: int) -> Dataset:
        """List the files of `root/path`; images are read when they are streamed.

        Raises:
            NasError: A folder is missing or has no images, or the classes are not those that are expected.
        """
        import torch

        from supernet.data.folder_split import FolderSplit

        folder = root / self.path
        names = self._class_names(folder)
        (files, labels), (test_files, test_labels) = (_listed(folder, part, names) for part in ("train", "val"))

        def split(files: list[str], labels: IntArray) -> FolderSplit:
            return FolderSplit(folder, tuple(files), torch.from_numpy(labels), self.image_size, self.workers)

        train, validation = (
            split([files[row] for row in rows], labels[rows]) for rows in hold_out(labels, self.validation, seed)
        )
        return Dataset(self.path, self.classes, train, validation, split(test_files, test_labels))

    def _class_names(self, folder: Path) -> list[str]:
        train, val = (self._folders(folder / part) for part in ("train", "val"))
        if len(train) != self.classes:
            raise NasError(
                f"{folder / 'train'}: must hold {self.classes} class folders (data.classes), got {len(train)}"
            )
        if train != val:
            name = min(set(train) ^ set(val))
            raise NasError(f"{folder}: train and val must hold the same classes; {name!r} is in one of them only")
        return train

    def _folders(self, part: Path) -> list[str]:
        if not part.is_dir():
            raise NasError(
                f"{part} is missing; expected {self.path}/train/<class>/*.jpg and {self.path}/val/<class>/*.jpg below "
                f"data.root. Put the images there, or set data.root (or NAS_DATA); nothing is downloaded"
            )
        return sorted(entry.name for entry in part.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _listed(folder: Path, part: str, names: list[str]) -> tuple[list[str], IntArray]:
    """Files of a part, relative to the folder, sorted by class and name, and their class numbers."""
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        with os.scandir(folder / part / name) as entries:
            found = sorted(entry.name for entry in entries if entry.name.lower().endswith(_SUFFIXES))
        if not found:
            raise NasError(
                f"{folder / part / name}: must hold images ({', '.join(_SUFFIXES)}), got none; add or remove it"
            )
        files += [f"{part}/{name}/{file}" for file in found]
        labels += [label] * len(found)
    return files, np.array(labels)
