"""scikit-learn's handwritten digits, which come with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from nas.errors import NasError
from nas.network import Shape
from supernet.data.shares import require_share
from supernet.data.split import Dataset


@dataclass(frozen=True)
class Digits:
    """1797 images (1, 8, 8) on the grid of 1/16 in [0, 1], 10 classes.

    Attributes:
        validation: Share of all images held out to score subnets.
        test: Share of all images held out for finalize.
    """

    validation: float = 0.25
    test: float = 0.2

    name: ClassVar[str] = "digits"
    input_shape: ClassVar[Shape] = (1, 8, 8)
    classes: ClassVar[int] = 10
    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        require_share("validation", self.validation)
        require_share("test", self.test)
        if self.validation + self.test >= 1:
            raise NasError(f"data: validation + test must leave images to train; got {self.validation + self.test:g}")

    def load(self, root: Path, seed: int) -> Dataset:
        """Split by `seed`, stratified by class; `root` is not read."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        from supernet.data.tensor_split import tensor_dataset

        bunch = load_digits()
        images, labels = (bunch.images[:, None] / 16.0).astype(np.float32), bunch.target
        rest, test = train_test_split(np.arange(len(labels)), test_size=self.test, stratify=labels, random_state=seed)
        share = self.validation / (1 - self.test)
        train, validation = train_test_split(rest, test_size=share, stratify=labels[rest], random_state=seed)
        train, validation, test = ((images[part], labels[part]) for part in (train, validation, test))
        return tensor_dataset(self.name, self.classes, train, validation, test)
