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
def test_beats_chance_under_a_constraint(
    name: Literal["nsga2", "tpe"], make_problem: MakeProblem, limited: Callable[..., Constraint]
) -> None:
    problem = make_problem(30, genes=12)
    problem = replace(problem, objectives=("error",), constraints=(limited(problem, "lut", 0.1),))
    archive = OptunaStudy(trials=150, sampler=name).run(problem, 0)
    chance = problem.evaluate(sample(problem, 150, np.random.default_rng(0)))
    met = chance[problem.violation(chance) == 0, 0]
    assert archive.metrics[archive.front(), 0].min() <= np.quantile(met, 0.1)


def test_gives_the_log_level_back(make_problem: MakeProblem, capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    OptunaStudy(trials=3).run(make_problem(0), 0)
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr().err == ""
