"""Progress with an estimate of the time left: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_PATIENCE_S = 5.0


class Advance(Protocol):
    """Reports finished steps; `note` says how things stand, such as `loss 0.31`."""

    def __call__(self, steps: int = 1, note: str = "") -> None: ...


@contextmanager
def progress(label: str, total: int, done: int = 0, console: Console | None = None) -> Iterator[Advance]:
    """Show how far a job is.

    Args:
        label: What is going on.
        total: All steps of the job.
        done: Steps an earlier run finished; they do not count for the speed.
        console: Where to show it; standard error by default.
    """
    console = console or Console(stderr=True)
    if console.is_terminal:
        with _columns(console) as bar:
            task = bar.add_task(label, total=total, completed=done, note="")
            yield lambda steps=1, note="": bar.update(task, advance=steps, note=note)
    else:
        lines = Lines(
            label, total, lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True), done
        )
        yield lines.advance
        lines.close()


def _columns(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
        console=console,
    )


@dataclass
class Lines:
    """Progress as plain text: nothing for a short job, else a line every 5 s and one at the end."""

    label: str
    total: int
    write: Callable[[str], None]
    done: int = 0
    clock: Callable[[], float] = time.monotonic
    started: float = field(init=False)
    shown: float = field(init=False)
    fresh: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.started = self.shown = self.clock()

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count finished steps, and say so if it is time."""
        self.fresh += steps
        now = self.clock()
        if self.fresh and now - self.shown >= _PATIENCE_S and self.done + self.fresh < self.total:
            self.shown = now
            left = (now - self.started) / self.fresh * (self.total - self.done - self.fresh)
            self.write(
                f"{self.label}: {self.done + self.fresh}/{self.total}, about {_clock(left)} left  {note}".rstrip()
            )

    def close(self) -> None:
        """Say how long a job took that was not short."""
        elapsed = self.clock() - self.started
        if elapsed >= _PATIENCE_S:
            self.write(f"{self.label}: {self.done + self.fresh}/{self.total} in {_clock(elapsed)}")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def percent(advance: Advance) -> Callable[[int, int], None]:
    """For jobs that report (done, total): a callback that moves a bar of 100 steps."""
    shown = 0

    def report(done: int, total: int) -> None:
        nonlocal shown
        now = 100 * done // max(total, 1)
        advance(now - shown)
        shown = now

    return report
