"""Devices as data: one YAML file each in `devices/`, every number in it with its `source:`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources as package_resources
from importlib.resources.abc import Traversable
from typing import Literal, TypeVar, get_args

import yaml

from hw_models.bit_flexible import BitFlexible
from hw_models.unrolled import RESOURCES, unsupported
from nas.errors import NasError
from nas.network import FLOAT_BITS, Network

Family = Literal["onnxruntime", "unrolled-fpga", "bit-flexible"]
_Value = TypeVar("_Value", int, str)

METRICS: Mapping[Family, tuple[str, ...]] = {
    "onnxruntime": ("error", "latency_s", "weight_bytes"),
    "unrolled-fpga": ("error", "latency_s", "weight_bytes", "lut", "ff", "dsp", "bram"),
    "bit-flexible": ("error", "latency_s", "weight_bytes"),
}
"""What a device family can tell of a network; all of it is minimised."""

_COMMON_KEYS = ("family", "title", "weight_bits", "act_bits", "objectives")
_FAMILY_KEYS: Mapping[Family, tuple[str, ...]] = {
    "onnxruntime": ("threads",),
    "unrolled-fpga": ("part", "clock_hz", "resources"),
    "bit-flexible": ("clock_hz", "array"),
}


_ARRAY = ("rows", "columns", "depthwise_macs", "bits_per_cycle", "output_bits")


@dataclass(frozen=True, slots=True)
class Resources:
    """What an FPGA has: lookup tables, flip-flops, DSP slices, block RAMs of 18 Kb."""

    lut: int
    ff: int
    dsp: int
    bram: int


@dataclass(frozen=True, slots=True)
class Device:
    """A target of the search.

    Attributes:
        name: Name of its file.
        family: How networks are run and priced on it.
        title: For reports.
        weight_bits: Weight widths it supports; 32 stands for float.
        act_bits: Activation widths it supports; 32 stands for float.
        objectives: Metrics a search minimises unless the config names others.
        part: FPGA part, as vendor tools name it.
        clock_hz: Clock of an FPGA or an array.
        resources: What an FPGA has.
        threads: CPU threads a model runs on.
        array: Array of a bit-flexible processor.
    """

    name: str
    family: Family
    title: str
    weight_bits: tuple[int, ...]
    act_bits: tuple[int, ...]
    objectives: tuple[str, ...]
    part: str | None = None
    clock_hz: float | None = None
    resources: Resources | None = None
    threads: int | None = None
    array: BitFlexible | None = None


def device_names() -> tuple[str, ...]:
    """Names of all devices, sorted."""
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if _is_device(entry)))


def load_device(name: str) -> Device:
    """The device of this name.

    Raises:
        NasError: There is none, or its file is at fault; the message names the key.
    """
    if name not in device_names():
        raise NasError(f"device {name!r} is unknown{_nearest(name, device_names())}")
    return parse_device(name, device_text(name))


def device_text(name: str) -> str:
    """The file of the device of this name: every number with its source."""
    return (_folder() / f"{name}.yaml").read_text(encoding="utf-8")


def unsupported_layers(device: Device, network: Network) -> list[str]:
    """What of a network a device cannot run whatever its bits: one fault for each law, with the layers against it."""
    match device.family:
        case "onnxruntime" | "bit-flexible":
            return []
        case "unrolled-fpga":
            faults: dict[str, list[str]] = {}
            for layer in network:
                if reason := unsupported(layer):
                    faults.setdefault(reason, []).append(layer.name)
            return [f"{device.name}: {_first_of(names)}: {reason}" for reason, names in faults.items()]


def _first_of(layers: list[str]) -> str:
    return f"layer {layers[0]}" + (f" and {len(layers) - 1} more" if len(layers) > 1 else "")


def parse_device(name: str, text: str) -> Device:
    """Read a device from the text of its YAML file.

    Raises:
        NasError: A key is unknown or missing, or a number is out of range or without a source.
    """
    try:
        entries = _mapping(yaml.safe_load(text), f"device {name}")
    except yaml.YAMLError as error:
        raise NasError(f"device {name}: is not valid YAML: {error}") from error
    family = _choice(entries.get("family"), get_args(Family), f"device {name}: family")
    _require_keys(entries, (*_COMMON_KEYS, *_FAMILY_KEYS[family]), f"device {name}")
    field = _Fields(f"device {name}", entries)
    common = (
        name, family, field.text("title"), field.bits("weight_bits"), field.bits("act_bits"),
        field.objectives(METRICS[family]),
    )  # fmt: skip
    match family:
        case "onnxruntime":
            return Device(*common, threads=int(field.number("threads", whole=True, least=1)))
        case "unrolled-fpga":
            parts = field.inner("resources", RESOURCES)
            have = Resources(*(int(parts.number(key, whole=True, least=0)) for key in RESOURCES))
            clock_hz = field.number("clock_hz", whole=False, least=1)
            return Device(*common, part=field.text("part"), clock_hz=clock_hz, resources=have)
        case "bit-flexible":
            clock_hz, sizes = field.number("clock_hz", whole=False, least=1), field.inner("array", _ARRAY)
            array = BitFlexible(clock_hz, *(int(sizes.number(key, whole=True, least=1)) for key in _ARRAY))
            return Device(*common, clock_hz=clock_hz, array=array)


@dataclass(frozen=True)
class _Fields:
    """The entries of one mapping, each read with a check that names place and key."""

    where: str
    entries: Mapping[str, object]

    def text(self, key: str) -> str:
        value = self.entries[key]
        if not isinstance(value, str) or not value.strip():
            raise NasError(f"{self.where}: {key} must be a text, got {value!r}")
        return value

    def inner(self, key: str, keys: tuple[str, ...]) -> _Fields:
        where = f"{self.where}: {key}"
        entries = _mapping(self.entries[key], where)
        _require_keys(entries, keys, where)
        return _Fields(where, entries)

    def sourced(self, key: str) -> object:
        """The value of `{value: ..., source: "..."}`."""
        fields = self.inner(key, ("value", "source"))
        fields.text("source")
        return fields.entries["value"]

    def number(self, key: str, *, whole: bool, least: float) -> float:
        value = self.sourced(key)
        if not isinstance(value, int if whole else int | float) or isinstance(value, bool) or not value >= least:
            kind = "a whole number" if whole else "a number"
            raise NasError(f"{self.where}: {key}: value must be {kind} of at least {least:g}, got {value!r}")
        return float(value)

    def bits(self, key: str) -> tuple[int, ...]:
        allowed = (*range(2, 17), FLOAT_BITS)
        return self._distinct(key, self.sourced(key), allowed, f"bit widths 2..16, or {FLOAT_BITS} for float")

    def objectives(self, metrics: tuple[str, ...]) -> tuple[str, ...]:
        return self._distinct("objectives", self.entries["objectives"], metrics, f"metrics out of {', '.join(metrics)}")

    def _distinct(self, key: str, values: object, allowed: tuple[_Value, ...], law: str) -> tuple[_Value, ...]:
        if isinstance(values, list) and values and all(value in allowed for value in values):
            picked = tuple(allowed[allowed.index(value)] for value in values)
            if len(set(picked)) == len(picked):
                return picked
        raise NasError(f"{self.where}: {key} must list distinct {law}; got {values!r}")


def _folder() -> Traversable:
    return package_resources.files("hw_models") / "devices"


def _is_device(entry: Traversable) -> bool:
    return entry.name.endswith(".yaml")


def _mapping(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise NasError(f"{where} must be a mapping of keys to values, got {value!r}")
    return {str(key): entry for key, entry in value.items()}


def _choice(value: object, choices: tuple[Family, ...], where: str) -> Family:
    for choice in choices:
        if value == choice:
            return choice
    raise NasError(f"{where} must be one of {', '.join(choices)}; got {value!r}{_nearest(str(value), choices)}")


def _require_keys(entries: Mapping[str, object], keys: tuple[str, ...], where: str) -> None:
    for key in entries:
        if key not in keys:
            raise NasError(f"{where}: {key} is an unknown key{_nearest(key, keys)}")
    for key in keys:
        if key not in entries:
            raise NasError(f"{where}: {key} is missing; add it{' with its source' if key != 'source' else ''}")


def _nearest(name: str, names: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(names)}"
