import numpy as np
import pytest

from experiments.bench.speed import loop_rate, made_up_errors, mobile_problem, mobile_space, search_rate
from nas.genotype import count_networks, random_population
from nas.search.evolution import Nsga2


@pytest.mark.slow
def test_the_search_is_over_the_joint_genotype_and_its_costs_are_those_of_the_networks() -> None:
    space = mobile_space()
    assert {gene.kind for gene in space.genes} == {
        "resolution", "kernel", "depth", "width", "weight_bits", "act_bits", "sparsity"
    }  # fmt: skip
    assert count_networks(space) > 1e120
    problem = mobile_problem(space, 40)
    drawn = random_population(space, 20, np.random.default_rng(0))
    values = problem.evaluate(drawn)
    for column, name in ((1, "lut"), (2, "latency_s")):
        assert np.array_equal(values[:, column], problem.additive[name](drawn))
    errors = made_up_errors(space, drawn)
    assert ((errors > 0) & (errors < 1)).all()
    assert search_rate(problem, Nsga2(20, 2), 0) > 0
    assert loop_rate(problem, 20, 0) > 0
