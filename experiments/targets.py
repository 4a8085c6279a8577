"""The devices a config names: their metrics, limits on them, what they can compute with and what tools they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PlainSerializer, ValidationInfo, field_validator

from experiments.strict import Fault, Section, faults, suggest
from experiments.units import FRACTION, dimension_of, quantity
from fpga.tools import find
from hw_models.device import load_device, unsupported_layers
from nas.errors import NasError
from nas.genotype import SearchSpace
from nas.spaces.precision import PrecisionChoices


def _device(name: str) -> str:
    return load_device(name).name


@dataclass(frozen=True)
class Limit:
    """An upper limit in SI, and the probability with which a predicted metric has to stay within it."""

    max: float
    confidence: float | None = None


def _limit_values(limits: dict[str, Limit]) -> dict[str, Any]:
    """As people write them."""
    return {metric: one.max if one.confidence is None else asdict(one) for metric, one in limits.items()}


class Target(Section):
    """A device to specialise for: what to minimise there, and upper limits in SI.

    Where the config names no objectives, they are the device's own. What the device holds need not be said. A latency
    that is predicted from measurements may be limited with a probability: `latency_s: {max: 5 ms, confidence: 0.95}`.
    """

    name: Annotated[str, AfterValidator(_device)]
    objectives: tuple[str, ...] = Field(default=(), validate_default=True)
    constraints: Annotated[dict[str, Limit], PlainSerializer(_limit_values)] = Field(default_factory=dict)

    @field_validator("objectives")
    @classmethod
    def _known_objectives(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise NasError(f"objectives must be distinct; got {list(value)}")
        wrong = [((index,), law) for index, metric in enumerate(value) if (law := _not_a_metric(metric, info))]
        if wrong:
            raise faults(wrong)
        return value or (load_device(info.data["name"]).objectives if "name" in info.data else ())

    @field_validator("constraints", mode="plain")
    @classmethod
    def _limits(cls, value: object, info: ValidationInfo) -> dict[str, Limit]:
        if not isinstance(value, dict):
            raise NasError(f"must be a mapping of metrics to limits; got {value!r}")
        limits, wrong = dict[str, Limit](), list[Fault]()
        for metric, limit in value.items():
            try:
                limits[metric] = _limit(metric, limit, info)
            except NasError as error:
                wrong.append(((metric,), str(error)))
        if wrong:
            raise faults(wrong)
        return limits


def _not_a_metric(metric: str, info: ValidationInfo) -> str | None:
    if "name" not in info.data:
        return None
    device = load_device(info.data["name"])
    if metric in device.metrics:
        return None
    return f"no metric of {device.name}: {metric!r}; {suggest(metric, device.metrics)}"


def _limit(metric: str, value: object, info: ValidationInfo) -> Limit:
    if law := _not_a_metric(metric, info):
        raise NasError(law)
    confidence = None
    if isinstance(value, dict):
        if value.keys() != {"max", "confidence"}:
            raise NasError(f"a limit is a quantity, or has max and confidence; got {', '.join(map(str, value))}")
        confidence = _confidence(metric, value["confidence"], info)
        value = value["max"]
    dimension = dimension_of(metric)
    limit = quantity(value, dimension)
    if limit <= 0 or (dimension is FRACTION and limit >= 1):
        between = "between 0 and 1" if dimension is FRACTION else "above 0"
        raise NasError(f"a limit must be {between}, such as {dimension.examples}; got {value!r}")
    return Limit(limit, confidence)


def _confidence(metric: str, value: object, info: ValidationInfo) -> float:
    device = info.data.get("name")
    if metric != "latency_s" or device is None or load_device(device).family != "onnxruntime":
        raise NasError(f"{metric} of {device} is no latency predicted from measurements; give a plain limit")
    share = quantity(value, FRACTION)
    if not 0.5 <= share < 1:
        raise NasError(f"confidence must be at least 0.5 and below 1, such as 0.95; got {value!r}")
    return share


def unsupported(device_name: str, precision: PrecisionChoices) -> list[str]:
    """Faults of choices none of which a device can compute with."""
    device = load_device(device_name)
    wanted = (("weight_bits", precision.weight_bits), ("act_bits", precision.act_bits))
    return [
        f"{device.name} supports none of space.precision.{key} {list(choices)}; add one of {list(has)}"
        for (key, choices), has in zip(wanted, (device.weight_bits, device.act_bits), strict=True)
        if not set(choices) & set(has)
    ]


def require_operations(targets: Sequence[Target], space: SearchSpace) -> None:
    """Refuse a space that has an operation which one of the devices cannot run."""
    devices, maximal = [load_device(target.name) for target in targets], space.maximal()
    lacking = dict.fromkeys(
        law for device in devices for network in maximal for law in unsupported_layers(device, network)
    )
    if lacking:
        raise NasError("\n".join(lacking))


def require_tools(targets: Sequence[Target]) -> None:
    """Refuse a run whose FPGA designs could not be verified for want of a compiler."""
    if any(load_device(target.name).resources for target in targets):
        find("g++")
