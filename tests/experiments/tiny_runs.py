"""A tiny config, and what tests ask of runs of it."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from experiments.config import Config, config_from
from experiments.plan import OpenRun, open_run
from experiments.strict import read_yaml
from supernet.metrics import read_metrics

TINY = Path(__file__).with_name("tiny.yaml")
NAS = Path(sys.executable).with_name("nas")
Edit = Callable[[dict[str, Any]], None]


def tiny_config(edit: Edit = lambda entries: None) -> Config:
    entries = read_yaml(TINY)
    edit(entries)
    return config_from(entries, "tiny.yaml")


@dataclass(frozen=True)
class Finished:
    """A finished run; `output` is what the command wrote to standard error."""

    runs: Path
    output: str

    @property
    def path(self) -> Path:
        return self.runs / "tiny"

    def open(self) -> OpenRun:
        return open_run(self.path)


def times(folder: Path) -> dict[str, int]:
    """When each file last changed, lock left out."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


def same_training(one: Path, other: Path) -> None:
    """Weights bit for bit, and losses."""
    states = [torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (one, other)]
    assert states[0]["supernet"].keys() == states[1]["supernet"].keys()
    for name, weights in states[0]["supernet"].items():
        assert torch.equal(weights, states[1]["supernet"][name]), name
    losses = [[(now.step, now.phase, now.loss) for now in read_metrics(folder)] for folder in (one, other)]
    assert losses[0] == losses[1]


def session_members(leader: int) -> list[int]:
    """Living processes of a session, from /proc."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] not in "ZX":
            found.append(int(entry.name))
    return found


def launched(runs: Path, *arguments: str) -> subprocess.Popen[str]:
    """`nas run` in a session of its own, its standard error piped."""
    command = [str(NAS), "run", str(TINY), "--runs", str(runs), *arguments]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
    )
