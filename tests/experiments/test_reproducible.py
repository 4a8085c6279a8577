"""What the results of a run depend on: its seed; not on the test split, and not on how many workers search."""

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import (
    DEVICES,
    MARKS,
    Finished,
    device_search,
    same_training,
    stage_dir,
    tiny_config,
)

from experiments.config import Config, Data
from experiments.context import Context
from experiments.plan import OpenRun, plan
from experiments.rundir import read_lines
from experiments.stages import finalize as finalize_module
from experiments.stages import sample as sample_module
from experiments.stages.finalize import finalize, load_members
from experiments.stages.fit import fit, measure
from experiments.stages.sample import sample
from experiments.stages.search import Folders, search
from experiments.stages.train import train
from experiments.workers import parallel
from supernet.data.split import Dataset
from supernet.data.tensor_split import TensorSplit

pytestmark = MARKS


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
