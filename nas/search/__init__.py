"""Samplers by the name a config gives them."""

from nas.search.evolution import Nsga2

SAMPLERS = {"nsga2": Nsga2}
