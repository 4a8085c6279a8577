"""A whole tiny run for a CPU that computes in integers: what is fine-tuned is what is measured and exported."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny_runs import tiny_config

from experiments.pipeline import run
from experiments.plan import open_run
from experiments.stages.finalize import member_design
from hw_models.onnx_runtime import predict
from nas.affine import Affine
from supernet.evaluate import all_images


def in_integers(entries: dict[str, Any]) -> None:
    entries["devices"] = [{"name": "local-cpu-int8", "constraints": {"error": "90 %"}}]
    entries["supernet"]["epochs"] = {"full": 3, "depth": 1, "width": 1, "precision": 2}
    entries["predictors"]["accuracy"]["samples"] = 20
    entries["search"]["samplers"] = {"nsga2": {"population": 20, "generations": 6}}
    entries["finalize"] = {"members": 2, "epochs": 1, "gradient": "lsq", "range": "minmax"}


def test_finalists_run_in_the_numbers_that_they_were_tuned_in(tmp_path: Path) -> None:
    opened = open_run(run(tiny_config(in_integers), tmp_path / "runs", lambda text: None).path)
    stages, folder = opened.plan.device("local-cpu-int8"), opened.context.run.stage_dir
    checks = json.loads((folder(stages.export) / "checks.json").read_text())
    test = opened.context.data.test
    for member in opened.members("local-cpu-int8"):
        design = member_design(opened.context, folder(stages.finalize) / member["id"].rpartition("-")[2], member)
        acts = [numbers.act for numbers in design.numbers.values()]
        assert all(isinstance(act, Affine) and act.bits == 8 for act in acts)
        if not member["on_front"]:
            continue
        assert checks[member["id"]]["kind"] == "onnx-int8"
        model = (folder(stages.export) / f"{member['id']}.onnx").read_bytes()
        wrong = predict(model, all_images(test, design.network)).argmax(1) != test.labels.numpy()
        assert member["measured"]["error"] == pytest.approx(wrong.mean())
        stored = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(model).graph.initializer
        }
        for layer in design.network.weighted:
            assert np.array_equal(stored[f"{layer.name}.weight/scale"], design.numbers[layer.name].steps)
