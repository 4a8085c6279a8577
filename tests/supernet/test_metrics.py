"""Reports as lines and in TensorBoard: no step twice, whatever an earlier run left behind."""

from __future__ import annotations

import json
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from supernet.metrics import METRICS, Progress, read_metrics, recorded


def progress(step: int, loss: float = 1.0) -> Progress:
    return Progress(step, "depth 1/2", step / 4, loss, 0.1, 1000.0)


def test_lines_hold_what_was_reported(tmp_path: Path) -> None:
    with recorded(tmp_path, 0) as report:
        report(progress(3, 2.5))
        assert len(read_metrics(tmp_path)) == 1  # at once, not as the file is closed
        report(progress(6))
    line = json.loads((tmp_path / METRICS).read_text().splitlines()[0])
    assert line == {
        "step": 3, "phase": "depth 1/2", "epoch": 0.75, "loss": 2.5, "learning_rate": 0.1, "images_per_s": 1000.0,
    }  # fmt: skip
    assert read_metrics(tmp_path) == [progress(3, 2.5), progress(6)]


def test_what_lies_beyond_the_restored_step_is_cut_off(tmp_path: Path) -> None:
    with recorded(tmp_path, 0) as report:
        for step in (2, 4, 6):
            report(progress(step))
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 8, "pha')  # killed in the middle of a line
    assert [line.step for line in read_metrics(tmp_path)] == [2, 4, 6]
    with recorded(tmp_path, 4) as report:
        report(progress(6, 7.0))
        report(progress(8))
    assert [(line.step, line.loss) for line in read_metrics(tmp_path)] == [(2, 1.0), (4, 1.0), (6, 7.0), (8, 1.0)]


def test_tensorboard_shows_the_same(tmp_path: Path) -> None:
    with recorded(tmp_path, 0) as report:
        for step in (2, 4, 6):
            report(progress(step))
    with recorded(tmp_path, 4) as report:
        report(progress(6, 7.0))
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("loss")] == [(2, 1.0), (4, 1.0), (6, 7.0)]
    assert {"loss", "learning_rate", "images_per_s", "epoch"} <= set(board.Tags()["scalars"])
