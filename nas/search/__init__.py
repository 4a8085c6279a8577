"""Samplers by the name a config gives them."""

from nas.search.evolution import Nsga2
from nas.search.integer_program import IntegerProgram
from nas.search.optuna_study import OptunaStudy

SamplerSettings = Nsga2 | IntegerProgram | OptunaStudy

SAMPLERS: dict[str, type[Nsga2] | type[IntegerProgram] | type[OptunaStudy]] = {
    "nsga2": Nsga2,
    "integer_program": IntegerProgram,
    "optuna": OptunaStudy,
}
