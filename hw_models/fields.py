"""The entries of a device's file, each read with a check that names place and key."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from nas.errors import NasError
from nas.network import FLOAT_BITS

_Value = TypeVar("_Value", int, str)
_UNITS = {**{f"int{bits}": bits for bits in range(2, 17)}, f"float{FLOAT_BITS}": FLOAT_BITS}
"""Arithmetic units by the width of their operands."""


@dataclass(frozen=True)
class Fields:
    """The entries of one mapping; every method raises `NasError` naming place and key."""

    where: str
    entries: Mapping[str, object]

    def text(self, key: str) -> str:
        """A text that is not empty."""
        value = self.entries[key]
        if not isinstance(value, str) or not value.strip():
            raise NasError(f"{self.where}: {key} must be a text, got {value!r}")
        return value

    def inner(self, key: str, keys: tuple[str, ...]) -> Fields:
        """The mapping below a key, which must have exactly these keys."""
        where = f"{self.where}: {key}"
        entries = mapping(self.entries[key], where)
        require_keys(entries, keys, where)
        return Fields(where, entries)

    def sourced(self, key: str) -> object:
        """The value of `{value: ..., source: "..."}`."""
        fields = self.inner(key, ("value", "source"))
        fields.text("source")
        return fields.entries["value"]

    def number(self, key: str, *, least: float, whole: bool = False) -> float:
        """A finite number of at least `least`, with its source."""
        value = self.sourced(key)
        kinds = int if whole else int | float
        if not isinstance(value, kinds) or isinstance(value, bool) or not least <= value < math.inf:
            kind = "a whole number" if whole else "a number"
            raise NasError(f"{self.where}: {key}: value must be {kind} of at least {least:g}, got {value!r}")
        return float(value)

    def by_unit(self, key: str, widest: int, *, least: float) -> dict[int, float]:
        """A number for each arithmetic unit, by its width in bits; one of them must take operands of the widest."""
        where = f"{self.where}: {key}"
        entries = mapping(self.entries[key], where)
        require_keys(entries, (), where, tuple(_UNITS))
        if max((_UNITS[unit] for unit in entries), default=0) < widest:
            able = ", ".join(unit for unit, bits in _UNITS.items() if bits >= widest)
            raise NasError(f"{where} has no unit for {widest} bits; add one of {able}, with its source")
        units = Fields(where, entries)
        return {_UNITS[unit]: units.number(unit, least=least) for unit in entries}

    def bits(self, key: str) -> tuple[int, ...]:
        """Distinct bit widths, with their source."""
        allowed = (*range(2, 17), FLOAT_BITS)
        return self._distinct(key, self.sourced(key), allowed, f"bit widths 2..16, or {FLOAT_BITS} for float")

    def objectives(self, metrics: tuple[str, ...]) -> tuple[str, ...]:
        """Distinct metrics out of these."""
        return self._distinct("objectives", self.entries["objectives"], metrics, f"metrics out of {', '.join(metrics)}")

    def _distinct(self, key: str, values: object, allowed: tuple[_Value, ...], law: str) -> tuple[_Value, ...]:
        if isinstance(values, list) and values and all(value in allowed for value in values):
            picked = tuple(allowed[allowed.index(value)] for value in values)
            if len(set(picked)) == len(picked):
                return picked
        raise NasError(f"{self.where}: {key} must list distinct {law}; got {values!r}")


def mapping(value: object, where: str) -> Mapping[str, object]:
    """A YAML value as entries by key."""
    if not isinstance(value, dict):
        raise NasError(f"{where} must be a mapping of keys to values, got {value!r}")
    return {str(key): entry for key, entry in value.items()}


def require_keys(
    entries: Mapping[str, object], keys: tuple[str, ...], where: str, optional: tuple[str, ...] = ()
) -> None:
    """Refuse entries without one of the keys, and any that is neither one of them nor optional."""
    for key in entries:
        if key not in (*keys, *optional):
            raise NasError(f"{where}: {key} is an unknown key{nearest(key, (*keys, *optional))}")
    for key in keys:
        if key not in entries:
            raise NasError(f"{where}: {key} is missing; add it{' with its source' if key != 'source' else ''}")


def nearest(name: str, names: tuple[str, ...]) -> str:
    """The end of a message about an unknown name: the one meant, or all there are."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(names)}"
