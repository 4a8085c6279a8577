"""Numbers as people read them. Everywhere else they are SI; here they get their prefixes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from experiments.units import BYTES, ENERGY, FRACTION, TIME, dimension_of

THIN = "\u202f"
_NAMES = {
    "error": "error", "latency_s": "latency", "interval_s": "interval", "weight_bytes": "weights", "lut": "LUT",
    "ff": "FF", "dsp": "DSP", "bram": "BRAM18", "energy_j": "energy", "peak_bytes": "peak memory",
}  # fmt: skip
_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_ENERGIES = ((1.0, "J"), (1e-3, "mJ"), (1e-6, "µJ"), (1e-9, "nJ"))
_BYTES = ((1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_UNITS = {TIME.name: _TIMES, ENERGY.name: _ENERGIES, BYTES.name: _BYTES}


@dataclass(frozen=True)
class Scale:
    """A unit and what it is worth in SI; an empty unit counts things."""

    worth: float
    unit: str

    def text(self, value: float) -> str:
        """The value with its unit, to three figures; counts in full, percentages to a hundredth."""
        if math.isnan(value):
            return "undefined"
        scaled = value / self.worth
        if self.unit == "%":
            return f"{scaled:.2f}{THIN}%"
        if not self.unit or self.unit == "B":
            return f"{scaled:,.0f}".replace(",", THIN) + (f"{THIN}B" if self.unit else "")
        whole = abs(scaled - round(scaled)) <= 1e-9 * abs(scaled)
        return f"{scaled:.0f}{THIN}{self.unit}" if whole else f"{f'{scaled:#.3g}'.removesuffix('.')}{THIN}{self.unit}"


def name(metric: str) -> str:
    """A metric's name without its unit."""
    return _NAMES.get(metric, metric)


def scale(metric: str, values: Sequence[float]) -> Scale:
    """The unit in which values of a metric are read best: the largest that leaves the greatest of them at 1 or more."""
    dimension = dimension_of(metric)
    if dimension is FRACTION:
        return Scale(0.01, "%")
    units = _UNITS.get(dimension.name, ((1.0, ""),))
    greatest = max((abs(value) for value in values), default=0.0)
    return Scale(*next((unit for unit in units if greatest >= unit[0]), units[-1]))


def shown(metric: str, value: float) -> str:
    """One value of a metric with its unit: `3.06 %`, `4.24 µs`, `11 246`."""
    return scale(metric, [value]).text(value)


def change(metric: str, predicted: float, measured: float) -> str:
    """`predicted → measured`, the unit once."""
    unit = scale(metric, [predicted, measured])
    before, after = unit.text(predicted), unit.text(measured)
    return f"{before.removesuffix(THIN + unit.unit) if unit.unit else before} → {after}"


def correlation(value: float) -> str:
    """A correlation to two decimals; NaN is that of a constant."""
    return "undefined" if math.isnan(value) else f"{value:.2f}"


def scientific(number: float) -> str:
    """Like `3.2 × 10¹⁹`; whole numbers below a million as they are."""
    if number == int(number) and abs(number) < 1e6:
        return shown("", number)
    mantissa, exponent = f"{Decimal(number):.1e}".split("e")
    return f"{mantissa} × 10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
