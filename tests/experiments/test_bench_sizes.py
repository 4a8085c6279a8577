"""Large sparse and small dense networks of equal size, by hand and by brute force."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from joint_runs import Sizes, everything, tiny

from experiments.bench.sizes import LEAST, MOST_DENSE, least_error, size_limits, size_problem, stored_bytes
from experiments.context import Context
from nas.counts import nonzeros, weight_count
from nas.errors import NasError
from nas.network import Conv2d, Precision
from nas.search.evolution import Nsga2


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    return Context(tiny(), tmp_path_factory.mktemp("joint"))


def test_bytes_count_the_places_of_zeros() -> None:
    layer = Conv2d("a", ("x",), (4, 8, 8), (6, 8, 8), 3)
    assert stored_bytes(layer) == 4 * 216 + 24
    pruned = replace(layer, sparsity=0.75, precision=Precision(weight_bits=8))
    assert stored_bytes(pruned) == 54 + 216 / 8 + 24


@pytest.mark.parametrize("role", ["dense", "sparse"])
@pytest.mark.parametrize("price", [nonzeros, stored_bytes])
def test_size_problems_price_8_bit_networks_of_equal_size(context: Context, price: Any, role: str) -> None:
    most = size_limits(context, price)[0]
    problem = size_problem(context, Sizes(), price, most, role)
    population = everything(problem)
    networks = [context.space.lower(row) for row in population.tolist()]
    assert all(one.precision == Precision(8, 8) for net in networks for one in net.weighted)
    taken = [sum(map(price, net)) for net in networks]
    density = [sum(map(nonzeros, net)) / sum(map(weight_count, net)) for net in networks]
    metrics = problem.evaluate(population)
    assert metrics[:, 1] == pytest.approx(taken)
    assert (min(density) < 1) == (role == "sparse")
    most_dense = MOST_DENSE if role == "sparse" else 1.0
    fits = [LEAST * most <= t <= most and d <= most_dense for t, d in zip(taken, density, strict=True)]
    assert 0 < sum(fits) < len(fits)
    assert (problem.violation(metrics) == 0).tolist() == fits


@pytest.mark.parametrize("price", [nonzeros, stored_bytes])
def test_sizes_lie_between_twice_the_least_and_half_the_largest(context: Context, price: Any) -> None:
    population = everything(size_problem(context, Sizes(), price, 1.0, "dense"))
    taken = [sum(map(price, context.space.lower(row))) for row in population.tolist()]
    least, middle, most = size_limits(context, price)
    assert (least, most) == (pytest.approx(2 * min(taken)), pytest.approx(max(taken) / 2))
    assert middle == pytest.approx(np.sqrt(least * most))


def test_the_least_error_of_those_that_fit_by_brute_force(context: Context) -> None:
    problem = size_problem(context, Sizes(), nonzeros, size_limits(context, nonzeros)[1], "sparse")
    archive = Nsga2(20, 5).run(problem, 0)
    fits = problem.violation(archive.metrics) == 0
    assert 0 < fits.sum() < len(archive)
    assert archive.metrics[least_error(archive), 0] == archive.metrics[fits, 0].min()
    with pytest.raises(NasError, match=r"no network with size <= 1, below <= 0.1, density <= 0.5 was found; raise"):
        least_error(Nsga2(4, 0).run(size_problem(context, Sizes(), nonzeros, 1.0, "sparse"), 0))
