"""What the cost model of a device charges for each layer; a network costs the sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from hw_models import bit_flexible, roofline, systolic
from hw_models.bit_flexible import FusionEnergy
from hw_models.device import Device
from hw_models.energy import EnergyTable, layer_energy_j
from hw_models.roofline import LayerTime
from nas.counts import weight_bytes
from nas.errors import NasError
from nas.network import Layer

Price = Callable[[Layer], float]


def layer_prices(device: Device) -> Mapping[str, Price]:
    """Seconds, bytes and, where the device's file has energies, joules of one layer, by metric.

    A price raises `NasError` for an op that the model does not know, and for operands wider than the device computes.

    Raises:
        NasError: The device has no cost model of this kind: it is measured, or its designs are priced as a whole.
    """
    if device.family == "bit-flexible":
        assert device.array is not None
        seconds: Price = partial(bit_flexible.layer_latency_s, device=device.array)
    elif device.family == "fitted":
        assert device.fitted is not None
        seconds = device.fitted.layer_latency_s
    else:
        times = layer_times(device)
        seconds = lambda layer: times(layer).latency_s  # noqa: E731
    prices: dict[str, Price] = {"latency_s": seconds, "weight_bytes": weight_bytes}
    match device.energies:
        case EnergyTable() as table:
            prices["energy_j"] = partial(layer_energy_j, table=table)
        case FusionEnergy() as energy:
            assert device.array is not None
            prices["energy_j"] = partial(bit_flexible.layer_energy_j, device=device.array, energy=energy)
    return prices


def layer_times(device: Device) -> Callable[[Layer], LayerTime]:
    """Seconds of a layer's arithmetic, its traffic and its launch.

    Raises:
        NasError: The device's cost model does not tell them apart.
    """
    match device.family:
        case "roofline" | "microcontroller":
            assert device.roofline is not None
            return partial(roofline.layer_time, device=device.roofline)
        case "systolic":
            assert device.systolic is not None
            return partial(systolic.layer_time, device=device.systolic)
        case _:
            raise NasError(
                f"device {device.name} is of family {device.family}, which does not tell arithmetic from traffic; "
                "name one of family roofline, systolic or microcontroller"
            )
