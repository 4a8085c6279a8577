"""Independent pieces of a stage on all cores. A worker dies with the process that started it, however that ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from nas.errors import NasError

Task = TypeVar("Task")
Result = TypeVar("Result")

LOCAL_RANK = "LOCAL_RANK"
"""Variable with the number of a worker among its like, from 0, under the name that `torchrun` gives it."""

_PRELOADED = ["experiments.stages.finalize"]
"""What takes seconds to import is imported once, by the server from which all workers of a run are forked."""


def parallel(
    function: Callable[[Task], Result], tasks: Sequence[Task], most: int | None = None
) -> Iterator[tuple[Task, Result]]:
    """Give each task with its result, in the order in which they finish.

    An exception of a task is raised here; then, or on Ctrl-C, workers are killed in the middle of their tasks. A worker
    does the pieces of its own task itself.

    Args:
        function: A function of a module; its result must depend on its task alone.
        tasks: Picklable.
        most: Processes at once; None for one per core.

    Raises:
        NasError: A worker was killed.
    """
    if multiprocessing.current_process().daemon:
        yield from ((task, function(task)) for task in tasks)
        return
    waiting, running = iter(tasks), dict[Connection, Task]()

    def give(connection: Connection) -> None:
        for task in waiting:
            connection.send(task)
            running[connection] = task
            return

    with _workers(function, min(most or os.cpu_count() or 1, os.cpu_count() or 1, len(tasks))) as connections:
        for connection in connections:
            give(connection)
        while running:
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                task, result = running.pop(ready), _received(ready)
                give(ready)
                yield task, result


@contextmanager
def _workers(function: Callable[[Task], Result], count: int) -> Iterator[list[Connection]]:
    """Connections to processes that answer tasks, each ready."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    started: list[tuple[Any, Connection]] = []
    try:
        with _interrupts_held():
            for number in range(count):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(function, theirs, number), daemon=True)
                process.start()
                theirs.close()
                started.append((process, ours))
            connections = [connection for _, connection in started]
            for connection in connections:
                _received(connection)
        yield connections
    finally:
        for process, connection in started:
            process.kill()
            process.join()
            connection.close()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits; processes started meanwhile never see it, however early it comes, and leave it to this one."""
    resource_tracker.ensure_running()  # else the first process would start it, and let interrupts through after that
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _received(connection: Connection) -> Any:
    try:
        result, error = connection.recv()
    except (EOFError, ConnectionResetError):
        raise NasError(
            "a worker process was killed, perhaps for want of memory; run the same command again to resume"
        ) from None
    if error is not None:
        raise error
    return result


def _serve(function: Callable[[Task], Result], connection: Connection, number: int) -> None:
    os.environ[LOCAL_RANK] = str(number)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()
    with suppress(EOFError, ConnectionError):
        connection.send((None, None))
        while True:
            connection.send(_outcome(function, connection.recv()))


def _outcome(function: Callable[[Task], Result], task: Task) -> tuple[Result | None, Exception | None]:
    try:
        return function(task), None
    except Exception as error:
        error.add_note(traceback.format_exc())
        return None, error


def _follow(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
