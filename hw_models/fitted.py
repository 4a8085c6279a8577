"""Latency of a device from somebody else's measurements: a cost for each kind of kernel, fitted to a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nas.errors import NasError
from nas.kernels import Amounts, kernels
from nas.network import Input, Layer


@dataclass(frozen=True)
class Fitted:
    """Seconds: `constant_s` of a whole network, and for each kind of kernel (fixed, per MAC, per element)."""

    constant_s: float
    kernels: Mapping[str, Amounts]

    def layer_latency_s(self, layer: Layer) -> float:
        """The layer's share; the constant is the input's.

        Raises:
            NasError: The table held no network with such a kernel.
        """
        if isinstance(layer, Input):
            return self.constant_s
        seconds = 0.0
        for kind, amounts in kernels(layer).items():
            if kind not in self.kernels:
                known = ", ".join(self.kernels)
                raise NasError(
                    f"layer {layer.name}: the device's table held no {kind} (it held {known}); "
                    "add the device anew from a table with networks that hold one"
                )
            seconds += float(np.dot(self.kernels[kind], amounts))
        return seconds
