"""MNIST's format: bytes, folders, and every fault of a file on its own."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_files import CPU, md5, real, whole, write_padded
from numpy.typing import NDArray

from nas.errors import NasError
from supernet.data.idx import FashionMnist, Mnist, read_idx


def idx(array: NDArray[Any]) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("name", ["images.gz", "images"])
def test_idx_files_give_their_bytes(tmp_path: Path, name: str) -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 3, 4), dtype=np.uint8)
    path = tmp_path / name
    path.write_bytes(gzip.compress(idx(array)) if name.endswith(".gz") else idx(array))
    assert (read_idx(path, (5, 3, 4)) == array).all()
    torch.from_numpy(read_idx(path, (5, 3, 4)))  # torch warns of arrays that cannot be written


IDX_FAULTS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated.gz": (lambda content: gzip.compress(content)[:-20], "cannot be decompressed"),
    "damaged.gz": (lambda content: gzip.compress(content)[:40] + bytes(60), "cannot be decompressed"),
    "plain.gz": (lambda content: content, "cannot be decompressed: Not a gzipped file"),
    "empty.gz": (lambda _: b"", r"must begin with the bytes 00 00 08 03, got "),
    "floats": (lambda content: b"\0\0\x0d\3" + content[4:], "must begin with the bytes 00 00 08 03, got 00 00 0d 03"),
    "page": (lambda _: b"<html>not found</html>", "must begin with the bytes 00 00 08 03, got 3c 68 74 6d"),
    "other": (lambda _: idx(np.zeros((5, 4, 3), np.uint8)), r"the shape \(5, 3, 4\), got \(5, 4, 3\)"),
    "fewer": (lambda _: idx(np.zeros((4, 3, 4), np.uint8)), r"the shape \(5, 3, 4\), got \(4, 3, 4\)"),
    "stub": (lambda content: content[:10], r"the shape \(5, 3, 4\), got \(5, 0, 0\)"),
    "short": (lambda content: content[:-1], r"must hold 16 \+ 60 bytes, got 75"),
    "long": (lambda content: content + b"\0", r"must hold 16 \+ 60 bytes, got 77"),
}


@pytest.mark.parametrize("name", IDX_FAULTS)
def test_a_corrupt_idx_file_is_named_with_its_fault(tmp_path: Path, name: str) -> None:
    spoil, law = IDX_FAULTS[name]
    path = tmp_path / name
    path.write_bytes(spoil(idx(np.random.default_rng(0).integers(0, 256, (5, 3, 4), dtype=np.uint8))))
    with pytest.raises(NasError, match=law) as caught:
        read_idx(path, (5, 3, 4), "0123")
    assert str(path) in str(caught.value)
    assert f"its MD5 is {md5(path)}, the official file's is 0123. Fetch the file again" in str(caught.value)


def write_mnist(folder: Path) -> dict[str, NDArray[Any]]:
    """Files of the official sizes, the first hundred images random and the others black, of class 0."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    arrays = {}
    for part, count in (("train", 60000), ("t10k", 10000)):
        images, labels = np.zeros((count, 28, 28), np.uint8), np.zeros(count, np.uint8)
        images[:100], labels[:100] = rng.integers(0, 256, (100, 28, 28)), np.arange(100) % 10
        arrays |= {f"{part}-images-idx3-ubyte": images, f"{part}-labels-idx1-ubyte": labels}
    for name, array in arrays.items():
        content = idx(array)
        write_padded(folder / name, content.rstrip(b"\0"), len(content))
    return arrays


@pytest.mark.parametrize("folder", ["mnist", ""])
def test_mnist_is_read_from_its_folder_or_the_root(tmp_path: Path, folder: str) -> None:
    arrays = write_mnist(tmp_path / "root" / folder)
    data = Mnist(0.1).load(tmp_path / "root", 0)
    assert (len(data.train), len(data.validation), len(data.test)) == (54000, 6000, 10000)
    assert (data.input_shape, data.classes, data.name) == ((1, 28, 28), 10, "mnist")
    images, labels = next(data.test.whole(CPU, 10000))
    assert torch.equal((images[:, 0] * 255).round().byte(), torch.from_numpy(arrays["t10k-images-idx3-ubyte"]))
    assert torch.equal(labels.byte(), torch.from_numpy(arrays["t10k-labels-idx1-ubyte"]))
    images, labels = whole(data)
    sums = sorted(zip((images * 255).round().sum((1, 2, 3)).int().tolist(), labels.tolist(), strict=True))
    train = arrays["train-images-idx3-ubyte"].sum((1, 2), dtype=int)
    assert sums == sorted(zip(train.tolist(), arrays["train-labels-idx1-ubyte"].tolist(), strict=True))


def test_a_missing_file_gives_the_layout(tmp_path: Path) -> None:
    with pytest.raises(NasError) as caught:
        FashionMnist().load(tmp_path, 0)
    message = str(caught.value)
    assert f"{tmp_path / 'fashion-mnist' / 'train-images-idx3-ubyte.gz'} is missing" in message
    for name, checksum in FashionMnist.checksums.items():
        assert f"{name} (MD5 of the .gz {checksum})" in message
    assert "data.root (or NAS_DATA)" in message
    assert "nothing is downloaded" in message


def test_labels_out_of_range_are_named(tmp_path: Path) -> None:
    arrays = write_mnist(tmp_path / "fashion-mnist")
    labels = arrays["t10k-labels-idx1-ubyte"]
    labels[[17, 90]] = 10
    (tmp_path / "fashion-mnist" / "t10k-labels-idx1-ubyte").write_bytes(idx(labels))
    with pytest.raises(NasError, match=r"t10k-labels-idx1-ubyte: labels must be in 0..9, but 2 are not; row 17 has 10"):
        FashionMnist().load(tmp_path, 0)


def test_real_fashion_mnist() -> None:
    root = real("fashion-mnist/train-images-idx3-ubyte.gz")
    for name, checksum in FashionMnist.checksums.items():
        assert md5(root / "fashion-mnist" / f"{name}.gz") == checksum
    data = FashionMnist(0.1).load(root, 0)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [54000, 6000, 10000]
    for split, count in ((data.train, 5400), (data.validation, 600), (data.test, 1000)):
        assert torch.bincount(split.labels).tolist() == [count] * 10
    images, _ = whole(data)
    assert float(images.double().mean()) == pytest.approx(0.28604, abs=5e-6)
    assert float(images.double().std()) == pytest.approx(0.35302, abs=5e-6)
    assert data.test.labels[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7], "the order of the official test set"
