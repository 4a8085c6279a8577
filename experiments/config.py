"""The config: one YAML file, validated whole before anything starts.

To add a setting, add a line to its section here; unknown keys, units and fault reports follow from its type.
"""

from __future__ import annotations

import dataclasses
import json
import re
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PlainSerializer,
    PlainValidator,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from experiments.strict import Section, faults, lookup, read_yaml, report, validated
from experiments.targets import Target, unsupported
from experiments.units import FRACTION, quantity
from nas.errors import NasError
from nas.search import SAMPLERS
from nas.search.archive import Sampler
from nas.spaces import SPACES, Choices

LEAST_TRAINING_SHARE = 0.2


def _folder_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise NasError(
            f"must name a folder: letters, digits, '.', '_' and '-', the first a letter or digit; got {name!r}"
        )
    return name


def _space(value: object) -> Choices:
    if not isinstance(value, dict) or "name" not in value:
        raise NasError(f"must be a mapping with a name, one of {', '.join(SPACES)}; got {value!r}")
    kind: type[Choices] = lookup(SPACES, value["name"], "space")
    return validated(kind, {key: entry for key, entry in value.items() if key != "name"})


def _space_values(space: Choices) -> dict[str, Any]:
    name = next(name for name, kind in SPACES.items() if isinstance(space, kind))
    return {"name": name, **dataclasses.asdict(space)}


def _samplers(value: object) -> dict[str, Sampler]:
    if not isinstance(value, dict) or not value:
        raise NasError(f"must map at least one of {', '.join(SAMPLERS)} to its settings; got {value!r}")
    samplers: dict[str, Sampler] = {}
    found: list[tuple[tuple[int | str, ...], str]] = []
    for name, settings in value.items():
        try:
            samplers[name] = validated(lookup(SAMPLERS, name, "sampler"), settings)
        except ValidationError as error:
            found += [((name, *e["loc"]), e["msg"]) for e in error.errors()]
        except NasError as error:
            found.append(((name,), str(error)))
    if found:
        raise faults(found)
    return samplers


def _sampler_values(samplers: dict[str, Any]) -> dict[str, Any]:
    return {name: dataclasses.asdict(settings) for name, settings in samplers.items()}


Fraction = Annotated[float, BeforeValidator(partial(quantity, dimension=FRACTION)), Field(gt=0, lt=1)]


class Data(Section):
    """A data set, the shares of it that do not train, and how many pixels augmentation shifts an image."""

    name: Literal["digits"]
    validation: Fraction = 0.25
    test: Fraction = 0.2
    shift: NonNegativeInt = 1

    @model_validator(mode="after")
    def _leave_training_data(self) -> Self:
        if self.validation + self.test >= 1 - LEAST_TRAINING_SHARE:
            law = f"validation + test must be below {1 - LEAST_TRAINING_SHARE:g}, the rest trains"
            raise NasError(f"{law}; got {self.validation:g} + {self.test:g}")
        return self


class Epochs(Section):
    """Epochs of each phase of progressive shrinking; 0 leaves a phase out."""

    full: PositiveInt
    kernel: NonNegativeInt = 0
    depth: NonNegativeInt = 0
    width: NonNegativeInt = 0
    precision: NonNegativeInt = 0


class SupernetSettings(Section):
    """How the supernet is trained.

    `distillation` weighs the loss against the full network's soft targets; `calibration` images of the training
    split give a subnet its BatchNorm statistics and activation formats.
    """

    epochs: Epochs
    batch: PositiveInt = 64
    learning_rate: PositiveFloat = 3e-3
    weight_decay: NonNegativeFloat = 1e-4
    distillation: Annotated[float, Field(ge=0, le=1)] = 0.5
    subnets_per_step: PositiveInt = 1
    calibration: PositiveInt = 512


class AccuracySettings(Section):
    """The accuracy predictor: the subnets evaluated for it, and the share of them that only scores it."""

    kind: Literal["gp"] = "gp"
    samples: PositiveInt
    held_out: Fraction = 0.2


class LatencySettings(Section):
    """The latency predictor of a measured device: the subnets measured for it, and the share that only scores it."""

    samples: PositiveInt
    held_out: Fraction = 0.2


class PredictorSettings(Section):
    """What is learned from sampled subnets."""

    accuracy: AccuracySettings
    latency: LatencySettings


class SearchSettings(Section):
    """The samplers that look for fronts, by name, each with its own settings."""

    samplers: Annotated[dict[str, Sampler], PlainValidator(_samplers), PlainSerializer(_sampler_values)]


class FinalizeSettings(Section):
    """How many members of a front are fine-tuned and measured, and how many 8-bit dense ones for comparison."""

    members: PositiveInt
    baseline: NonNegativeInt = 0
    epochs: PositiveInt
    learning_rate: PositiveFloat = 1e-3


class Config(Section):
    """A whole run."""

    name: Annotated[str, AfterValidator(_folder_name)]
    seed: NonNegativeInt = 0
    data: Data
    space: Annotated[Choices, PlainValidator(_space), PlainSerializer(_space_values)]
    supernet: SupernetSettings
    predictors: PredictorSettings
    devices: tuple[Target, ...]
    search: SearchSettings
    finalize: FinalizeSettings

    @field_validator("devices")
    @classmethod
    def _serve_each_device_once(cls, targets: tuple[Target, ...], info: ValidationInfo) -> tuple[Target, ...]:
        if not targets:
            raise NasError("must list at least one device; `nas devices` shows which there are")
        names = [target.name for target in targets]
        repeated = [((i, "name"), f"{n} is listed twice; keep one") for i, n in enumerate(names) if n in names[:i]]
        space: Choices | None = info.data.get("space")
        lacking = [((i, "name"), law) for i, n in enumerate(names) if space for law in unsupported(n, space.precision)]
        if repeated or lacking:
            raise faults(repeated + lacking)
        return targets

    def slice(self, *paths: str) -> str:
        """Parts of the config as stable JSON, to hash.

        Args:
            paths: Key paths such as `supernet` or `predictors.accuracy`; a device goes by its name,
                `devices.zu3eg`.
        """
        return json.dumps({path: self._at(path) for path in paths}, sort_keys=True, separators=(",", ":"))

    def _at(self, path: str) -> Any:
        value: Any = self.model_dump(mode="json")
        for key in path.split("."):
            value = next(e for e in value if e["name"] == key) if isinstance(value, list) else value[key]
        return value

    def to_yaml(self) -> str:
        """The config with every default written out; loads to an equal config."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_config(path: Path) -> Config:
    """Read and validate a config file.

    Raises:
        NasError: The file cannot be read, or it has faults: all of them, one a line, each with its key path.
    """
    return config_from(read_yaml(path), str(path))


def config_from(values: object, where: str) -> Config:
    """Validate a config that is already read; `where` names it in the faults, as `load_config`."""
    try:
        return validated(Config, values)
    except ValidationError as error:
        lines = report(error)
        raise NasError("\n".join([f"{where}: {len(lines)} fault{'s' * (len(lines) > 1)}", *lines])) from None
