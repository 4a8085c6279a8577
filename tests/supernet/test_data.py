"""Splits, batches and augmentation against plain loops."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from supernet.data import Dataset, Split, batches, digits, load_dataset, shift_images


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset("digits", 0.25, 0.2, 0)


def rows(*splits: Split) -> list[tuple[float, ...]]:
    images = torch.cat([split.images.flatten(1) for split in splits])
    labels = torch.cat([split.labels for split in splits])
    return [(*image, label) for image, label in zip(images.tolist(), labels.tolist(), strict=True)]


def test_splits_together_are_the_whole_data_set(data: Dataset) -> None:
    images, labels = digits()
    whole = [(*image.reshape(-1).tolist(), int(label)) for image, label in zip(images, labels, strict=True)]
    assert sorted(rows(data.train, data.validation, data.test)) == sorted(whole)


def test_splits_are_disjoint(data: Dataset) -> None:
    train, validation, test = (set(rows(split)) for split in (data.train, data.validation, data.test))
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_splits_have_their_shares_of_every_class(data: Dataset) -> None:
    _, labels = digits()
    for split, share in ((data.train, 0.55), (data.validation, 0.25), (data.test, 0.2)):
        assert len(split) == pytest.approx(share * len(labels), abs=2)
        for label, count in Counter(labels.tolist()).items():
            assert int((split.labels == label).sum()) == pytest.approx(share * count, abs=2)


def test_splits_follow_their_seed(data: Dataset) -> None:
    again, other = load_dataset("digits", 0.25, 0.2, 0), load_dataset("digits", 0.25, 0.2, 1)
    for split in ("train", "validation", "test"):
        assert rows(getattr(data, split)) == rows(getattr(again, split))
        assert set(rows(getattr(data, split))) != set(rows(getattr(other, split)))


def test_images_are_as_declared(data: Dataset) -> None:
    assert (data.input_shape, data.classes) == ((1, 8, 8), 10)
    assert data.train.images.dtype == torch.float32
    assert data.train.labels.dtype == torch.int64
    assert torch.equal(data.train.images * 16, (data.train.images * 16).round())
    assert (float(data.train.images.min()), float(data.train.images.max())) == (0.0, 1.0)


def moved(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    channels, height, width = image.shape
    result = torch.zeros_like(image)
    for channel in range(channels):
        for row in range(height):
            for column in range(width):
                if 0 <= row - down < height and 0 <= column - right < width:
                    result[channel, row, column] = image[channel, row - down, column - right]
    return result


@pytest.mark.parametrize("pixels", [1, 2])
def test_shifted_images_are_shifts_within_reach(pixels: int) -> None:
    images = torch.rand(60, 2, 5, 4, generator=torch.Generator().manual_seed(0)) + 1
    shifted = shift_images(images, pixels, np.random.default_rng(0))
    assert shifted.shape == images.shape
    reach = range(-pixels, pixels + 1)
    seen: Counter[tuple[int, int]] = Counter()
    for image, result in zip(images, shifted, strict=True):
        matches = [(d, r) for d in reach for r in reach if torch.equal(result, moved(image, d, r))]
        assert len(matches) == 1
        seen.update(matches)
    assert len(seen) > len(reach) ** 2 / 2
    assert {d for d, _ in seen} == {r for _, r in seen} == set(reach)


def test_shifts_follow_their_generator() -> None:
    images = torch.rand(20, 1, 4, 4)
    first, again, other = (shift_images(images, 1, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert shift_images(images, 0, np.random.default_rng(0)) is images


@pytest.mark.parametrize(("count", "size"), [(10, 3), (12, 4), (5, 5), (1, 1)])
def test_batches_are_full_and_disjoint(count: int, size: int) -> None:
    made = batches(count, size, np.random.default_rng(0))
    assert [len(batch) for batch in made] == [size] * (count // size)
    indices = torch.cat(made).tolist()
    assert len(set(indices)) == len(indices)
    assert set(indices) <= set(range(count))
    assert count < 3 or indices != sorted(indices)


def test_too_few_images_make_one_batch() -> None:
    assert [sorted(batch.tolist()) for batch in batches(3, 8, np.random.default_rng(0))] == [[0, 1, 2]]
