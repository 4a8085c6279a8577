"""Samplers by the name a config gives them."""

from nas.search.evolution import Nsga2, Nsga3
from nas.search.hybrid import Hybrid
from nas.search.integer_program import IntegerProgram
from nas.search.optuna_study import OptunaStudy

SamplerSettings = Nsga2 | Nsga3 | IntegerProgram | Hybrid | OptunaStudy

SAMPLERS: dict[str, type[Nsga2] | type[Nsga3] | type[IntegerProgram] | type[Hybrid] | type[OptunaStudy]] = {
    "nsga2": Nsga2,
    "nsga3": Nsga3,
    "integer_program": IntegerProgram,
    "hybrid": Hybrid,
    "optuna": OptunaStudy,
}
