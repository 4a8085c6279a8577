"""The work of a run: its stages in order, each into its folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from experiments.config import Config
from experiments.context import Context
from experiments.environment import environment
from experiments.plan import DeviceStages, Plan, plan
from experiments.report.page import write_report
from experiments.rundir import RunDir, Stage
from experiments.stages.export import export
from experiments.stages.finalize import finalize
from experiments.stages.fit import fit, measure
from experiments.stages.sample import sample
from experiments.stages.search import Folders, search
from experiments.stages.train import train
from experiments.targets import require_operations, require_tools
from supernet.distributed import processes


def run(config: Config, runs: Path, say: Callable[[str], None]) -> RunDir:
    """Run all stages that are not done, in order; an interrupted stage goes on where it stopped.

    Args:
        config: What to run.
        runs: Folder of runs; this one gets the folder of its name.
        say: Told of every stage.

    Raises:
        NasError: A tool is missing (before anything starts), or a stage cannot do its work.
    """
    require_operations(config.devices, config.build_space())
    require_tools(config.devices)
    context, stages = Context(config, runs), plan(config)
    with context.run.locked():
        if not all(map(context.run.is_done, stages.all)) or not context.run.holds(config.to_yaml()):
            context.run.start(config.to_yaml(), environment(config.seed))
        _finish(context, stages, stages.all, say)
    return context.run


def predictors_only(config: Config, runs: Path, say: Callable[[str], None]) -> RunDir:
    """A run up to its predictors: the stages that searches need, as `run` does them."""
    require_operations(config.devices, config.build_space())
    context, stages = Context(config, runs), plan(config)
    measures = [device.measure for device in stages.devices if device.measure]
    with context.run.locked():
        context.run.start(config.to_yaml(), environment(config.seed))
        _finish(context, stages, (stages.train, stages.sample, stages.fit, *measures), say)
    return context.run


def _finish(context: Context, stages: Plan, wanted: Sequence[Stage], say: Callable[[str], None]) -> None:
    work = _work(context, stages)
    for stage in wanted:
        if context.run.is_done(stage):
            say(f"{stage.name}: done")
            continue
        say(f"{stage.name}: {'resumes' if context.run.state(stage) == 'partial' else 'starts'}")
        context.run.finish(stage, work[stage](context.run.stage_dir(stage)))


def train_only(config: Config, runs: Path, say: Callable[[str], None]) -> None:
    """The first stage of a run, alone or as one of the processes that `torchrun` started.

    Args:
        config: What to train.
        runs: Folder of runs, which all processes share.
        say: Told by the first process how it goes.
    """
    require_operations(config.devices, config.build_space())
    context, stage = Context(config, runs), plan(config).train
    with processes(config.train_on) as ranks, context.run.locked() if ranks.first else nullcontext():
        if context.run.is_done(stage):
            if ranks.first:
                say(f"{stage.name}: done")
            return
        if ranks.first:
            context.run.start(config.to_yaml(), environment(config.seed))
        summary = train(context, context.run.stage_dir(stage), ranks)
        if ranks.first:
            context.run.finish(stage, summary)


Work = Callable[[Path], dict[str, Any]]


def _work(context: Context, plan: Plan) -> dict[Stage, Work]:
    at = context.run.stage_dir
    work: dict[Stage, Work] = {
        plan.train: lambda folder: train(context, folder),
        plan.sample: lambda folder: sample(context, at(plan.train), folder),
        plan.fit: lambda folder: fit(context, at(plan.sample), folder),
        plan.report: lambda folder: write_report(context, plan),
    }
    for stages in plan.devices:
        work |= _device_work(context, plan, stages)
    return work


def _device_work(context: Context, plan: Plan, stages: DeviceStages) -> dict[Stage, Work]:
    at, target, measured = context.run.stage_dir, stages.target, stages.measure

    def inputs() -> Folders:
        return Folders(at(plan.train), at(plan.fit), at(measured) if measured else None)

    work: dict[Stage, Work] = {
        stages.search: lambda folder: search(context, target, inputs(), folder),
        stages.finalize: lambda folder: finalize(context, target, at(plan.train), at(stages.search), folder),
        stages.export: lambda folder: export(context, target.name, at(stages.finalize), folder),
    }
    if measured is not None:
        work[measured] = lambda folder: measure(context, target.name, folder)
    return work
