"""Devices as data: one YAML file each, every number in it with its `source:`.

Those that come with hwnas are in `hw_models/devices/`; a user's own, which `nas device add` writes, are in the folder
that NAS_DEVICES names, `devices` if it does not. A file that says `like: NAME` has the entries of that device's file
where it has none of its own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources as package_resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml

from hw_models.bit_flexible import BitFlexible, FusionEnergy
from hw_models.energy import EnergyTable
from hw_models.engines import DEFAULT
from hw_models.families import (
    BENCH,
    COMMON_KEYS,
    FAMILY_KEYS,
    OPTIONAL_KEYS,
    Family,
    Positions,
    Schedule,
    metrics_of,
)
from hw_models.fields import Fields, mapping, nearest, require_keys
from hw_models.fitted import Fitted
from hw_models.roofline import Roofline
from hw_models.systolic import Systolic
from hw_models.unrolled import RESOURCES, unsupported
from nas.errors import NasError
from nas.network import Network

_Name = TypeVar("_Name", bound=str)

_ARRAY = ("rows", "columns", "depthwise_macs", "bits_per_cycle", "output_bits")
_SYSTOLIC_ARRAY = ("rows", "columns", "bits")
_FUSION_ENERGIES = ("power_w", "product_j", "bit_j")
_ENERGIES = ("register_j_per_byte", "buffer_j_per_byte", "dram_j_per_byte")


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
        schedule: How the layers of a folded design take turns.
        positions: How an unrolled design goes through a layer's positions.
        threads: CPU threads a model runs on.
        engine: What runs the models, one of `hw_models.engines.ENGINES`.
        host: Another machine to measure on, as ssh takes it; None for this one.
        python: The command that starts Python there.
        array: Array of a bit-flexible processor.
        roofline: Peak rates, of a device that is priced by them.
        systolic: A systolic array and its memory.
        energies: Energy of each operation and byte, where it is known.
        flash_bytes: What a microcontroller has for weights.
        sram_bytes: What a microcontroller has for activations.
        fitted: Costs of kernels, of a device that is known by a table.
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
    schedule: Schedule | None = None
    positions: Positions = "streamed"
    threads: int | None = None
    engine: str = DEFAULT
    host: str | None = None
    python: str = "python3"
    array: BitFlexible | None = None
    roofline: Roofline | None = None
    systolic: Systolic | None = None
    energies: EnergyTable | FusionEnergy | None = None
    flash_bytes: int | None = None
    sram_bytes: int | None = None
    fitted: Fitted | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """What this device can tell of a network."""
        return metrics_of(self.family, self.energies is not None)

    @property
    def holds(self) -> Mapping[str, float]:
        """The most that a network may take of what this device has, by metric."""
        parts = {} if self.resources is None else {name: getattr(self.resources, name) for name in RESOURCES}
        memories = {"weight_bytes": self.flash_bytes, "peak_bytes": self.sram_bytes}
        return {name: float(most) for name, most in {**parts, **memories}.items() if most is not None}


def device_names() -> tuple[str, ...]:
    """Names of all devices, sorted."""
    return tuple(sorted(_files()))


def user_folder() -> Path:
    """Where a user's own devices are; it need not exist."""
    return Path(os.environ.get("NAS_DEVICES", "devices"))


def load_device(name: str) -> Device:
    """The device of this name.

    Raises:
        NasError: There is none, or its file is at fault; the message names the key.
    """
    if name not in device_names():
        raise NasError(f"device {name!r} is unknown{nearest(name, device_names())}")
    return parse_device(name, device_text(name))


def device_text(name: str) -> str:
    """The file of the device of this name: every number with its source."""
    return _files()[name].read_text(encoding="utf-8")


def liked(name: str) -> str | None:
    """The device whose entries the file of this name has where it lacks its own; None where it has all."""
    return None if (like := _entries(name, device_text(name)).get("like")) is None else str(like)


def unsupported_layers(device: Device, network: Network) -> list[str]:
    """What of a network a device cannot run whatever its bits: one fault for each law, with the layers against it."""
    match device.family:
        case "onnxruntime" | "bit-flexible" | "roofline" | "systolic" | "microcontroller" | "fitted":
            return []
        case "unrolled-fpga" | "folded-fpga":
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
    entries = _entries(name, text)
    if "like" in entries:
        entries = _liked(name, entries.pop("like")) | entries
    family: Family = _choice(entries.get("family"), get_args(Family), f"device {name}: family")
    optional = OPTIONAL_KEYS.get(family, ())
    require_keys(entries, (*COMMON_KEYS, *FAMILY_KEYS[family]), f"device {name}", optional)
    field = Fields(f"device {name}", entries)
    weight_bits, act_bits = field.bits("weight_bits"), field.bits("act_bits")
    objectives = field.objectives(metrics_of(family, "energy" in entries))
    common = (name, family, field.text("title"), weight_bits, act_bits, objectives)
    widest = max(*weight_bits, *act_bits)
    match family:
        case "onnxruntime":
            threads = int(field.number("threads", whole=True, least=1))
            engine, host, python = (field.text(key) if key in entries else None for key in BENCH)
            return Device(*common, threads=threads, engine=engine or DEFAULT, host=host, python=python or "python3")
        case "unrolled-fpga" | "folded-fpga":
            parts = field.inner("resources", RESOURCES)
            have = Resources(*(int(parts.number(key, whole=True, least=0)) for key in RESOURCES))
            fabric = (field.text("part"), field.number("clock_hz", least=1), have)
            if family == "folded-fpga":
                return Device(*common, *fabric, schedule=_named(field, "schedule", get_args(Schedule)))
            if "positions" not in entries:
                return Device(*common, *fabric)
            return Device(*common, *fabric, positions=_named(field, "positions", get_args(Positions)))
        case "bit-flexible":
            clock_hz, sizes = field.number("clock_hz", least=1), field.inner("array", _ARRAY)
            array = BitFlexible(clock_hz, *(int(sizes.number(key, whole=True, least=1)) for key in _ARRAY))
            return Device(*common, clock_hz=clock_hz, array=array, energies=_fusion_energies(field))
        case "roofline":
            return Device(*common, roofline=_roofline(field, widest), energies=_energies(field, widest))
        case "fitted":
            return Device(*common, fitted=_fitted(field))
        case "systolic":
            processor = _systolic(field, widest)
            energies = _energies(field, widest)
            return Device(*common, clock_hz=processor.clock_hz, systolic=processor, energies=energies)
        case "microcontroller":
            rates, energies = _roofline(field, widest), _energies(field, widest)
            flash, sram = (int(field.number(key, whole=True, least=1)) for key in ("flash_bytes", "sram_bytes"))
            return Device(*common, roofline=rates, energies=energies, flash_bytes=flash, sram_bytes=sram)


def _entries(name: str, text: str) -> dict[str, object]:
    try:
        return dict(mapping(yaml.safe_load(text), f"device {name}"))
    except yaml.YAMLError as error:
        raise NasError(f"device {name}: is not valid YAML: {error}") from error


def _liked(name: str, like: object) -> dict[str, object]:
    """The entries of the device that another one is like."""
    known = tuple(one for one in device_names() if one != name)
    if like not in known:
        raise NasError(f"device {name}: like must name another device, got {like!r}{nearest(str(like), known)}")
    entries = _entries(str(like), device_text(str(like)))
    if "like" in entries:
        raise NasError(f"device {name}: {like} has its entries from {entries['like']}; be like that one")
    return entries


def _named(field: Fields, key: str, choices: tuple[Any, ...]) -> Any:
    return _choice(field.text(key), choices, f"{field.where}: {key}")


def _fitted(field: Fields) -> Fitted:
    costs = mapping(field.sourced("kernels"), f"{field.where}: kernels: value")
    terms = {kind: _terms(value, f"{field.where}: kernels: {kind}") for kind, value in costs.items()}
    return Fitted(field.number("constant_s", least=0), terms)


def _terms(value: object, where: str) -> tuple[float, float, float]:
    match value:
        case [int() | float() as fixed, int() | float() as mac, int() | float() as element]:
            if min(fixed, mac, element) >= 0 and max(fixed, mac, element) < math.inf:
                return fixed, mac, element
    law = "must be three numbers of at least 0, the seconds of a kernel, a MAC and an element"
    raise NasError(f"{where} {law}; got {value!r}")


def _roofline(field: Fields, widest: int) -> Roofline:
    rates = field.by_unit("macs_per_s", widest, least=1)
    sparse = field.by_unit("sparse_macs_per_s", 0, least=1) if "sparse_macs_per_s" in field.entries else {}
    return Roofline(rates, field.number("bytes_per_s", least=1), field.number("launch_s", least=0), sparse)


def _systolic(field: Fields, widest: int) -> Systolic:
    sizes = field.inner("array", _SYSTOLIC_ARRAY)
    rows, columns, bits = (int(sizes.number(key, whole=True, least=1)) for key in _SYSTOLIC_ARRAY)
    if bits < widest:
        raise NasError(
            f"{sizes.where}: bits must be at least {widest}, the widest that the device supports; got {bits}"
        )
    return Systolic(field.number("clock_hz", least=1), rows, columns, bits, field.number("bytes_per_s", least=1))


def _fusion_energies(field: Fields) -> FusionEnergy | None:
    if "energy" not in field.entries:
        return None
    parts = field.inner("energy", _FUSION_ENERGIES)
    return FusionEnergy(*(parts.number(key, least=0) for key in _FUSION_ENERGIES))


def _energies(field: Fields, widest: int) -> EnergyTable | None:
    if "energy" not in field.entries:
        return None
    parts = field.inner("energy", ("mac_j", *_ENERGIES))
    return EnergyTable(parts.by_unit("mac_j", widest, least=0), *(parts.number(key, least=0) for key in _ENERGIES))


def _files() -> dict[str, Traversable]:
    """The file of each device, by its name; one that comes with hwnas goes before a user's own of the same name."""
    own, shipped = user_folder(), package_resources.files("hw_models") / "devices"
    entries = [*(own.iterdir() if own.is_dir() else ()), *shipped.iterdir()]
    return {entry.name.removesuffix(".yaml"): entry for entry in entries if entry.name.endswith(".yaml")}


def _choice(value: object, choices: tuple[_Name, ...], where: str) -> _Name:
    for choice in choices:
        if value == choice:
            return choice
    raise NasError(f"{where} must be one of {', '.join(choices)}; got {value!r}{nearest(str(value), choices)}")
