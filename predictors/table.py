"""Features from the columns of a table: numbers, categories, lists of numbers, and cells of NAS-Bench-201.

A column holds one kind of value. Numbers stay as they are; categories, and the operation on each edge of a cell
(Dong & Yang, ICLR 2020), become one column of 0 and 1 per choice; lists are padded with zeros, and their lengths become
a column where they differ. What was not in the table that an encoder was made from is an error when it is encoded.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nas.errors import NasError
from nas.genotype import FloatArray, IntArray

Columns = Mapping[str, Sequence[object]]
"""Cells by column, all columns equally long."""

ColumnKind = Literal["number", "category", "list", "cell"]

_MOST_CATEGORIES = 64
_EDGE = re.compile(r"([^~|]+)~(\d+)")
_CELL = re.compile(r"\|(?:[^~|+]+~\d+\|)+(?:\+\|(?:[^~|+]+~\d+\|)+)*")


@dataclass(frozen=True)
class ColumnCode:
    """How one column is encoded.

    Attributes:
        name: The column.
        kind: What its cells are.
        choices: The categories; for cells the operation and source of each edge, `op~source`.
        length: Of the longest list, or edges of a cell; 0 otherwise.
        varying: Lists differ in length.
    """

    name: str
    kind: ColumnKind
    choices: tuple[str, ...] = ()
    length: int = 0
    varying: bool = False

    def encode(self, cells: Sequence[object], place: str) -> FloatArray:
        """Features, shape (n, columns), of the cells; `place` names the table in errors."""
        rows = [f"{place}: column {self.name!r}, row {row}" for row in range(1, len(cells) + 1)]
        return np.array([self._features(cell, row) for cell, row in zip(cells, rows, strict=True)], dtype=np.float64)

    def _features(self, cell: object, place: str) -> list[float]:
        found = kind_of(cell, place)
        if found != self.kind and not (self.kind == "category" and found == "number"):
            raise NasError(f"{place}: must be a {self.kind}, as in the other rows, got {_short(cell)}; mend the row")
        match self.kind:
            case "number":
                return [_number(cell, place)]
            case "category":
                return self._one_hot(str(cell), place)
            case "cell":
                edges = edges_of(str(cell), place)
                if len(edges) != self.length:
                    raise NasError(
                        f"{place}: must have {self.length} edges, got {len(edges)} in {_short(cell)}; mend the row"
                    )
                return [value for place_of, edge in enumerate(edges) for value in self._edge(place_of, edge, place)]
            case "list":
                return self._padded(_list(cell, place), place)

    def _edge(self, position: int, edge: str, place: str) -> list[float]:
        prefix = f"{position}:"
        own = [choice for choice in self.choices if choice.startswith(prefix)]
        _require(prefix + edge, own, place)
        return [float(choice == prefix + edge) for choice in own]

    def _one_hot(self, text: str, place: str) -> list[float]:
        _require(text, self.choices, place)
        return [float(choice == text) for choice in self.choices]

    def _padded(self, values: list[float], place: str) -> list[float]:
        if len(values) > self.length or (len(values) < self.length and not self.varying):
            law = f"at most {self.length}" if self.varying else str(self.length)
            raise NasError(f"{place}: must list {law} numbers, as in the table of the fit, got {len(values)}")
        padded = values + [0.0] * (self.length - len(values))
        return [*padded, float(len(values))] if self.varying else padded


@dataclass(frozen=True)
class Encoder:
    """Codes of the columns that are features, in order."""

    codes: tuple[ColumnCode, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(code.name for code in self.codes)

    def encode(self, table: Columns, place: str) -> tuple[FloatArray, IntArray]:
        """Features, shape (n, columns), and the table's column each comes from, shape (columns,).

        Raises:
            NasError: A column is absent, or a cell is missing or was not foreseen; names column and row.
        """
        require_columns(table, self.names, place)
        parts = [code.encode(table[code.name], place) for code in self.codes]
        groups = [np.full(part.shape[1], group, dtype=np.int64) for group, part in enumerate(parts)]
        return np.concatenate(parts, axis=1), np.concatenate(groups)


def encoder_for(table: Columns, names: Sequence[str], place: str) -> Encoder:
    """Learn each column's kind and choices.

    Raises:
        NasError: No column is named, one is absent or named twice, or a column's cells cannot be features.
    """
    if not names or len(set(names)) != len(names):
        raise NasError(f"{place}: features must be one or more different columns, got {', '.join(names) or 'none'}")
    require_columns(table, names, place)
    return Encoder(tuple(_code(name, table[name], place) for name in names))


def require_columns(table: Columns, names: Sequence[str], place: str) -> None:
    """Raise a `NasError` that names the columns which the table lacks and those it has."""
    absent = [name for name in names if name not in table]
    if absent:
        raise NasError(f"{place}: there is no column {', '.join(map(repr, absent))}; it has {', '.join(table)}")


def numbers(table: Columns, name: str, place: str) -> FloatArray:
    """A column of finite numbers, shape (n,).

    Raises:
        NasError: The column is absent, or a cell is missing or no number; names the row.
    """
    require_columns(table, [name], place)
    return ColumnCode(name, "number").encode(table[name], place)[:, 0]


def kind_of(cell: object, place: str) -> ColumnKind:
    """What a cell is; a missing one is a `NasError`."""
    if cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell)):
        raise NasError(f"{place}: the value is missing; fill it in or remove the row")
    if isinstance(cell, list | tuple | np.ndarray):
        return "list"
    if isinstance(cell, bool | int | float | np.number | np.bool_) or _is_number(str(cell)):
        return "number"
    text = str(cell).strip()
    return "list" if text.startswith("[") else "cell" if text.startswith("|") else "category"


def edges_of(text: str, place: str) -> list[str]:
    """Edges of a cell such as `|nor_conv_3x3~0|+|none~0|skip_connect~1|`, each as `operation~source`."""
    text = text.strip()
    if not _CELL.fullmatch(text):
        raise NasError(f"{place}: must be nodes like |nor_conv_3x3~0|+|none~0|skip_connect~1|, got {_short(text)}")
    return [f"{operation}~{source}" for operation, source in _EDGE.findall(text)]


def _code(name: str, cells: Sequence[object], place: str) -> ColumnCode:
    rows = [f"{place}: column {name!r}, row {row}" for row in range(1, len(cells) + 1)]
    kinds = [kind_of(cell, row) for cell, row in zip(cells, rows, strict=True)]
    kind = max(sorted(set(kinds)), key=kinds.count)
    for cell, found, row in zip(cells, kinds, rows, strict=True):
        if found != kind:
            raise NasError(f"{row}: must be a {kind}, as in most rows, got {_short(cell)}; mend the row")
    makers: dict[ColumnKind, Callable[[], ColumnCode]] = {
        "number": lambda: ColumnCode(name, "number"),
        "category": lambda: _categories(name, cells, place),
        "list": lambda: _lists(name, [len(_list(cell, row)) for cell, row in zip(cells, rows, strict=True)]),
        "cell": lambda: _cells(name, [edges_of(str(cell), row) for cell, row in zip(cells, rows, strict=True)]),
    }
    return makers[kind]()


def _categories(name: str, cells: Sequence[object], place: str) -> ColumnCode:
    choices = sorted({str(cell) for cell in cells})
    if len(choices) > _MOST_CATEGORIES:
        raise NasError(
            f"{place}: column {name!r} has {len(choices)} different texts, more than {_MOST_CATEGORIES}: it names rows "
            "rather than describing them; leave it out with --features"
        )
    return ColumnCode(name, "category", tuple(choices))


def _lists(name: str, lengths: list[int]) -> ColumnCode:
    return ColumnCode(name, "list", length=max(lengths), varying=len(set(lengths)) > 1)


def _cells(name: str, cells: list[list[str]]) -> ColumnCode:
    length = len(cells[0])
    choices = sorted({f"{position}:{edge}" for edges in cells for position, edge in enumerate(edges)})
    return ColumnCode(name, "cell", tuple(choices), length)


def _number(cell: object, place: str) -> float:
    value = float(str(cell)) if not isinstance(cell, bool | np.bool_) else float(cell)
    if not math.isfinite(value):
        raise NasError(f"{place}: must be a finite number, got {_short(cell)}; mend or remove the row")
    return value


def _list(cell: object, place: str) -> list[float]:
    try:
        values = json.loads(cell) if isinstance(cell, str) else list(cell)  # type: ignore[call-overload]
        return [_number(value, place) for value in values]
    except NasError:
        raise
    except ValueError:
        raise NasError(f"{place}: must be a list of numbers such as [3, 5, 7], got {_short(cell)}") from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _require(text: str, choices: Sequence[str], place: str) -> None:
    if text not in choices:
        raise NasError(
            f"{place}: must be one of {', '.join(choices)}, the values in the table of the fit, got {text!r}; "
            "fit on a table that holds it"
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
