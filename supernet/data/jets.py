"""Jets as sets of particles, in the layout of the public hls4ml LHC jet files (E. Moreno et al., zenodo 3602260)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nas.errors import NasError
from nas.genotype import IntArray
from nas.network import Shape
from supernet.data.files import corrupt
from supernet.data.split import Dataset
from supernet.data.table import checked, class_numbers, matching, require_rows, scaled, split_rows

_LABELS = ("j_g", "j_q", "j_w", "j_z", "j_t")
_MOMENTUM = "j1_ptrel"
"""Transverse momentum over that of the jet: what particles are sorted by."""


@dataclass(frozen=True)
class Jets:
    """Jets of five kinds, each by its hardest particles: shape (features, particles, 1).

    In this shape a convolution with a 1x1 kernel is one network for every particle. Features are scaled to mean 0 and
    standard deviation 1 of the training jets' particles. A jet of fewer particles has zeros, scaled as the others.

    Attributes:
        file: File below `data.root`, or a pattern such as `jets/train/*.h5`, whose files are joined in sorted order.
        particles: How many of a jet's particles, those of the largest transverse momentum, in descending order.
        features: Columns of `jetConstituentList`, by the names in `particleFeatureNames`, such as `j1_etarel`.
        validation: Share of the jets held out to score subnets.
        test: Share of the jets held out for finalize.
        test_from: First jet of the test set, where the file keeps it last; `test` is then not used.
    """

    file: str
    particles: int
    features: tuple[str, ...]
    validation: float = 0.1
    test: float = 0.2
    test_from: int | None = None

    name: ClassVar[str] = "jets"
    classes: ClassVar[int] = len(_LABELS)
    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        require_rows(self.file, self.validation, self.test)
        if self.particles < 1 or not self.features or len(set(self.features)) != len(self.features):
            law = "a set of particles needs at least one particle and distinct features, at least one"
            raise NasError(f"data: {law}; got {self.particles} and {list(self.features)}")

    @property
    def input_shape(self) -> Shape:
        """As a network of particles reads a jet: (features, particles, 1)."""
        return len(self.features), self.particles, 1

    def load(self, root: Path, seed: int) -> Dataset:
        """Read all jets and split them by `seed`, stratified by class.

        Raises:
            NasError: A file is missing or corrupt, or has fewer particles or other features than asked for.
        """
        from supernet.data.tensor_split import tensor_dataset

        pairs = [self._read(path) for path in matching(root, self.file)]
        particles, labels = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
        train, validation, test = split_rows(self.file, labels, self.validation, self.test, self.test_from, seed)
        jets, scaling = scaled(particles, train)
        images = np.ascontiguousarray(jets.transpose(0, 2, 1)[..., None])
        train_part, validation_part, test_part = ((images[rows], labels[rows]) for rows in (train, validation, test))
        return tensor_dataset(self.file, self.classes, train_part, validation_part, test_part, scaling)

    def _read(self, path: Path) -> tuple[NDArray[Any], IntArray]:
        """The hardest particles, shape (n, particles, features), and the class numbers of one file's jets."""
        from supernet.data.hdf5 import read_columns

        columns = (*self.features, _MOMENTUM)
        found = read_columns(path, "jetConstituentList", "particleFeatureNames", columns)
        labels = read_columns(path, "jets", "jetFeatureNames", _LABELS)
        if found.ndim != 3 or found.shape[1] < self.particles or len(found) != len(labels):
            law = f"must have {self.particles} particles or more of every jet, and one label each"
            raise corrupt(path, f"{law}; jetConstituentList has shape {found.shape}, labels {labels.shape}")
        hardest = np.argsort(-found[..., -1], axis=1, kind="stable")[:, : self.particles, None]
        particles = np.take_along_axis(found[..., :-1], hardest, axis=1)
        return checked(path, particles), class_numbers(path, labels, self.classes)
