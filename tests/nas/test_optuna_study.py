from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import optuna
import pytest

from nas.problem import Constraint, Problem, sample
from nas.search import OptunaStudy

MakeProblem = Callable[..., Problem]


@pytest.mark.parametrize("name", ["nsga2", "tpe"])
def test_a_constraint_steers_the_study(name: Literal["nsga2", "tpe"], make_problem: MakeProblem) -> None:
    """A limit that one genotype in twenty meets: told of it, the study meets it at least twice as often."""
    problem = make_problem(31, genes=16)
    whole = tuple(tuple(range(len(gene.choices))) for gene in problem.space.genes)
    problem = replace(problem, objectives=("error",), allowed=whole)
    chance = problem.evaluate(sample(problem, 4000, np.random.default_rng(0)))
    limit = Constraint("lut", float(np.quantile(chance[:, 2], 0.05)))
    study = OptunaStudy(trials=150, sampler=name)
    told, untold = study.run(replace(problem, constraints=(limit,)), 0), study.run(problem, 0)
    share = [(archive.metrics[:, 2] <= limit.limit).mean() for archive in (told, untold)]
    assert share[0] > 2 * share[1]


def test_gives_the_log_level_back(make_problem: MakeProblem, capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    OptunaStudy(trials=3).run(make_problem(0), 0)
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr().err == ""
