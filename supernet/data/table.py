"""Tables: numpy's .npz files with the arrays `x` and `y`, and HDF5 files with named columns."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nas.errors import NasError
from nas.genotype import IntArray
from supernet.data.files import corrupt, require_labels
from supernet.data.shares import hold_out, require_share
from supernet.data.split import Dataset, Scaling


@dataclass(frozen=True)
class Columns:
    """Columns of an HDF5 data set, along its last axis.

    Attributes:
        table: The data set.
        names: The data set that names its columns.
        columns: Those to take, in this order.
    """

    table: str
    names: str
    columns: tuple[str, ...]

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if not self.columns:
            raise NasError(f"data: name at least one column of {self.table}")


@dataclass(frozen=True)
class Table:
    """Rows of features with a class each.

    A row that is a vector has its features scaled to mean 0 and standard deviation 1 of the training rows. An image
    must be bytes or lie in [0, 1]. Labels are class numbers, or one column per class that holds a single 1.

    Attributes:
        file: File below `data.root`, or a pattern such as `jets/train/*.h5`, whose files are joined in sorted order.
        input_shape: Shape of one row's features.
        classes: Number of classes.
        features: Where the features are, in an HDF5 file; an .npz file has them in its array `x`.
        labels: Where the labels are, in an HDF5 file; an .npz file has them in its array `y`.
        validation: Share of the rows held out to score subnets.
        test: Share of the rows held out for finalize.
        test_from: First row of the test set, where the file keeps it last; `test` is then not used.
    """

    file: str
    input_shape: tuple[int, ...]
    classes: int
    features: Columns | None = None
    labels: Columns | None = None
    validation: float = 0.2
    test: float = 0.2
    test_from: int | None = None

    name: ClassVar[str] = "table"
    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        require_rows(self.file, self.validation, self.test)
        if not self.input_shape or min(self.input_shape) < 1 or self.classes < 2:
            raise NasError(f"data: input_shape must be positive and classes at least 2; got {self}")
        if self.file.endswith(".npz") != (self.features is None) or (self.features is None) != (self.labels is None):
            raise NasError("data: an .npz file takes no features and labels, an HDF5 file needs both")

    def load(self, root: Path, seed: int) -> Dataset:
        """Read all rows and split them by `seed`, stratified by class.

        Raises:
            NasError: A file is missing or corrupt, or its values are not as declared.
        """
        from supernet.data.tensor_split import tensor_dataset

        pairs = [self._read(path) for path in matching(root, self.file)]
        features, labels = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
        train, validation, test = split_rows(self.file, labels, self.validation, self.test, self.test_from, seed)
        features, scaling = scaled(features, train) if features.ndim == 2 else (features, None)
        train_part, validation_part, test_part = ((features[rows], labels[rows]) for rows in (train, validation, test))
        return tensor_dataset(self.file, self.classes, train_part, validation_part, test_part, scaling)

    def _read(self, path: Path) -> tuple[NDArray[Any], IntArray]:
        features, labels = _arrays(path, self.features, self.labels)
        if features.shape[1:] != self.input_shape or len(features) != len(labels):
            law = f"must have rows of shape {self.input_shape} and one label each"
            raise corrupt(path, f"{law}; features are {features.shape}, labels {labels.shape}")
        return checked(path, features), class_numbers(path, labels, self.classes)


def require_rows(file: str, validation: float, test: float) -> None:
    """Refuse a file that is not below `data.root`, and shares that leave no rows to train."""
    require_share("validation", validation)
    require_share("test", test)
    if validation + test >= 1:
        raise NasError(f"data: validation + test must leave rows to train; got {validation + test:g}")
    if not file or Path(file).is_absolute():
        raise NasError(f"data: file must be relative to data.root, got {file!r}")


def matching(root: Path, file: str) -> list[Path]:
    """The files below `root` that a name or pattern means, sorted.

    Raises:
        NasError: There is none.
    """
    paths = sorted(root.glob(file))
    if not paths:
        raise NasError(
            f"{root / file} is missing; expected it below data.root. Put it there, or set data.root "
            f"(or NAS_DATA) to the folder that holds it; nothing is downloaded"
        )
    return paths


def split_rows(
    file: str, labels: IntArray, validation: float, test: float, test_from: int | None, seed: int
) -> tuple[IntArray, IntArray, IntArray]:
    """Indices of the training, validation and test rows, stratified by class; all arguments as those of `Table`."""
    if test_from is None:
        rest, held = hold_out(labels, test, seed)
    elif 0 < test_from < len(labels):
        rest, held = np.split(np.arange(len(labels)), [test_from])
    else:
        raise NasError(f"data: test_from must be inside the {len(labels)} rows of {file}, got {test_from}")
    train, scored = hold_out(labels[rest], validation * len(labels) / len(rest), seed)
    return rest[train], rest[scored], held


def _arrays(path: Path, features: Columns | None, labels: Columns | None) -> tuple[NDArray[Any], NDArray[Any]]:
    if features is not None and labels is not None:
        from supernet.data.hdf5 import read_columns

        x, y = (read_columns(path, part.table, part.names, part.columns) for part in (features, labels))
        return x, y
    if not zipfile.is_zipfile(path):
        raise corrupt(path, "is not a whole .npz file")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return arrays["x"], arrays["y"]
    except KeyError as error:
        raise corrupt(path, "must hold the arrays x (features) and y (labels)") from error
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise corrupt(path, f"cannot be read as .npz: {error}") from error


def class_numbers(path: Path, labels: NDArray[Any], classes: int) -> IntArray:
    """Class numbers, shape (n,), of numbers or of one column per class that holds a single 1.

    Raises:
        NasError: They are neither, or a number is out of range.
    """
    if labels.ndim == 2 and labels.shape[1] == classes:
        wrong = ~(((labels == 0) | (labels == 1)).all(1) & (labels.sum(1) == 1))
        if wrong.any():
            law = f"of the {classes} label columns one must be 1 and the others 0"
            raise corrupt(path, f"{law}; {int(wrong.sum())} rows are not so, the first is {int(wrong.argmax())}")
        return np.asarray(labels.argmax(1), dtype=np.int64)
    numbers = labels.reshape(len(labels), -1)
    if numbers.shape[1] != 1 or not (numbers == np.floor(numbers)).all():
        raise corrupt(path, f"labels must be whole numbers or {classes} columns, got shape {labels.shape}")
    whole = np.asarray(numbers[:, 0], dtype=np.int64)
    require_labels(path, whole, classes)
    return whole


def checked(path: Path, features: NDArray[Any]) -> NDArray[Any]:
    """Bytes of images as they are; all else as finite float32.

    Raises:
        NasError: A value is not finite or, of an image, outside [0, 1].
    """
    if features.dtype == np.uint8 and features.ndim == 4:
        return features
    values = features.astype(np.float32)
    wrong = ~np.isfinite(values).reshape(len(values), -1).all(1)
    if features.ndim == 4:
        wrong |= ((values < 0) | (values > 1)).reshape(len(values), -1).any(1)
    if wrong.any():
        law = "images must lie in [0, 1] or be bytes" if features.ndim == 4 else "features must be finite"
        raise corrupt(path, f"{law}; {int(wrong.sum())} rows are not so, the first is {int(wrong.argmax())}")
    return values


def scaled(features: NDArray[Any], train: IntArray) -> tuple[NDArray[Any], Scaling]:
    """Features, shape (n, ..., features), at mean 0 and deviation 1 of the training rows; a constant one becomes 0."""
    known = features[train].reshape(-1, features.shape[-1])
    mean, std = known.mean(0, dtype=np.float64), known.std(0, dtype=np.float64)
    scaling = Scaling(mean, np.where(std > 0, std, 1.0))
    return ((features - scaling.mean) / scaling.std).astype(np.float32), scaling
