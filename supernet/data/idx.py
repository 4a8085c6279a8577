"""MNIST and Fashion-MNIST in their official idx files, compressed or plain.

Y. LeCun, C. Cortes, C. J. C. Burges: "The MNIST database of handwritten digits" (the format is described there);
H. Xiao, K. Rasul, R. Vollgraf: "Fashion-MNIST", arXiv 1708.07747.
"""

from __future__ import annotations

import gzip
import math
import zlib
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

_UNSIGNED_BYTE = 0x08
_COUNTS = {"train": 60000, "t10k": 10000}


def read_idx(path: Path, shape: tuple[int, ...], official: str = "") -> NDArray[Any]:
    """Read unsigned bytes of this shape; a name in `.gz` is decompressed.

    Raises:
        NasError: The file breaks the format or has another shape; with its MD5 beside the `official` one.
    """
    content = _content(path, official)
    header = 4 * (1 + len(shape))
    magic = bytes([0, 0, _UNSIGNED_BYTE, len(shape)])
    if content[:4] != magic:
        raise corrupt(path, f"must begin with the bytes {magic.hex(' ')}, got {content[:4].hex(' ')}", official)
    found = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4))
    if found != shape:
        raise corrupt(path, f"its header must give the shape {shape}, got {found}", official)
    if len(content) != header + math.prod(shape):
        law = f"must hold {header} + {math.prod(shape)} bytes, got {len(content)}"
        raise corrupt(path, law, official)
    return np.frombuffer(bytearray(content), dtype=np.uint8, offset=header).reshape(shape)


def _content(path: Path, official: str) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise corrupt(path, f"cannot be decompressed: {error}", official) from error


@dataclass(frozen=True)
class Mnist:
    """60000 + 10000 images (1, 28, 28), 10 classes; the official test set is the test split.

    Attributes:
        validation: Share of the official training set held out to score subnets, stratified by class.
    """

    validation: float = 0.1

    name: ClassVar[str] = "mnist"
    input_shape: ClassVar[Shape] = (1, 28, 28)
    classes: ClassVar[int] = 10
    checksums: ClassVar[Mapping[str, str]] = {
        "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
    }
    """MD5 of each official file, compressed."""
    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        require_share("validation", self.validation)

    def load(self, root: Path, seed: int) -> Dataset:
        """Read the four files in `root/<name>/` or `root/`.

        Raises:
            NasError: A file is missing or corrupt.
        """
        from supernet.data.tensor_split import official_dataset

        train, test = (self._part(root, part) for part in _COUNTS)
        return official_dataset(self.name, self.classes, train, test, self.validation, seed)

    def _part(self, root: Path, part: str) -> tuple[NDArray[Any], NDArray[Any]]:
        count = _COUNTS[part]
        images, _ = self._read(root, f"{part}-images-idx3-ubyte", (count, *self.input_shape[1:]))
        labels, path = self._read(root, f"{part}-labels-idx1-ubyte", (count,))
        require_labels(path, labels, self.classes)
        return images[:, None], labels

    def _read(self, root: Path, name: str, shape: tuple[int, ...]) -> tuple[NDArray[Any], Path]:
        listed = ", ".join(f"{file} (MD5 of the .gz {md5})" for file, md5 in self.checksums.items())
        layout = f"{self.name}/ with the official files, as they are or as .gz: {listed}"
        path = locate(root, (self.name, ""), (f"{name}.gz", name), layout)
        return read_idx(path, shape, f"{self.checksums[name]} (.gz)"), path


@dataclass(frozen=True)
class FashionMnist(Mnist):
    """Ten kinds of clothing in MNIST's format and numbers."""

    name: ClassVar[str] = "fashion-mnist"
    checksums: ClassVar[Mapping[str, str]] = {
        "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
    }
