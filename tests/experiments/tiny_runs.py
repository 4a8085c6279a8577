"""A tiny config, and what tests ask of runs of it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from experiments.bench.programs import layered
from experiments.cli import app
from experiments.config import Config, config_from
from experiments.context import Context
from experiments.plan import OpenRun, open_run, plan
from experiments.stages.search import Folders, search
from experiments.strict import read_yaml
from nas.genotype import FloatArray, IntArray
from nas.problem import Problem
from nas.search.archive import Sampler
from nas.search.evolution import Nsga2
from nas.search.hybrid import Hybrid
from nas.search.integer_program import IntegerProgram
from supernet.metrics import read_metrics

TINY = Path(__file__).with_name("tiny.yaml")
NAS = Path(sys.executable).with_name("nas")
DEVICES = ("local-cpu", "zu3eg")
MARKS = [
    pytest.mark.hls,
    # So few samples can leave a hyper-parameter at its bound.
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]
"""Of modules whose tests finish runs."""
Edit = Callable[[dict[str, Any]], None]


def tiny_config(edit: Edit = lambda entries: None) -> Config:
    entries = read_yaml(TINY)
    edit(entries)
    return config_from(entries, "tiny.yaml")


SAMPLERS: dict[str, Sampler] = {
    "hybrid": Hybrid(population=20, generations=6, rounds=2, samples=60),
    "nsga2": Nsga2(20, 6),
    "integer_program": IntegerProgram(budgets=3, samples=60, rounds=1),
}


def small_problem(seed: int) -> Problem:
    """1152 networks of 3 layers and a depth, whose error is not quite a sum over layers."""
    made = layered(3, (2, 2, 2), 1, np.random.default_rng(seed))
    costs = {name: cost for name, cost in made.additive.items() if name != "error"}

    def evaluate(population: IntArray) -> FloatArray:
        loss, *others = (cost(population) for cost in made.additive.values())
        bend = 0.05 * np.sin(population @ np.arange(1, population.shape[1] + 1))
        return np.stack([np.exp(100 * loss + bend - 4), *others], axis=1)

    return Problem(made.space, tuple(made.additive), evaluate, ("error", "latency_s"), (), made.allowed, costs)


def small_search(sampler: str, seed: int) -> tuple[list[list[int]], list[list[float]]]:
    """The front of a small problem of that seed, the same in any process."""
    archive = SAMPLERS[sampler].run(small_problem(seed), seed)
    places = archive.front()
    return archive.genotypes[places].tolist(), archive.metrics[places].tolist()


def device_search(context: Context, into: Path, device: str) -> dict[str, Any]:
    """The search stage of a device, from a run's predictors into a folder of its own; the same in any process."""
    stages, at, folder = plan(context.config), context.run.stage_dir, into / device
    of = stages.device(device)
    folder.mkdir(parents=True, exist_ok=True)
    inputs = Folders(at(stages.train), at(stages.fit), at(of.measure) if of.measure else None)
    return search(context, of.target, inputs, folder)


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


def nas(*arguments: object) -> Any:
    """What became of a command, in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def front_of(path: Path, device: str) -> list[dict[str, Any]]:
    result = nas("front", path, "--device", device, "--json")
    assert result.exit_code == 0, result.stderr
    members: list[dict[str, Any]] = json.loads(result.stdout)
    return members


def stage_dir(opened: OpenRun, device: str, stage: str) -> Path:
    return opened.context.run.stage_dir(getattr(opened.plan.device(device), stage))


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
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment,
        preexec_fn=_interruptible,
    )  # fmt: skip


def _interruptible() -> None:
    """A shell that starts the tests in the background has them, and all they start, ignore interrupts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
