"""Stage `train`: the supernet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from experiments.context import CHECKPOINT, Context
from experiments.progress import progress
from supernet.distributed import ALONE, Ranks
from supernet.evaluate import error
from supernet.metrics import Progress, Report, recorded
from supernet.train import SupernetTraining


def train(context: Context, folder: Path, ranks: Ranks = ALONE) -> dict[str, Any]:
    """Train the supernet, from its checkpoint where there is one; `ranks` is this process among all that train.

    Returns:
        Its size, and the errors on the validation split of the teacher (the full network before shrinking) and of
        the full network inside the finished supernet.
    """
    training = context.training(ranks)
    checkpoint = folder / CHECKPOINT
    if checkpoint.exists():
        training.restore(checkpoint)

    with _reports(folder, training) if ranks.first else nullcontext(lambda now: None) as report:
        supernet = training.run(checkpoint, report)
    validation = context.data.validation
    return {
        "parameters": sum(p.numel() for p in supernet.parameters()),
        "teacher_error": error(training.full_subnet(), validation),
        "full_error": error(training.specialise(training.full), validation),
    }


@contextmanager
def _reports(folder: Path, training: SupernetTraining) -> Iterator[Report]:
    """Progress to the console, to JSON lines and to TensorBoard."""
    shown = training.step
    with progress("train the supernet", training.steps, shown) as advance, recorded(folder, shown) as record:

        def report(now: Progress) -> None:
            nonlocal shown
            record(now)
            advance(now.step - shown, note=f"{now.phase}, loss {now.loss:.3f}, {now.images_per_s:.0f} images/s")
            shown = now.step

        yield report
