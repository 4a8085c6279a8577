"""Large and sparse against small and dense, at 8 bits and at equal size, as in "To prune, or not to prune".

Zhu & Gupta (arXiv 1710.01878) compare networks of equal non-zero parameters, and of equal bytes where the places of the
zeros are stored, too (their section 5): here as one bit per weight of a pruned layer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.context import Context
from experiments.problems import Errors, dense_8bit
from experiments.rundir import atomic_write
from experiments.stages.active import Found, learning
from experiments.stages.search import FINALISTS
from hw_models.prices import Price
from nas.counts import nonzeros, weight_count
from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from nas.network import Layer, Weighted
from nas.problem import Constraint, Problem
from nas.search.archive import Archive
from nas.search.evolution import Evolution
from nas.search.refine import best_within
from nas.tables import additive

SIZES = 3

LEAST = 0.9
"""Share of a size that networks of that size take at least, what a search can meet."""

MOST_DENSE = 0.5
"""Share of non-zero weights up to which a network counts as sparse."""


def stored_bytes(layer: Layer) -> float:
    """Bytes of the non-zero weights, of a bit per weight where there are zeros, and of the 32-bit bias."""
    if not isinstance(layer, Weighted):
        return 0.0
    mask = weight_count(layer) if nonzeros(layer) < weight_count(layer) else 0
    return (nonzeros(layer) * layer.precision.weight_bits + mask) / 8 + 4 * layer.out_shape[0]


ROLES = ("dense", "sparse")

MEASURES: dict[str, Price] = {"nonzeros": nonzeros, "bytes": stored_bytes}

_SEARCHES = len(MEASURES) * SIZES * len(ROLES)


def sizes(context: Context, sampler: Evolution, train_folder: Path, fit_folder: Path, folder: Path) -> dict[str, Any]:
    """Stage: for each measure of size and several sizes, the sparse and the dense network of least predicted error.

    A search for each of them, shorter by that; together they score no more networks than one search of a device does.
    """
    records, evaluations = list[dict[str, Any]](), 0
    sharing, shorter = _sharing(context), replace(sampler, generations=sampler.generations // SIZES)
    for measure, price in MEASURES.items():
        for place, most in enumerate(size_limits(context, price), 1):
            for role in ROLES:
                home = folder / f"{measure}-{place}-{role}"
                home.mkdir(exist_ok=True)
                once = partial(_once, context, shorter, price, most, role)
                learned = learning(sharing, train_folder, fit_folder, home, once)
                found = learned.found.archive
                best = least_error(found)
                values = dict(zip(found.problem.metrics, found.metrics[best].tolist(), strict=True))
                entry = {"role": role, "measure": measure, "most": most, "predicted": values}
                records.append({"genotype": found.genotypes[best].tolist(), **entry})
                evaluations += learned.evaluations
    atomic_write(folder / FINALISTS, json.dumps(records, indent=1))
    return {"finalists": len(records), "evaluations": evaluations}


def size_limits(context: Context, price: Price) -> list[float]:
    """The sizes compared: between twice the least dense network's and half the largest's, which sparse ones reach."""
    size = additive(context.space, context.tables, price)
    dense = _dense(_problem(context, ("size",), lambda population: size(population)[:, None]))
    ends = dense.genotypes(np.stack([np.zeros_like(dense.allowed_counts), dense.allowed_counts - 1]))
    least, largest = size(ends).tolist()
    return [float(most) for most in np.geomspace(2 * least, largest / 2, SIZES)]


def size_problem(context: Context, errors: Errors, price: Price, most: float, role: str) -> Problem:
    """The error against a size up to `most` and near it, over `dense` networks of 8 bits or over `sparse` ones.

    Raises:
        NasError: The space has no unpruned 8-bit networks.
    """
    size, kept, whole = (additive(context.space, context.tables, each) for each in (price, nonzeros, weight_count))

    def evaluate(population: IntArray) -> FloatArray:
        sizes = size(population)
        columns = [errors.mean(population), sizes, most - sizes, kept(population) / whole(population)]
        return np.column_stack(columns)

    limits = (Constraint("size", most), Constraint("below", (1 - LEAST) * most))
    problem = _problem(context, ("error", "size", "below", "density"), evaluate)
    dense = _dense(problem)
    if role == "dense":
        return replace(dense, constraints=limits)
    pruned = [gene.kind == "sparsity" for gene in context.space.genes]
    choices = tuple(a if opens else d for a, d, opens in zip(problem.allowed, dense.allowed, pruned, strict=True))
    return replace(problem, allowed=choices, constraints=(*limits, Constraint("density", MOST_DENSE)))


def least_error(archive: Archive) -> int:
    """Place of the feasible network of least error.

    Raises:
        NasError: There is none.
    """
    limits = archive.problem.constraints
    place = best_within(archive, "error", limits)
    if place is None:
        wanted = ", ".join(map(str, limits))
        raise NasError(f"no network with {wanted} was found; raise search.samplers.nsga2.generations")
    return place


def sparse_minus_dense(members: list[dict[str, Any]], measure: str) -> list[float]:
    """Difference in points of tested accuracy at each size, the smallest first."""
    tested = {(m["measure"], m["most"], m["role"]): m["measured"]["error"] for m in members}
    most = sorted({limit for name, limit, _ in tested if name == measure})
    return [100 * (tested[measure, limit, "dense"] - tested[measure, limit, "sparse"]) for limit in most]


def _problem(context: Context, metrics: tuple[str, ...], evaluate: Callable[[IntArray], FloatArray]) -> Problem:
    anything = tuple(tuple(range(len(gene.choices))) for gene in context.space.genes)
    return Problem(context.space, metrics, evaluate, metrics[:2], (), anything, {})


def _dense(problem: Problem) -> Problem:
    dense = dense_8bit(problem)
    if dense is None:
        raise NasError("small dense networks need sparsity 0 and 8 bits; allow them in space.precision")
    return dense


def _sharing(context: Context) -> Context:
    """With the evaluations of one search of many.

    Without scores it would end with networks whose errors are predicted too low, the more so among the sparse.
    """
    settings = context.config.search
    share = {"evaluations": settings.evaluations // _SEARCHES, "batch": max(1, settings.batch // _SEARCHES)}
    search = settings.model_copy(update=share)
    return Context(context.config.model_copy(update={"search": search}), context.runs)


def _once(
    context: Context, sampler: Evolution, price: Price, most: float, role: str, errors: Errors, starts: IntArray
) -> Found:  # fmt: skip
    return Found(sampler.run(size_problem(context, errors, price, most, role), context.config.seed, starts=starts))
