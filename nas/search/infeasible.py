"""Why nothing satisfies a problem's constraints: which of them binds, and how far down its metric can go."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nas.genotype import Genotype
from nas.problem import Constraint, Problem
from nas.search.archive import Archive
from nas.search.evolution import Nsga2
from nas.search.integer_program import IntegerProgram, Programs

_EXACT = IntegerProgram(effort=2.0)
_SHORT = Nsga2(population=100, generations=40)


@dataclass(frozen=True)
class Least:
    """The least value of a metric under some constraints.

    Attributes:
        value: None where no network satisfies them.
        proved: By an integer program; otherwise the best a short evolution found.
        genotype: A network that reaches it.
    """

    value: float | None
    proved: bool
    genotype: Genotype | None = None

    def exceeds(self, limit: float) -> bool:
        return self.value is not None and self.value > limit

    def __str__(self) -> str:
        return f"{self.value:g} ({'proved' if self.proved else 'best found'})"


@dataclass(frozen=True)
class Reach:
    """How far a constraint's metric can go down: by itself, and with the other constraints kept."""

    constraint: Constraint
    alone: Least
    kept: Least


@dataclass(frozen=True)
class Infeasible:
    """The answer to a search that found no feasible network.

    Attributes:
        reaches: One for each constraint.
        binding: Those that no network can meet by themselves; if there are none, those in conflict with the others.
            Empty where a feasible network exists after all.
        feasible: Such a network, if one came up.
        message: For a person.
    """

    reaches: tuple[Reach, ...]
    binding: tuple[Constraint, ...]
    feasible: Genotype | None
    message: str


def explain(problem: Problem, seed: int) -> Infeasible:
    """Find the binding constraints, in bounded time: two minimisations for each constraint.

    A minimum over additive metrics alone is proved by the integer program; any other is the best of a short
    evolution.
    """
    reaches = tuple(_reach(problem, constraint, seed) for constraint in problem.constraints)
    met = [r.kept for r in reaches if r.kept.value is not None and not r.kept.exceeds(r.constraint.limit)]
    if met or not reaches:
        feasible = met[0].genotype if met else None
        return Infeasible(reaches, (), feasible, "some network satisfies all constraints; give the search more effort")
    alone = [r for r in reaches if r.alone.exceeds(r.constraint.limit)]
    joint = [r for r in reaches if r.kept.exceeds(r.constraint.limit)] or list(reaches)
    binding = tuple(r.constraint for r in alone or joint)
    return Infeasible(reaches, binding, None, _alone(alone) if alone else _joint(joint))


def _reach(problem: Problem, constraint: Constraint, seed: int) -> Reach:
    others = tuple(c for c in problem.constraints if c != constraint)
    alone = _least(problem, constraint.metric, (), seed)
    return Reach(constraint, alone, _least(problem, constraint.metric, others, seed) if others else alone)


def _least(problem: Problem, metric: str, limits: tuple[Constraint, ...], seed: int) -> Least:
    question = replace(problem, objectives=(metric,), constraints=limits)
    if {metric, *(limit.metric for limit in limits)} <= problem.additive.keys():
        archive = Archive(question)
        place = Programs(_EXACT, archive, seed).minimise(metric, limits)
        status = archive.proofs[-1].status
        if status != "unknown":
            return _found(archive, metric, place, status in ("optimal", "infeasible"))
    archive = _SHORT.run(question, seed)
    front = archive.front()
    return _found(archive, metric, int(front[0]) if len(front) else None, False)


def _found(archive: Archive, metric: str, place: int | None, proved: bool) -> Least:
    if place is None:
        return Least(None, proved)
    value = float(archive.metrics[place, archive.problem.metrics.index(metric)])
    return Least(value, proved, tuple(archive.genotypes[place].tolist()))


def _alone(reaches: list[Reach]) -> str:
    parts = [f"{r.constraint}, but the least reachable {r.constraint.metric} is {r.alone}" for r in reaches]
    head = _head(all(r.alone.proved for r in reaches))
    return f"{head}: {'; '.join(parts)}. Raise the limit, or give the space smaller choices"


def _joint(reaches: list[Reach]) -> str:
    parts = [
        f"with the others kept, the least reachable {r.constraint.metric} is {r.kept}"
        for r in reaches
        if r.kept.value is not None
    ]
    conflict = " and ".join(str(r.constraint) for r in reaches)
    head = _head(all(r.kept.proved for r in reaches))
    return f"{head}: {'; '.join([f'{conflict} exclude each other', *parts])}. Raise one of these limits"


def _head(proved: bool) -> str:
    return "no network satisfies the constraints" if proved else "found no network that satisfies the constraints"
