"""Image folders: decoding, cropping, workers, resumption, and every fault of a folder."""

from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from nas.errors import NasError
from supernet.data.decode import centre_box, decoded, random_box
from supernet.data.folder_split import FolderSplit
from supernet.data.image_folder import ImageFolder
from supernet.data.split import NONE, Augmentation, Step, order

CPU = torch.device("cpu")
ALL = Augmentation(shift=1, flip=True, crop=0.3)
CLASSES = ("ant", "bee", "cat")


def write_images(root: Path, per_class: int = 8) -> None:
    """Photos of several sizes, colour modes and formats; the blue of each is its class."""
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for label, name in enumerate(CLASSES):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(per_class):
                pixels = rng.integers(0, 256, (20 + number, 30 - number, 3), dtype=np.uint8)
                pixels[:, :, 2] = label
                Image.fromarray(pixels).save(folder / f"{number}.png")
    grey = Image.fromarray(np.full((9, 12), 200, np.uint8))
    grey.save(root / "val" / "ant" / "grey.jpg")
    Image.fromarray(np.full((9, 12, 4), 100, np.uint8)).save(root / "val" / "ant" / "transparent.PNG")
    grey.convert("P").save(root / "val" / "bee" / "palette.png")
    (root / "train" / "ant" / "notes.txt").write_text("no image")
    (root / "train" / ".cache").mkdir()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_images(tmp_path / "photos")
    return tmp_path


def folder(workers: int = 0) -> ImageFolder:
    return ImageFolder("photos", 16, 3, validation=0.25, workers=workers)


def train_split(root: Path, workers: int = 0) -> FolderSplit:
    split = folder(workers).load(root, 0).train
    assert isinstance(split, FolderSplit)
    return split


def steps(count: int = 18, batch: int = 6, rows: slice = slice(None)) -> list[Step]:
    return [Step(indices, (0, number), rows) for number, indices in enumerate(order(count, batch, 0, 0))]


def same(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> bool:
    return all(
        torch.equal(images, others) and torch.equal(labels, other_labels)
        for (images, labels), (others, other_labels) in zip(one, other, strict=True)
    )


def test_a_folder_is_split_with_its_labels(root: Path) -> None:
    data = folder().load(root, 0)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [18, 6, 27]
    assert (data.input_shape, data.classes) == ((3, 16, 16), 3)
    assert torch.bincount(data.train.labels).tolist() == [6, 6, 6]
    assert torch.bincount(data.test.labels).tolist() == [10, 9, 8]
    files = {file for split in (data.train, data.validation) for file in split.files}  # type: ignore[attr-defined]
    assert files == {f"train/{name}/{number}.png" for name in CLASSES for number in range(8)}
    for split in (data.train, data.validation):
        for images, labels in split.whole(CPU, 5):
            assert (images.dtype, images.shape[1:]) == (torch.float32, (3, 16, 16))
            assert torch.equal((images[:, 2] * 255).round().amax((1, 2)).long(), labels)


def test_images_of_every_mode_become_rgb(root: Path) -> None:
    for name, value in (("ant/grey.jpg", 200), ("ant/transparent.PNG", 100), ("bee/palette.png", 200)):
        found = decoded(root / "photos" / "val" / name, 6, 0, np.zeros(4))
        assert (found.shape, found.dtype) == ((3, 6, 6), np.uint8)
        assert abs(found.astype(int) - value).max() <= 3


def test_the_centre_is_cut_out_for_evaluation(tmp_path: Path) -> None:
    """An image of 32 x 64: rows 2..29 and columns 18..45, exactly, where nothing has to be scaled."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    found = decoded(tmp_path / "image.png", 28, 0, np.full(4, 0.9))
    assert (found == pixels[2:30, 18:46].transpose(2, 0, 1)).all()
    assert centre_box(64, 32) == (18, 2, 46, 30)


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (200, 20), (7, 90)])
@pytest.mark.parametrize("least", [0.08, 0.5, 1.0])
def test_random_boxes_lie_inside_and_keep_their_share(size: tuple[int, int], least: float) -> None:
    width, height = size
    rng = np.random.default_rng(0)
    boxes = np.array([random_box(width, height, least, rng.random(4)) for _ in range(500)])
    wide, high = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert (boxes >= -1e-12).all()
    assert (boxes[:, 2] <= width).all()
    assert (boxes[:, 3] <= height).all()
    uncut = (wide < width - 1e-9) & (high < height - 1e-9)
    share, aspect = (wide * high)[uncut] / (width * height), (wide / high)[uncut]
    assert (share >= least - 1e-9).all()
    assert ((aspect > 3 / 4 - 1e-9) & (aspect < 4 / 3 + 1e-9)).all()
    if least < 0.5 and max(size) < 2 * min(size):
        assert uncut.sum() > 300
        assert (share.min(), share.max()) == pytest.approx((least, 0.9), abs=0.15)


def test_a_random_crop_is_that_part_of_the_image(tmp_path: Path) -> None:
    """A crop of a gradient has the gradient's values at the box's edges."""
    row = np.linspace(0, 255, 256).astype(np.uint8)
    Image.fromarray(
        np.stack([np.tile(row, (256, 1)), np.tile(row[:, None], (1, 256)), np.zeros((256, 256), np.uint8)], 2)
    ).save(tmp_path / "image.png")
    rng = np.random.default_rng(0)
    for _ in range(20):
        drawn = rng.random(4)
        left, upper, right, lower = random_box(256, 256, 0.1, drawn)
        red, green, _ = decoded(tmp_path / "image.png", 32, 0.1, drawn).astype(float)
        half = (right - left) / 64, (lower - upper) / 64
        assert red[0, [0, -1]] == pytest.approx([left + half[0], right - half[0]], abs=2.5)
        assert green[[0, -1], 0] == pytest.approx([upper + half[1], lower - half[1]], abs=2.5)


@pytest.mark.parametrize("augmentation", [NONE, ALL])
def test_workers_change_nothing(root: Path, augmentation: Augmentation) -> None:
    alone, split = train_split(root), train_split(root, workers=2)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    streamed = list(split.stream(steps(), augmentation, CPU))
    assert torch.equal(torch.get_rng_state(), state), "a pass must leave the global generator alone"
    assert same(streamed, list(alone.stream(steps(), augmentation, CPU)))
    if augmentation == NONE:
        assert same(list(split.whole(CPU, 7)), list(alone.whole(CPU, 7)))


def test_ranks_see_exactly_the_rows_of_one_process(root: Path) -> None:
    split = train_split(root)
    parts = [list(split.stream(steps(rows=slice(rank, rank + 2)), ALL, CPU)) for rank in (0, 2, 4)]
    joined = [tuple(torch.cat(pieces) for pieces in zip(*ranks, strict=True)) for ranks in zip(*parts, strict=True)]
    assert same(joined, list(split.stream(steps(), ALL, CPU)))  # type: ignore[arg-type]


def test_a_stream_resumes_without_reading_what_came_before(root: Path) -> None:
    split = train_split(root)
    whole = list(split.stream(steps(), ALL, CPU))
    for step in steps()[:2]:
        for index in step.indices:
            (split.root / split.files[index]).unlink()
    assert same(list(split.stream(steps()[2:], ALL, CPU)), whole[2:])


def test_augmentation_varies_each_image_by_its_step(root: Path) -> None:
    split = train_split(root)
    indices = np.zeros(8, dtype=np.int64)
    first, again, other = (next(split.stream([Step(indices, seed)], ALL, CPU))[0] for seed in ((0, 1), (0, 1), (0, 2)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len({tuple(image.flatten().tolist()) for image in first}) == 8


def test_flips_and_shifts_are_those_of_in_memory_splits(root: Path) -> None:
    from supernet.data.tensor_split import TensorSplit

    split = train_split(root)
    images = torch.cat([images for images, _ in split.whole(CPU, 18)])
    in_memory = TensorSplit(images, split.labels)
    augmentation = Augmentation(shift=2, flip=True)
    for (found, _), (expected, _) in zip(
        split.stream(steps(), augmentation, CPU), in_memory.stream(steps(), augmentation, CPU), strict=True
    ):
        torch.testing.assert_close(found, expected)


def test_the_first_images_are_the_whole_splits_first(root: Path) -> None:
    split = train_split(root)
    everything = torch.cat([images for images, _ in split.whole(CPU, 4)])
    for count in (1, 5, 18, 30):
        assert torch.equal(split.first(count, CPU), everything[:count])


def test_a_pickled_split_holds_no_images(root: Path) -> None:
    split = train_split(root)
    assert len(pickle.dumps(split)) < 3000
    assert same(list(pickle.loads(pickle.dumps(split)).whole(CPU, 9)), list(split.whole(CPU, 9)))


def remove(root: Path, name: str) -> None:
    for path in (root / name).iterdir():
        path.unlink()


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no train": (
        lambda photos: (photos / "train").rename(photos / "training"),
        "train is missing; expected photos/train/",
    ),
    "no val": (
        lambda photos: (photos / "val").rename(photos / "valid"),
        "val is missing; expected photos/train/<class>",
    ),
    "empty class": (lambda photos: remove(photos, "train/bee"), r"train/bee: must hold images \(.jpg, .*\), got none"),
    "empty val": (lambda photos: remove(photos, "val/bee"), "val/bee: must hold images"),
    "a class more": (lambda photos: (photos / "train" / "dog").mkdir(), r"must hold 3 class folders .*, got 4"),
    "another class": (
        lambda photos: (photos / "val" / "bee").rename(photos / "val" / "bees"),
        "train and val must hold the same classes; 'bee' is in one of them only",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_folder_is_named_with_its_fault(root: Path, name: str) -> None:
    spoil, law = FAULTS[name]
    spoil(root / "photos")
    with pytest.raises(NasError, match=law) as caught:
        folder().load(root, 0)
    assert str(root / "photos") in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "workers"), [("truncated", 0), ("truncated", 1), ("text", 0), ("empty", 0), ("missing", 0)]
)
def test_an_unreadable_image_is_named_when_it_is_met(root: Path, spoil: str, workers: int) -> None:
    split = train_split(root, workers)
    path = split.root / split.files[int(steps()[1].indices[3])]
    content = path.read_bytes()
    path.unlink()
    if spoil != "missing":
        path.write_bytes({"truncated": content[: len(content) // 2], "text": b"no image", "empty": b""}[spoil])
    stream = split.stream(steps(), NONE, CPU)
    next(stream)
    with pytest.raises(NasError) as caught:
        next(stream)
    assert str(caught.value).startswith(f"{path} cannot be read as an image: ")
    assert "\n" not in str(caught.value)


def pass_over(split: FolderSplit, count: multiprocessing.Queue[int]) -> None:
    count.put(sum(len(labels) for _, labels in split.whole(CPU, 5)))


def test_a_process_that_may_have_no_children_decodes_itself(root: Path) -> None:
    """A stage's workers are daemons, which cannot start decoding workers."""
    context = multiprocessing.get_context("forkserver")
    count: multiprocessing.Queue[int] = context.Queue()
    process = context.Process(target=pass_over, args=(train_split(root, workers=2), count), daemon=True)
    process.start()
    assert count.get(timeout=60) == 18
    process.join()
    count.close()


def test_workers_die_with_their_process(root: Path) -> None:
    """However it ends: kill -9 leaves nothing behind."""
    code = (
        "import sys, time, multiprocessing, torch\n"
        "from pathlib import Path\n"
        "from supernet.data.image_folder import ImageFolder\n"
        "if __name__ == '__main__':\n"
        "    split = ImageFolder('photos', 16, 3, 0.25, workers=1).load(Path(sys.argv[1]), 0).train\n"
        "    stream = split.whole(torch.device('cpu'), 2)\n"
        "    next(stream)\n"
        "    print(multiprocessing.active_children()[0].pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    script = root / "stream.py"
    script.write_text(code)
    with subprocess.Popen([sys.executable, script, root], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = Path("/proc") / process.stdout.readline().strip()
        assert worker.exists()
        process.kill()
    deadline = time.monotonic() + 60
    while worker.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not worker.exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_an_accelerator_gives_what_the_cpu_gives(root: Path) -> None:
    split = train_split(root, workers=2)
    there = split.stream(steps(), ALL, torch.device("cuda"))
    for (images, labels), (expected, expected_labels) in zip(there, split.stream(steps(), ALL, CPU), strict=True):
        assert images.is_cuda
        torch.testing.assert_close(images.cpu(), expected, rtol=1e-6, atol=0)
        assert torch.equal(labels.cpu(), expected_labels)
