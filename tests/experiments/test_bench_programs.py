import numpy as np
import pytest

from experiments.bench.programs import equal_exhaustive, every, layered, proof_times, solved, tight
from nas.genotype import count_networks
from nas.search.exact_front import exact_front


def test_small_programs_equal_exhaustive_search() -> None:
    figures = equal_exhaustive(4)
    assert figures["ip_equal_exhaustive"].value == 1.0
    assert figures["ip_equal_exhaustive"].n == figures["ip_small_s"].n == 4


def test_the_problems_are_as_large_as_they_say() -> None:
    problem = layered(5, (2, 3), 1, np.random.default_rng(0))
    everything = every(problem)
    assert len(everything) == count_networks(problem.space)
    assert len(np.unique(everything, axis=0)) == len(everything)
    values = problem.evaluate(everything)
    depth = everything[:, 0]
    assert values[depth == 0, 1].min() < values[depth == 2, 1].min()
    limits = tight(problem, ("latency_s",), 0.3, np.random.default_rng(0))
    _, value, bound = solved(problem, "error", limits)
    front = exact_front(problem, problem.additive["error"], problem.additive["latency_s"]).values
    assert value == front[front[:, 1] <= limits[0].limit, 0].min()
    assert bound == pytest.approx(value, rel=1e-6)


def test_full_size_programs_are_proved() -> None:
    figures = proof_times(1)
    assert set(figures) == {"ip_20x100_s", "ip_50x60_s"}
    assert all(np.isfinite(figure.value) for figure in figures.values())
