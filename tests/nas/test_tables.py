import ctypes
from collections.abc import Callable

import numpy as np
import pytest

from nas.errors import NasError
from nas.problem import Problem, sample
from nas.tables import AdditiveCost, AdditiveTable, stacked

MakeProblem = Callable[..., Problem]


def test_stacked_costs_are_those_side_by_side(make_problem: MakeProblem) -> None:
    problem = make_problem(3, genes=9)
    first = problem.additive["latency_s"]
    tables = tuple(type(t)(t.genes, t.strides, np.sqrt(t.values)) for t in first.tables)
    second = AdditiveCost(tables, 3.0)
    for size in (1, 200):
        drawn = sample(problem, size, np.random.default_rng(0))
        assert np.array_equal(stacked([first, second])(drawn), np.stack([first(drawn), second(drawn)], axis=1))


def test_a_sum_is_gathered_row_by_row_and_does_not_depend_on_the_batch(make_problem: MakeProblem) -> None:
    problem = make_problem(4, genes=9)
    cost, drawn = problem.additive["latency_s"], sample(problem, 100, np.random.default_rng(0))
    whole = cost(drawn)
    for row, found in zip(drawn, whole, strict=True):
        rows = [sum(row[g] * s for g, s in zip(t.genes, t.strides, strict=True)) for t in cost.tables]
        total = cost.constant + sum(t.values[place] for t, place in zip(cost.tables, rows, strict=True))
        assert found == pytest.approx(total, rel=1e-12)
        assert cost(row[None])[0] == found


def test_costs_over_different_genes_are_not_stacked(make_problem: MakeProblem) -> None:
    with pytest.raises(NasError, match="over the same genes"):
        stacked(list(make_problem(0).additive.values()))


class Signalling(ctypes.Structure):
    """Floats that no one may compute with; passed by value, they stay behind on the stack."""

    _fields_ = (("words", ctypes.c_uint32 * 15_000),)


def test_what_lies_on_the_stack_is_no_warning() -> None:
    cost = AdditiveCost((AdditiveTable((2, 4), (3, 1), np.arange(9.0)),))
    left, libc = Signalling((ctypes.c_uint32 * 15_000)(*[0x7FA00000] * 15_000)), ctypes.CDLL(None)
    for size in range(1, 40):
        population = np.random.default_rng(size).integers(0, 3, (size, 6))
        libc.getpid(left)
        assert cost(population).tolist() == (3 * population[:, 2] + population[:, 4]).tolist()
