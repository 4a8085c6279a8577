"""What a network costs once the program has folded it for a device: the inner half of a nested search.

HAO (Dong et al., FCCM 2021, arXiv 2104.12766) searches networks and, for each, the mapping onto DSP blocks, LUTs and
block RAM. Here too: whatever searches networks sees the cost of the best folding of each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from fpga.folding import Folding, cheapest, choose, fold
from fpga.folding_options import Option, layer_options
from hw_models.device import Device
from hw_models.unrolled import RESOURCES
from nas.errors import NasError
from nas.network import Input, Network

FOLDED = ("latency_s", "interval_s", *RESOURCES)
"""What a folded design costs: until an input's result, between two results, and what it takes of the device."""


def folded_costs(device: Device) -> Callable[[Network], dict[str, float]]:
    """The costs of any network's best folding, by the names in `FOLDED`.

    What does not fit is given its least of the device, beyond what there is: a search sees how far off it is. The
    foldings of a layer are listed once, however many networks have it.

    Raises:
        NasError: The device folds nothing. Calls raise it for a layer that no design can hold.
    """
    have, schedule, clock_hz = device.resources, device.schedule, device.clock_hz
    if have is None or schedule is None or clock_hz is None:
        raise NasError(f"device {device.name}: folds no layers; take one of family folded-fpga")
    listed = functools.cache(layer_options)

    def costs(network: Network) -> dict[str, float]:
        options = {layer.name: listed(layer) for layer in network if not isinstance(layer, Input)}
        if any(_least(options, place) > getattr(have, name) for place, name in enumerate(RESOURCES)):
            return folding_cost(layer_costs(cheapest(options, have)), device)
        found = choose(options, have, schedule)
        chosen = found.options if isinstance(found, Folding) else cheapest(options, have)
        return folding_cost(layer_costs(chosen), device)

    return costs


def folded(network: Network, device: Device) -> Folding:
    """A network's best folding on a device that folds.

    Raises:
        NasError: It does not fit; the message names the resource that is short.
    """
    assert device.schedule is not None
    found = fold(network, device, device.schedule)
    if isinstance(found, Folding):
        return found
    raise NasError(f"device {device.name}: {found}")


def layer_costs(chosen: Mapping[str, Option]) -> dict[str, dict[str, float]]:
    """`cycles` of each layer's option, and what it takes of the device by the names in `RESOURCES`."""
    return {
        name: {"cycles": float(option.cycles), **dict(zip(RESOURCES, map(float, option.resources), strict=True))}
        for name, option in chosen.items()
    }


def folding_cost(layers: Mapping[str, Mapping[str, float]], device: Device) -> dict[str, float]:
    """The costs of a design by the names in `FOLDED`, from those of its layers.

    Pipelined, a result comes whenever the slowest layer is done, and takes the sum of all layers; one after the other,
    both are the sum.
    """
    assert device.clock_hz is not None
    cycles = [cost["cycles"] for cost in layers.values()]
    interval = max(cycles) if device.schedule == "pipelined" else sum(cycles)
    times = {"latency_s": sum(cycles) / device.clock_hz, "interval_s": interval / device.clock_hz}
    return times | {name: sum(cost[name] for cost in layers.values()) for name in RESOURCES}


def _least(options: Mapping[str, tuple[Option, ...]], place: int) -> int:
    """No folding takes less of a resource."""
    return sum(min(option.resources[place] for option in several) for several in options.values())
