"""A whole tiny run for devices that are priced by a cost model, and what its search sums."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import tiny_config
from typer.testing import CliRunner

from experiments.cli import app
from experiments.pipeline import run
from experiments.plan import open_run
from experiments.problems import problem
from hw_models import bit_flexible
from hw_models.device import device_names, device_text, load_device
from hw_models.memory import peak_memory_bytes
from hw_models.prices import layer_prices
from nas.counts import weight_bytes
from nas.problem import sample

PRICED = ("bitfusion", "edge-tpu", "stm32f746")


def for_priced(entries: dict[str, Any]) -> None:
    entries["devices"] = [{"name": name, "constraints": {"error": "80 %"}} for name in PRICED]
    entries["devices"][2]["objectives"] = ["error", "latency_s", "peak_bytes"]
    entries["supernet"]["epochs"] = {"full": 3, "depth": 1, "width": 1, "precision": 2}
    entries["predictors"]["accuracy"]["samples"] = 20
    entries["search"]["samplers"] = {"nsga2": {"population": 20, "generations": 6}}
    entries["finalize"] = {"members": 2, "baseline": 1, "epochs": 1, "learning_rate": 1e-3}


def test_a_search_on_devices_with_a_cost_model(tmp_path: Path) -> None:
    folder = run(tiny_config(for_priced), tmp_path / "runs", lambda text: None).path
    opened, array = open_run(folder), load_device("bitfusion").array
    assert array is not None
    asked = problem(
        opened.context, opened.context.config.devices[0], opened.context.run.stage_dir(opened.plan.fit), None
    )
    population = sample(asked, 30, np.random.default_rng(0))
    networks = [opened.context.space.lower(row.tolist()) for row in population]
    truth = [[bit_flexible.latency_s(net, array), sum(map(weight_bytes, net))] for net in networks]
    columns = [asked.metrics.index(name) for name in ("latency_s", "weight_bytes")]
    assert np.allclose(asked.evaluate(population)[:, columns], truth, rtol=1e-12)
    for member in opened.members("bitfusion"):
        network = opened.context.space.lower(member["genotype"])
        assert member["measured"]["latency_s"] == pytest.approx(bit_flexible.latency_s(network, array))
        assert member["predicted"]["latency_s"] == pytest.approx(member["measured"]["latency_s"])
    for name in PRICED:
        device, members = load_device(name), opened.members(name)
        assert any(member["winner"] for member in members)
        for member in members:
            network = opened.context.space.lower(member["genotype"])
            costs = {metric: sum(map(price, network)) for metric, price in layer_prices(device).items()}
            if name == "stm32f746":
                costs["peak_bytes"] = peak_memory_bytes(network)
                assert member["measured"]["peak_bytes"] <= 320 * 1024
            assert {"error": member["measured"]["error"], **costs} == pytest.approx(member["measured"])
            assert {"error": member["predicted"]["error"], **costs} == pytest.approx(member["predicted"])
    page = (folder / "report" / "index.html").read_text()
    assert "measured on the device" not in page
    assert "priced by the device" in page


def test_the_commands_list_and_show_devices() -> None:
    listed = CliRunner().invoke(app, ["device", "list"], env={"COLUMNS": "300"})
    assert all(name in listed.stdout for name in device_names())
    shown = CliRunner().invoke(app, ["device", "show", "bitfusion"])
    assert shown.stdout == device_text("bitfusion")
    wrong = CliRunner().invoke(app, ["device", "show", "bitfusio"])
    assert (wrong.exit_code, "did you mean bitfusion" in wrong.stderr) == (2, True)
