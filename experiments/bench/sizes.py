"""Large and sparse against small and dense, at 8 bits and at equal size, as in "To prune, or not to prune".

Zhu & Gupta (arXiv 1710.01878) compare networks of equal non-zero parameters, and of equal bytes where the places of the
zeros are stored, too (their section 5): here as one bit per weight of a pruned layer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.context import Context
from experiments.problems import Errors, dense_8bit
from experiments.rundir import atomic_write
from experiments.stages.active import Found, Learned, learning
from experiments.stages.search import FINALISTS
from hw_models.prices import Price
from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from nas.network import Layer, Weighted, nonzeros, weight_count
from nas.problem import Constraint, Problem
from nas.search.archive import Archive
from nas.search.evolution import Evolution
from nas.tables import additive

SIZES = 3
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


def sizes(context: Context, sampler: Evolution, train_folder: Path, fit_folder: Path, folder: Path) -> dict[str, Any]:
    """Stage: for each measure of size and several sizes, the sparse and the dense network of least predicted error.

    A search each for sparse and dense by both measures: the four share the evaluations that one search of a device has.
    """
    records, evaluations = list[dict[str, Any]](), 0
    for name in MEASURES:
        learned = {role: _search(context, sampler, train_folder, fit_folder, folder, name, role) for role in ROLES}
        records += _pairs({role: each.found.archive for role, each in learned.items()}, name)
        evaluations += sum(each.evaluations for each in learned.values())
    atomic_write(folder / FINALISTS, json.dumps(records, indent=1))
    return {"finalists": len(records), "evaluations": evaluations}


def size_problems(context: Context, errors: Errors, price: Price) -> dict[str, Problem]:
    """The error against a size, over `dense` networks of 8 bits and over `sparse` ones.

    Raises:
        NasError: The space has no unpruned 8-bit networks.
    """
    space = context.space
    size, kept, whole = (additive(space, context.tables, each) for each in (price, nonzeros, weight_count))

    def evaluate(population: IntArray) -> FloatArray:
        return np.column_stack([errors.mean(population), size(population), kept(population) / whole(population)])

    anything = tuple(tuple(range(len(gene.choices))) for gene in space.genes)
    metrics = ("error", "size", "density")
    problem = Problem(space, metrics, evaluate, metrics[:2], (), anything, {})
    dense = dense_8bit(problem)
    if dense is None:
        raise NasError("small dense networks need sparsity 0 and 8 bits; allow them in space.precision")
    pruned = [gene.kind == "sparsity" for gene in space.genes]
    choices = tuple(a if opens else d for a, d, opens in zip(anything, dense.allowed, pruned, strict=True))
    return {"dense": dense, "sparse": replace(dense, allowed=choices, constraints=(Constraint("density", MOST_DENSE),))}


def best_within(archive: Archive, most: float) -> int:
    """Place of the feasible network of least error among those of at most this size.

    Raises:
        NasError: There is none.
    """
    error, size = archive.problem.costs(archive.metrics).T
    within = (size <= most) & (archive.problem.violation(archive.metrics) == 0)
    if not within.any():
        raise NasError(f"no network of a size up to {most:g} was found; raise search.samplers.nsga2.generations")
    return int(np.argmin(np.where(within, error, np.inf)))


def sparse_minus_dense(members: list[dict[str, Any]], measure: str) -> list[float]:
    """Difference in points of tested accuracy at each size, the smallest first."""
    tested = {(m["measure"], m["most"], m["role"]): m["measured"]["error"] for m in members}
    most = sorted({limit for name, limit, _ in tested if name == measure})
    return [100 * (tested[measure, limit, "dense"] - tested[measure, limit, "sparse"]) for limit in most]


def _search(
    context: Context, sampler: Evolution, train_folder: Path, fit_folder: Path, folder: Path, measure: str, role: str
) -> Learned:  # fmt: skip
    """Without scores it would end with networks whose errors are predicted too low, the more so among the sparse."""
    searches, settings = len(MEASURES) * len(ROLES), context.config.search
    share = {"evaluations": settings.evaluations // searches, "batch": max(1, settings.batch // searches)}
    config = context.config.model_copy(update={"search": settings.model_copy(update=share)})
    home = folder / f"{measure}-{role}"
    home.mkdir(exist_ok=True)

    def once(errors: Errors, starts: IntArray) -> Found:
        problem = size_problems(context, errors, MEASURES[measure])[role]
        return Found(sampler.run(problem, context.config.seed, starts=starts))

    return learning(Context(config, context.runs), train_folder, fit_folder, home, once)


def _pairs(archives: Mapping[str, Archive], measure: str) -> list[dict[str, Any]]:
    """The finalists of one measure; sizes lie between twice the least and half the largest, which both roles reach."""
    found = archives["dense"].metrics[:, archives["dense"].problem.metrics.index("size")]
    records = list[dict[str, Any]]()
    for most in np.geomspace(2 * found.min(), found.max() / 2, SIZES):
        for role, archive in archives.items():
            place = best_within(archive, most)
            values = dict(zip(archive.problem.metrics, archive.metrics[place].tolist(), strict=True))
            genotype = archive.genotypes[place].tolist()
            records.append(
                {"genotype": genotype, "role": role, "measure": measure, "most": float(most), "predicted": values}
            )
    return records
