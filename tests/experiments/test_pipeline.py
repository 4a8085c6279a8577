"""The whole pipeline: what a finished run holds, what it decides by, and what a change makes it do again."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from tiny_runs import NAS, TINY, Edit, Finished, device_search, same_training, times, tiny_config
from typer.testing import CliRunner

from experiments import pipeline as pipeline_module
from experiments.cli import app
from experiments.config import Config, Data
from experiments.context import Context
from experiments.pipeline import run
from experiments.plan import OpenRun, open_run, plan
from experiments.rundir import read_lines
from experiments.stages import finalize as finalize_module
from experiments.stages import sample as sample_module
from experiments.stages.finalize import finalize, load_members, member_design
from experiments.stages.fit import fit, measure
from experiments.stages.sample import sample
from experiments.stages.search import Folders, search
from experiments.stages.train import train
from experiments.targets import Limit
from experiments.workers import parallel
from fpga.adders import adder_graph_cost
from fpga.reference import run as integer_reference
from fpga.tools import missing
from hw_models.device import load_device
from hw_models.onnx_model import layer_bytes
from hw_models.unrolled import RESOURCES, layer_cost
from nas.errors import NasError
from nas.network import weight_bytes
from predictors import accuracy, latency
from supernet.data.split import Dataset
from supernet.data.tensor_split import TensorSplit
from supernet.evaluate import design_logits
from supernet.metrics import read_metrics

pytestmark = [
    pytest.mark.hls,
    # So few samples can leave a hyper-parameter at its bound.
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

DEVICES = ("local-cpu", "zu3eg")
EARLY = ("train", "sample", "fit", "measure")
EVERYTHING = (*EARLY, "search", "finalize", "export", "report")


def nas(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def front_of(path: Path, device: str) -> list[dict[str, Any]]:
    result = nas("front", path, "--device", device, "--json")
    assert result.exit_code == 0, result.stderr
    members: list[dict[str, Any]] = json.loads(result.stdout)
    return members


def stage_dir(opened: OpenRun, device: str, stage: str) -> Path:
    return opened.context.run.stage_dir(getattr(opened.plan.device(device), stage))


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


def test_training_is_recorded_step_by_step(finished: Finished) -> None:
    opened = finished.open()
    reports = read_metrics(opened.context.run.stage_dir(opened.plan.train))
    stages = opened.context.training().stages
    assert list(dict.fromkeys(now.phase for now in reports)) == [stage.name for stage in stages]
    assert {stage.end for stage in stages} < {now.step for now in reports}
    steps = [now.step for now in reports]
    assert steps == sorted(set(steps))
    assert all(0 < now.loss < 10 and now.images_per_s > 0 for now in reports)


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


def serial(function: Any, tasks: Any, most: int | None = None) -> Any:
    return ((task, function(task)) for task in tasks)


def in_process(config: Config, runs: Path, monkeypatch: pytest.MonkeyPatch, until: str = "finalize") -> OpenRun:
    """The stages up to and with `until`, in this process, so that what is patched here holds in all of them."""
    monkeypatch.setattr(sample_module, "parallel", serial)
    monkeypatch.setattr(finalize_module, "parallel", serial)
    context, stages = Context(config, runs), plan(config)
    at = context.run.stage_dir
    context.run.start(config.to_yaml(), {})
    train(context, at(stages.train))
    sample(context, at(stages.train), at(stages.sample))
    fit(context, at(stages.sample), at(stages.fit))
    for device in stages.devices:
        if device.measure:
            measure(context, device.target.name, at(device.measure))
        inputs = Folders(at(stages.train), at(stages.fit), at(device.measure) if device.measure else None)
        search(context, device.target, inputs, at(device.search))
        if until == "finalize":
            finalize(context, device.target, at(stages.train), at(device.search), at(device.finalize))
    return OpenRun(context, stages)


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as loaded:
        return {name: loaded[name] for name in loaded.files}


def same_arrays(one: Path, other: Path) -> None:
    mine, yours = arrays(one), arrays(other)
    assert mine.keys() == yours.keys()
    for name, values in mine.items():
        np.testing.assert_array_equal(values, yours[name])


def test_the_test_split_steers_nothing(
    finished: Finished, measured_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong test labels change the reported test errors, and not a bit of anything else."""

    load = Data.load

    def mislabelled(self: Data, seed: int) -> Dataset:
        data = load(self, seed)
        assert isinstance(data.test, TensorSplit)
        return replace(data, test=TensorSplit(data.test.images, (data.test.labels + 1) % data.classes))

    monkeypatch.setattr(Data, "load", mislabelled)
    right, wrong = finished.open(), in_process(tiny_config(), measured_only, monkeypatch)
    one, other = right.context.run.stage_dir, wrong.context.run.stage_dir
    stages = right.plan
    same_training(one(stages.train), other(stages.train))
    samples = [sorted(read_lines(at(stages.sample) / "samples.jsonl"), key=lambda r: r["index"]) for at in (one, other)]
    assert samples[0] == samples[1]
    same_arrays(one(stages.fit) / "accuracy.npz", other(stages.fit) / "accuracy.npz")
    same_arrays(one(stages.fit) / "held_out.npz", other(stages.fit) / "held_out.npz")
    for device in stages.devices:
        if device.measure:
            assert (one(device.measure) / "latency.json").read_text() == (
                other(device.measure) / "latency.json"
            ).read_text()
        same_arrays(one(device.search) / "candidates.npz", other(device.search) / "candidates.npz")
        assert (one(device.search) / "finalists.json").read_text() == (
            other(device.search) / "finalists.json"
        ).read_text()
        members = [load_members(at(device.finalize)) for at in (one, other)]
        for mine, yours in zip(*members, strict=True):
            home = mine["id"].rpartition("-")[2]
            same_arrays(one(device.finalize) / home / "design.npz", other(device.finalize) / home / "design.npz")
            errors = mine["measured"].pop("error"), yours["measured"].pop("error")
            assert errors[1] > 0.5 or errors[0] > 0.3
            assert errors[0] != errors[1]
            assert mine == yours


def test_a_different_seed_finds_other_networks(
    finished: Finished, measured_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = in_process(tiny_config(lambda c: c.update(seed=1)), measured_only, monkeypatch, until="search")
    for device in DEVICES:
        found = [
            {tuple(f["genotype"]) for f in json.loads((stage_dir(o, device, "search") / "finalists.json").read_text())}
            for o in (finished.open(), other)
        ]
        assert found[0] != found[1]


def test_searches_of_a_run_find_the_same_fronts_on_one_worker_or_three(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All samplers of the run on three devices: all candidates, fronts and finalists, equal to those of the run."""
    context = Context(tiny_config(lambda c: c["devices"].append({"name": "zcu102"})), finished.runs)
    devices = [*DEVICES, "zcu102"]
    summaries = {0: dict(serial(partial(device_search, context, tmp_path / "0"), devices))}
    for workers in (1, 3):
        monkeypatch.setattr(os, "cpu_count", lambda workers=workers: workers)
        summaries[workers] = dict(parallel(partial(device_search, context, tmp_path / str(workers)), devices))
    assert summaries[1] == summaries[3] == summaries[0]
    for device in devices:
        here = tmp_path / "0" / device
        there = [tmp_path / "1" / device, tmp_path / "3" / device]
        for folder in [*there, stage_dir(finished.open(), device, "search")] if device in DEVICES else there:
            same_arrays(folder / "candidates.npz", here / "candidates.npz")
            for name in ("finalists.json", "proofs.json"):
                assert (folder / name).read_text() == (here / name).read_text()
    fronts = [front_arrays(tmp_path / "3" / device) for device in devices]
    assert all(len(front) >= 2 for front in fronts)
    assert len({front.tobytes() for front in fronts}) == len(devices)


def front_arrays(folder: Path) -> np.ndarray:
    found = arrays(folder / "candidates.npz")
    genotypes: np.ndarray = found["genotypes"][found["front"]]
    return genotypes


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
