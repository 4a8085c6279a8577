"""Streams of in-memory splits, and augmentation against a plain loop."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from nas.errors import NasError
from supernet.data.augment import draws, moved, moves
from supernet.data.split import NONE, Augmentation, Step, order
from supernet.data.tensor_split import TensorSplit

CPU = torch.device("cpu")
AUGMENTATIONS = [NONE, Augmentation(shift=2), Augmentation(flip=True), Augmentation(shift=1, flip=True)]


def pictures(count: int = 60, shape: tuple[int, ...] = (2, 5, 4)) -> TensorSplit:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (count, *shape), generator=generator, dtype=torch.uint8)
    return TensorSplit(images, torch.arange(count))


def steps(count: int, batch: int, seed: int = 0, rows: slice = slice(None)) -> list[Step]:
    return [Step(indices, (seed, number), rows) for number, indices in enumerate(order(count, batch, seed, 0))]


def streamed(split: TensorSplit, of: list[Step], augmentation: Augmentation) -> list[tuple[Tensor, Tensor]]:
    return list(split.stream(of, augmentation, CPU))


def changed(image: Tensor, down: int, right: int, mirrored: bool) -> Tensor:
    """The image moved, then mirrored where it says so: pixel by pixel."""
    channels, height, width = image.shape
    result = torch.zeros_like(image)
    for channel in range(channels):
        for row in range(height):
            for column in range(width):
                source = width - 1 - column if mirrored else column
                if 0 <= row - down < height and 0 <= source - right < width:
                    result[channel, row, column] = image[channel, row - down, source - right]
    return result


def changes(augmentation: Augmentation) -> Iterator[tuple[int, int, bool]]:
    reach = range(-augmentation.shift, augmentation.shift + 1)
    for mirrored in (False, True) if augmentation.flip else (False,):
        yield from ((down, right, mirrored) for down in reach for right in reach)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_streamed_images_are_changes_within_reach(augmentation: Augmentation, dtype: torch.dtype) -> None:
    """Every image is exactly one of the allowed changes of its own original, and all of them occur."""
    split = pictures(200, (2, 3, 4))
    split = TensorSplit(split.images if dtype == torch.uint8 else split.images / 255, split.labels)
    seen: Counter[tuple[int, int, bool]] = Counter()
    for images, labels in streamed(split, steps(200, 50), augmentation):
        assert images.dtype == torch.float32
        for image, label in zip(images, labels.tolist(), strict=True):
            original = split.images[label] / 255 if dtype == torch.uint8 else split.images[label]
            found = [change for change in changes(augmentation) if torch.equal(changed(original, *change), image)]
            assert len(found) == 1
            seen.update(found)
    assert set(seen) == set(changes(augmentation))
    assert sum(seen.values()) == 200


def test_moves_are_the_drawn_ones() -> None:
    images = pictures(9).images
    table = torch.tensor([(row, column, mirrored) for row in (0, 1, 2) for column in (0, 2) for mirrored in (0, 1)])
    for move in table:
        row, column, mirrored = move.tolist()
        result = moved(images, move.repeat(9, 1), Augmentation(1, True))
        padded = torch.nn.functional.pad(images, (1,) * 4)
        expected = padded[:, :, row : row + 5, column : column + 4]
        if mirrored:
            expected = torch.stack([changed(image, 1 - row, 1 - column, True) for image in images])
        assert torch.equal(result, expected)


def test_all_moves_are_equally_likely() -> None:
    drawn = draws(Step(np.arange(20000), (3, 4)))
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts = Counter(map(tuple, moves(Augmentation(1, True), drawn).tolist()))
    assert len(counts) == 18
    assert all(abs(count - 20000 / 18) < 5 * (20000 / 18) ** 0.5 for count in counts.values())


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_see_exactly_the_rows_of_one_process(augmentation: Augmentation, ranks: int) -> None:
    split, part = pictures(), 12 // ranks
    whole = streamed(split, steps(60, 12), augmentation)
    of_ranks = [
        streamed(split, steps(60, 12, rows=slice(rank * part, (rank + 1) * part)), augmentation)
        for rank in range(ranks)
    ]
    for (images, labels), *parts in zip(whole, *of_ranks, strict=True):
        assert torch.equal(torch.cat([images for images, _ in parts]), images)
        assert torch.equal(torch.cat([labels for _, labels in parts]), labels)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_a_stream_resumes_at_any_step(augmentation: Augmentation) -> None:
    split, all_steps = pictures(), steps(60, 12)
    whole = streamed(split, all_steps, augmentation)
    for start in range(len(all_steps)):
        for (images, labels), (expected, expected_labels) in zip(
            streamed(split, all_steps[start:], augmentation), whole[start:], strict=True
        ):
            assert torch.equal(images, expected)
            assert torch.equal(labels, expected_labels)


def test_augmentation_follows_the_step_and_leaves_the_images_alone() -> None:
    split, augmentation = pictures(), Augmentation(2, True)
    before = split.images.clone()
    indices = np.arange(60)
    first, again, other = (
        next(split.stream([Step(indices, seed)], augmentation, CPU))[0] for seed in ((0, 1), (0, 1), (0, 2))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(split.images, before)


def test_one_image_twice_in_a_batch_is_varied_twice() -> None:
    images, _ = next(pictures().stream([Step(np.zeros(40, dtype=np.int64), (0,))], Augmentation(2, True), CPU))
    assert len({tuple(image.flatten().tolist()) for image in images}) > 20


def test_a_stream_takes_steps_as_they_come() -> None:
    taken: list[int] = []

    def forever() -> Iterator[Step]:
        while True:
            taken.append(len(taken))
            yield Step(np.array([0, 1]), (len(taken),))

    stream = pictures().stream(forever(), NONE, CPU)
    assert not taken
    next(stream)
    assert taken == [0]


@pytest.mark.parametrize("batch", [1, 7, 60, 100])
def test_the_whole_split_comes_in_order(batch: int) -> None:
    split = pictures()
    parts = list(split.whole(CPU, batch))
    assert torch.equal(torch.cat([images for images, _ in parts]), split.images / 255)
    assert torch.equal(torch.cat([labels for _, labels in parts]), split.labels)
    assert max(len(labels) for _, labels in parts) == min(batch, 60)
    assert torch.equal(split.first(batch, CPU), (split.images / 255)[:batch])


def test_images_go_to_a_device_once() -> None:
    split = pictures()
    list(split.stream(steps(60, 12), NONE, CPU))
    assert split._on(CPU)[0] is split._on(CPU)[0]
    assert split._on(CPU)[0].data_ptr() == split.images.data_ptr(), "the CPU needs no copy"


def test_a_pickled_split_holds_its_bytes_once() -> None:
    split = pictures(100, (3, 32, 32))
    list(split.whole(CPU, 10))
    pickled = pickle.dumps(split)
    assert len(pickled) < 1.1 * split.images.nbytes
    assert torch.equal(pickle.loads(pickled).images, split.images)


def test_vectors_stream_but_cannot_be_moved() -> None:
    split = TensorSplit(torch.rand(8, 3), torch.arange(8))
    images, labels = next(split.stream([Step(np.array([5, 2]), (0,))], NONE, CPU))
    assert torch.equal(images, split.images[[5, 2]])
    assert labels.tolist() == [5, 2]
    for augmentation in (Augmentation(shift=1), Augmentation(flip=True)):
        with pytest.raises(NasError, match=r"only images .* this data has shape \(3,\); set shift 0, flip false"):
            next(split.stream([], augmentation, CPU), None)
    with pytest.raises(NasError, match=r"crop is for image folders; in-memory data takes 0, got 0.5"):
        next(pictures().stream([], Augmentation(crop=0.5), CPU), None)


def test_every_image_needs_a_label() -> None:
    with pytest.raises(NasError, match="one label per image; got 3 and 2"):
        TensorSplit(torch.zeros(3, 1), torch.zeros(2, dtype=torch.int64))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_an_accelerator_gives_what_the_cpu_gives(augmentation: Augmentation) -> None:
    split = pictures()
    there = split.stream(steps(60, 12), augmentation, torch.device("cuda"))
    for (images, labels), (expected, expected_labels) in zip(
        there, streamed(split, steps(60, 12), augmentation), strict=True
    ):
        assert images.is_cuda
        torch.testing.assert_close(images.cpu(), expected, rtol=1e-6, atol=0)
        assert torch.equal(labels.cpu(), expected_labels)
