"""A run stopped at any moment, by force or by Ctrl-C, and started again equals one that nothing stopped."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import TINY, Finished, launched, same_training, session_members, times
from typer.testing import CliRunner

from experiments.cli import app
from experiments.plan import open_run
from experiments.rundir import MANIFEST
from experiments.stages.finalize import load_members

pytestmark = [pytest.mark.slow, pytest.mark.hls]

PATIENCE_S = 120


def wait_for(line: str, process: subprocess.Popen[str]) -> list[str]:
    assert process.stderr is not None
    seen = []
    for text in process.stderr:
        seen.append(text)
        if text.startswith(line):
            return seen
    raise AssertionError(f"ended without {line!r}:\n{''.join(seen)}")


def wait_for_file(runs: Path, pattern: str) -> list[Path]:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := list(runs.glob(pattern))) and time.monotonic() < deadline:
        time.sleep(0.002)
    return found


def outcome(runs: Path) -> dict[str, list[dict[str, Any]]]:
    opened = open_run(runs / "tiny")
    assert set(opened.states().values()) == {"done"}
    return {
        device.target.name: load_members(opened.context.run.stage_dir(device.finalize))
        for device in opened.plan.devices
    }


def all_whole(runs: Path) -> None:
    """Whatever bears its final name can be read, and whatever is marked done has its artefacts."""
    for path in runs.rglob("*.json"):
        json.loads(path.read_text())
    for stage in (path.parent for path in runs.rglob(MANIFEST)):
        for path in stage.rglob("*.npz"):
            with np.load(path) as arrays:
                assert all(arrays[name].size >= 0 for name in arrays.files)


def until_gone(leader: int) -> list[int]:
    deadline = time.monotonic() + 60
    while (left := session_members(leader)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def killed_in_mid_training(runs: Path) -> None:
    """Start a run and kill it, -9, once there is a checkpoint to go on from and before training has ended."""
    process = launched(runs)
    kept = wait_for_file(runs, "tiny/train-*/checkpoint.pt")
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert until_gone(process.pid) == []
    assert process.stderr is not None
    process.stderr.close()
    all_whole(runs)
    (checkpoint,) = kept
    assert not (checkpoint.parent / MANIFEST).exists()
    steps = torch.load(checkpoint, weights_only=True)["step"]
    training = open_run(runs / "tiny").context.training()
    assert 0 < steps < training.steps
    assert steps % training.epoch_steps != 0


def test_killed_six_times_it_ends_in_the_same_fronts(finished: Finished, measured_only: Path) -> None:
    """Within an epoch of training; then at random moments of five random stages, on any machine as often."""
    killed_in_mid_training(measured_only)
    rng, done = random.Random(0), dict[str, int]()
    stages = [stage.name for stage in finished.open().plan.all][:-1]
    for moment, place in enumerate(sorted(rng.sample(range(len(stages)), 5))):
        process = launched(measured_only)
        wait_for(f"{stages[place]}:", process)
        time.sleep(rng.uniform(0, 1.5))
        if moment % 2:
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert until_gone(process.pid) == []
        assert process.stderr is not None
        process.stderr.close()
        all_whole(measured_only)
        now = {key: when for key, when in times(measured_only).items() if key.endswith(MANIFEST)}
        assert done.items() <= now.items()
        done = now
    last = launched(measured_only)
    _, said = last.communicate(timeout=PATIENCE_S)
    assert last.returncode == 0, said
    assert outcome(measured_only) == outcome(finished.runs)
    assert done.items() <= times(measured_only).items()
    stage = finished.open().plan.train
    same_training(*(open_run(runs / "tiny").context.run.stage_dir(stage) for runs in (measured_only, finished.runs)))


def test_interrupted_in_train_sample_and_finalize_it_goes_on(measured_only: Path) -> None:
    """Each start takes up what the one before left; that the end is the same, the test above shows."""
    for stage, delay in (("train", 0.2), ("sample", 0.3), ("finalize-local-cpu", 0.8)):
        process = launched(measured_only)
        before = wait_for(f"{stage}:", process)
        assert ("train: resumes\n" in before) == (stage == "sample")
        assert ("train: done\n" in before) == (stage == "finalize-local-cpu")
        if stage == "train":
            os.killpg(process.pid, signal.SIGSTOP)  # else it may end its training meanwhile
            second = CliRunner().invoke(app, ["run", str(TINY), "--runs", str(measured_only)])
            assert second.exit_code == 2
            assert f"process {process.pid} is working on this run; wait for it or stop it" in second.stderr
            os.killpg(process.pid, signal.SIGCONT)
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130, said
        assert said.endswith("stopped; run the same command again to resume\n")
        assert "Traceback" not in said
        assert "resource_tracker" not in said
        assert until_gone(process.pid) == []
