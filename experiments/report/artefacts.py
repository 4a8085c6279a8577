"""What the stages of a run left, read back for the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from experiments.context import Context
from experiments.plan import DeviceStages, Plan
from experiments.problems import limits
from experiments.report.metrics import is_dense_8bit, joint_over_dense
from experiments.rundir import read_lines
from experiments.stages.export import CHECKS
from experiments.stages.finalize import finalist_key, load_members
from experiments.stages.fit import HELD_OUT
from experiments.stages.search import CANDIDATES
from experiments.targets import Target
from hw_models.device import Device, load_device
from nas.genotype import FloatArray
from nas.network import FLOAT_BITS

Member = dict[str, Any]

CLOUD = 3000
"""Candidates that a figure shows at most."""


@dataclass(frozen=True)
class HeldOut:
    """A predictor's answers on samples it did not see, each of shape (n,), and its score."""

    predicted: FloatArray
    std: FloatArray
    truth: FloatArray
    score: Mapping[str, float]


@dataclass(frozen=True)
class DeviceResult:
    """What a run found for one device.

    Attributes:
        target: Objectives and constraints.
        device: What the device is.
        members: All finalists.
        cloud: Predicted metrics of feasible candidates, each of shape (n,), n at most `CLOUD`.
        search: Summary of the search stage.
        proofs: What the integer programs proved.
        checks: The export's checks by member.
        latency: Held-out score of the latency predictor; None where latency is not measured.
        campaigns: Measurement campaigns by what they measured.
    """

    target: Target
    device: Device
    members: Sequence[Member]
    cloud: Mapping[str, FloatArray]
    search: Mapping[str, Any]
    proofs: Sequence[Mapping[str, Any]]
    checks: Mapping[str, Mapping[str, Any]]
    latency: HeldOut | None
    campaigns: Sequence[tuple[str, Mapping[str, Any]]]

    @property
    def is_fpga(self) -> bool:
        return self.device.resources is not None

    @property
    def is_measured(self) -> bool:
        return self.device.family == "onnxruntime"

    @property
    def floats_only(self) -> bool:
        """True where activations are always float, so that bits and zeros change no latency."""
        return self.device.act_bits == (FLOAT_BITS,)

    @property
    def main_cost(self) -> str:
        """The horizontal axis: LUTs of an unrolled design, time elsewhere; a folded one fits, however large it is."""
        match self.device.family:
            case "unrolled-fpga":
                return "lut"
            case "folded-fpga":
                return "interval_s"
            case _:
                return "latency_s"

    @property
    def third(self) -> str | None:
        """The first objective beside the error and the main cost."""
        rest = [name for name in self.target.objectives if name not in ("error", self.main_cost)]
        return rest[0] if rest else None

    @property
    def metrics(self) -> tuple[str, ...]:
        """The objectives, then all other metrics that are not 0 throughout."""
        rest = [name for name in self.members[0]["predicted"] if name not in self.target.objectives]
        rest = [name for name in rest if any(m[kind][name] for m in self.members for kind in ("predicted", "measured"))]
        return (*self.target.objectives, *rest)

    def provenance(self, metric: str) -> str:
        """What a finalist's final value of a metric is: measured, simulated, estimated or computed."""
        match self.device.family, metric:
            case "onnxruntime", _:
                return "measured"
            case _, "error":
                return "simulated"
            case _, "weight_bytes":
                return "computed"
            case _:
                return "estimated"

    @cached_property
    def front(self) -> tuple[Member, ...]:
        """The front, best validation error first, as the winner is chosen."""
        costs = [name for name in self.target.objectives if name != "error"]
        shown = (member for member in self.members if member["on_front"])
        return tuple(
            sorted(shown, key=lambda m: (m["validation_error"], *(m["measured"][name] for name in costs), m["id"]))
        )

    @property
    def winner(self) -> Member:
        return next(member for member in self.members if member["winner"])

    @property
    def dense(self) -> tuple[Member, ...]:
        return tuple(member for member in self.members if is_dense_8bit(member))

    @property
    def over_dense(self) -> float | None:
        """Hypervolume of the front over that of the 8-bit dense finalists; None without such."""
        return joint_over_dense(self.members, self.target.objectives) if self.dense else None


def device_results(context: Context, plan: Plan) -> tuple[DeviceResult, ...]:
    """The results of every device of a run, in the config's order.

    Raises:
        NasError: A stage is not done.
    """
    return tuple(_result(context, stages) for stages in plan.devices)


def held_out(folder: Path, score: Mapping[str, float]) -> HeldOut:
    """The held-out samples of stage `fit` or `measure`, whose summary holds the score."""
    with np.load(folder / HELD_OUT) as arrays:
        return HeldOut(arrays["predicted"], arrays["std"], arrays["truth"], score)


def _result(context: Context, stages: DeviceStages) -> DeviceResult:
    run, target, device = context.run, stages.target, load_device(stages.target.name)
    summaries = {stage.name: run.summary(stage) for stage in stages.all}
    search = run.stage_dir(stages.search)
    members = load_members(run.stage_dir(stages.finalize))
    latency = None
    if stages.measure is not None:
        latency = held_out(run.stage_dir(stages.measure), summaries[stages.measure.name])
    return DeviceResult(
        target=target,
        device=device,
        members=members,
        cloud=_cloud(search / CANDIDATES, target, device),
        search=summaries[stages.search.name],
        proofs=json.loads((search / "proofs.json").read_text()),
        checks=json.loads((run.stage_dir(stages.export) / CHECKS).read_text()),
        latency=latency,
        campaigns=_campaigns(context, stages, members),
    )


def _cloud(path: Path, target: Target, device: Device) -> dict[str, FloatArray]:
    with np.load(path) as arrays:
        names, metrics = [str(name) for name in arrays["names"]], arrays["metrics"]
    feasible = np.all([metrics[:, names.index(c.metric)] <= c.limit for c in limits(target, device)] or [True], axis=0)
    rows = np.flatnonzero(np.broadcast_to(feasible, len(metrics)))
    rows = rows[:: max(1, -(-len(rows) // CLOUD))]
    return dict(zip(names, metrics[rows].T, strict=True))


def _campaigns(
    context: Context, stages: DeviceStages, members: Sequence[Member]
) -> list[tuple[str, Mapping[str, Any]]]:
    """Those of the sampled architectures, and those that timed one of these finalists."""
    if stages.measure is None:
        return []
    architectures = json.loads((context.run.stage_dir(stages.measure) / "campaigns.json").read_text())
    keys = {finalist_key(context.space.lower(member["genotype"])) for member in members}
    measured = read_lines(context.measurements(stages.target.name))
    timed = [campaign for campaign in measured if keys & campaign["latency_s"].keys()]
    return [("sampled architectures", one) for one in architectures] + [("finalists", one) for one in timed]
