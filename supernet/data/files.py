"""Finding data files, and saying what is wrong with them. Nothing is ever downloaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from nas.errors import NasError


def locate(root: Path, folders: Iterable[str], names: Iterable[str], layout: str) -> Path:
    """The first file there is below `root`.

    Args:
        root: What the config calls `data.root`.
        folders: Where the file may lie below it, the usual place first.
        names: What the file may be called.
        layout: The expected files, for the error.

    Raises:
        NasError: None of them exists.
    """
    candidates = [root / folder / name for folder in folders for name in names]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise NasError(
            f"{candidates[0]} is missing; expected below data.root: {layout}. Put the files there, or set data.root "
            f"(or NAS_DATA) to the folder that holds them; nothing is downloaded"
        )
    return found


def corrupt(path: Path, law: str, official: str = "") -> NasError:
    """The error of a file that breaks a law of its format; `official` is the published MD5, where there is one."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    published = f", the official file's is {official}" if official else ""
    return NasError(f"{path}: {law}; its MD5 is {found}{published}. Fetch the file again")


def require_labels(path: Path, labels: NDArray[Any], classes: int) -> None:
    """Raise where a class number is out of range."""
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        row = int(wrong.argmax())
        law = f"labels must be in 0..{classes - 1}, but {int(wrong.sum())} are not; row {row} has {labels[row]}"
        raise corrupt(path, law)
