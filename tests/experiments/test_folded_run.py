"""A run for a board that is too small for unrolled networks, on the finished run's supernet."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tiny_runs import Finished, tiny_config

from experiments.config import Config
from experiments.pipeline import run
from experiments.plan import OpenRun, open_run
from experiments.problems import problem
from experiments.report.artefacts import device_results
from experiments.synthesis import Asked, emitted, synthesised
from experiments.worker import candidates
from fpga.folded import FOLDED, folded_costs
from fpga.folding import Folding, fold
from hw_models.device import load_device
from nas.errors import NasError
from nas.problem import sample

pytestmark = [pytest.mark.hls]

BOARD = """
like: pynq-z2
family: folded-fpga
title: A board for tests
schedule: pipelined
objectives: [error, interval_s, latency_s]
resources:
  lut: {value: 280, source: a board for tests}
  ff: {value: 1200, source: a board for tests}
  dsp: {value: 1, source: a board for tests}
  bram: {value: 2, source: a board for tests}
"""


@pytest.fixture(scope="module")
def folded_run(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenRun]:
    folder = tmp_path_factory.mktemp("folded")
    shutil.copytree(finished.runs, folder / "runs")
    (folder / "devices").mkdir()
    (folder / "devices" / "small-board.yaml").write_text(BOARD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAS_DEVICES", str(folder / "devices"))
        made = run(folded_config(), folder / "runs", lambda line: None)
        yield open_run(made.path)


def folded_config() -> Config:
    def edit(entries: dict[str, Any]) -> None:
        entries["devices"] = [{"name": "small-board", "constraints": {"error": "60 %"}}]
        entries["search"]["samplers"] = {"nsga2": {"population": 20, "generations": 6}}

    return tiny_config(edit)


def test_the_search_sees_what_the_best_folding_costs(folded_run: OpenRun) -> None:
    context, stages = folded_run.context, folded_run.plan.devices[0]
    asked = problem(context, stages.target, context.run.stage_dir(folded_run.plan.fit), None)
    population = sample(asked, 60, np.random.default_rng(0))
    cost = folded_costs(load_device("small-board"))
    seen = asked.evaluate(population)[:, asked.columns(FOLDED)]
    assert np.array_equal(seen, [list(cost(context.space.lower(row)).values()) for row in population.tolist()])
    infeasible = asked.violation(asked.evaluate(population)) > 0
    assert 0 < infeasible.sum() < len(population)


def test_finalists_fit_the_board_and_are_exported_folded(folded_run: OpenRun) -> None:
    device = load_device("small-board")
    front = [member for member in folded_run.members("small-board") if member["on_front"]]
    for member in front:
        best = fold(folded_run.context.space.lower(member["genotype"]), device, "pipelined")
        assert isinstance(best, Folding)
        assert member["measured"]["interval_s"] == pytest.approx(best.cycles / 100e6)
        assert member["measured"]["lut"] <= 280
        assert member["predicted"] == {**member["measured"], "error": member["predicted"]["error"]}
    result = device_results(folded_run.context, folded_run.plan)[0]
    (check,) = result.checks.values()
    assert (check["kind"], check["mismatches"]) == ("hls4ml", 0)
    assert check["build"]["strategy"] == "resource"
    assert "rtl" not in check
    page = (folded_run.context.run.path / "report" / "index.html").read_text()
    assert "folded by an integer program" in page


def test_what_is_folded_is_not_synthesised_unrolled(folded_run: OpenRun) -> None:
    path = folded_run.context.run.path
    with pytest.raises(NasError, match=r"designs are folded.*`nas fpga emit"):
        synthesised(path, "small-board", None, None, 60.0)
    name, folder, found = emitted(path, "small-board", None, None, Asked(io="stream"))
    assert (folder, found.mismatches) == (path / "projects" / name, 0)
    assert json.loads((folder / "interface.json").read_text())["classes"] == 10


def test_a_worker_tells_what_folded_networks_cost(folded_run: OpenRun) -> None:
    context, member = folded_run.context, folded_run.members("small-board")[0]
    found = candidates(context.config, context.runs, "small-board", "nsga2")
    told = found.metrics(tuple(member["genotype"]), 0)
    assert {name: told[name] for name in FOLDED} == {name: member["measured"][name] for name in FOLDED}
    assert 0 <= told["error"] < 1
