"""Splits, their shares and orders; sources as sections of a config."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from sklearn.datasets import load_digits

from nas.errors import NasError
from supernet.data import SOURCES
from supernet.data.digits import Digits
from supernet.data.shares import hold_out
from supernet.data.split import Augmentation, Dataset, order
from supernet.data.table import Columns

CPU = torch.device("cpu")
SETTINGS: dict[str, dict[str, Any]] = {
    "digits": {"validation": 0.25, "test": 0.2},
    "mnist": {"validation": 0.1},
    "fashion-mnist": {"validation": 0.1},
    "cifar10": {"validation": 0.1},
    "cifar100": {"validation": 0.1},
    "folder": {"path": "imagenet", "image_size": 224, "classes": 1000, "validation": 0.05, "workers": 8},
    "table": {
        "file": "jets/*.h5",
        "input_shape": [2],
        "classes": 2,
        "features": {"table": "jets", "names": "jetFeatureNames", "columns": ["j_mass", "j_zlogz"]},
        "labels": {"table": "jets", "names": "jetFeatureNames", "columns": ["j_g", "j_q"]},
        "validation": 0.1,
        "test": 0.1,
    },
    "jets": {"file": "jets.h5", "particles": 16, "features": ["j1_ptrel", "j1_etarel", "j1_phirel"], "validation": 0.1},
}
SHAPES = {
    "digits": ((1, 8, 8), 10),
    "mnist": ((1, 28, 28), 10),
    "fashion-mnist": ((1, 28, 28), 10),
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
    "folder": ((3, 224, 224), 1000),
    "table": ((2,), 2),
    "jets": ((3, 16, 1), 5),
}


@pytest.fixture(scope="module")
def data() -> Dataset:
    return Digits(0.25, 0.2).load(Path(), 0)


def rows(*splits: Any) -> list[tuple[float, ...]]:
    images = torch.cat([split.first(len(split), CPU).flatten(1) for split in splits])
    labels = torch.cat([split.labels for split in splits])
    return [(*image, label) for image, label in zip(images.tolist(), labels.tolist(), strict=True)]


def test_splits_together_are_the_whole_data_set(data: Dataset) -> None:
    bunch = load_digits()
    whole = [
        (*(image / 16).reshape(-1).tolist(), int(label))
        for image, label in zip(bunch.images, bunch.target, strict=True)
    ]
    assert sorted(rows(data.train, data.validation, data.test)) == sorted(whole)


def test_splits_are_disjoint(data: Dataset) -> None:
    train, validation, test = (set(rows(split)) for split in (data.train, data.validation, data.test))
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_splits_have_their_shares_of_every_class(data: Dataset) -> None:
    labels = load_digits().target
    for split, share in ((data.train, 0.55), (data.validation, 0.25), (data.test, 0.2)):
        assert len(split) == pytest.approx(share * len(labels), abs=2)
        for label, count in Counter(labels.tolist()).items():
            assert int((split.labels == label).sum()) == pytest.approx(share * count, abs=2)


def test_splits_follow_their_seed(data: Dataset) -> None:
    again, other = (Digits(0.25, 0.2).load(Path(), seed) for seed in (0, 1))
    for split in ("train", "validation", "test"):
        assert rows(getattr(data, split)) == rows(getattr(again, split))
        assert set(rows(getattr(data, split))) != set(rows(getattr(other, split)))


def test_digits_lie_on_their_grid(data: Dataset) -> None:
    images = data.train.first(len(data.train), CPU)
    assert (data.input_shape, data.classes, data.name) == ((1, 8, 8), 10, "digits")
    assert (images.dtype, data.train.labels.dtype) == (torch.float32, torch.int64)
    assert torch.equal(images * 16, (images * 16).round())
    assert (float(images.min()), float(images.max())) == (0.0, 1.0)


def test_held_out_rows_are_a_share_of_every_class() -> None:
    labels = np.repeat(np.arange(3, dtype=np.uint8), [10, 40, 21])
    rest, held = hold_out(labels, 0.25, 0)
    assert sorted([*rest, *held]) == list(range(len(labels)))
    assert np.bincount(labels[held]).tolist() == [2, 10, 5]
    assert rest.tolist() != sorted(rest.tolist())
    assert len(set(labels[rest[:9]].tolist())) > 1, "calibration on the first images would see one class"
    again, other = (hold_out(labels, 0.25, seed)[1] for seed in (0, 1))
    assert held.tolist() == again.tolist() != other.tolist()


@pytest.mark.parametrize(("count", "share"), [(1, 0.5), (4, 0.1), (4, 0.9)])
def test_a_class_without_a_row_in_each_split_is_an_error(count: int, share: float) -> None:
    with pytest.raises(NasError, match=f"every class needs a row in each split; .* {count} rows of class 1 are"):
        hold_out(np.array([0] * 20 + [1] * count), share, 0)


@pytest.mark.parametrize(("count", "size"), [(10, 3), (12, 4), (5, 5), (1, 1)])
def test_batches_are_full_and_disjoint(count: int, size: int) -> None:
    made = order(count, size, 0, 0)
    assert [len(batch) for batch in made] == [size] * (count // size)
    indices = np.concatenate(made).tolist()
    assert len(set(indices)) == len(indices)
    assert set(indices) <= set(range(count))
    assert count < 3 or indices != sorted(indices)


def test_too_few_images_make_one_batch() -> None:
    assert [sorted(batch.tolist()) for batch in order(3, 8, 0, 0)] == [[0, 1, 2]]


def test_order_follows_seed_and_epoch() -> None:
    orders = {
        (seed, epoch): tuple(np.concatenate(order(64, 8, seed, epoch))) for seed in (0, 1, 2) for epoch in (0, 1, 2)
    }
    assert len(set(orders.values())) == len(orders)
    assert orders[1, 2] == tuple(np.concatenate(order(64, 8, 1, 2)))
    for (seed, epoch), found in orders.items():
        assert found != tuple(np.random.default_rng([seed, epoch]).permutation(64)), "a step's draws would repeat it"


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_is_a_section_of_a_config(name: str) -> None:
    source: Any = TypeAdapter(SOURCES[name]).validate_python(SETTINGS[name])
    assert (source.input_shape, source.classes) == SHAPES[name]
    assert source.name == name
    assert TypeAdapter(SOURCES[name]).validate_python(dataclasses.asdict(source)) == source
    with pytest.raises(ValidationError, match="valdiation"):
        TypeAdapter(SOURCES[name]).validate_python({**SETTINGS[name], "valdiation": 0.1})


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_share_outside_its_range_is_an_error(name: str, share: float) -> None:
    with pytest.raises(ValidationError, match=f"validation must be a share between 0 and 1, got {share:g}"):
        TypeAdapter(SOURCES[name]).validate_python({**SETTINGS[name], "validation": share})


@pytest.mark.parametrize(
    ("name", "change", "law"),
    [
        ("digits", {"validation": 0.5, "test": 0.5}, "must leave images to train; got 1"),
        ("table", {"validation": 0.5, "test": 0.5}, "must leave rows to train; got 1"),
        ("table", {"file": "/jets.h5"}, "must be relative to data.root, got '/jets.h5'"),
        ("table", {"file": "jets.npz"}, "takes no features"),
        ("table", {"labels": None}, "needs both"),
        ("table", {"input_shape": []}, "input_shape must be positive"),
        ("folder", {"classes": 1}, "classes 2"),
    ],
)
def test_settings_that_cannot_be_are_errors(name: str, change: dict[str, Any], law: str) -> None:
    with pytest.raises(ValidationError, match=law):
        TypeAdapter(SOURCES[name]).validate_python({**SETTINGS[name], **change})


def test_columns_and_augmentation_check_themselves() -> None:
    with pytest.raises(NasError, match="at least one column of jets"):
        Columns("jets", "names", ())
    with pytest.raises(NasError, match="shift must be at least 0 pixels, got -1"):
        Augmentation(shift=-1)
    with pytest.raises(NasError, match=r"crop must be a share of the area in \[0, 1\], got 2"):
        Augmentation(crop=2)


def test_sources_can_be_read_without_torch() -> None:
    heavy = {"torch", "sklearn", "h5py", "PIL"}
    code = f"import sys, supernet.data; print(sorted({heavy!r} & sys.modules.keys()))"
    root = Path(__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def digest(task: tuple[Digits, Path, int]) -> list[tuple[float, ...]]:
    source, root, seed = task
    return rows(source.load(root, seed).validation)


def test_a_worker_process_loads_anew_from_the_source(data: Dataset) -> None:
    """What travels is the source, not the images."""
    task = (Digits(0.25, 0.2), Path(), 0)
    assert len(pickle.dumps(task)) < 500
    with ProcessPoolExecutor(1, get_context("forkserver")) as pool:
        assert pool.submit(digest, task).result() == rows(data.validation)
