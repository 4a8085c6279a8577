"""What a search answers: everything it evaluated, the front of it, and what was proved on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np

from nas.errors import NasError
from nas.genotype import BoolArray, FloatArray, IntArray
from nas.pareto import non_dominated
from nas.problem import Constraint, Problem

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
        genotypes: Canonical genotypes, shape (n, genes).
        metrics: Their metrics, shape (n, metrics).
        found_by: For each, the sampler that met it first.
        proofs: What an integer program proved along the way.
    """

    problem: Problem
    genotypes: IntArray = field(init=False)
    metrics: FloatArray = field(init=False)
    found_by: list[str] = field(default_factory=list, init=False)
    proofs: list[Proof] = field(default_factory=list, init=False)
    _places: dict[bytes, int] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.genotypes = np.zeros((0, len(self.problem.allowed)), dtype=np.int64)
        self.metrics = np.zeros((0, len(self.problem.metrics)))

    def __len__(self) -> int:
        return len(self.genotypes)

    def seen(self, population: IntArray) -> BoolArray:
        """Mark the canonical genotypes that are in the archive, shape (n,)."""
        return np.array([key in self._places for key in _keys(population)], dtype=bool)

    def add(self, population: IntArray, found_by: str) -> IntArray:
        """Evaluate what is new among canonical genotypes, shape (n, genes); give the places of all, shape (n,)."""
        keys = _keys(population)
        new = {key: row for row, key in reversed(list(enumerate(keys))) if key not in self._places}
        rows = sorted(new.values())
        if rows:
            self._append(population[rows], self._evaluated(population[rows]), [found_by] * len(rows))
        return np.array([self._places[key] for key in keys], dtype=np.int64)

    def _evaluated(self, population: IntArray) -> FloatArray:
        values = self.problem.evaluate(population)
        if values.shape != (len(population), len(self.problem.metrics)) or not np.isfinite(values).all():
            raise NasError(
                f"evaluate must give finite values of shape {(len(population), len(self.problem.metrics))} for "
                f"{', '.join(self.problem.metrics)}; got shape {values.shape}"
            )
        return values

    def _append(self, genotypes: IntArray, metrics: FloatArray, found_by: list[str]) -> None:
        for key in _keys(genotypes):
            self._places[key] = len(self._places)
        self.genotypes = np.concatenate([self.genotypes, genotypes])
        self.metrics = np.concatenate([self.metrics, metrics])
        self.found_by += found_by

    def absorb(self, other: Archive) -> None:
        """Take in what another sampler found on the same problem, with its proofs."""
        new = np.flatnonzero(~self.seen(other.genotypes))
        self._append(other.genotypes[new], other.metrics[new], [other.found_by[place] for place in new])
        places = self.add(other.genotypes, "")
        for proof in other.proofs:
            member = None if proof.member is None else int(places[proof.member])
            self.proofs.append(replace(proof, member=member))

    def front(self) -> IntArray:
        """Places of the feasible members that no feasible member dominates, ascending."""
        feasible = np.flatnonzero(self.problem.violation(self.metrics) == 0)
        return feasible[non_dominated(self.problem.costs(self.metrics[feasible]))]


def _keys(population: IntArray) -> list[bytes]:
    return [row.tobytes() for row in np.ascontiguousarray(population, dtype=np.int64)]
