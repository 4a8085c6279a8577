"""What a change, a new process or a lacking tool makes a run do again, and what a run is told that cannot go on."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import MARKS, NAS, TINY, Edit, Finished, front_of, nas, same_training, times, tiny_config

from experiments import pipeline as pipeline_module
from experiments.config import Config
from experiments.pipeline import run
from experiments.plan import open_run, plan
from nas.errors import NasError
from supernet.metrics import read_metrics

pytestmark = MARKS

EARLY = ("train", "sample", "fit", "measure")
EVERYTHING = (*EARLY, "search", "finalize", "export", "report")


def test_running_again_changes_no_file(copied: Path) -> None:
    before = times(copied)
    result = nas("run", TINY, "--runs", copied)
    assert result.exit_code == 0, result.stderr
    assert times(copied) == before
    assert "starts" not in result.stderr


def test_train_alone_does_what_a_run_begins_with_and_the_run_goes_on_from_it(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # training compiles nothing
    for told in ("", "train: done"):
        result = nas("train", TINY, "--runs", tmp_path)
        assert result.exit_code == 0, result.stderr
        assert told in result.stderr
    opened = open_run(tmp_path / "tiny")
    train_stage, folder = opened.plan.train, opened.context.run
    assert [name for name, state in opened.states().items() if state != "absent"] == ["train"]
    same_training(folder.stage_dir(train_stage), finished.open().context.run.stage_dir(train_stage))
    assert folder.summary(train_stage) == finished.open().context.run.summary(train_stage)
    before, said = times(folder.stage_dir(train_stage)), list[str]()

    def stop(*_: object) -> None:
        raise NasError("far enough")

    monkeypatch.setattr(pipeline_module, "sample", stop)
    with pytest.raises(NasError, match="far enough"):
        run(tiny_config(cpu_only), tmp_path, said.append)
    assert said == ["train: done", "sample: starts"]
    assert times(folder.stage_dir(train_stage)) == before


@pytest.mark.slow
def test_two_processes_train_what_one_does(finished: Finished, tmp_path: Path) -> None:
    """`torchrun` starts them; one writes and reports, and a run of one process goes on from there."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for told in (0, 1):
        ran = subprocess.run(
            [*command, str(NAS), "train", str(TINY), "--runs", str(tmp_path)],
            capture_output=True, text=True, check=False, env=environment,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        assert ran.stderr.count("train: done") == told
    opened, alone = open_run(tmp_path / "tiny"), finished.open()
    stage = opened.plan.train
    here, there = (at.context.run.stage_dir(stage) for at in (opened, alone))
    ours, theirs = read_metrics(here), read_metrics(there)
    assert [(now.step, now.phase) for now in ours] == [(now.step, now.phase) for now in theirs]
    assert [now.loss for now in ours[:3]] == pytest.approx([now.loss for now in theirs[:3]], rel=1e-4)
    summary = opened.context.run.summary(stage)
    assert summary["parameters"] == alone.context.run.summary(stage)["parameters"]
    assert summary["teacher_error"] < 0.5


CHANGES: dict[str, tuple[Edit, tuple[str, ...]]] = {
    "search": (lambda c: c["search"]["samplers"]["optuna"].update(trials=11), EARLY),
    "samplers": (lambda c: c["search"]["samplers"].pop("optuna"), EARLY),
    "constraint": (lambda c: c["devices"][1]["constraints"].update(lut=20000), (*EARLY, "local-cpu")),
    "objectives": (lambda c: c["devices"][0].update(objectives=["error", "latency_s"]), (*EARLY, "zu3eg")),
    "members": (lambda c: c["finalize"].update(members=5), EARLY),
    "finalize.epochs": (lambda c: c["finalize"].update(epochs=3), (*EARLY, "search")),
    "latency": (lambda c: c["predictors"]["latency"].update(samples=13), ("train", "sample", "fit", "zu3eg")),
    "held out": (lambda c: c["predictors"]["accuracy"].update(held_out="30 %"), ("train", "sample", "measure")),
    "samples": (lambda c: c["predictors"]["accuracy"].update(samples=41), ("train", "measure")),
    "supernet": (lambda c: c["supernet"].update(batch=32), ("measure",)),
    "train_on": (lambda c: c.update(train_on="cuda"), ("measure",)),
    "data.test": (lambda c: c["data"].update(test="25 %"), ()),
    "data.root": (lambda c: c["data"].update(root="elsewhere"), EVERYTHING),
    "seed": (lambda c: c.update(seed=1), ()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_redoes_what_depends_on_it_and_nothing_else(name: str, finished: Finished) -> None:
    """A name such as `zu3eg` keeps all stages of that device."""
    edit, kept = CHANGES[name]
    stages = plan(tiny_config(edit))
    for stage in stages.all:
        keeps = stage.name.startswith(kept) or stage.name.endswith(kept)
        assert finished.open().context.run.is_done(stage) == bool(kept and keeps), stage.name


def test_a_device_added_or_left_out_keeps_the_others(finished: Finished) -> None:
    run_dir = finished.open().context.run
    alone = plan(tiny_config(lambda c: c["devices"].pop(0)))
    assert [s.name for s in alone.all if not run_dir.is_done(s)] == ["report"]
    more = plan(tiny_config(lambda c: c["devices"].append({"name": "zcu102"})))
    assert [s.name for s in more.all if not run_dir.is_done(s)] == [
        "search-zcu102", "finalize-zcu102", "export-zcu102", "report",
    ]  # fmt: skip


def cpu_only(entries: dict[str, Any]) -> None:
    entries["devices"].pop(1)
    entries["search"]["samplers"]["optuna"]["trials"] = 11


def test_a_new_search_without_a_compiler_leaves_the_early_stages_alone(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    before, said = times(copied), list[str]()
    folder = run(tiny_config(cpu_only), copied, said.append).path
    redone = {"search-local-cpu", "finalize-local-cpu", "export-local-cpu", "report"}
    assert {line.partition(":")[0] for line in said if line.endswith("starts")} == redone
    assert {line.partition(":")[0] for line in said if line.endswith("done")} == {
        "train", "sample", "fit", "measure-local-cpu",
    }  # fmt: skip
    after = times(copied)
    stages = [name for name in before if name.startswith("tiny/") and "-" in name.split("/")[1]]
    assert all(after[name] == before[name] for name in stages)
    assert front_of(folder, "local-cpu")


def test_without_a_compiler_an_fpga_run_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    result = nas("run", TINY, "--runs", tmp_path / "runs")
    assert result.exit_code == 2
    assert "g++ is not on PATH" in result.stderr
    assert "apt install g++" in result.stderr
    assert not (tmp_path / "runs").exists()


def written(config: Config, path: Path) -> Path:
    path.write_text(config.to_yaml())
    return path


IMPOSSIBLE = {
    "lut": ("zu3eg", {"lut": 100}, r"no network.*lut <= 100, but the least reachable lut is (\S+) \(proved\)"),
    "error": ("local-cpu", {"error": "0.1 %"}, r"error <= 0\.001, but the least reachable error is ([\d.e-]+)"),
    "latency_s": ("local-cpu", {"latency_s": "1 ns"}, r"latency_s <= 1e-09, but the least reachable .* is (\S+)"),
    "together": ("zu3eg", {"error": "6 %", "lut": 3000}, r"lut <= 3000 and error <= 0\.06 exclude|error <= 0\.06 and"),
}  # fmt: skip


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_nothing_satisfies_ends_with_the_binding_constraint(name: str, copied: Path, tmp_path: Path) -> None:
    device, constraints, told = IMPOSSIBLE[name]

    def edit(entries: dict[str, Any]) -> None:
        entries["devices"] = [{"name": device, "constraints": constraints}]

    before = times(copied)
    result = nas("run", written(tiny_config(edit), tmp_path / "tiny.yaml"), "--runs", copied)
    assert result.exit_code == 2
    found = re.search(told, result.stderr)
    assert found, result.stderr
    assert f"device {device}:" in result.stderr
    if found.groups():
        (limit,) = tiny_config(edit).devices[0].constraints.values()
        assert float(found[1]) > limit.max
    changed = {key for key, when in times(copied).items() if before.get(key) != when}
    assert changed == {"tiny/config.yaml", "tiny/environment.json"}


def test_what_is_no_run_or_of_another_version_is_told(copied: Path, tmp_path: Path) -> None:
    nothing = nas("status", tmp_path / "nowhere")
    assert nothing.exit_code == 2
    assert "is no run directory" in nothing.stderr
    assert "nas run CONFIG" in nothing.stderr
    unknown = nas("front", copied / "tiny", "--device", "zu3")
    assert unknown.exit_code == 2
    assert "no device 'zu3' in this run; it has local-cpu, zu3eg" in unknown.stderr
    renamed = shutil.move(copied / "tiny", copied / "other")
    moved = nas("status", renamed)
    assert moved.exit_code == 2
    assert "holds the run 'tiny'" in moved.stderr
    config = renamed / "config.yaml"
    config.write_text(config.read_text().replace("learning_rate", "learningrate"))
    old = nas("status", renamed)
    assert old.exit_code == 2
    assert "unknown key" in old.stderr
    assert str(config) in old.stderr
    assert "Traceback" not in old.stderr


def test_an_unfinished_run_says_what_to_do(copied: Path) -> None:
    opened = open_run(copied / "tiny")
    shutil.rmtree(opened.context.run.stage_dir(opened.plan.device("zu3eg").finalize))
    result = nas("front", copied / "tiny", "--device", "zu3eg", "--json")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "stage finalize-zu3eg is absent; run `nas run` to finish it" in result.stderr
    assert nas("front", copied / "tiny", "--device", "local-cpu", "--json").exit_code == 0
