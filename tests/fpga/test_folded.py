"""The costs of folded networks against the program and against sums by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from designs import mobile_network

from fpga.folded import FOLDED, folded, folded_costs, folding_cost, layer_costs
from fpga.folding import Folding, cheapest, choose, fits
from fpga.folding_options import Option, layer_options
from hw_models.device import Device, Resources, load_device
from hw_models.families import Schedule
from hw_models.unrolled import RESOURCES
from nas.errors import NasError
from nas.network import Input, Network


def board(resources: Resources, schedule: Schedule) -> Device:
    return dataclasses.replace(load_device("pynq-z2-folded"), resources=resources, schedule=schedule)


@pytest.mark.parametrize("schedule", ["pipelined", "sequential"])
def test_a_network_costs_what_its_best_folding_does(schedule: Schedule) -> None:
    small = board(Resources(3000, 20000, 40, 100), schedule)
    cost = folded_costs(small)
    for seed in range(4):
        network = mobile_network(seed)
        found = folded(network, small)
        told = cost(network)
        assert tuple(told) == FOLDED
        assert told["interval_s"] == pytest.approx(found.cycles / small.clock_hz)
        assert all(told[name] <= getattr(small.resources, name) for name in RESOURCES)
        if schedule == "sequential":
            assert told["latency_s"] == told["interval_s"]
            assert all(told[name] == found.used(name) for name in RESOURCES)


@pytest.mark.parametrize("schedule", ["pipelined", "sequential"])
def test_what_does_not_fit_costs_more_than_there_is(schedule: Schedule) -> None:
    network = mobile_network(1)
    with pytest.raises(NasError, match=r"device pynq-z2-folded: no folding fits: .* more lut"):
        folded(network, board(Resources(300, 20000, 0, 0), schedule))
    for resources in (Resources(300, 20000, 0, 0), Resources(2500, 900, 4, 4)):
        tiny = board(resources, schedule)
        told = folded_costs(tiny)(network)
        assert any(told[name] > getattr(tiny.resources, name) for name in RESOURCES)
        assert min(told.values()) >= 0


def test_times_are_the_slowest_and_the_sum() -> None:
    chosen = layer_costs(
        {
            "one": Option(1, 1, 1, "dsp", 40, 1, 2, 3, 4),
            "two": Option(1, 1, 1, "lut", 60, 10, 20, 0, 1),
        }
    )
    pipelined = board(Resources(100, 100, 100, 100), "pipelined")
    cost = folding_cost(chosen, pipelined)
    assert cost == {"latency_s": 1e-6, "interval_s": 0.6e-6, "lut": 11, "ff": 22, "dsp": 3, "bram": 5}
    assert folding_cost(chosen, dataclasses.replace(pipelined, schedule="sequential"))["interval_s"] == 1e-6


def test_the_cheapest_within_an_interval_is_a_feasible_answer_of_the_program() -> None:
    rng, limits = np.random.default_rng(0), Resources(4000, 30000, 60, 50)
    for seed in range(3):
        network: Network = mobile_network(seed)
        options = {layer.name: layer_options(layer) for layer in network if not isinstance(layer, Input)}
        best = choose(options, limits, "pipelined")
        assert isinstance(best, Folding)
        for interval in rng.choice(sorted({o.cycles for several in options.values() for o in several}), 5):
            if all(min(o.cycles for o in several) <= interval for several in options.values()):
                least = cheapest(options, limits, float(interval))
                assert max(option.cycles for option in least.values()) <= interval
                assert not fits(least, limits) or best.cycles <= interval
