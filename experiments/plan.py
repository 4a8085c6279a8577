"""The stages of a run, what each depends on, and a run directory opened to read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from experiments.config import Config, load_config
from experiments.context import Context
from experiments.rundir import Stage, State
from experiments.targets import Target
from hw_models.device import load_device
from nas.errors import NasError

VERSIONS = {
    "train": 3, "sample": 2, "fit": 1, "measure": 4, "search": 5, "finalize": 6, "export": 2, "report": 1,
}  # fmt: skip
"""Raised when a stage's code starts to give other results for the same input."""


@dataclass(frozen=True)
class DeviceStages:
    """The stages of one device; `measure` is None for a device whose cost is computed."""

    target: Target
    measure: Stage | None
    search: Stage
    finalize: Stage
    export: Stage

    @property
    def all(self) -> tuple[Stage, ...]:
        return (*([self.measure] if self.measure else []), self.search, self.finalize, self.export)


@dataclass(frozen=True)
class Plan:
    """All stages of a config, in the order in which they run."""

    train: Stage
    sample: Stage
    fit: Stage
    devices: tuple[DeviceStages, ...]
    report: Stage = field(init=False)

    def __post_init__(self) -> None:
        inputs = (self.train, self.fit, *(stage for device in self.devices for stage in device.all))
        object.__setattr__(self, "report", Stage("report", VERSIONS["report"], "{}", inputs))

    @property
    def all(self) -> tuple[Stage, ...]:
        """Searches come before the first finalist is tuned: limits nothing can satisfy are told early."""
        return (
            self.train, self.sample, self.fit,
            *(device.measure for device in self.devices if device.measure),
            *(device.search for device in self.devices),
            *(device.finalize for device in self.devices),
            *(device.export for device in self.devices),
            self.report,
        )  # fmt: skip

    def device(self, name: str) -> DeviceStages:
        """The stages of one device of the run.

        Raises:
            NasError: The run has no such device.
        """
        for stages in self.devices:
            if stages.target.name == name:
                return stages
        raise NasError(f"no device {name!r} in this run; it has {', '.join(d.target.name for d in self.devices)}")


def plan(config: Config) -> Plan:
    """What each stage of a config depends on; a change to `search:` leaves training, sampling and fitting alone."""
    base = ("seed", "data", "space")
    train = _stage("train", config, (*base, "supernet", "train_on"))
    sample = _stage("sample", config, ("predictors.accuracy.samples",), train)
    fit = _stage("fit", config, ("predictors.accuracy",), sample)
    return Plan(train, sample, fit, tuple(_device_stages(config, target, train, fit) for target in config.devices))


def _device_stages(config: Config, target: Target, train: Stage, fit: Stage) -> DeviceStages:
    name = target.name
    measure = None
    if load_device(name).family == "onnxruntime":
        measure = _stage("measure", config, ("seed", "data", "space", "predictors.latency"), suffix=name)
    inputs = (fit, measure) if measure else (fit,)
    wanted = (f"devices.{name}", "search", "finalize.members", "finalize.baseline")
    search = _stage("search", config, wanted, *inputs, suffix=name)
    finalize = _stage("finalize", config, ("finalize",), search, train, suffix=name)
    return DeviceStages(target, measure, search, finalize, _stage("export", config, (), finalize, suffix=name))


def _stage(name: str, config: Config, slices: tuple[str, ...], *inputs: Stage, suffix: str = "") -> Stage:
    """A stage; of a device, its name is the `suffix` and what its file says belongs to the settings."""
    settings = json.loads(config.slice(*slices))
    if suffix:
        settings["device"] = {key: value for key, value in asdict(load_device(suffix)).items() if value is not None}
    label = f"{name}-{suffix}" if suffix else name
    return Stage(label, VERSIONS[name], json.dumps(settings, sort_keys=True), inputs)


@dataclass(frozen=True)
class OpenRun:
    """A run directory that exists, with its config and plan."""

    context: Context
    plan: Plan

    def states(self) -> dict[str, State]:
        """State of each stage, by name, in order."""
        return {stage.name: self.context.run.state(stage) for stage in self.plan.all}

    def members(self, device: str) -> list[dict[str, Any]]:
        """All finalists of a device, see the finalize stage.

        Raises:
            NasError: The run has no such device, or has not finalized it.
        """
        from experiments.stages.finalize import load_members

        stage = self.plan.device(device).finalize
        self.context.run.summary(stage)
        return load_members(self.context.run.stage_dir(stage))


def open_run(path: Path) -> OpenRun:
    """Open a run directory.

    Raises:
        NasError: There is no run at `path`, or its config is not one of this version.
    """
    if not (path / "config.yaml").exists():
        raise NasError(f"{path}: is no run directory, it has no config.yaml; `nas run CONFIG` makes one")
    config = load_config(path / "config.yaml")
    path = path.resolve()
    if path.name != config.name:
        raise NasError(f"{path}: holds the run {config.name!r}; give the folder that name again")
    return OpenRun(Context(config, path.parent), plan(config))
