"""The folding program against exhaustive search, and its options against arithmetic by hand."""

import contextlib
import itertools
import math

import numpy as np
import pytest

from fpga.folding import Folding, Shortage, choose, cycle_bounds, fold
from fpga.folding_options import Option, layer_options, pruned
from hw_models.device import Resources, load_device
from hw_models.families import Schedule
from hw_models.unrolled import RESOURCES, layer_cost
from nas.errors import NasError
from nas.network import Conv2d, Input, Linear, Network, Precision


def random_options(rng: np.random.Generator) -> dict[str, tuple[Option, ...]]:
    return {
        f"layer{layer}": tuple(
            Option(1, 1, 1, "dsp", int(rng.integers(1, 40)), *rng.integers(0, 30, 4).tolist())
            for _ in range(int(rng.integers(1, 7)))
        )
        for layer in range(int(rng.integers(2, 5)))
    }


def random_limits(rng: np.random.Generator) -> Resources:
    return Resources(*rng.integers(15, 80, 4).tolist())


def exhaustive(options: dict[str, tuple[Option, ...]], limits: Resources, schedule: Schedule) -> int | None:
    together = max if schedule == "pipelined" else sum
    have = [getattr(limits, name) for name in RESOURCES]
    cycles = [
        together(option.cycles for option in chosen)
        for chosen in itertools.product(*options.values())
        if (np.sum([option.resources for option in chosen], axis=0) <= have).all()
    ]
    return min(cycles, default=None)


def test_no_folding_lies_below_the_bounds_of_its_options() -> None:
    """And they are of use: some foldings have no more cycles than the bound, rounded up."""
    reached = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        options, limits = random_options(rng), random_limits(rng)
        layers = list(options.values())
        bounds = cycle_bounds(layers, limits)
        have = [getattr(limits, name) for name in RESOURCES]
        fitting = [
            (places, sum(layer[place].cycles for layer, place in zip(layers, places, strict=True)))
            for places in itertools.product(*(range(len(layer)) for layer in layers))
            if (np.sum([layer[p].resources for layer, p in zip(layers, places, strict=True)], axis=0) <= have).all()
        ]
        for places, cycles in fitting:
            highest = max(bound[place] for bound, place in zip(bounds, places, strict=True))
            assert cycles >= highest - 1e-9
            reached += cycles < highest + 1
    assert reached > 5


@pytest.mark.parametrize("schedule", ["pipelined", "sequential"])
def test_the_optimum_is_that_of_exhaustive_search(schedule: Schedule) -> None:
    feasible = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        options, limits = random_options(rng), random_limits(rng)
        best, found = exhaustive(options, limits, schedule), choose(options, limits, schedule)
        if best is None:
            assert isinstance(found, Shortage)
            continue
        feasible += 1
        assert isinstance(found, Folding)
        assert (found.cycles, found.bound, found.gap) == (best, best, 0.0)
        assert all(found.used(name) <= getattr(limits, name) for name in RESOURCES)
        kept = {name: pruned(list(several)) for name, several in options.items()}
        assert exhaustive(kept, limits, schedule) == best
    assert 10 < feasible < 60


@pytest.mark.parametrize("schedule", ["pipelined", "sequential"])
def test_with_little_effort_the_bound_holds_still(schedule: Schedule) -> None:
    rng = np.random.default_rng(3)
    options = {
        f"layer{layer}": tuple(
            Option(1, 1, 1, "dsp", int(rng.integers(1, 400)), *rng.integers(0, 300, 4).tolist()) for _ in range(60)
        )
        for layer in range(24)
    }
    limits = Resources(3000, 3000, 3000, 3000)
    exact = choose(options, limits, schedule, 60.0)
    assert isinstance(exact, Folding)
    assert exact.gap == 0
    found = []
    for effort in (1e-3, 0.003, 0.01, 0.03, 0.1):
        with contextlib.suppress(NasError):
            found.append(choose(options, limits, schedule, effort))
    assert found
    for short in found:
        assert isinstance(short, Folding)
        assert short.bound <= exact.cycles <= short.cycles
    if schedule == "sequential":
        assert any(short.gap > 0 for short in found if isinstance(short, Folding))


def test_a_shortage_says_what_binds_and_by_how_much() -> None:
    options = {name: (Option(1, 1, 1, "dsp", 5, 10, 3, 4, 0),) for name in ("first", "second")}
    found = choose(options, Resources(100, 100, 5, 0), "pipelined")
    assert isinstance(found, Shortage)
    assert dict(found.missing) == {"dsp": 3}
    assert "3 more dsp" in str(found)
    assert isinstance(choose(options, Resources(100, 100, 8, 0), "pipelined"), Folding)


def linear(act: int = 8, weight: int = 8, sparsity: float = 0.0) -> Linear:
    return Linear("fc", ("x",), (4,), (6,), precision=Precision(weight, act), sparsity=sparsity)


def fewest_dsp(layer: Linear | Conv2d, cycles: int) -> int:
    return min(o.dsp for o in layer_options(layer) if o.cycles == cycles and o.multiplier == "dsp")


def test_two_products_of_low_bits_share_a_block() -> None:
    assert fewest_dsp(linear(), 1) == 12
    assert fewest_dsp(linear(act=9), 1) == 24
    depthwise = Conv2d("dw", ("x",), (4, 5, 5), (4, 5, 5), 3, groups=4, precision=Precision(8, 8))
    assert fewest_dsp(depthwise, 25) == 36


def test_options_obey_the_loop_bounds() -> None:
    layer = Conv2d("c", ("x",), (4, 5, 5), (6, 5, 5), 3, precision=Precision(4, 4))
    options = layer_options(layer)
    assert len(set(options)) == len(options) > 10
    for option in options:
        assert 4 % option.inputs == 6 % option.outputs == 9 % option.kernel == 0
        assert option.cycles * option.inputs * option.outputs * option.kernel == 25 * 4 * 6 * 9


def test_zeros_are_free_where_nothing_is_folded_only() -> None:
    dense, sparse = (layer_options(linear(sparsity=share)) for share in (0.0, 0.75))
    constants = [next(o for o in several if o.multiplier == "constant") for several in (dense, sparse)]
    assert constants[0].lut == math.ceil(layer_cost(linear())["lut"])
    assert constants[1].lut < constants[0].lut / 2
    folded = [{o for o in several if o.multiplier != "constant"} for several in (dense, sparse)]
    assert folded[1] < folded[0], "fewer constants beat some foldings, and change none"


def test_a_network_folds_more_on_a_smaller_device() -> None:
    layers = (
        Input("x", (3, 16, 16)),
        Conv2d("c0", ("x",), (3, 16, 16), (16, 16, 16), 3, precision=Precision(8, 8)),
        Conv2d("c1", ("c0",), (16, 16, 16), (64, 16, 16), 3, precision=Precision(8, 8)),
    )
    cycles = []
    for name in ("zcu102", "zu3eg"):
        found = fold(Network(layers), load_device(name), "pipelined")
        assert isinstance(found, Folding)
        assert found.gap == 0
        assert set(found.options) == {"c0", "c1"}
        cycles.append(found.cycles)
    assert cycles[0] <= cycles[1]


def test_bad_input_is_named() -> None:
    with pytest.raises(NasError, match="no layer"):
        choose({}, Resources(1, 1, 1, 1), "pipelined")
    with pytest.raises(NasError, match="needs an FPGA"):
        fold(Network((Input("x", (4,)), linear())), load_device("local-cpu"), "pipelined")
    with pytest.raises(NasError, match="float"):
        layer_options(linear(weight=32))
