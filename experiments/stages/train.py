"""Stage `train`: the supernet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.context import CHECKPOINT, Context
from experiments.progress import progress
from experiments.rundir import append_line
from supernet.evaluate import error
from supernet.train import Epoch


def train(context: Context, folder: Path) -> dict[str, Any]:
    """Train the supernet, from its checkpoint where there is one.

    Returns:
        Its size, and the errors on the validation split of the teacher (the full network before shrinking) and of
        the full network inside the finished supernet.
    """
    training = context.training()
    checkpoint = folder / CHECKPOINT
    if checkpoint.exists():
        training.restore(checkpoint)

    with progress("train the supernet", len(training.plan), training.done) as advance:

        def report(epoch: Epoch) -> None:
            append_line(folder / "history.jsonl", {"phase": epoch.phase, "epoch": epoch.epoch, "loss": epoch.loss})
            advance(note=f"{epoch.phase}, loss {epoch.loss:.3f}")

        supernet = training.run(checkpoint, report)
    validation = context.data.validation
    return {
        "parameters": sum(p.numel() for p in supernet.parameters()),
        "teacher_error": error(training.full_subnet(), validation),
        "full_error": error(training.specialise(training.full), validation),
    }
