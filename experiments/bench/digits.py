"""The search problems that benchmarks share: the digits' supernet and its predictors, made once and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from experiments.bench.demo import demo_config
from experiments.context import Context
from experiments.deploy import SharedErrors
from experiments.pipeline import predictors_only
from experiments.plan import plan
from experiments.problems import on_device
from experiments.stages.fit import ACCURACY
from hw_models.device import Device, Resources, load_device
from nas.problem import Problem
from predictors import accuracy

CPU, FPGA = "local-cpu", "zu3eg"


def digits_problems(
    quick: bool, runs: Path, devices: Mapping[str, Device], say: Callable[[str], None], share: bool = True
) -> dict[str, Problem]:
    """The problems of devices that are the config's or derived from them.

    Args:
        quick: The small training of `nas bench demo --quick`.
        runs: Folder of runs; what is trained and measured already is used again.
        devices: By name, of the families of the digits' config.
        say: Told of every stage.
        share: Whether an error is predicted once for all of them; without, one search does not speed up the next.
    """
    config = demo_config(0, quick)
    context, stages = Context(config, runs / f"bench-digits{'-quick' if quick else ''}"), plan(config)
    predictors_only(config, context.runs, say)
    at, measured = context.run.stage_dir, stages.device(CPU).measure
    predictor = accuracy.load(context.space, at(stages.fit) / ACCURACY)
    errors = SharedErrors(context.space, predictor) if share else predictor
    targets = {"onnxruntime": stages.device(CPU).target, "unrolled-fpga": stages.device(FPGA).target}
    folder = None if measured is None else at(measured)
    return {
        name: on_device(context, device, targets[device.family], errors, folder) for name, device in devices.items()
    }


def five_devices() -> dict[str, Device]:
    """All that are shipped, and the ZU3EG with half its clock and with half of what it has."""
    shipped = {name: load_device(name) for name in (CPU, FPGA, "zcu102")}
    small = shipped[FPGA]
    assert small.clock_hz is not None
    assert small.resources is not None
    has = small.resources
    half = Resources(has.lut // 2, has.ff // 2, has.dsp // 2, has.bram // 2)
    return {
        **shipped,
        "zu3eg-half-clock": replace(small, clock_hz=small.clock_hz / 2),
        "zu3eg-half-size": replace(small, resources=half),
    }
