"""Official files, real where they are, else written here; every fault of a file on its own."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nas.errors import NasError
from supernet.data.cifar import Cifar10, Cifar100, read_records
from supernet.data.idx import FashionMnist, Mnist, read_idx
from supernet.data.split import Dataset
from supernet.data.table import Columns, Table

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


# idx


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


def write_padded(path: Path, content: bytes, size: int) -> None:
    """A file of this size that ends in zeros, which take no space on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.truncate(size)


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


# CIFAR


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


# tables


def table(count: int = 60) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(0)
    return rng.normal(50, [1, 10, 100], (count, 3)), rng.integers(0, 3, count)


def all_rows(data: Dataset) -> NDArray[Any]:
    splits = (data.train, data.validation, data.test)
    parts = [(split.first(len(split), CPU), split.labels) for split in splits]
    return np.concatenate([np.column_stack([x.numpy(), y.numpy()]) for x, y in parts])


@pytest.mark.parametrize("one_hot", [False, True])
def test_an_npz_file_gives_scaled_rows(tmp_path: Path, one_hot: bool) -> None:
    x, y = table()
    np.savez(tmp_path / "rows.npz", x=x, y=np.eye(3)[y] if one_hot else y)
    data = Table("rows.npz", (3,), 3).load(tmp_path, 0)
    assert [len(split) for split in (data.train, data.validation, data.test)] == pytest.approx([36, 12, 12], abs=2)
    train = data.train.first(len(data.train), CPU)
    assert train.dtype == torch.float32
    assert train.mean(0).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert train.std(0, correction=0).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    assert data.scaling is not None
    found = all_rows(data)
    found[:, :3] = found[:, :3] * data.scaling.std + data.scaling.mean
    order = np.argsort(found[:, 0]), np.argsort(x[:, 0])
    np.testing.assert_allclose(found[order[0]], np.column_stack([x, y])[order[1]], rtol=1e-4)


def test_a_constant_feature_is_scaled_to_zero(tmp_path: Path) -> None:
    x, y = table()
    x[:, 1] = 7
    np.savez(tmp_path / "rows.npz", x=x, y=y)
    assert (all_rows(Table("rows.npz", (3,), 3).load(tmp_path, 0))[:, 1] == 0).all()


def test_images_of_an_npz_file_stay_as_they_are(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 4, 4), dtype=np.uint8)
    for name, x in (("bytes.npz", images), ("floats.npz", images / 255)):
        np.savez(tmp_path / name, x=x, y=np.arange(60) % 3)
        data = Table(name, (1, 4, 4), 3).load(tmp_path, 0)
        assert data.scaling is None
        assert data.input_shape == (1, 4, 4)
        parts = [split.first(60, CPU) for split in (data.train, data.validation, data.test)]
        found = (torch.cat(parts) * 255).round().byte().flatten(1).tolist()
        assert sorted(found) == sorted(images.reshape(60, -1).tolist())


FEATURES = Columns("jets", "jetFeatureNames", ("c", "a"))
LABELS = Columns("jets", "jetFeatureNames", ("j_g", "j_q", "j_w"))


def write_jets(path: Path, x: NDArray[Any], y: NDArray[Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        file["jets"] = np.column_stack([x, np.eye(3)[y], np.zeros(len(y))]).astype(np.float32)
        file["jetFeatureNames"] = np.array([b"a", b"b", b"c", b"j_g", b"j_q", b"j_w", b"j_undef"])


def test_hdf5_files_give_their_named_columns(tmp_path: Path) -> None:
    x, y = table()
    for part, rows in (("1", slice(0, 40)), ("2", slice(40, 60))):
        write_jets(tmp_path / "train" / f"jets_{part}.h5", x[rows], y[rows])
    data = Table("train/*.h5", (2,), 3, FEATURES, LABELS, test_from=40).load(tmp_path, 0)
    assert (len(data.train), len(data.validation), len(data.test)) == (28, 12, 20)
    assert data.scaling is not None
    scaled = data.test.first(20, CPU).numpy() * data.scaling.std + data.scaling.mean
    np.testing.assert_allclose(scaled, x[40:][:, [2, 0]], rtol=1e-4)
    assert data.test.labels.tolist() == y[40:].tolist()


def test_hdf5_features_may_be_sets_of_rows(tmp_path: Path) -> None:
    particles = np.random.default_rng(0).random((30, 5, 2), dtype=np.float32)
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["list"], file["names"] = particles, np.array([b"pt", b"eta"])
        file["class"], file["class_names"] = (np.arange(30) % 3)[:, None], np.array([b"number"])
    features, labels = Columns("list", "names", ("eta",)), Columns("class", "class_names", ("number",))
    data = Table("p.h5", (5, 1), 3, features, labels, test_from=20).load(tmp_path, 0)
    assert data.test.first(10, CPU).tolist() == particles[20:, :, 1:].tolist()
    assert data.test.labels.tolist() == [number % 3 for number in range(20, 30)]


def npz(path: Path, x: NDArray[Any], y: NDArray[Any]) -> None:
    np.savez(path, x=x, y=y)


def npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def truncated(path: Path, x: NDArray[Any], y: NDArray[Any]) -> None:
    np.savez_compressed(path, x=x, y=y)
    path.write_bytes(path.read_bytes()[:-100])


def damaged(path: Path, x: NDArray[Any], y: NDArray[Any]) -> None:
    np.savez_compressed(path, x=x, y=y)
    content = path.read_bytes()
    path.write_bytes(content[:200] + bytes(200) + content[400:])


def with_value(x: NDArray[Any], row: int, value: float) -> NDArray[Any]:
    x = x.copy()
    x.reshape(len(x), -1)[row, 0] = value
    return x


X, Y = table()
TABLE_FAULTS: dict[str, tuple[Callable[[Path], None], tuple[int, ...], str]] = {
    "truncated": (lambda path: truncated(path, X, Y), (3,), "is not a whole .npz file"),
    "damaged": (lambda path: damaged(path, X, Y), (3,), "cannot be read as .npz"),
    "text": (lambda path: path.write_text("x,y"), (3,), "is not a whole .npz file"),
    "empty": (lambda path: path.write_bytes(b""), (3,), "is not a whole .npz file"),
    "one array": (lambda path: path.write_bytes(npy(X)), (3,), "is not a whole .npz file"),
    "pickled": (lambda path: npz(path, X.astype(object), Y), (3,), "cannot be read as .npz: Object arrays"),
    "named otherwise": (lambda path: np.savez(path, X=X, Y=Y), (3,), "must hold the arrays x"),
    "wide": (lambda path: npz(path, X, Y), (2,), r"rows of shape \(2,\) and one label each; features are \(60, 3\)"),
    "fewer labels": (lambda path: npz(path, X, Y[1:]), (3,), r"one label each; .* labels \(59,\)"),
    "label": (
        lambda path: npz(path, X, with_value(Y, 4, 3)),
        (3,),
        "labels must be in 0..2, but 1 are not; row 4 has 3",
    ),
    "negative": (lambda path: npz(path, X, with_value(Y, 4, -1)), (3,), "row 4 has -1"),
    "half": (lambda path: npz(path, X, Y + 0.5), (3,), "labels must be whole numbers or 3 columns"),
    "two classes": (
        lambda path: npz(path, X, np.eye(3)[Y] + np.eye(3)[0]),
        (3,),
        "of the 3 label columns one must be 1",
    ),
    "no class": (
        lambda path: npz(path, X, np.eye(3)[Y] * (np.arange(60) != 5)[:, None]),
        (3,),
        "1 rows are not so, the first is 5",
    ),
    "infinite": (lambda path: npz(path, with_value(X, 9, np.inf), Y), (3,), "must be finite; 1 rows .* first is 9"),
    "bright": (
        lambda path: npz(path, with_value(np.zeros((60, 1, 2, 2)), 9, 255), Y),
        (1, 2, 2),
        r"images must lie in \[0, 1\] or be bytes; 1 rows are not so, the first is 9",
    ),
}


@pytest.mark.parametrize("name", TABLE_FAULTS)
def test_a_wrong_table_is_named_with_its_fault(tmp_path: Path, name: str) -> None:
    write, shape, law = TABLE_FAULTS[name]
    path = tmp_path / "rows.npz"
    write(path)
    with pytest.raises(NasError, match=law) as caught:
        Table("rows.npz", shape, 3).load(tmp_path, 0)
    assert str(path) in str(caught.value)
    assert md5(path) in str(caught.value)


def test_a_missing_table_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(NasError, match=r"rows.npz is missing; expected it below data.root.*nothing is downloaded"):
        Table("rows.npz", (3,), 3).load(tmp_path, 0)
    npz(tmp_path / "rows.npz", X, Y)
    with pytest.raises(NasError, match=r"test_from must be inside the 60 rows of rows.npz, got 60"):
        Table("rows.npz", (3,), 3, test_from=60).load(tmp_path, 0)


@pytest.mark.parametrize(
    ("features", "labels", "law"),
    [
        (
            Columns("jet", "jetFeatureNames", ("a",)),
            LABELS,
            "must hold the data set jet; it holds jetFeatureNames, jets",
        ),
        (Columns("jets", "names", ("a",)), LABELS, "must hold the data set names"),
        (
            Columns("jets", "jetFeatureNames", ("z", "a")),
            LABELS,
            "jetFeatureNames must name the columns z; it names a, b",
        ),
        (FEATURES, Columns("jets", "jetFeatureNames", ("j_x",)), "must name the columns j_x"),
    ],
)
def test_a_wrong_hdf5_file_is_named_with_its_fault(
    tmp_path: Path, features: Columns, labels: Columns, law: str
) -> None:
    write_jets(tmp_path / "jets.h5", X, Y)
    with pytest.raises(NasError, match=law) as caught:
        Table("jets.h5", (len(features.columns),), 3, features, labels).load(tmp_path, 0)
    assert str(tmp_path / "jets.h5") in str(caught.value)


def test_a_damaged_hdf5_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "jets.h5"
    write_jets(path, X, Y)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(NasError, match=r"jets.h5: cannot be read as HDF5"):
        Table("jets.h5", (2,), 3, FEATURES, LABELS).load(tmp_path, 0)
    path.write_text("no HDF5")
    with pytest.raises(NasError, match=r"jets.h5: cannot be read as HDF5"):
        Table("jets.h5", (2,), 3, FEATURES, LABELS).load(tmp_path, 0)


def test_names_and_columns_must_agree(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "jets.h5", "w") as file:
        file["jets"], file["jetFeatureNames"] = np.zeros((6, 2)), np.array([b"c", b"a", b"j_g", b"j_q", b"j_w"])
    with pytest.raises(NasError, match="jets must have the 5 columns that jetFeatureNames names, got 2"):
        Table("jets.h5", (2,), 3, FEATURES, LABELS).load(tmp_path, 0)


def test_real_jets() -> None:
    """High-level features of simulated LHC jets, the official columns."""
    root = real("jets/jets_hlf.h5")
    high_level = (
        "j_zlogz", "j_c1_b0_mmdt", "j_c1_b1_mmdt", "j_c1_b2_mmdt", "j_c2_b1_mmdt", "j_c2_b2_mmdt", "j_d2_b1_mmdt",
        "j_d2_b2_mmdt", "j_d2_a1_b1_mmdt", "j_d2_a1_b2_mmdt", "j_m2_b1_mmdt", "j_m2_b2_mmdt", "j_n2_b1_mmdt",
        "j_n2_b2_mmdt", "j_mass_mmdt", "j_multiplicity",
    )  # fmt: skip
    features, labels = (
        Columns("jets", "jetFeatureNames", columns) for columns in (high_level, ("j_g", "j_q", "j_w", "j_z", "j_t"))
    )
    data = Table("jets/jets_hlf.h5", (16,), 5, features, labels, validation=0.1, test_from=80500).load(root, 0)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [70650, 9850, 18000]
    assert torch.bincount(data.test.labels, minlength=5).min() > 3000
    train = data.train.first(len(data.train), CPU)
    assert train.std(0).tolist() == pytest.approx([1] * 16, rel=1e-3)
