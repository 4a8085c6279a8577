"""Jets as sets of particles, from files written here and from real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from data_files import CPU, real
from numpy.typing import NDArray

from nas.errors import NasError
from supernet.data.jets import Jets
from supernet.data.split import Dataset

NAMES = ("j1_etarel", "j1_ptrel", "j1_phirel")
LABELS = ("j_g", "j_q", "j_w", "j_z", "j_t")
SETTINGS: dict[str, Any] = {"file": "jets.h5", "particles": 4, "features": NAMES}


def made_up(count: int = 60, particles: int = 6) -> tuple[NDArray[Any], NDArray[Any]]:
    """Particles in no order, columns as in NAMES, no two of one momentum; and the jets' classes."""
    rng = np.random.default_rng(0)
    values = rng.normal(5, [1, 10, 100], (count, particles, 3))
    values[..., 1] = rng.permuted(np.linspace(0.1, 0.9, particles)[None].repeat(count, 0), axis=1)
    return values.astype(np.float32), np.arange(count) % 5


def write(path: Path, particles: NDArray[Any], classes: NDArray[Any], names: tuple[str, ...] = NAMES) -> None:
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        file["jetConstituentList"] = particles
        file["particleFeatureNames"] = np.array(names, dtype="S")
        file["jets"] = np.column_stack([np.full(len(classes), 900), np.eye(5)[classes]]).astype(np.float32)
        file["jetFeatureNames"] = np.array(["j_pt", *LABELS], dtype="S")


def unscaled(data: Dataset) -> dict[str, NDArray[Any]]:
    """Every split as the file has it: shape (n, features, particles)."""
    assert data.scaling is not None
    mean, std = data.scaling.mean[:, None], data.scaling.std[:, None]
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    return {name: split.first(len(split), CPU).numpy()[..., 0] * std + mean for name, split in splits.items()}


def test_jets_are_their_hardest_particles_one_after_another(tmp_path: Path) -> None:
    particles, classes = made_up()
    write(tmp_path / "jets.h5", particles, classes)
    data = Jets("jets.h5", 4, ("j1_phirel", "j1_etarel"), test_from=40).load(tmp_path, 0)
    assert (data.input_shape, data.classes) == ((2, 4, 1), 5)
    assert data.test.labels.tolist() == classes[40:].tolist()
    for found, jet in zip(unscaled(data)["test"], particles[40:], strict=True):
        hardest = sorted(jet.tolist(), key=lambda particle: -particle[1])[:4]
        np.testing.assert_allclose(found, [[p[2] for p in hardest], [p[0] for p in hardest]], rtol=1e-4, atol=1e-4)


def test_fewer_particles_are_the_first_of_more(tmp_path: Path) -> None:
    write(tmp_path / "jets.h5", *made_up())
    few, many = (unscaled(Jets("jets.h5", count, NAMES).load(tmp_path, 3)) for count in (2, 6))
    for name, values in few.items():
        np.testing.assert_allclose(values, many[name][:, :, :2], rtol=1e-4, atol=1e-4)


def test_features_are_scaled_by_the_training_jets_alone(tmp_path: Path) -> None:
    particles, classes = made_up()
    particles[40:] *= 1000
    write(tmp_path / "jets.h5", particles, classes)
    data = Jets("jets.h5", 6, NAMES, test_from=40).load(tmp_path, 0)
    train = data.train.first(len(data.train), CPU)
    assert train.dtype == torch.float32
    assert train.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert train.std((0, 2, 3), correction=0).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    assert data.test.first(20, CPU).abs().amax() > 100


def test_splits_are_disjoint_stratified_and_of_all_files(tmp_path: Path) -> None:
    particles, classes = made_up(100)
    for part, rows in (("1", slice(0, 30)), ("2", slice(30, 100))):
        write(tmp_path / "train" / f"jets_{part}.h5", particles[rows], classes[rows])
    data = Jets("train/*.h5", 3, NAMES, validation=0.2, test=0.25).load(tmp_path, 1)
    splits = (data.train, data.validation, data.test)
    assert [torch.bincount(split.labels).tolist() for split in splits] == [[11] * 5, [4] * 5, [5] * 5]
    found = np.concatenate(list(unscaled(data).values()))[:, 0, :]
    order = np.argsort(-particles[..., 1], axis=1)[:, :3]
    expected = np.take_along_axis(particles[..., 0], order, axis=1)
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(expected, axis=0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "law"),
    [
        ({"particles": 7}, r"must have 7 particles or more of every jet.* has shape \(60, 6, 4\)"),
        ({"features": ("j1_etarel", "j1_e")}, "particleFeatureNames must name the columns j1_e; it names j1_etarel, "),
        ({"file": "other.h5"}, "other.h5 is missing; expected it below data.root"),
        ({"test_from": 60}, "test_from must be inside the 60 rows of jets.h5, got 60"),
    ],
)
def test_what_a_file_does_not_hold_is_named(tmp_path: Path, settings: dict[str, Any], law: str) -> None:
    write(tmp_path / "jets.h5", *made_up())
    with pytest.raises(NasError, match=law):
        Jets(**(SETTINGS | settings)).load(tmp_path, 0)


def test_a_name_without_a_column_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "jets.h5", *made_up(), (*NAMES, "j1_pdgid"))
    assert Jets("jets.h5", 6, NAMES).load(tmp_path, 0).input_shape == (3, 6, 1)
    with pytest.raises(NasError, match="jetConstituentList must have the 4 columns that particleFeatureNames names"):
        Jets("jets.h5", 6, ("j1_pdgid",)).load(tmp_path, 0)


def test_wrong_values_are_named(tmp_path: Path) -> None:
    particles, classes = made_up()
    particles[7, 2, 0] = np.nan
    write(tmp_path / "jets.h5", particles, classes)
    with pytest.raises(NasError, match="features must be finite; 1 rows are not so, the first is 7"):
        Jets("jets.h5", 6, NAMES).load(tmp_path, 0)
    write(tmp_path / "jets.h5", made_up()[0], classes, ("j1_etarel", "j1_pt", "j1_phirel"))
    with pytest.raises(NasError, match="must name the columns j1_ptrel"):  # particles cannot be sorted
        Jets("jets.h5", 6, ("j1_etarel",)).load(tmp_path, 0)


@pytest.mark.parametrize(
    ("settings", "law"),
    [
        ({"particles": 0}, "at least one particle and distinct features, at least one; got 0"),
        ({"features": ()}, r"got 4 and \[\]"),
        ({"features": ("j1_etarel", "j1_etarel")}, "distinct features"),
        ({"validation": 0.5, "test": 0.5}, "must leave rows to train; got 1"),
        ({"file": "/jets.h5"}, "file must be relative to data.root, got '/jets.h5'"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], law: str) -> None:
    with pytest.raises(NasError, match=law):
        Jets(**(SETTINGS | settings))


def test_real_constituents() -> None:
    name, features = "jets/jets_constituents.h5", ("j1_ptrel", "j1_etarel", "j1_phirel")
    data = Jets(name, 8, features, 0.1, test_from=80500).load(real(name), 0)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [70650, 9850, 18000]
    assert data.input_shape == (3, 8, 1)
    momenta = unscaled(data)["test"][:, 0]
    assert (np.diff(momenta, axis=1) <= 1e-6).all()
    assert (momenta.sum(1) < 1.05).all()


def test_real_files_of_all_columns_hold_the_same_jets() -> None:
    """The first 1000 test jets again, with 64 particles and the 16 official columns."""
    whole, sample = "jets/jets_constituents.h5", "jets/jets_full_sample.h5"
    features = ("j1_phirel", "j1_ptrel", "j1_erel")
    root = real(whole, sample)
    few = unscaled(Jets(whole, 16, features, test_from=80500).load(root, 0))["test"][:1000]
    data = unscaled(Jets(sample, 16, features).load(root, 0))
    again = np.concatenate([data["train"], data["validation"], data["test"]])
    for jet in few:  # to the rounding of either file
        nearest = again[np.abs(again[:, 1] - jet[1]).sum(1).argmin()]
        np.testing.assert_allclose(nearest, jet, atol=2e-3)
