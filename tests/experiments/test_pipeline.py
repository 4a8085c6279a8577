"""What a finished run holds, and what it decides by."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from tiny_runs import (
    DEVICES,
    MARKS,
    Edit,
    Finished,
    front_of,
    nas,
    stage_dir,
    tiny_config,
)

from experiments.context import Context
from experiments.plan import open_run
from experiments.rundir import read_lines
from experiments.stages.finalize import finalize, load_members, member_design
from experiments.stages.fit import measure
from experiments.stages.search import Folders, search
from experiments.targets import Limit
from fpga.adders import adder_graph_cost
from fpga.reference import run as integer_reference
from fpga.tools import missing
from hw_models.device import load_device
from hw_models.onnx_model import layer_bytes
from hw_models.unrolled import RESOURCES, layer_cost
from nas.counts import weight_bytes
from nas.errors import NasError
from predictors import accuracy, latency
from supernet.data.split import Dataset
from supernet.evaluate import design_logits
from supernet.metrics import read_metrics

pytestmark = MARKS


def decided(member: dict[str, Any]) -> dict[str, float]:
    return {**member["measured"], "error": member["validation_error"]}


def test_images(data: Dataset) -> np.ndarray:
    images: np.ndarray = data.test.images.double().numpy()
    return images


test_images.__test__ = False  # type: ignore[attr-defined]


def test_status_names_devices_and_stages_all_done(finished: Finished) -> None:
    told = json.loads(nas("status", finished.path, "--json").stdout)
    assert told["devices"] == list(DEVICES)
    per_device = [
        "measure-local-cpu",
        *(f"{stage}-{device}" for stage in ("search", "finalize", "export") for device in ("local-cpu", "zu3eg")),
    ]
    assert list(told["stages"]) == ["train", "sample", "fit", *per_device, "report"]
    assert {stage["state"] for stage in told["stages"].values()} == {"done"}
    assert told["stages"]["sample"]["samples"] == 40
    assert -1 <= told["stages"]["fit"]["kendall_tau"] <= 1
    assert (finished.path / "report" / "index.html").exists()
    assert all(f"{name}: starts" in finished.output for name in told["stages"])


@pytest.mark.parametrize("device", DEVICES)
def test_front_is_what_nothing_dominates_within_the_constraints(device: str, finished: Finished) -> None:
    opened = finished.open()
    target = opened.plan.device(device).target
    resources = load_device(device).resources
    held = {metric: limit.max for metric, limit in target.constraints.items()}
    if resources is not None:
        held |= {name: min(held.get(name, np.inf), getattr(resources, name)) for name in RESOURCES}
    everyone = load_members(stage_dir(opened, device, "finalize"))
    fitting = [m for m in everyone if all(decided(m)[name] <= limit for name, limit in held.items())]

    def dominated(member: dict[str, Any]) -> bool:
        mine = [decided(member)[name] for name in target.objectives]
        others = [[decided(other)[name] for name in target.objectives] for other in fitting]
        return any(all(a <= b for a, b in zip(o, mine, strict=True)) and o != mine for o in others)

    expected = {member["id"] for member in fitting if not dominated(member)}
    front = front_of(finished.path, device)
    assert {member["id"] for member in front} == expected
    assert len(front) >= 2
    best = min(m["validation_error"] for m in front)
    (winner,) = (m for m in front if m["winner"])
    assert winner["validation_error"] == best


@pytest.mark.parametrize("device", DEVICES)
def test_front_lists_each_metric_predicted_and_measured(device: str, finished: Finished) -> None:
    metrics = {"error", "latency_s", "weight_bytes"} | (set(RESOURCES) if device == "zu3eg" else set())
    genes = finished.open().context.space.genes
    for member in front_of(finished.path, device):
        assert member["device"] == device
        assert member["id"].startswith(f"{device}-")
        assert member["predicted"].keys() == member["measured"].keys() == metrics
        assert len(member["genotype"]) == len(genes)
        assert all(0 <= i < len(gene.choices) for i, gene in zip(member["genotype"], genes, strict=True))
        assert 0 <= member["measured"]["error"] <= 1
        assert all(value >= 0 for value in member["measured"].values())


@pytest.mark.parametrize("device_name", DEVICES)
def test_predicted_is_what_predictors_and_cost_models_say(device_name: str, finished: Finished) -> None:
    opened = finished.open()
    context, device = opened.context, load_device(device_name)
    predictor = accuracy.load(context.space, context.run.stage_dir(opened.plan.fit) / "accuracy.npz")
    for member in load_members(stage_dir(opened, device_name, "finalize")):
        network = context.space.lower(member["genotype"])
        expected = {"error": predictor.predict(np.array([member["genotype"]])).mean[0]}
        if device.clock_hz is None:
            timed = latency.load(stage_dir(opened, device_name, "measure") / "latency.json")
            expected["latency_s"] = timed.predict([network]).mean[0]
            expected["weight_bytes"] = sum(map(layer_bytes, network))
        else:
            costs = [layer_cost(layer) for layer in network]
            expected |= {name: sum(cost[name] for cost in costs) for name in RESOURCES}
            expected["latency_s"] = sum(cost["cycles"] for cost in costs) / device.clock_hz
            expected["weight_bytes"] = sum(map(weight_bytes, network))
        assert member["predicted"] == pytest.approx(expected, rel=1e-9)


def test_samples_and_finalists_have_the_validation_errors_that_steer(finished: Finished) -> None:
    opened = finished.open()
    context, at = opened.context, opened.context.run.stage_dir
    validation, training = context.data.validation, context.trained(at(opened.plan.train))
    records = read_lines(at(opened.plan.sample) / "samples.jsonl")
    assert sorted(record["index"] for record in records) == list(range(40))
    for record in records:
        logits = training.specialise(context.space.lower(record["genotype"]))(validation.images)
        assert record["error"] == float((logits.argmax(1) != validation.labels).double().mean())
    for device in DEVICES:
        home = stage_dir(opened, device, "finalize")
        for member in load_members(home):
            design = member_design(context, home / member["id"].rpartition("-")[2], member)
            answers = design_logits(design, validation.images.double().numpy()).argmax(1)
            wrong = float(np.mean(answers != validation.labels.numpy()))
            assert member["validation_error"] == pytest.approx(wrong, abs=1.5 / len(validation))


def test_exported_onnx_has_the_measured_test_error(finished: Finished) -> None:
    opened = finished.open()
    data, folder = opened.context.data, stage_dir(opened, "local-cpu", "export")
    front = front_of(finished.path, "local-cpu")
    assert {path.stem for path in folder.glob("*.onnx")} == {member["id"] for member in front}
    for member in front:
        session = onnxruntime.InferenceSession(str(folder / f"{member['id']}.onnx"))
        shape = [-1, *session.get_inputs()[0].shape[1:]]
        logits = session.run(None, {"input": data.test.images.numpy().reshape(shape)})[0]
        assert member["measured"]["error"] == np.mean(logits.argmax(1) != data.test.labels.numpy())


def test_fpga_winner_is_verified_on_the_whole_test_split(finished: Finished) -> None:
    opened = finished.open()
    folder = stage_dir(opened, "zu3eg", "export")
    (winner,) = (m for m in front_of(finished.path, "zu3eg") if m["winner"])
    check = json.loads((folder / "checks.json").read_text())
    assert check[winner["id"]]["mismatches"] == 0
    assert check[winner["id"]]["samples"] == len(opened.context.data.test) == 360
    assert (folder / winner["id"] / "firmware" / "design.cpp").exists()
    rtl = check[winner["id"]]["rtl"]
    assert rtl == {"missing": missing()["verilator"]} if "verilator" in missing() else {
        "samples": 360, "mismatches": 0, "first_differing_layer": None,
    }  # fmt: skip


def test_fpga_errors_and_costs_are_those_of_the_integer_design(finished: Finished) -> None:
    opened = finished.open()
    context, home = opened.context, stage_dir(opened, "zu3eg", "finalize")
    clock_hz = load_device("zu3eg").clock_hz
    assert clock_hz is not None
    for member in load_members(home):
        design = member_design(context, home / member["id"].rpartition("-")[2], member)
        logits = integer_reference(design, test_images(context.data).reshape(-1, *design.network.input.out_shape))
        assert member["measured"]["error"] == np.mean(logits.argmax(1) != context.data.test.labels.numpy())
        cost = adder_graph_cost(design, clock_hz).total()
        assert {name: member["measured"][name] for name in cost} == cost


def test_training_is_recorded_step_by_step(finished: Finished) -> None:
    opened = finished.open()
    reports = read_metrics(opened.context.run.stage_dir(opened.plan.train))
    stages = opened.context.training().stages
    assert list(dict.fromkeys(now.phase for now in reports)) == [stage.name for stage in stages]
    assert {stage.end for stage in stages} < {now.step for now in reports}
    steps = [now.step for now in reports]
    assert steps == sorted(set(steps))
    assert all(0 < now.loss < 10 and now.images_per_s > 0 for now in reports)


def test_a_barely_feasible_limit_is_met(finished: Finished, tmp_path: Path) -> None:
    opened = finished.open()
    at, space = opened.context.run.stage_dir, opened.context.space
    smallest = [0] * len(space.genes)
    least = sum(layer_cost(layer)["lut"] for layer in space.lower(smallest))

    def edit(entries: dict[str, Any]) -> None:
        entries["devices"] = [{"name": "zu3eg", "constraints": {"lut": least * (1 + 1e-9)}}]

    config = tiny_config(edit)
    context = Context(config, tmp_path)
    found = search(context, config.devices[0], Folders(at(opened.plan.train), at(opened.plan.fit), None), tmp_path)
    assert found["front"] == 1
    (finalist,) = json.loads((tmp_path / "finalists.json").read_text())
    assert finalist["predicted"]["lut"] == pytest.approx(least)


def test_finalists_are_timed_in_the_unit_of_the_samples(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine half as fast while the finalists were measured moves no finalist's latency."""
    opened = open_run(copied / "tiny")
    device = opened.plan.device("local-cpu")
    store = opened.context.measurements("local-cpu")
    architectures, finalists = read_lines(store)
    finalists["reference_s"] *= 2
    finalists["latency_s"] = {key: 2 * value for key, value in finalists["latency_s"].items()}
    store.write_text(json.dumps(architectures) + "\n" + json.dumps(finalists) + "\n")
    at = opened.context.run.stage_dir
    before = load_members(at(device.finalize))
    finalize(opened.context, device.target, at(opened.plan.train), at(device.search), at(device.finalize))
    after = load_members(at(device.finalize))
    for one, other in zip(before, after, strict=True):
        assert other["measured"]["latency_s"] == pytest.approx(one["measured"]["latency_s"], rel=1e-12)


def test_what_no_finalist_satisfies_is_told_without_the_test_split(finished: Finished, copied: Path) -> None:
    opened = open_run(copied / "tiny")
    device, at = opened.plan.device("zu3eg"), opened.context.run.stage_dir
    members = load_members(at(device.finalize))
    impossible = device.target.model_copy(update={"constraints": {"error": Limit(1e-4)}})
    with pytest.raises(NasError, match="no finalist satisfies the constraints as measured") as told:
        finalize(opened.context, impossible, at(opened.plan.train), at(device.search), at(device.finalize))
    assert f"error {min(m['validation_error'] for m in members):g}" in str(told.value)


def test_a_selection_smaller_than_the_objectives_holds_the_best_of_each(finished: Finished) -> None:
    """`baseline: 1` asks for fewer than there are objectives."""
    for device in DEVICES:
        chosen = load_members(stage_dir(finished.open(), device, "finalize"))
        assert len({tuple(member["genotype"]) for member in chosen}) == len(chosen)
        assert 4 <= len(chosen) <= 4 + 3


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda c: c["predictors"]["latency"].update(samples=3),
            "a predictor needs more than 3 distinct samples, got 3",
        ),
        (lambda c: c["space"].update(depth=[1], width=[8]), "a predictor needs more than 3 distinct samples, got 1"),
    ],
)
def test_too_few_architectures_to_predict_latency_are_told(change: Edit, told: str, tmp_path: Path) -> None:
    with pytest.raises(NasError, match=told):
        measure(Context(tiny_config(change), tmp_path), "local-cpu", tmp_path)
