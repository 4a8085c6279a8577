"""Other searches on the cells of NAS-Bench-201, each as it comes; they see error and latency of what they ask for."""

from __future__ import annotations

import importlib.util
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Literal

import numpy as np

from experiments.bench.cells import EDGES, OPERATIONS
from experiments.bench.nasbench201 import Benchmark
from nas.genotype import IntArray
from nas.pareto import non_dominated

Ask = Callable[[IntArray], tuple[float, float]]
"""A cell, shape (6,), to its error and latency; raises once the budget is spent."""

_POPULATION = 20
_SHAPE = (len(EDGES),)


def random_search(ask: Ask, seed: int) -> None:
    """Uniform cells."""
    rng = np.random.default_rng(seed)
    while True:
        ask(rng.integers(len(OPERATIONS), size=_SHAPE))


def regularised_evolution(ask: Ask, seed: int) -> None:
    """Real et al. (AAAI 2019): the oldest dies, one edge mutates; parents from the front of a tournament of ten."""
    rng = np.random.default_rng(seed)
    first = rng.integers(len(OPERATIONS), size=(_POPULATION, *_SHAPE))
    alive = deque([(cell, ask(cell)) for cell in first], maxlen=_POPULATION)
    while True:
        rivals = [alive[place] for place in rng.choice(len(alive), 10, replace=False)]
        front = np.flatnonzero(non_dominated(np.array([costs for _, costs in rivals])))
        child = rivals[rng.choice(front)][0].copy()
        edge = rng.integers(len(EDGES))
        child[edge] = (child[edge] + rng.integers(1, len(OPERATIONS))) % len(OPERATIONS)
        alive.append((child, ask(child)))


def optuna_tpe(ask: Ask, seed: int) -> None:
    """Optuna's TPE; each edge is a categorical parameter."""
    _optuna(ask, seed, "tpe")


def optuna_nsga2(ask: Ask, seed: int) -> None:
    """Optuna's NSGA-II; each edge is a categorical parameter."""
    _optuna(ask, seed, "nsga2")


def _optuna(ask: Ask, seed: int, name: Literal["tpe", "nsga2"]) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    samplers = optuna.samplers
    sampler = (
        samplers.TPESampler(seed=seed)
        if name == "tpe"
        else samplers.NSGAIISampler(population_size=_POPULATION, seed=seed)
    )
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    while True:
        trial = study.ask()
        names = [f"edge {source}-{target}" for source, target in EDGES]
        cell = np.array([trial.suggest_categorical(edge, list(range(len(OPERATIONS)))) for edge in names])
        study.tell(trial, ask(cell))


def pymoo_nsga2(ask: Ask, seed: int) -> None:
    """NSGA-II of pymoo with its operators for integers."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem
    from pymoo.core.termination import NoTermination
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling

    crossover, mutation = SBX(vtype=float, repair=RoundingRepair()), PM(vtype=float, repair=RoundingRepair())
    search = NSGA2(pop_size=_POPULATION, sampling=IntegerRandomSampling(), crossover=crossover, mutation=mutation)
    search.setup(
        Problem(n_var=len(EDGES), n_obj=2, xl=0, xu=len(OPERATIONS) - 1, vtype=int),
        termination=NoTermination(), seed=seed, verbose=False,
    )  # fmt: skip
    while True:
        children = search.ask()
        children.set("F", np.array([ask(cell.astype(np.int64)) for cell in children.get("X")]))
        for child in children:
            child.evaluated.add("F")
        search.tell(infills=children)


PEERS: Mapping[str, Callable[[Ask, int], None]] = {
    "random": random_search,
    "regularised-evolution": regularised_evolution,
    "optuna-nsga2": optuna_nsga2,
    "optuna-tpe": optuna_tpe,
    "pymoo-nsga2": pymoo_nsga2,
}


class _Spent(Exception):
    """The budget is spent; ends a search from within."""


def run_peer(peer: str, benchmark: Benchmark, device: str, seed: int, budget: int) -> IntArray:
    """Run a peer until it has asked for `budget` cells; asking again is free, but no more than `budget` times.

    Returns:
        Rows of the cells in the order in which their error was first asked for, at most `budget`.
    """
    asked: dict[int, None] = {}
    repeats = 0

    def ask(cell: IntArray) -> tuple[float, float]:
        nonlocal repeats
        place = int(benchmark.places(cell[None])[0])
        repeats += place in asked
        if repeats > budget or (place not in asked and len(asked) == budget):
            raise _Spent
        asked[place] = None
        return float(benchmark.error[place]), float(benchmark.latency_s[device][place])

    with suppress(_Spent):
        PEERS[peer](ask, seed)
    return np.array(list(asked))


def missing(peer: str) -> str | None:
    """Why a peer cannot run here, None if it can."""
    if peer == "pymoo-nsga2" and importlib.util.find_spec("pymoo") is None:
        return "pymoo is not installed; pip install 'hwnas[bench]'"
    return None
