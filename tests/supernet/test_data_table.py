"""Tables in npz and HDF5 files: scaled rows, named columns, and every fault of a file on its own."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from data_files import CPU, md5, real
from numpy.typing import NDArray

from nas.errors import NasError
from supernet.data.split import Dataset
from supernet.data.table import Columns, Table


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
