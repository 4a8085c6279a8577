"""Joint searches small enough to be compared with all their networks."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from tiny_runs import tiny_config

from experiments.config import Config
from nas.genotype import FloatArray, IntArray, distinct
from nas.problem import Problem, sample


def tiny() -> Config:
    """The tiny run on both devices, its precisions such as both compute with."""

    def edit(entries: dict[str, Any]) -> None:
        entries["space"]["width"] = [8, 12, 16, 24, 32, 40, 48]
        entries["space"]["precision"]["act_bits"] = [4, 8]
        entries["devices"] = [
            {"name": "alveo-u250", "objectives": ["error", "lut"]},
            {"name": "bitfusion", "objectives": ["error", "latency_s", "energy_j"]},
        ]
        entries["supernet"]["epochs"] = {"full": 3, "depth": 1, "width": 1, "precision": 2}
        entries["predictors"]["accuracy"]["samples"] = 20
        entries["search"] = {
            "samplers": {"nsga2": {"population": 20, "generations": 40}}, "evaluations": 12, "batch": 6
        }  # fmt: skip
        entries["finalize"] = {"members": 3, "epochs": 1, "learning_rate": 1e-3}

    return tiny_config(edit)


class Sizes:
    """Errors that fall with every gene, some more than others, so that every network has one of its own."""

    def mean(self, population: IntArray) -> FloatArray:
        weights = 1 + np.arange(population.shape[1]) ** 1.5
        errors: FloatArray = np.exp(-(population @ weights) / weights.sum())
        return errors


def everything(problem: Problem) -> IntArray:
    """All distinct genotypes of a problem of few; the last genes take random choices where there are too many."""
    counts = problem.allowed_counts
    rng = np.random.default_rng(0)
    if np.prod(counts.astype(float)) > 300_000:
        return distinct(sample(problem, 100_000, rng))
    ranks = np.array(list(product(*map(range, counts.tolist()))))
    return distinct(problem.genotypes(ranks))
