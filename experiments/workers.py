"""Independent pieces of a stage on all cores. A worker dies with the process that started it, however that ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

_PRELOADED = ["experiments.stages.finalize"]
"""What takes seconds to import is imported once, by the server from which all workers of a run are forked."""


def parallel(function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
    """Give each task with its result, in the order in which they finish.

    Args:
        function: A function of a module; its result must depend on its task alone.
        tasks: Hashable or not, but picklable.
    """
    if not tasks:
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    workers = min(os.cpu_count() or 1, len(tasks))
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare) as pool:
        try:
            with _interrupts_held():
                futures = {pool.submit(function, task): task for task in tasks}
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits; processes started meanwhile never see it, however early it comes, and leave it to this one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()


def _follow(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
