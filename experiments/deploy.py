"""The best predicted network of a finished run for each of several devices under each of several budgets."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.config import Config, config_from
from experiments.context import Context
from experiments.plan import DeviceStages, plan
from experiments.problems import Errors, on_device
from experiments.stages.fit import ACCURACY, measure
from experiments.units import dimension_of, quantity
from hw_models.device import load_device
from nas.errors import NasError
from nas.genotype import FloatArray, IntArray, SearchSpace, active
from nas.problem import Constraint, Problem
from nas.search.archive import Archive
from nas.search.devices import joined
from nas.search.hybrid import Hybrid
from nas.search.programs import Programs
from nas.search.refine import best_within
from nas.search.stand_in import StandIn, lower_stand_in
from predictors import accuracy

_SEARCH = Hybrid(population=400, generations=200, rounds=3)
_EFFORT = 2.0
"""Most effort per program, about seconds."""


@dataclass(frozen=True)
class Deployed:
    """One answer.

    Attributes:
        device: Or several, joined by `+`.
        budgets: Upper limits on the metric, by device.
        genotype: The best network found within budgets and constraints, None without one.
        metrics: Its predicted metrics.
        bound: Lower bound of the error, proved as far as `StandIn.bounds` says; None where nothing fits the budgets.
    """

    device: str
    budgets: Mapping[str, float]
    genotype: tuple[int, ...] | None
    metrics: Mapping[str, float]
    bound: float | None

    @property
    def gap(self) -> float | None:
        """How far the error may be from the optimum."""
        return None if self.bound is None or self.genotype is None else self.metrics["error"] - self.bound


class SharedErrors:
    """Predicted errors, each asked for once however many devices need it."""

    def __init__(self, space: SearchSpace, errors: Errors) -> None:
        everything = tuple(tuple(range(len(gene.choices))) for gene in space.genes)
        ask = Problem(space, ("error",), lambda p: errors.mean(p)[:, None], ("error",), (), everything, {})
        self.known = Archive(ask)

    def mean(self, population: IntArray) -> FloatArray:
        """The error of each canonical genotype, shapes (n, genes) and (n,)."""
        places = self.known.add(population, "")
        errors: FloatArray = self.known.metrics[places, 0]
        return errors


def names(text: str) -> list[str]:
    """Device names, separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def limits(text: str, metric: str) -> int | list[float]:
    """How many budgets, or the budgets themselves in SI: `10`, or `5 us,10 us`. A single limit ends in a comma.

    Raises:
        NasError: They are neither.
    """
    if text.strip().isdigit():
        if int(text) < 1:
            raise NasError(f"--budgets must be at least 1, or limits such as '5 us,10 us'; got {text!r}")
        return int(text)
    return [quantity(part.strip(), dimension_of(metric)) for part in text.split(",") if part.strip()]


def record(one: Deployed) -> dict[str, Any]:
    """An answer as JSON values."""
    return {**asdict(one), "gap": one.gap}


def as_csv(found: Sequence[Deployed]) -> str:
    """One line for each answer: device, budgets, error, bound, gap, the other metrics, genotype."""
    text = io.StringIO()
    metrics = list(dict.fromkeys(name for one in found for name in one.metrics if name != "error"))
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["device", "budget", "error", "bound", "gap", *metrics, "genotype"])
    for one in found:
        budget = " ".join(map(repr, one.budgets.values()))
        values = [one.metrics.get("error"), one.bound, one.gap, *(one.metrics.get(name) for name in metrics)]
        writer.writerow([one.device, budget, *values, " ".join(map(str, one.genotype or ()))])
    return text.getvalue()


def problems(config: Config, names: Sequence[str], runs: Path, say: Callable[[str], None]) -> dict[str, Problem]:
    """The problems of devices, on the predictors of a finished run; a device it did not measure is measured now.

    A device of the config keeps its constraints there.

    Raises:
        NasError: The run has no predictors yet, or a device is unknown or does not suit the space.
    """
    targets = {target.name: target.model_dump(mode="json") for target in config.devices}
    wanted = [targets.get(name, {"name": name}) for name in names]
    changed = config_from({**config.model_dump(mode="json"), "devices": wanted}, "--devices")
    context, stages = Context(changed, runs), plan(changed)
    context.run.summary(stages.fit)
    predictor = accuracy.load(context.space, context.run.stage_dir(stages.fit) / ACCURACY)
    errors = SharedErrors(context.space, predictor)
    return {
        device.target.name: on_device(
            context, load_device(device.target.name), device.target, errors, _measured(context, device, say)
        )
        for device in stages.devices
    }


def _measured(context: Context, device: DeviceStages, say: Callable[[str], None]) -> Path | None:
    if device.measure is None:
        return None
    folder = context.run.stage_dir(device.measure)
    if not context.run.is_done(device.measure):
        say(f"{device.measure.name}: starts")
        with context.run.locked():
            context.run.finish(device.measure, measure(context, device.target.name, folder))
    return folder


def deploy(asked: Mapping[str, Problem], metric: str, budgets: int | Sequence[float], seed: int) -> list[Deployed]:
    """The best network of every device under every budget.

    Args:
        asked: Problems by device.
        metric: The additive metric that is limited.
        budgets: Upper limits; or how many, spread for each device from its least value to where it limits nothing.
        seed: Of the searches.
    """
    archives: dict[str, Archive] = {}
    for device, problem in asked.items():
        archives[device] = _searched(_limited(problem, metric, device), seed, _fronts(archives.values()))
    shared, answers = _fronts(archives.values()), []
    for device, archive in archives.items():
        archive.add(_allowed(archive.problem, shared), "shared")
        below = lower_stand_in(archive, "error")
        for budget in _spread(archive, metric, budgets):
            answers.append(_answer(archive, below, {device: Constraint(metric, budget)}, seed))
    return answers


def deploy_together(
    asked: Mapping[str, Problem], metric: str, budgets: int | Sequence[float], seed: int
) -> list[Deployed]:
    """The best network that holds a budget on all devices at once, for every budget; see `deploy`."""
    metrics = {device: f"{metric}@{device}" for device in asked}
    problem = joined({device: _limited(one, metric, device) for device, one in asked.items()})
    archive = _searched(problem, seed, _fronts(()))
    below, spreads = lower_stand_in(archive, "error"), [_spread(archive, name, budgets) for name in metrics.values()]
    return [
        _answer(archive, below, {d: Constraint(m, b) for (d, m), b in zip(metrics.items(), row, strict=True)}, seed)
        for row in zip(*spreads, strict=True)
    ]


def _limited(problem: Problem, metric: str, device: str) -> Problem:
    if metric not in problem.additive:
        raise NasError(f"device {device}: no budget on {metric!r}; it has {', '.join(problem.additive)}")
    return replace(problem, objectives=("error", metric))


def _searched(problem: Problem, seed: int, shared: IntArray) -> Archive:
    return _SEARCH.run(problem, seed, starts=_allowed(problem, shared))


def _fronts(archives: Iterable[Archive]) -> IntArray:
    """Genotypes of all fronts, shape (n, genes); no rows without archives."""
    found = [archive.genotypes[archive.front()] for archive in archives]
    return np.concatenate(found) if found else np.zeros((0, 0), dtype=np.int64)


def _allowed(problem: Problem, population: IntArray) -> IntArray:
    """Those canonical genotypes that a device supports."""
    if not len(population):
        return np.zeros((0, len(problem.allowed)), dtype=np.int64)
    counts = active(problem.space, population)
    fits = [~used | np.isin(column, i) for i, column, used in zip(problem.allowed, population.T, counts.T, strict=True)]
    return population[np.all(fits, axis=0)]


def _spread(archive: Archive, metric: str, budgets: int | Sequence[float]) -> list[float]:
    """Given budgets, or as many in geometric progression over the front of the archive, the last without effect."""
    if not isinstance(budgets, int):
        return list(budgets)
    places = archive.front() if len(archive.front()) else np.arange(len(archive))
    column = archive.metrics[places, archive.problem.metrics.index(metric)]
    least, most = float(column.min()), float(column.max())
    spaced = np.geomspace if least > 0 else np.linspace
    # Rounding must not put the ends beyond what they stand for.
    spread: list[float] = np.clip(spaced(least, most, budgets + 1)[1:], least, most).tolist()
    return spread


def _answer(archive: Archive, below: StandIn, budgets: Mapping[str, Constraint], seed: int) -> Deployed:
    """The best member of the archive, once a program has proved a bound and added its solution."""
    problem, limits = archive.problem, (*archive.problem.constraints, *budgets.values())
    programs = Programs(archive, seed, effort=_EFFORT)
    assert below.genewise is not None
    programs.surrogates["error"] = below.genewise
    programs.minimise("error", limits)
    proof = archive.proofs[-1]
    bound = None if proof.bound is None else float(below.below(np.array(proof.bound)))
    place = best_within(archive, "error", limits)
    held = {device: limit.limit for device, limit in budgets.items()}
    if place is None:
        return Deployed("+".join(budgets), held, None, {}, bound)
    metrics = dict(zip(problem.metrics, archive.metrics[place].tolist(), strict=True))
    bound = None if bound is None else min(bound, metrics["error"])
    return Deployed("+".join(budgets), held, tuple(archive.genotypes[place].tolist()), metrics, bound)
