from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from nas.errors import NasError
from nas.genotype import IntArray
from nas.problem import Constraint, Problem
from nas.search import IntegerProgram
from nas.search.archive import Archive
from nas.search.devices import joined
from nas.search.integer_program import solver
from nas.search.program import build
from nas.search.programs import Programs, SolverName
from nas.search.refine import best_within, refine
from nas.tables import AdditiveCost, PipelinedCost

MakeProblem = Callable[..., Problem]
Every = Callable[..., IntArray]
Limited = Callable[[Problem, str, float], Constraint]


@pytest.mark.parametrize("seed", range(10))
def test_never_worse_than_anything_evaluated(seed: int, make_problem: MakeProblem, limited: Limited) -> None:
    problem = make_problem(seed + 500, genes=9)
    limits = (limited(problem, "lut", 0.4), limited(problem, "error", 0.5))
    programs = Programs(Archive(problem), seed, samples=20)
    place = refine(programs, "error", limits, 2, 6)
    metrics = programs.archive.metrics
    within = (metrics[:, 2] <= limits[0].limit) & (metrics[:, 0] <= limits[1].limit)
    if not within.any():
        assert place is None
        return
    assert place is not None
    assert metrics[place, 0] == metrics[within, 0].min()
    assert within[place]


def test_rounds_close_the_gap_to_the_optimum(make_problem: MakeProblem, every: Every, limited: Limited) -> None:
    """Few samples and an error that is not additive: what one solve misses, the rounds find."""
    once: list[float] = []
    refined: list[float] = []
    for seed in range(12):
        problem = make_problem(seed + 600, genes=9)
        problem = replace(problem, allowed=tuple(tuple(range(len(gene.choices))) for gene in problem.space.genes))
        limit = limited(problem, "lut", 0.4)
        values = problem.evaluate(every(problem.space, problem.allowed))
        least = values[values[:, 2] <= limit.limit, 0].min()
        for found, rounds in ((once, 0), (refined, 12)):
            programs = Programs(Archive(problem), seed, samples=40)
            first = programs.minimise("error", (limit,))
            place = refine(programs, "error", (limit,), 3, rounds) if rounds else first
            assert place is not None
            found.append(programs.archive.metrics[place, 0] - least)
    assert min(refined) >= 0
    assert np.mean(refined) <= 0.25 * np.mean(once)
    assert sum(gap < 1e-9 for gap in refined) >= 8


def test_ends_when_every_network_is_known(make_problem: MakeProblem, every: Every) -> None:
    problem = make_problem(9, genes=3)
    programs = Programs(Archive(problem), 0, samples=4)
    place = refine(programs, "error", (), 5, 10_000)
    everything = problem.evaluate(every(problem.space, problem.allowed))
    assert place == best_within(programs.archive, "error", ())
    assert programs.archive.metrics[place, 0] == everything[:, 0].min()


def test_the_sampler_refines_and_gives_several(make_problem: MakeProblem) -> None:
    problem = make_problem(11, genes=9)
    plain = IntegerProgram(budgets=3, samples=50).run(problem, 0)
    more = IntegerProgram(budgets=3, samples=50, best=2, rounds=3).run(problem, 0)
    assert more.found_by.count("integer_program") > plain.found_by.count("integer_program")
    assert more.metrics[:, 0].min() <= plain.metrics[:, 0].min()
    again = IntegerProgram(budgets=3, samples=50, best=2, rounds=3).run(problem, 0)
    assert (again.genotypes == more.genotypes).all()
    assert again.proofs == more.proofs
    with pytest.raises(NasError, match="rounds >= 0"):
        IntegerProgram(rounds=-1)


def with_interval(problem: Problem) -> Problem:
    """Adds the slowest layer as a metric."""
    latency = problem.additive["latency_s"]
    stages = PipelinedCost(tuple(AdditiveCost((table,), latency.constant) for table in latency.tables))

    def evaluate(population: IntArray) -> np.ndarray:
        return np.column_stack([problem.evaluate(population), stages(population)])

    metrics = (*problem.metrics, "interval_s")
    return replace(problem, metrics=metrics, evaluate=evaluate, pipelined={"interval_s": stages})


@pytest.mark.parametrize("name", ["auto", "highs"])
@pytest.mark.parametrize("seed", range(12))
def test_a_maximum_is_minimised_and_limited(
    seed: int, name: SolverName, make_problem: MakeProblem, every: Every, limited: Limited
) -> None:
    problem = with_interval(make_problem(seed + 700))
    values = problem.evaluate(every(problem.space, problem.allowed))
    lut, interval = limited(problem, "lut", 0.3), limited(problem, "interval_s", 0.3)
    programs = Programs(Archive(problem), 0, name)
    place = programs.minimise("interval_s", (lut,))
    assert place is not None
    least = values[values[:, 2] <= lut.limit, 3].min()
    assert programs.archive.metrics[place, 3] == pytest.approx(least, rel=1e-9)
    assert programs.archive.proofs[-1].bound == pytest.approx(least, rel=1e-6)
    place = programs.minimise("lut", (interval,))
    assert place is not None
    assert programs.archive.metrics[place, 2] == values[values[:, 3] <= interval.limit, 2].min()


def test_cp_sat_refuses_a_maximum(make_problem: MakeProblem) -> None:
    problem = with_interval(make_problem(1))
    program = build(problem, ("interval_s",))
    with pytest.raises(NasError, match="use the solver highs, or auto"):
        solver("cp-sat")(program, program.genewise(np.zeros((7, 3)), 0.0), [], 1.0, 0, list(program.peaks.values()))


@pytest.mark.parametrize("seed", range(8))
def test_one_network_for_two_devices(seed: int, make_problem: MakeProblem, every: Every) -> None:
    phone, other = with_interval(make_problem(seed + 800)), with_interval(make_problem(seed + 800))
    calls = []

    def evaluate(population: IntArray) -> np.ndarray:
        calls.append(len(population))
        return other.evaluate(population)

    smaller = tuple(indices[:2] for indices in other.allowed)
    npu = replace(other, evaluate=evaluate, allowed=smaller, constraints=(Constraint("error", 0.9),))
    npu = replace(npu, additive={**npu.additive, "latency_s": replace(npu.additive["latency_s"], constant=1.0)})
    problem = joined({"phone": replace(phone, constraints=(Constraint("error", 0.8),)), "npu": npu})
    assert problem.metrics[:2] == ("error", "latency_s@phone")
    assert "latency_s@npu" in problem.metrics
    assert problem.constraints == (Constraint("error", 0.8),)
    assert problem.allowed == smaller
    everything = every(problem.space, problem.allowed)
    values = problem.evaluate(everything)
    assert not calls
    assert values[:, 0] == pytest.approx(phone.evaluate(everything)[:, 0])
    limits = tuple(
        Constraint(name, float(np.quantile(values[:, problem.metrics.index(name)], 0.5)))
        for name in ("interval_s@phone", "latency_s@npu")
    )
    within = (values[:, problem.columns(tuple(c.metric for c in limits))] <= [c.limit for c in limits]).all(axis=1)
    programs = Programs(Archive(problem), 0)
    place = programs.minimise("lut@phone", limits)
    if place is None:
        assert not within.any()
        return
    assert (
        programs.archive.metrics[place, problem.metrics.index("lut@phone")]
        == values[within, problem.metrics.index("lut@phone")].min()
    )


def test_devices_without_a_common_choice_are_told(make_problem: MakeProblem) -> None:
    first = make_problem(3)
    second = replace(first, allowed=((1,), *first.allowed[1:]))
    first = replace(first, allowed=((0,), *first.allowed[1:]))
    with pytest.raises(NasError, match=r"gene d0: the devices support no common choice \(a: \[1\]; b: \[2\]\)"):
        joined({"a": first, "b": second})
    with pytest.raises(NasError, match="join devices of a space"):
        joined({"a": first, "b": make_problem(4)})
