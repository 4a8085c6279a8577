"""How much of each layer runs at once, chosen by an integer program under the device's resources.

One option per layer, one sum per resource: a multiple-choice program (HAO: Dong et al., FCCM 2021, arXiv 2104.12766),
solved by the programs of `nas.search`. Every coefficient is an integer, so nothing is lost by rounding. Pipelined, most
questions need no program: the options that take the least of the device within an interval fit as they are. Sequential,
the duals of the linear relaxation tell which options no good folding has, and the program decides among the others.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from operator import truediv

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array

from fpga.folding_options import Option, layer_options
from hw_models.device import Device, Resources
from hw_models.families import Schedule
from hw_models.unrolled import RESOURCES
from nas.errors import NasError
from nas.genotype import FloatArray, Gene, IntArray
from nas.network import Input, Network
from nas.problem import Constraint, Problem
from nas.search.archive import Archive, Proof, Status
from nas.search.infeasible import Infeasible, explain
from nas.search.programs import Programs
from nas.tables import AdditiveCost, AdditiveTable

_NOTHING = 1e-9
"""For a device without some resource: whatever takes of it is dearer than all else."""

_NEAR = 0.01
"""How far above the relaxation's bound the optimum is looked for first, as a share; most of 20 layers lie within."""

_ROUNDING = 1e-6
"""A solver's bound on a whole number may be off by as much."""


@dataclass(frozen=True)
class Folding:
    """A folding of a network.

    Attributes:
        options: The option of each layer, by name.
        schedule: How the layers take turns.
        cycles: Between two results where pipelined, of one result where sequential.
        bound: Proved: no folding has fewer cycles.
    """

    options: Mapping[str, Option]
    schedule: Schedule
    cycles: int
    bound: int

    @property
    def gap(self) -> float:
        """0 where the optimum is proved."""
        return (self.cycles - self.bound) / self.cycles

    def used(self, resource: str) -> int:
        """How much of a resource all layers take."""
        return sum(option.resources[RESOURCES.index(resource)] for option in self.options.values())


@dataclass(frozen=True)
class Shortage:
    """Why no folding fits.

    Attributes:
        missing: For each resource that binds, how many more of it a folding needs, the other limits kept.
        infeasible: The proof.
    """

    missing: Mapping[str, int]
    infeasible: Infeasible

    def __str__(self) -> str:
        parts = [f"{count} more {name}" for name, count in self.missing.items()]
        return (
            f"no folding fits: {self.infeasible.message.split('. ')[0]}; it would take {' or '.join(parts)}. "
            "Give the layers fewer bits or channels, or take a larger device"
        )


def fold(network: Network, device: Device, schedule: Schedule, effort: float = 10.0) -> Folding | Shortage:
    """The fastest folding of a network on a device.

    Args:
        network: Quantized.
        device: An FPGA.
        schedule: What counts: the slowest layer, or the sum.
        effort: Most deterministic time of a program, about seconds.

    Raises:
        NasError: The device is no FPGA, or no design can hold a layer.
    """
    if device.resources is None:
        raise NasError(f"device {device.name}: a folding needs an FPGA's resources; it has none. Take another device")
    options = {layer.name: layer_options(layer) for layer in network if not isinstance(layer, Input)}
    return choose(options, device.resources, schedule, effort)


def choose(
    options: Mapping[str, Sequence[Option]], resources: Resources, schedule: Schedule, effort: float = 10.0
) -> Folding | Shortage:
    """The fastest choice of one option per layer within the resources.

    Args:
        options: Of each layer.
        resources: What there is.
        schedule: What counts: the slowest layer, or the sum.
        effort: Most deterministic time of a program, about seconds.

    Raises:
        NasError: There is no layer, or one without an option; or no folding was found, nor proved that there is none.
    """
    empty = [name for name, several in options.items() if not several]
    if not options or empty:
        raise NasError(f"a folding needs layers with an option each; got {empty or 'no layer'}")
    question = _Question(options, resources, effort)
    return question.pipelined() if schedule == "pipelined" else question.sequential()


def cheapest(
    options: Mapping[str, Sequence[Option]], resources: Resources, interval: float = math.inf
) -> dict[str, Option]:
    """Of each layer's options within an interval of cycles the one that takes the least of the device.

    That is the least sum of the shares of each resource; there must be an option within the interval.
    """
    have = [max(getattr(resources, name), _NOTHING) for name in RESOURCES]

    def share(option: Option) -> tuple[float, int]:
        return sum(map(truediv, option.resources, have)), option.cycles

    return {
        name: min((option for option in several if option.cycles <= interval), key=share)
        for name, several in options.items()
    }


def fits(chosen: Mapping[str, Option], resources: Resources) -> bool:
    """Whether the options of all layers together stay within the resources."""
    used = np.sum([option.resources for option in chosen.values()], axis=0)
    return all(use <= getattr(resources, name) for name, use in zip(RESOURCES, used.tolist(), strict=True))


def cycle_bounds(layers: Sequence[Sequence[Option]], resources: Resources) -> list[FloatArray]:
    """For each option a bound: no folding within the resources that has it takes fewer cycles in sum.

    Any prices of the resources, 0 or more, give such a bound: the sum of the layers' least cycles and paid resources,
    the option's own for its layer, less the price of all there is. These are the duals of the linear relaxation, which
    make the least bound as large as it can be.

    Args:
        layers: Options of each.
        resources: What there is.

    Returns:
        For each layer, cycles of shape (options,); all 0 where even mixtures of options do not fit together.
    """
    cycles = np.array([option.cycles for several in layers for option in several], dtype=np.float64)
    taken = np.array([option.resources for several in layers for option in several], dtype=np.float64)
    have = np.array([getattr(resources, name) for name in RESOURCES], dtype=np.float64)
    layer = np.repeat(np.arange(len(layers)), [len(several) for several in layers])
    one_each = csr_array((np.ones(len(layer)), (layer, np.arange(len(layer)))))
    solved = linprog(cycles, taken.T, have, one_each, np.ones(len(layers)))
    if solved.status:
        return [np.zeros(len(several)) for several in layers]
    prices = np.maximum(-solved.ineqlin.marginals, 0.0)
    paid = np.split(cycles + taken @ prices, np.flatnonzero(np.diff(layer)) + 1)
    least = sum(one.min() for one in paid) - have @ prices
    return [least + one - one.min() for one in paid]


@dataclass(frozen=True)
class _Foldings:
    """A gene per layer, a choice per option."""

    genes: tuple[Gene, ...]

    def lower(self, genotype: Sequence[int]) -> Network:
        raise NasError("a folding changes no network: there is none to lower to")

    def maximal(self) -> tuple[Network, ...]:
        raise NasError("a folding changes no network: there is none to train")


def _resource(place: int, option: Option) -> int:
    return option.resources[place]


@dataclass(frozen=True)
class _Question:
    options: Mapping[str, Sequence[Option]]
    resources: Resources
    effort: float

    @cached_property
    def problem(self) -> Problem:
        genes = tuple(Gene(name, "width", tuple(map(float, range(len(o))))) for name, o in self.options.items())
        sums = {"cycles": self._sum(lambda option: option.cycles)}
        for place, resource in enumerate(RESOURCES):
            sums[resource] = self._sum(partial(_resource, place))
        limits = tuple(Constraint(name, float(getattr(self.resources, name))) for name in RESOURCES)
        allowed = tuple(tuple(range(len(gene.choices))) for gene in genes)

        def evaluate(population: IntArray) -> FloatArray:
            return np.stack([total(population) for total in sums.values()], axis=1)

        return Problem(_Foldings(genes), tuple(sums), evaluate, ("cycles",), limits, allowed, sums)

    def _sum(self, of: Callable[[Option], int]) -> AdditiveCost:
        values = [np.array([of(option) for option in several], dtype=np.float64) for several in self.options.values()]
        return AdditiveCost(tuple(AdditiveTable((layer,), (1,), column) for layer, column in enumerate(values)))

    def sequential(self) -> Folding | Shortage:
        """The least sum, by a program of the options that a folding near the relaxation's bound can have.

        A folding beyond tells which options a better one can have; where there is none, all options are asked.
        """
        bounds = cycle_bounds(list(self.options.values()), self.resources)
        within = (1 + _NEAR) * max(bound.min() for bound in bounds)
        while True:
            allowed = tuple(tuple(np.flatnonzero(bound <= within).tolist()) for bound in bounds)
            proof, chosen = self._solved(replace(self.problem, allowed=allowed), "cycles")
            if chosen is None and allowed == self.problem.allowed:
                return self._shortage(proof.status == "infeasible")
            cycles = math.inf if chosen is None else sum(option.cycles for option in chosen.values())
            if chosen is not None and (cycles <= within or proof.status != "optimal"):
                bound = math.ceil(min(proof.bound or 0.0, within) - _ROUNDING)
                return Folding(chosen, "sequential", int(cycles), bound)
            within = cycles

    def pipelined(self) -> Folding | Shortage:
        """The least maximum, by bisection: options slower than an interval are left out, and the rest must fit.

        A maximum in the objective bounds a linear relaxation badly; a fixed interval needs none.
        """
        intervals = sorted({option.cycles for several in self.options.values() for option in several})
        slowest = max(min(option.cycles for option in several) for several in self.options.values())
        best: Mapping[str, Option] | None = None
        low = proved = bisect.bisect_left(intervals, slowest)
        high = len(intervals)
        while low < high:
            middle = (low + high) // 2
            status, chosen = self._fitting(intervals[middle])
            if chosen is None:
                low = middle + 1
                proved = low if status == "infeasible" else proved
            else:
                best = chosen
                high = bisect.bisect_left(intervals, max(option.cycles for option in chosen.values()))
        if best is None:
            return self._shortage(proved == high)
        return Folding(best, "pipelined", intervals[high], intervals[proved])

    def _fitting(self, interval: int) -> tuple[Status, Mapping[str, Option] | None]:
        """Options within an interval that fit: those that take the least if they do, or else by a program."""
        least = cheapest(self.options, self.resources, interval)
        if fits(least, self.resources):
            return "feasible", least
        proof, chosen = self._solved(replace(self.problem, allowed=self._within(interval)), {})
        return proof.status, chosen

    def _within(self, interval: int) -> tuple[tuple[int, ...], ...]:
        return tuple(
            tuple(place for place, option in enumerate(several) if option.cycles <= interval)
            for several in self.options.values()
        )

    def _solved(self, problem: Problem, metric: str | Mapping[str, float]) -> tuple[Proof, Mapping[str, Option] | None]:
        programs = Programs(Archive(problem), 0, effort=self.effort)
        place = programs.minimise(metric, problem.constraints)
        proof = programs.archive.proofs[-1]
        if place is None:
            return proof, None
        genotype = programs.archive.genotypes[place].tolist()
        named = zip(self.options.items(), genotype, strict=True)
        return proof, {name: several[choice] for (name, several), choice in named}

    def _shortage(self, proved: bool) -> Shortage:
        found = explain(self.problem, 0) if proved else None
        if found is None or not found.reaches:
            raise NasError(f"no folding was found with effort {self.effort:g}, nor proved that none is: raise effort")
        missing = {
            reach.constraint.metric: math.ceil(reach.kept.value - reach.constraint.limit)
            for reach in found.reaches
            if reach.kept.value is not None
        }
        return Shortage(missing, found)
