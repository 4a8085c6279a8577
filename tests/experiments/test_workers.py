import math
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from tiny_runs import session_members

from experiments.workers import LOCAL_RANK, parallel
from hw_models.device import load_device
from nas.errors import NasError


def test_every_task_comes_back_once_with_its_result() -> None:
    found = list(parallel(math.factorial, range(30)))
    assert sorted(found) == [(n, math.factorial(n)) for n in range(30)]
    assert list(parallel(math.factorial, [])) == []


def test_results_come_as_they_finish() -> None:
    if (os.cpu_count() or 1) < 2:
        pytest.skip("one core, one worker: tasks finish in their order")
    assert [task for task, _ in parallel(time.sleep, [1.0, 0.0])] == [0.0, 1.0]


def test_an_exception_of_a_task_is_raised_as_itself() -> None:
    with pytest.raises(ValueError, match="invalid literal for int") as caught:
        list(parallel(int, ["1", "x", "3"]))
    assert type(caught.value) is ValueError
    with pytest.raises(NasError, match="did you mean zu3eg") as told:
        list(parallel(load_device, ["zu3e"]))
    assert "Traceback" not in str(told.value)


def factorials(most: int) -> list[tuple[int, int, int]]:
    """What a task with pieces of its own finds, and in which process each was computed."""
    return [(task, *found) for task, found in parallel(_factorial, range(most))]


def _factorial(n: int) -> tuple[int, int]:
    return math.factorial(n), os.getpid()


def test_a_worker_does_the_pieces_of_its_task_itself() -> None:
    for most, found in parallel(factorials, [3, 5]):
        assert [(n, value) for n, value, _ in found] == [(n, math.factorial(n)) for n in range(most)]
        (process,) = {process for *_, process in found}
        assert process != os.getpid()


def _place(seconds: float) -> tuple[int, int]:
    time.sleep(seconds)
    return os.getpid(), int(os.environ[LOCAL_RANK])


def test_workers_are_numbered_from_zero() -> None:
    """They take GPUs by these numbers. Process numbers leave gaps, as threads take some."""
    places = {place for _, place in parallel(_place, [0.2] * 12)}
    assert sorted(number for _, number in places) == list(range(len(places)))
    assert len(dict(places)) == min(12, os.cpu_count() or 1)


def test_a_failure_does_not_wait_for_the_tasks_beside_it() -> None:
    if (os.cpu_count() or 1) < 2:
        pytest.skip("one core, one worker: there is no task beside it")
    with pytest.raises(TypeError):
        list(parallel(time.sleep, [3600.0, "x"]))


def test_a_worker_that_is_killed_is_told() -> None:
    with pytest.raises(NasError, match="worker process was killed"):
        list(parallel(partial(_signal_oneself), [signal.SIGKILL]))


_signal_oneself = signal.raise_signal


@pytest.mark.parametrize("results", [0, 8], ids=["as they start", "in the middle of a task"])
def test_workers_die_with_their_parent(results: int, tmp_path: Path) -> None:
    code = """
import time
from experiments.workers import parallel
if __name__ == "__main__":
    print("begins", flush=True)
    for task, _ in parallel(time.sleep, [0.0] * 8 + [3600.0] * 64):
        print(task, flush=True)
"""
    script = tmp_path / "parent.py"
    script.write_text(code)
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert parent.stdout is not None
    assert parent.stdout.readline() == "begins\n"
    assert [parent.stdout.readline() for _ in range(results)] == ["0.0\n"] * results
    assert parent.poll() is None
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 60
    while session_members(parent.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert session_members(parent.pid) == []
