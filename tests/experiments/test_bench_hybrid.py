"""The laws of `nas bench hybrid`, and the devices that `nas bench speed` serves."""

import time
from dataclasses import replace

import numpy as np
import pytest
from tiny_runs import small_problem

from experiments.bench.digits import five_devices
from experiments.bench.hybrid import ALONE, HYBRID, Watched, ratios, searched
from nas.genotype import IntArray
from nas.pareto import non_dominated
from nas.problem import Problem
from nas.search.archive import Archive, Progress, silent
from nas.search.evolution import Nsga2


def test_ratios_by_hand() -> None:
    """The union is (0, 2), (1, 1), (2, 0): its corner is (2.1, 2.1)."""
    fronts = {
        "both": np.array([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]]),
        "one": np.array([[1.0, 1.0], [2.0, 1.5]]),
    }
    whole = 2.1 * 0.1 + 1.1 * 1.0 + 0.1 * 1.0
    assert ratios(fronts) == pytest.approx({"both": 1.0, "one": 1.1 * 1.1 / whole})


def test_a_search_ends_with_its_cpu_time_and_all_it_saw_counts() -> None:
    problem = small_problem(0)

    class Slow:
        def run(
            self, problem: Problem, seed: int, progress: Progress = silent, starts: IntArray | None = None
        ) -> Archive:
            rng = np.random.default_rng(seed)
            while True:
                problem.evaluate(problem.genotypes(rng.integers(0, problem.allowed_counts, (20, len(problem.allowed)))))

    watched, proofs = searched(problem, Slow(), 0, 0.3)
    assert proofs == []
    assert 0.3 <= watched.end < 5
    costs = problem.costs(np.concatenate(watched.seen))
    assert np.array_equal(np.unique(watched.front(), axis=0), np.unique(costs[non_dominated(costs)], axis=0))


def test_time_that_passes_without_work_is_not_counted() -> None:
    watched = Watched(small_problem(0), 1.0)
    time.sleep(0.2)
    assert watched.spent < 0.1


def test_a_search_to_its_end_sees_what_its_archive_has() -> None:
    problem = small_problem(1)
    sampler = replace(HYBRID, population=20, generations=4, samples=50)
    watched, proofs = searched(problem, sampler, 0)
    archive = sampler.run(problem, 0)
    assert proofs == archive.proofs
    expected = problem.costs(archive.metrics[archive.front()])
    assert np.array_equal(np.unique(watched.front(), axis=0), np.unique(expected, axis=0))


def test_the_evolution_beside_it_has_the_population_of_the_hybrid() -> None:
    evolution = ALONE["evolution"]
    assert isinstance(evolution, Nsga2)
    assert evolution.population == HYBRID.population


def test_five_devices_differ() -> None:
    made = five_devices()
    assert len(made) == len({(device.clock_hz, device.resources) for device in made.values()}) == 5
