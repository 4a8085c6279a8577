"""Image files, decoded by worker processes ahead of the training step."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from nas.network import Shape
from supernet.data.augment import DRAWS, draws, in_unit_range, moved, moves
from supernet.data.decode import decoded
from supernet.data.split import NONE, Augmentation, Step

_FIRST_BATCH = 64


@dataclass(frozen=True)
class _Job:
    """All that a worker needs to make one batch, so that nothing else travels to it."""

    files: list[str]
    labels: NDArray[np.int64]
    moves: IntArray
    crops: FloatArray


@dataclass(frozen=True)
class _Decoder(Dataset[tuple[Tensor, Tensor, Tensor] | NasError]):
    """What runs in a worker: makes bytes, labels and moves of a job; gives errors back, so that they arrive whole."""

    root: Path
    size: int
    crop: float

    def __getitem__(self, job: _Job) -> tuple[Tensor, Tensor, Tensor] | NasError:
        images = np.empty((len(job.files), 3, self.size, self.size), dtype=np.uint8)
        try:
            for image, file, drawn in zip(images, job.files, job.crops, strict=True):
                image[:] = decoded(self.root / file, self.size, self.crop, drawn)
        except NasError as error:
            return error
        return torch.from_numpy(images), torch.from_numpy(job.labels), torch.from_numpy(job.moves)


def _follow_parent(_: int) -> None:
    """End this worker with the process that streams, however that ends: the fork server would outlive it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()


def _exit_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


@dataclass(frozen=True, eq=False)
class FolderSplit:
    """Image files below `root` and their labels, int64, shape (n,); decoded to (3, size, size) by `workers` processes.

    The random crop is cut while decoding; the rest of the augmentation runs on the training device.
    """

    root: Path
    files: tuple[str, ...]
    labels: Tensor
    size: int
    workers: int

    def __len__(self) -> int:
        return len(self.files)

    @property
    def input_shape(self) -> Shape:
        return (3, self.size, self.size)

    def stream(
        self, steps: Iterable[Step], augmentation: Augmentation, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Split.stream`; the workers keep some steps ahead."""
        jobs = (self._job(step.indices[step.rows], draws(step), augmentation) for step in steps)
        return self._batches(jobs, augmentation, device)

    def first(self, count: int, device: torch.device) -> Tensor:
        """As `Split.first`."""
        return torch.cat([images for images, _ in self._views(min(count, len(self)), device, _FIRST_BATCH)])

    def whole(self, device: torch.device, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Split.whole`. Decoding is slow: run many networks over one pass rather than one each."""
        return self._views(len(self), device, batch)

    def _views(self, count: int, device: torch.device, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        parts = (np.arange(start, min(start + batch, count)) for start in range(0, count, batch))
        return self._batches((self._job(rows, np.zeros((len(rows), DRAWS)), NONE) for rows in parts), NONE, device)

    def _job(self, rows: IntArray, drawn: FloatArray, augmentation: Augmentation) -> _Job:
        files = [self.files[row] for row in rows.tolist()]
        return _Job(files, self.labels.numpy()[rows], moves(augmentation, drawn), drawn[:, 3:])

    def _batches(
        self, jobs: Iterable[_Job], augmentation: Augmentation, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self._loader(jobs, augmentation, device):
            if isinstance(batch, NasError):
                raise batch
            images, labels, moves = (tensor.to(device, non_blocking=True) for tensor in batch)
            yield in_unit_range(moved(images, moves, augmentation)), labels

    def _loader(self, jobs: Iterable[_Job], augmentation: Augmentation, device: torch.device) -> DataLoader[Any]:
        """One job is one item; a process that may have no children, as a worker of a stage, decodes by itself."""
        workers = 0 if multiprocessing.current_process().daemon else self.workers
        context = multiprocessing.get_context("forkserver")  # threads of torch do not survive a plain fork
        context.set_forkserver_preload([__name__])  # imported once, not by every worker of every pass
        return DataLoader(
            _Decoder(self.root, self.size, augmentation.crop),
            batch_size=None,
            sampler=jobs,
            num_workers=workers,
            multiprocessing_context=context if workers else None,
            worker_init_fn=_follow_parent,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # else each pass would take a number from the global one
        )
