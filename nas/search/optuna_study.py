"""Optuna behind the same seam: for the hundreds of candidates that cost something to evaluate.

This one searches in one process; `optuna_shared` is for workers on any number of machines.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray
from nas.problem import Problem
from nas.search.archive import Archive, Progress, silent

if TYPE_CHECKING:
    import optuna

SamplerName = Literal["nsga2", "tpe"]


@dataclass(frozen=True)
class OptunaStudy:
    """An in-memory study, one trial after the other; each gene is a categorical parameter of its allowed choices.

    Attributes:
        trials: Number of trials; one that repeats a genotype counts and is not evaluated again.
        sampler: `nsga2` or `tpe`.
    """

    trials: int = 300
    sampler: SamplerName = "nsga2"

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise NasError(f"optuna needs at least 1 trial, got {self.trials}")

    def run(self, problem: Problem, seed: int, progress: Progress = silent, starts: IntArray | None = None) -> Archive:
        """Ask, evaluate, tell."""
        # Imported on first use: the import takes half a second, and a config check needs none of it.
        import optuna

        archive = Archive(problem)
        with quiet():
            study = optuna.create_study(
                directions=["minimize"] * len(problem.objectives), sampler=build_sampler(self.sampler, seed)
            )
            for start in problem.require_allowed(starts) if starts is not None else []:
                study.enqueue_trial(parameters(problem, start))
            for done in range(self.trials):
                progress(done, self.trials)
                _trial(study, problem, archive, 0 if starts is None else len(starts))
        progress(self.trials, self.trials)
        return archive


def _trial(study: optuna.Study, problem: Problem, archive: Archive, starts: int) -> None:
    trial = study.ask()
    place = archive.add(suggested(trial, problem), "start" if trial.number < starts else "optuna")
    metrics: FloatArray = archive.metrics[place]
    for name, excess in excesses(problem, metrics[0]).items():
        trial.set_constraint(name, excess)
    study.tell(trial, problem.costs(metrics)[0].tolist())


def suggested(trial: optuna.Trial, problem: Problem) -> IntArray:
    """The canonical genotype that a study suggests, shape (1, genes)."""
    ranks = [
        trial.suggest_categorical(gene.name, list(range(len(allowed))))
        for gene, allowed in zip(problem.space.genes, problem.allowed, strict=True)
    ]
    return problem.genotypes(np.array([ranks]))


def excesses(problem: Problem, metrics: FloatArray) -> dict[str, float]:
    """By how much of it each limit is exceeded; 0 or below is feasible."""
    return {
        str(c): float(metrics[problem.metrics.index(c.metric)] - c.limit) / (abs(c.limit) or 1.0)
        for c in problem.constraints
    }


def parameters(problem: Problem, genotype: IntArray) -> dict[str, int]:
    """The parameters of a trial that suggests a genotype, shape (genes,)."""
    ranks = problem.ranks(genotype[None])[0].tolist()
    return {gene.name: rank for gene, rank in zip(problem.space.genes, ranks, strict=True)}


def build_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's sampler, `nsga2` or `tpe`."""
    import optuna

    match name:
        case "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed)
        case "tpe":
            return optuna.samplers.TPESampler(seed=seed)
    raise NasError(f"optuna's sampler must be nsga2 or tpe, got {name!r}")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Optuna's log and its notes on experimental features, and give both back as they were."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
