"""Two processes against one with the doubled batch, through torchrun and gloo."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_trainings import DISTRIBUTED, PROGRESSIVE, InDouble, begin
from training_processes import losses

from nas.errors import NasError
from supernet.distributed import ALONE, Ranks, processes, training_device

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}

Found = tuple[dict[str, dict[int, float]], list[dict[str, Any]], Path]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Losses of one process, what each of two found, and the folder of all checkpoints."""
    folder = tmp_path_factory.mktemp("two")
    one = {
        name: losses(InDouble(settings), folder / f"{name}-one.pt", folder / f"{name}-one-middle.pt")
        for name, settings in DISTRIBUTED.items()
    }
    program = [str(Path(__file__).parent / "training_processes.py"), str(folder)]
    ran = subprocess.run(TORCHRUN + program, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return one, [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(2)], folder


@pytest.mark.parametrize("name", DISTRIBUTED)
def test_two_processes_train_as_one_with_the_doubled_batch(name: str, found: Found) -> None:
    """Several subnets a step, a teacher, BatchNorm over both halves, gradient norms clipped, weights averaged."""
    one, two, _ = found
    by_two = {int(step): loss for step, loss in two[0]["losses"][name].items()}
    assert list(one[name]) == list(by_two) == list(range(1, 21))
    assert max(abs(one[name][step] - by_two[step]) for step in one[name]) < 1e-5
    assert len(set(one[name].values())) == 20


@pytest.mark.parametrize("name", DISTRIBUTED)
def test_a_checkpoint_of_two_processes_resumes_on_one(name: str, found: Found) -> None:
    one, _, folder = found
    resumed = losses(InDouble(DISTRIBUTED[name]), folder / f"{name}-middle.pt")
    assert list(resumed) == list(range(11, 21))
    assert max(abs(one[name][step] - resumed[step]) for step in resumed) < 1e-5


@pytest.mark.parametrize("name", DISTRIBUTED)
def test_a_checkpoint_of_one_process_resumes_on_two(name: str, found: Found) -> None:
    one, two, _ = found
    resumed = {int(step): loss for step, loss in two[0]["losses"][f"{name} resumed"].items()}
    assert list(resumed) == list(range(11, 21))
    assert max(abs(one[name][step] - resumed[step]) for step in resumed) < 1e-5


@pytest.mark.parametrize("name", DISTRIBUTED)
def test_both_processes_hold_the_same_weights_and_one_reports(name: str, found: Found) -> None:
    _, two, folder = found
    first, second = (torch.load(folder / f"{name}-weights-{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not any(two[1]["losses"].values())


def test_both_processes_stop_at_an_image_that_one_sees(found: Found) -> None:
    """With BatchNorm of their own, so that the other one's losses stay finite at first."""
    _, two, _ = found
    assert two[0]["told"] == two[1]["told"]
    assert all("the loss of the largest network" in told and "is nan" in told for told in two[0]["told"])


def test_without_synchronised_batch_norm_two_halves_differ_from_the_whole() -> None:
    """The comparison above can fail: halves have other statistics than the whole."""
    images, labels = next(iter(begin().data.whole(torch.device("cpu"), 16)))
    training = begin(replace(PROGRESSIVE, synchronised=False))
    logits = [training.supernet(part, training.full) for part in (images, images[:8], images[8:])]
    whole, *halves = (
        torch.nn.functional.cross_entropy(y, t) for y, t in zip(logits, (labels, labels[:8], labels[8:]), strict=True)
    )
    assert abs(float((whole - sum(halves) / 2).detach())) > 1e-3


@pytest.mark.parametrize(("batch", "world", "told"), [(30, 4, "28 or 32"), (3, 4, "take 4")])
def test_a_batch_that_does_not_divide_is_refused(batch: int, world: int, told: str) -> None:
    with pytest.raises(NasError, match=f"batch must divide among the {world} processes, got {batch}.*{told}"):
        begin(replace(PROGRESSIVE, batch=batch), ranks=Ranks(0, world))


@pytest.mark.parametrize("world", [1, 2, 4])
def test_rows_cover_the_batch_once(world: int) -> None:
    rows = [list(range(12))[Ranks(rank, world).rows(12)] for rank in range(world)]
    assert [row for part in rows for row in part] == list(range(12))


def test_started_without_torchrun_a_process_is_alone() -> None:
    with processes("cpu") as ranks:
        assert ranks == ALONE
        assert training_device("cpu", ranks) == torch.device("cpu")


def test_a_missing_gpu_is_named() -> None:
    local = torch.cuda.device_count()
    with pytest.raises(NasError, match=f"this machine has {local}, and a process has local rank {local}"):
        training_device("cuda", Ranks(local, local + 1, local))


WAITING = """
import time, torch
from supernet.distributed import mean_over, processes
with processes("cuda") as ranks:
    mean_over(torch.zeros(1, device="cuda"), ranks).item()
    print("met", flush=True)
    if ranks.first:
        mean_over(torch.zeros(1, device="cuda"), ranks).item()
    time.sleep(300)
"""


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_an_interrupt_ends_a_process_that_waits_on_its_gpu_for_another(tmp_path: Path) -> None:
    (tmp_path / "waiting.py").write_text(WAITING)
    program = [*TORCHRUN, str(tmp_path / "waiting.py")]
    started = subprocess.Popen(program, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert started.stdout is not None
    assert [started.stdout.readline(), started.stdout.readline()] == ["met\n", "met\n"]
    time.sleep(2)
    started.send_signal(signal.SIGINT)
    assert "Unable to shutdown" not in started.communicate(timeout=120)[1]
