"""Quantities as people write them, read into SI: `"5 ms"` is 0.005, `"10 %"` is 0.1, `"512 KiB"` is 524288.

A metric's name ends in its unit (`latency_s`, `weight_bytes`), so the name says which units fit it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from nas.errors import NasError

_EXPONENTS = {"G": 9, "M": 6, "k": 3, "": 0, "m": -3, "u": -6, "µ": -6, "n": -9, "p": -12}
_BINARY = {"KiB": Decimal(2**10), "MiB": Decimal(2**20), "GiB": Decimal(2**30)}
_QUANTITY = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(\S*)\s*")


@dataclass(frozen=True)
class Dimension:
    """A kind of quantity, and what each unit that fits it is worth in SI (decimal, so that 100 us is exactly 1e-4)."""

    name: str
    units: Mapping[str, Decimal]
    examples: str


def _prefixed(unit: str, prefixes: str) -> dict[str, Decimal]:
    return {f"{prefix}{unit}": Decimal(10) ** _EXPONENTS[prefix] for prefix in ("", *prefixes)}


TIME = Dimension("a time", _prefixed("s", "munµp"), "'5 ms', '100 us' or '40 ns'")
FRACTION = Dimension("a fraction", {"%": Decimal("0.01")}, "'10 %' or 0.1")
BYTES = Dimension(
    "a number of bytes",
    {**_prefixed("B", "kMG"), "KB": Decimal(1000), "bytes": Decimal(1), **_BINARY},
    "'512 KiB' or '1.5 MB'",
)
FREQUENCY = Dimension("a frequency", _prefixed("Hz", "kMG"), "'200 MHz'")
ENERGY = Dimension("an energy", _prefixed("J", "munµp"), "'2 mJ' or '40 nJ'")
POWER = Dimension("a power", _prefixed("W", "kmuµ"), "'5 W' or '800 mW'")
COUNT = Dimension("a plain number", {}, "40000")

_SUFFIXES = {"_s": TIME, "_bytes": BYTES, "_hz": FREQUENCY, "_j": ENERGY, "_w": POWER}


def dimension_of(metric: str) -> Dimension:
    """What a metric or a key measures, read off its name: `error` is a fraction, `latency_s` a time, `lut` a count."""
    if metric == "error":
        return FRACTION
    return next((dim for suffix, dim in _SUFFIXES.items() if metric.endswith(suffix)), COUNT)


def quantity(value: object, dimension: Dimension) -> float:
    """A quantity in SI; a number without a unit is in SI already.

    Args:
        value: A number, or a string such as `"5 ms"`.
        dimension: What it must measure.

    Raises:
        NasError: Not a finite number, or a unit that does not fit.
    """
    number, unit = _split(value)
    scale = dimension.units.get(unit) if unit else Decimal(1)
    result = math.nan if scale is None else float(number * scale)
    if not math.isfinite(result):
        raise NasError(f"must be {dimension.name}, such as {dimension.examples}; got {value!r}")
    return result


def _split(value: object) -> tuple[Decimal, str]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Decimal(value), ""
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    return (Decimal(match[1]), match[2]) if match else (Decimal("NaN"), "")
