"""Strict reading: YAML into typed values, with all faults in one error, each under its key path.

Values follow JSON's rules: no text passes for a number and no `yes` for 1. Nested readers raise pydantic's
ValidationError, which pydantic merges into the outer one under the right path.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from nas.errors import NasError

T = TypeVar("T")
Location = tuple[int | str, ...]
Fault = tuple[Location, str]
"""Where it is, and the law with the value that breaks it."""

_LONGEST_VALUE = 60


class _Loader(yaml.SafeLoader):
    """YAML in which 3e-4 is a float (YAML 1.1 asks for 3.0e-4) and a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                problem = f"the key {key.value!r} is repeated; keep one of them"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


_EXPONENT = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def read_yaml(path: Path) -> Any:
    """Parse one YAML file of mappings, lists, text and numbers.

    Raises:
        NasError: The file cannot be read, is not YAML, repeats a key, or holds something else; with the line.
    """
    value = _parse(path)
    try:
        json.dumps(value, default=str)
    except (TypeError, ValueError) as error:
        raise NasError(f"{path}: keys must be text, and nothing may contain itself: {error}") from error
    return value


def _parse(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise NasError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise NasError(f"{path}: {line}{error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise NasError(f"{path}: is not YAML text: {error}") from error


class Section(BaseModel):
    """A part of the config: no unknown keys, no changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def validated(kind: type[T], value: object) -> T:
    """A value of this type, made from what YAML gave.

    Args:
        kind: A pydantic model or a dataclass with `__pydantic_config__ = {"extra": "forbid"}`.
        value: Mappings, lists, text and numbers.

    Raises:
        ValidationError: With every fault; `NasError`s of the dataclasses' own checks are among them.
    """
    try:
        return TypeAdapter(kind).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        raise faults((e["loc"], _message(kind, e)) for e in error.errors()) from None


def faults(found: Iterable[Fault]) -> ValidationError:
    """One error that holds faults at these places, relative to the value at hand."""
    lines: list[InitErrorDetails] = [
        {"type": PydanticCustomError("fault", "{text}", {"text": text}), "loc": place, "input": None}
        for place, text in found
    ]
    return ValidationError.from_exception_data("faults", lines)


def report(error: ValidationError) -> list[str]:
    """The faults, one line each: key path, law, value."""
    return list(dict.fromkeys(_line(e["loc"], e["msg"]) for e in error.errors()))


def _line(place: Location, law: str) -> str:
    """A law that names the section where it holds does not name it twice."""
    return f"{_path(place)}: {law.removeprefix(f'{place[-1]}: ')}" if place else law


def suggest(name: str, valid: Iterable[str]) -> str:
    """What to write instead of an unknown name."""
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, 1)
    return f"did you mean {near[0]!r}?" if near else f"valid are {', '.join(names)}"


def lookup(registry: Mapping[str, T], name: object, what: str) -> T:
    """The entry of that name; a `NasError` with a suggestion where there is none."""
    if not isinstance(name, str) or name not in registry:
        raise NasError(f"unknown {what} {name!r}; {suggest(str(name), registry)}")
    return registry[name]


def _message(kind: type, error: ErrorDetails) -> str:
    match error["type"]:
        case "fault":
            return error["msg"]
        case "extra_forbidden" | "unexpected_keyword_argument":
            return f"unknown key; {suggest(str(error['loc'][-1]), _keys(kind, error['loc'][:-1]))}"
        case "missing":
            return "is missing"
        case "value_error" | "assertion_error":
            return str(error["ctx"]["error"])
    value = repr(error["input"])
    shown = value if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]}..."
    return f"{re.sub(r'^[A-Z][a-z]+ should', 'must', error['msg'])}; got {shown}"


def _keys(kind: Any, location: Location) -> list[str]:
    """The keys that are valid at a place inside a type."""
    for step in location:
        kind = _inside(kind, step)
    return list(kind.model_fields) if issubclass(kind, BaseModel) else [f.name for f in dataclasses.fields(kind)]


def _inside(kind: Any, step: int | str) -> Any:
    if isinstance(step, int):
        return typing.get_args(kind)[0]
    inner = typing.get_args(kind)[1] if typing.get_origin(kind) is dict else typing.get_type_hints(kind)[step]
    if typing.get_origin(inner) in (typing.Union, types.UnionType):
        return next(option for option in typing.get_args(inner) if option is not type(None))
    return inner


def _path(location: Location) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return text.removeprefix(".")
