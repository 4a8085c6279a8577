"""Official data files, where there are any, and what tests of several formats ask of them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch

from supernet.data.split import Dataset

CPU = torch.device("cpu")


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def real(*names: str) -> Path:
    """The data folder, where it holds all of these; else the test is skipped."""
    root = Path(os.environ.get("NAS_DATA", ""))
    missing = [name for name in names if not (root / name).exists()]
    if "NAS_DATA" not in os.environ or missing:
        pytest.skip(f"needs {', '.join(missing or names)} in NAS_DATA")
    return root


def whole(data: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """All training and validation images in the order of the file, found again by their content."""
    parts = [batch for split in (data.train, data.validation) for batch in split.whole(CPU, 10000)]
    return torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts])


def write_padded(path: Path, content: bytes, size: int) -> None:
    """A file of this size that ends in zeros, which take no space on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.truncate(size)
