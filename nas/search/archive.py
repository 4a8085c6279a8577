"""What a search answers: everything it evaluated, the front of it, and what was proved on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np

from nas.errors import NasError
from nas.genotype import BoolArray, FloatArray, IntArray, choice_type
from nas.pareto import non_dominated
from nas.problem import Constraint, Problem
from nas.search.row_index import RowIndex, grown

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


def silent(done: int, total: int) -> None:
    """Progress that nobody watches."""


class Sampler(Protocol):
    """A way to search. A frozen dataclass of its settings, so that a config can name it."""

    def run(self, problem: Problem, seed: int, progress: Progress = silent, starts: IntArray | None = None) -> Archive:
        """Search the problem.

        Args:
            problem: What is asked.
            seed: The same seed on the same machine gives the same archive.
            progress: Called with (done, total).
            starts: Genotypes to begin with, shape (n, genes), within the allowed choices.
        """
        ...


Status = Literal["optimal", "feasible", "infeasible", "unknown"]


@dataclass(frozen=True)
class Proof:
    """What a solver proved about one program: no network within the budgets has a value below `bound`.

    The k-th best network of a program comes from one that excludes the k - 1 before it; so does its proof.

    Attributes:
        minimised: The metric; its additive surrogate unless it is a sum or a maximum over layers itself.
            A sum of metrics, each divided by a scale, has their names joined by " + ".
        limits: Constraints and budgets the program held.
        status: `unknown` means that the limit of effort was reached, and nothing more.
        value: Minimised quantity of the best solution, None without one.
        bound: Proved lower bound on it, None without one.
        member: The solution's place in the archive, None without one.
        excluded: Networks found before, which the program left out.
    """

    minimised: str
    limits: tuple[Constraint, ...]
    status: Status
    value: float | None
    bound: float | None
    member: int | None
    excluded: int = 0

    @property
    def gap(self) -> float | None:
        """How far the solution may be from the optimum, in the unit of the value."""
        return None if self.value is None or self.bound is None else max(0.0, self.value - self.bound)


@dataclass
class Archive:
    """Every distinct genotype a search evaluated, in the order it met them; each is evaluated once.

    Attributes:
        problem: The problem the metrics belong to.
        found_by: For each member, the sampler that met it first.
        proofs: What an integer program proved along the way.
    """

    problem: Problem
    found_by: list[str] = field(default_factory=list, init=False)
    proofs: list[Proof] = field(default_factory=list, init=False)
    _index: RowIndex = field(init=False, repr=False)
    _metrics: FloatArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._index = RowIndex(len(self.problem.allowed), choice_type(self.problem.space))
        self._metrics = np.zeros((0, len(self.problem.metrics)))

    def __len__(self) -> int:
        return len(self._index)

    @property
    def genotypes(self) -> IntArray:
        """Canonical genotypes, shape (n, genes), read-only, of `choice_type`: millions of them fit in memory."""
        return self._index.rows

    @property
    def metrics(self) -> FloatArray:
        """Their metrics, shape (n, metrics)."""
        return self._metrics[: len(self)]

    def seen(self, population: IntArray) -> BoolArray:
        """Mark the canonical genotypes that are in the archive, shape (n,)."""
        return self._index.look_up(population).places >= 0

    def add(self, population: IntArray, found_by: str) -> IntArray:
        """Evaluate what is new among canonical genotypes, shape (n, genes); give the places of all, shape (n,)."""
        known = self._index.look_up(population)
        fresh = known.fresh
        if len(fresh):
            self._append(self._evaluated(population[fresh]), [found_by] * len(fresh))
        return self._index.insert(known)

    def add_new(self, population: IntArray, found_by: str, most: int) -> IntArray:
        """Evaluate at most so many of those that are new; gives their rows, in the order of their places."""
        known = self._index.look_up(population)
        fresh = known.fresh[:most]
        if len(fresh):
            self._append(self._evaluated(population[fresh]), [found_by] * len(fresh))
            self._index.insert(known.taken(fresh))
        return fresh

    def _evaluated(self, population: IntArray) -> FloatArray:
        values = self.problem.evaluate(population)
        if values.shape != (len(population), len(self.problem.metrics)) or not np.isfinite(values).all():
            raise NasError(
                f"evaluate must give finite values of shape {(len(population), len(self.problem.metrics))} for "
                f"{', '.join(self.problem.metrics)}; got shape {values.shape}"
            )
        return values

    def _append(self, metrics: FloatArray, found_by: list[str]) -> None:
        """What goes with the genotypes that enter the index next."""
        size = len(self) + len(metrics)
        self._metrics = grown(self._metrics, size)
        self._metrics[len(self) : size] = metrics
        self.found_by += found_by

    def absorb(self, other: Archive) -> None:
        """Take in what another sampler found on the same problem, with its proofs."""
        known = self._index.look_up(other.genotypes)
        self._append(other.metrics[known.fresh], [other.found_by[place] for place in known.fresh])
        places = self._index.insert(known)
        for proof in other.proofs:
            member = None if proof.member is None else int(places[proof.member])
            self.proofs.append(replace(proof, member=member))

    def front(self) -> IntArray:
        """Places of the feasible members that no feasible member dominates, ascending."""
        feasible = np.flatnonzero(self.problem.violation(self.metrics) == 0)
        return feasible[non_dominated(self.problem.costs(self.metrics[feasible]))]
