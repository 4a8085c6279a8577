"""What a training says of itself: JSON lines to read with anything, and TensorBoard to watch."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Progress:
    """What the steps since the last report did.

    Attributes:
        step: Steps done so far.
        phase: Name of the stage, such as `depth 1/2`.
        epoch: Epochs done so far, over all stages.
        loss: Mean training loss.
        learning_rate: Of the last step.
        images_per_s: Of all processes together; every subnet of a step sees the same images, they count once.
    """

    step: int
    phase: str
    epoch: float
    loss: float
    learning_rate: float
    images_per_s: float


Report = Callable[[Progress], None]


@contextmanager
def recorded(folder: Path, step: int) -> Iterator[Report]:
    """A report that appends to `metrics.jsonl` and to TensorBoard's files in `tensorboard/`.

    Args:
        folder: Where both are; made if need be.
        step: The step the training goes on from; what an earlier run recorded after it is cut off.
    """
    with _interrupts_later():
        from torch.utils.tensorboard import SummaryWriter  # takes seconds, and somewhere in it an interrupt is lost

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / METRICS
    _cut_after(path, step)
    with SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1) as board, path.open("a") as file:

        def report(progress: Progress) -> None:
            file.write(json.dumps(asdict(progress)) + "\n")
            file.flush()
            for name in ("loss", "learning_rate", "images_per_s", "epoch"):
                board.add_scalar(name, getattr(progress, name), progress.step)

        yield report


def read_metrics(folder: Path) -> list[Progress]:
    """All reports recorded in a folder, in order; a line that was not finished is left out."""
    path = folder / METRICS
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [Progress(**json.loads(line)) for line in lines if line.endswith("\n")]


def _cut_after(path: Path, step: int) -> None:
    kept = [progress for progress in read_metrics(path.parent) if progress.step <= step]
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(json.dumps(asdict(progress)) + "\n" for progress in kept))
    partial.replace(path)


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Ctrl-C is heard when the block ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if heard:
        signal.raise_signal(signal.SIGINT)
