"""Why nothing satisfies a problem's constraints: which of them exclude each other, and how near each can be met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from nas.genotype import Genotype
from nas.problem import Constraint, Problem
from nas.search.archive import Archive
from nas.search.evolution import Nsga2
from nas.search.programs import Programs
from nas.search.refine import best_within, refine
from nas.search.stand_in import stand_in

_EFFORT = 3.0
"""Of all programs together, about seconds."""

_SHORT = Nsga2(population=32, generations=16)
_SAMPLES = 400


@dataclass(frozen=True)
class Least:
    """The least value of a metric under some constraints.

    Attributes:
        value: None where no network satisfies them.
        proved: By an integer program; otherwise the best that a surrogate's programs and a short evolution found.
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
    """How far a constraint's metric can go down: by itself, and with the other constraints of its conflict kept."""

    constraint: Constraint
    alone: Least
    kept: Least


@dataclass(frozen=True)
class Conflict:
    """An irreducible set of constraints: no network satisfies all of them, and some network all but any one.

    Attributes:
        reaches: One for each constraint: raised to the value it reaches with the others kept, there is a network.
        proved: Whether that no network satisfies them is proved.
    """

    reaches: tuple[Reach, ...]
    proved: bool

    def __str__(self) -> str:
        if len(self.reaches) == 1:
            reach = self.reaches[0]
            return f"{reach.constraint}, but the least reachable {reach.constraint.metric} is {reach.alone}"
        head = f"{' and '.join(str(reach.constraint) for reach in self.reaches)} exclude each other"
        parts = [f"with the others kept, the least reachable {reach.constraint.metric} is {reach.kept}"
                 for reach in self.reaches if reach.kept.value is not None]  # fmt: skip
        return "; ".join([head, *parts])


@dataclass(frozen=True)
class Infeasible:
    """The answer to a search that found no feasible network.

    Attributes:
        conflicts: Disjoint; without the constraints of all of them there is a network, as far as was found.
            Empty where a feasible network exists after all.
        nearest: The network that exceeds the limits by the least sum of shares, if one came up.
        feasible: A network that satisfies all constraints, if one came up.
        message: For a person.
    """

    conflicts: tuple[Conflict, ...]
    nearest: Genotype | None
    feasible: Genotype | None
    message: str

    @property
    def reaches(self) -> tuple[Reach, ...]:
        """The reaches of all conflicts."""
        return tuple(reach for conflict in self.conflicts for reach in conflict.reaches)

    @property
    def binding(self) -> tuple[Constraint, ...]:
        """The constraints of all conflicts."""
        return tuple(reach.constraint for reach in self.reaches)


def explain(problem: Problem, seed: int) -> Infeasible:
    """Find the constraints that exclude each other, in bounded time: at most a few programs for each constraint.

    Sets are made irreducible by leaving out one constraint after the other (Chinneck and Dravnieks, "Locating minimal
    infeasible constraint sets in linear programs", 1991, the deletion filter). What a program can hold is proved;
    anything else is the best of a surrogate's programs and of a short evolution.
    """
    question = _Question(problem, seed)
    alone = {c: question.least(c.metric, ()) for c in dict.fromkeys(problem.constraints)}
    sets: list[tuple[Constraint, ...]] = [(c,) for c in alone if alone[c].exceeds(c.limit)]
    rest = tuple(c for c in alone if (c,) not in sets)
    while (found := question.irreducible(rest)) is not None:
        sets.append(found)
        rest = tuple(c for c in rest if c not in found)
    conflicts = tuple(question.conflict(constraints, alone) for constraints in sets)
    feasible = question.satisfying(tuple(alone))[0] if not sets or question.known(tuple(alone)) else None
    if not sets or feasible is not None:
        return Infeasible((), None, feasible, "some network satisfies all constraints; give the search more effort")
    nearest = question.nearest()
    proved = any(conflict.proved for conflict in conflicts)
    head = "no network satisfies the constraints" if proved else "found no network that satisfies the constraints"
    together = f"The nearest network has {_values(problem, nearest)}. " if len(alone) > 1 else ""
    body = ". Also: ".join(str(conflict) for conflict in conflicts)
    remedy = "Raise a limit of each conflict, or give the space smaller choices"
    return Infeasible(conflicts, nearest, None, f"{head}: {body}. {together}{remedy}")


@dataclass(frozen=True)
class _Question:
    problem: Problem
    seed: int
    programs: Programs = field(init=False)
    answers: dict[frozenset[Constraint], tuple[Genotype | None, bool]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        effort = _EFFORT / (3 * len(self.problem.constraints) + 2)
        programs = Programs(Archive(self.problem), self.seed, effort=effort, samples=_SAMPLES)
        object.__setattr__(self, "programs", programs)

    def least(self, metric: str, limits: Sequence[Constraint]) -> Least:
        """The least value of a metric under limits."""
        if {metric, *(limit.metric for limit in limits)} <= self.problem.priced.keys():
            place = self.programs.minimise(metric, limits)
            status = self.programs.archive.proofs[-1].status
            if status != "unknown":
                return self._found(metric, place, status in ("optimal", "infeasible"))
        return self._found(metric, self._searched(metric, limits), False)

    def satisfying(self, limits: Sequence[Constraint]) -> tuple[Genotype | None, bool]:
        """A network within all limits, or None; and whether it is proved that there is none."""
        key = frozenset(limits)
        if (known := self.known(limits)) is not None:
            self.answers[key] = known, False
        elif key not in self.answers:
            self.answers[key] = self._satisfying(limits)
        return self.answers[key]

    def known(self, limits: Sequence[Constraint]) -> Genotype | None:
        """A network within all limits among those that came up already."""
        place = best_within(self.programs.archive, limits[0].metric, limits) if limits else None
        return None if place is None else self._genotype(place)

    def _satisfying(self, limits: Sequence[Constraint]) -> tuple[Genotype | None, bool]:
        hard = next((limit for limit in limits if limit.metric not in self.problem.priced), None)
        if hard is None:
            place = self.programs.minimise({}, limits)
            if self.programs.archive.proofs[-1].status == "infeasible":
                return None, True
            if place is not None:
                return self._genotype(place), False
            hard = limits[0]
        proofs = len(self.programs.archive.proofs)
        self._searched(hard.metric, [limit for limit in limits if limit != hard])
        held = self.programs.held(limits)
        made = self.programs.archive.proofs[proofs:]
        proved = any(proof.status == "infeasible" and not proof.excluded and proof.limits == held for proof in made)
        return self.known(limits), proved

    def irreducible(self, limits: tuple[Constraint, ...]) -> tuple[Constraint, ...] | None:
        """A set of them that excludes each other and of which none can be left out; None where there is none."""
        if not limits or self.satisfying(limits)[0] is not None:
            return None
        archive = self.programs.archive
        # What no network has exceeded yet is hardly to blame: one question for all of it.
        broken = tuple(c for c in limits if (archive.metrics[:, self.problem.metrics.index(c.metric)] > c.limit).any())
        if broken and broken != limits and self.satisfying(broken)[0] is None:
            limits = broken
        for limit in sorted(limits, key=lambda limit: limit.metric in self.problem.priced):
            rest = tuple(other for other in limits if other != limit)
            if rest and self.satisfying(rest)[0] is None:
                limits = rest
        return limits

    def conflict(self, limits: tuple[Constraint, ...], alone: dict[Constraint, Least]) -> Conflict:
        """The conflict that an irreducible set is."""
        if len(limits) == 1:
            return Conflict((Reach(limits[0], alone[limits[0]], alone[limits[0]]),), alone[limits[0]].proved)
        kept = [self.least(c.metric, [other for other in limits if other != c]) for c in limits]
        reaches = tuple(Reach(c, alone[c], least) for c, least in zip(limits, kept, strict=True))
        return Conflict(reaches, self.satisfying(limits)[1])

    def nearest(self) -> Genotype | None:
        """Of all networks that came up, and of the one a program finds, that with the least violation."""
        self.programs.nearest(self.problem.constraints)
        archive = self.programs.archive
        return self._genotype(int(self.problem.violation(archive.metrics).argmin())) if len(archive) else None

    def _searched(self, metric: str, limits: Sequence[Constraint]) -> int | None:
        """The best that comes up: of a surrogate's programs, then of an evolution that starts with the likeliest."""
        archive, question = (
            self.programs.archive,
            replace(self.problem, objectives=(metric,), constraints=tuple(limits)),
        )
        if metric not in self.problem.priced:
            if metric not in self.programs.surrogates:
                self.programs.surrogate(metric)
                self.programs.surrogates[metric] = stand_in(archive, metric).genewise or self.programs.surrogate(metric)
            refine(self.programs, metric, limits, 1, 1)
        values = archive.metrics[:, archive.problem.metrics.index(metric)]
        starts = np.lexsort((values, question.violation(archive.metrics)))[: _SHORT.population // 2]
        archive.absorb(_SHORT.run(question, self.seed, starts=archive.genotypes[starts]))
        return best_within(archive, metric, limits)

    def _found(self, metric: str, place: int | None, proved: bool) -> Least:
        if place is None:
            return Least(None, proved)
        value = float(self.programs.archive.metrics[place, self.problem.metrics.index(metric)])
        return Least(value, proved, self._genotype(place))

    def _genotype(self, place: int) -> Genotype:
        return tuple(self.programs.archive.genotypes[place].tolist())


def _values(problem: Problem, genotype: Genotype | None) -> str:
    if genotype is None:
        return "unknown values"
    values = problem.evaluate(np.array([genotype]))[0]
    names = dict.fromkeys(constraint.metric for constraint in problem.constraints)
    return ", ".join(f"{name} {values[problem.metrics.index(name)]:g}" for name in names)
