"""One network for several devices: their problems joined into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from nas.problem import Constraint, Problem


def joined(problems: Mapping[str, Problem], shared: Sequence[str] = ("error",)) -> Problem:
    """The problem of a network that runs on every device: it has the costs and the limits of all.

    Args:
        problems: Problems by device, over one space.
        shared: Metrics that are the same on every device; the others are called `METRIC@DEVICE`.

    Returns:
        A problem with the choices that all devices support. A shared metric is evaluated once, by the first device;
        of shared limits the lowest holds.

    Raises:
        NasError: The spaces differ, or no choice of a gene suits all devices.
    """
    first = next(iter(problems.values()))
    for device, problem in problems.items():
        if problem.space.genes != first.space.genes:
            raise NasError(
                f"device {device}: one network needs one space, but its genes differ; join devices of a space"
            )
    names = {
        (device, metric): metric if metric in shared else f"{metric}@{device}"
        for device, problem in problems.items()
        for metric in problem.metrics
    }
    evaluation = _Evaluation(problems, names)
    limits: dict[str, float] = {}
    for device, problem in problems.items():
        for c in problem.constraints:
            limits[names[device, c.metric]] = min(limits.get(names[device, c.metric], np.inf), c.limit)
    return Problem(
        first.space,
        tuple(dict.fromkeys(names.values())),
        evaluation,
        tuple(dict.fromkeys(names[device, metric] for device, p in problems.items() for metric in p.objectives)),
        tuple(Constraint(metric, limit) for metric, limit in limits.items()),
        _allowed(problems),
        {names[device, metric]: cost for device, p in problems.items() for metric, cost in p.additive.items()},
        {names[device, metric]: cost for device, p in problems.items() for metric, cost in p.pipelined.items()},
    )


@dataclass(frozen=True)
class _Evaluation:
    """Metrics of all devices; a device is asked only for what is neither priced nor known from one before it."""

    problems: Mapping[str, Problem]
    names: Mapping[tuple[str, str], str]

    def __call__(self, population: IntArray) -> FloatArray:
        values: dict[str, FloatArray] = {}
        for device, problem in self.problems.items():
            new = {metric: self.names[device, metric] for metric in problem.metrics}
            new = {metric: name for metric, name in new.items() if name not in values}
            if new.keys() <= problem.priced.keys():
                values |= {name: problem.priced[metric](population) for metric, name in new.items()}
            else:
                columns = problem.evaluate(population).T
                values |= {name: columns[problem.metrics.index(metric)] for metric, name in new.items()}
        return np.stack(list(values.values()), axis=1)


def _allowed(problems: Mapping[str, Problem]) -> tuple[tuple[int, ...], ...]:
    genes, allowed = next(iter(problems.values())).space.genes, []
    for index, gene in enumerate(genes):
        by_device = [set(problem.allowed[index]) for problem in problems.values()]
        common = tuple(sorted(set.intersection(*by_device)))
        if not common:
            held = "; ".join(f"{d}: {[gene.choices[i] for i in p.allowed[index]]}" for d, p in problems.items())
            raise NasError(f"gene {gene.name}: the devices support no common choice ({held}); join fewer devices")
        allowed.append(common)
    return tuple(allowed)
