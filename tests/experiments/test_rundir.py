import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.environment import environment
from experiments.rundir import MANIFEST, RunDir, Stage, append_line, atomic_write, read_lines
from nas.errors import NasError

TRAIN = Stage("train", 1, '{"epochs": 3}')
SAMPLE = Stage("sample", 1, '{"samples": 10}', (TRAIN,))
SEARCH = Stage("search", 1, '{"population": 10}', (SAMPLE,))


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_a_key_covers_name_version_settings_and_inputs() -> None:
    changed = [
        replace(SEARCH, name="fit"),
        replace(SEARCH, version=2),
        replace(SEARCH, settings='{"population": 20}'),
        replace(SEARCH, inputs=()),
        replace(SEARCH, inputs=(replace(SAMPLE, inputs=(replace(TRAIN, version=2),)),)),
    ]
    assert len({stage.key for stage in (SEARCH, *changed)}) == 6


def test_changing_a_late_stage_keeps_the_early_ones(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for stage in (TRAIN, SAMPLE, SEARCH):
        run.finish(stage, {})
    again = replace(SEARCH, settings='{"population": 20}')
    assert [run.state(stage) for stage in (TRAIN, SAMPLE, again)] == ["done", "done", "absent"]
    assert run.is_done(SEARCH)


def test_a_stage_is_done_once_its_manifest_is_there(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert run.state(TRAIN) == "absent"
    (run.stage_dir(TRAIN) / "checkpoint").write_text("half")
    assert run.state(TRAIN) == "partial"
    with pytest.raises(NasError, match="train is partial"):
        run.summary(TRAIN)
    run.finish(TRAIN, {"error": 0.02})
    assert run.state(TRAIN) == "done"
    assert run.summary(TRAIN) == {"error": 0.02}
    manifest = json.loads((tmp_path / f"train-{TRAIN.key}" / MANIFEST).read_text())
    assert manifest["settings"] == {"epochs": 3}


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    path, rng = tmp_path / "data.json", random.Random(0)
    code = """
import sys, json, itertools
from pathlib import Path
from experiments.rundir import atomic_write
for i in itertools.count():
    atomic_write(Path(sys.argv[1]), json.dumps([i] * 200_000))
    print(i, flush=True)
"""
    for _ in range(5):
        process = child(code, path)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.05))
        kill(process)
        values = json.loads(path.read_text())
        assert len(values) == 200_000
        assert len(set(values)) == 1
    assert {entry.name for entry in tmp_path.iterdir()} <= {"data.json", ".data.json.partial"}


def test_a_killed_log_keeps_every_record_that_was_reported(tmp_path: Path) -> None:
    path, rng = tmp_path / "log.jsonl", random.Random(1)
    code = """
import sys, itertools
from pathlib import Path
from experiments.rundir import append_line, read_lines
path = Path(sys.argv[1])
for i in itertools.count(len(read_lines(path))):
    append_line(path, {"i": i, "pad": "x" * 2000})
    print(i, flush=True)
"""
    for _ in range(4):
        process = child(code, path)
        assert process.stdout is not None
        reported = int(process.stdout.readline())
        time.sleep(rng.uniform(0, 0.05))
        kill(process)
        numbers = [record["i"] for record in read_lines(path)]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > reported


def test_a_torn_last_line_is_ignored_then_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert read_lines(path) == []
    for i in range(3):
        append_line(path, {"i": i})
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        kept = whole[:cut].count(b"\n")
        assert read_lines(path) == [{"i": i} for i in range(kept)]
        append_line(path, {"i": 9})
        assert read_lines(path) == [*({"i": i} for i in range(kept)), {"i": 9}]


def test_damage_before_the_last_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"i": 0}\n{"i"\n{"i": 2}\n')
    with pytest.raises(NasError, match="line 2 is damaged"):
        read_lines(path)


def test_two_processes_refuse_each_other_until_one_is_killed(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from experiments.rundir import RunDir
with RunDir(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(60)
"""
    process = child(code, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(NasError, match=f"process {process.pid} is working on this run"), RunDir(tmp_path).locked():
        pass
    kill(process)
    with RunDir(tmp_path).locked(), pytest.raises(NasError, match=f"process {os.getpid()}"), RunDir(tmp_path).locked():
        pass


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "front.csv"
    atomic_write(path, "old")

    def full_disk(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        atomic_write(path, "new")
    assert path.read_text() == "old"


def test_start_records_config_and_environment(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "runs" / "digits")
    run.start("name: digits\n", environment(seed=7))
    assert run.config_path.read_text() == "name: digits\n"
    record = json.loads((run.path / "environment.json").read_text())
    assert record["seed"] == 7
    assert record["cpu"]
    assert {"hwnas", "torch", "numpy", "hls4ml"} <= record["packages"].keys()
    assert "mypy" not in record["packages"]
