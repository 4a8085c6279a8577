"""CIFAR's records: bytes, places, and every fault of a batch on its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_files import CPU, md5, real, whole, write_padded
from numpy.typing import NDArray

from nas.errors import NasError
from supernet.data.cifar import Cifar10, Cifar100, read_records


def records(count: int, label_bytes: int, classes: int) -> tuple[bytes, NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    labels = rng.integers(0, classes, count, dtype=np.uint8)
    coarse = rng.integers(0, 20, (count, label_bytes - 1), dtype=np.uint8)
    content = b"".join(
        bytes([*coarse[row], labels[row]]) + images[row].tobytes() for row in range(count)
    )  # a record as its page describes it
    return content, images, labels


@pytest.mark.parametrize(("label_bytes", "classes"), [(1, 10), (2, 100)])
def test_records_give_images_and_fine_labels(tmp_path: Path, label_bytes: int, classes: int) -> None:
    content, images, labels = records(30, label_bytes, classes)
    (tmp_path / "batch.bin").write_bytes(content)
    found, found_labels = read_records(tmp_path / "batch.bin", 30, label_bytes, classes)
    assert (found == images).all()
    assert (found_labels == labels).all()


@pytest.mark.parametrize(
    ("spoil", "law"),
    [
        (lambda content: content[:-1], "must hold 30 records of 1 + 3072 bytes, 92190 in all; got 92189"),
        (lambda content: content[:-3073], "must hold 30 records of 1 + 3072 bytes, 92190 in all; got 89117"),
        (lambda content: content + b"\0", "92190 in all; got 92191"),
        (lambda _: b"", "92190 in all; got 0"),
        (lambda content: b"\x0a" + content[1:], "labels must be in 0..9, but 1 are not; row 0 has 10"),
        (lambda content: content[1:] + b"\0", "labels must be in 0..9"),
    ],
    ids=["truncated", "a record less", "too long", "empty", "label", "misaligned"],
)
def test_a_corrupt_batch_is_named_with_its_fault(tmp_path: Path, spoil: Callable[[bytes], bytes], law: str) -> None:
    path = tmp_path / "data_batch_1.bin"
    path.write_bytes(spoil(records(30, 1, 10)[0]))
    with pytest.raises(NasError) as caught:
        read_records(path, 30, 1, 10)
    assert str(caught.value).startswith(f"{path}: ")
    assert law in str(caught.value)
    assert md5(path) in str(caught.value)


def write_cifar(folder: Path, source: Cifar10) -> None:
    """Files of the official sizes; label and first pixel of the first records are their numbers, the rest is 0."""
    folder.mkdir(parents=True)
    for name in (*source.train_files, source.test_file):
        count = 10000 if name == source.test_file else 50000 // len(source.train_files)
        rows = np.zeros((200, source.label_bytes + 3072), dtype=np.uint8)
        rows[:, source.label_bytes - 1] = np.arange(200) % source.classes
        rows[:, source.label_bytes] = np.arange(200)
        write_padded(folder / name, rows.tobytes(), count * rows.shape[1])


@pytest.mark.parametrize(
    ("source", "place"),
    [
        (Cifar10(0.5), "cifar10/cifar-10-batches-bin"),
        (Cifar10(0.5), "cifar-10-batches-bin"),
        (Cifar10(0.5), "cifar10"),
        (Cifar10(0.5), "."),
        (Cifar100(0.5), "cifar100/cifar-100-binary"),
    ],
)
def test_cifar_is_read_from_its_places(tmp_path: Path, source: Cifar10, place: str) -> None:
    write_cifar(tmp_path / "root" / place, source)
    data = source.load(tmp_path / "root", 0)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [25000, 25000, 10000]
    batches = len(source.train_files)
    for split in (data.train, data.validation):
        assert torch.bincount(split.labels)[1:].tolist() == [100 * batches // source.classes] * (source.classes - 1)
    assert data.test.labels[:200].tolist() == [number % source.classes for number in range(200)]
    assert (data.test.first(200, CPU)[:, 0, 0, 0] * 255).round().int().tolist() == list(range(200))
    assert (data.input_shape, data.classes, data.name) == ((3, 32, 32), source.classes, source.name)


def test_a_missing_batch_gives_the_layout(tmp_path: Path) -> None:
    write_cifar(tmp_path / "cifar-10-batches-bin", Cifar10())
    (tmp_path / "cifar-10-batches-bin" / "data_batch_4.bin").unlink()
    with pytest.raises(NasError, match=r"data_batch_4.bin is missing; expected below data.root: .*c32a1d4ab5d03f12"):
        Cifar10().load(tmp_path, 0)
    with pytest.raises(NasError, match=r"cifar-100-binary/train.bin is missing; .* train.bin and test.bin"):
        Cifar100().load(tmp_path, 0)


def test_real_cifar10() -> None:
    data = Cifar10(0.1).load(real("cifar-10-batches-bin/test_batch.bin"), 0)
    for split, count in ((data.train, 4500), (data.validation, 500), (data.test, 1000)):
        assert torch.bincount(split.labels).tolist() == [count] * 10
    images, _ = whole(data)
    assert images.mean((0, 2, 3)).tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=5e-5)
    assert images.std((0, 2, 3)).tolist() == pytest.approx([0.2470, 0.2435, 0.2616], abs=5e-5)
