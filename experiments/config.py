"""The config: one YAML file, validated whole before anything starts.

To add a setting, add a line to its section here; unknown keys, units and fault reports follow from its type.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeInt,
    PlainSerializer,
    PlainValidator,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from experiments.strict import Fault, Section, faults, lookup, read_yaml, report, suggest, validated
from experiments.targets import Target, unsupported
from experiments.units import FRACTION, quantity
from nas.errors import NasError
from nas.genotype import SearchSpace
from nas.search import SAMPLERS
from nas.search.archive import Sampler
from nas.spaces import SPACES, Choices
from supernet.data import SOURCES, Source
from supernet.settings import PHASES, Range, Training, Tuned

if TYPE_CHECKING:
    from supernet.data.split import Dataset

T = TypeVar("T")

_MOST_WEIGHED = 4
"""Objectives up to which the expected growth of the hypervolume is computed: it takes a grid over all but one."""


def _folder_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise NasError(
            f"must name a folder: letters, digits, '.', '_' and '-', the first a letter or digit; got {name!r}"
        )
    return name


def _named(value: object, registry: Mapping[str, type[T]], what: str) -> tuple[type[T], dict[str, Any]]:
    """The entry that a section names, and the section's settings of it."""
    if not isinstance(value, dict) or "name" not in value:
        raise NasError(f"must be a mapping with a name, one of {', '.join(registry)}; got {value!r}")
    return lookup(registry, value["name"], what), {key: entry for key, entry in value.items() if key != "name"}


def _space(value: object) -> Choices:
    return validated(*_named(value, SPACES, "space"))


def _space_values(space: Choices) -> dict[str, Any]:
    name = next(name for name, kind in SPACES.items() if isinstance(space, kind))
    return {"name": name, **dataclasses.asdict(space)}


@dataclass(frozen=True)
class Data:
    """A data set, and the folder that holds its files; None: the environment's NAS_DATA, or `data`."""

    source: Source
    root: str | None = None

    def load(self, seed: int) -> Dataset:
        """Read and split it.

        Raises:
            NasError: A file is missing or corrupt; the message gives the expected layout.
        """
        return self.source.load(Path(self.root or os.environ.get("NAS_DATA", "data")), seed)


def _data(value: object) -> Data:
    kind, settings = _named(value, SOURCES, "data set")
    root, found = settings.pop("root", None), list[Fault]()
    if not (root is None or isinstance(root, str)):
        found.append((("root",), f"must be the path of a folder; got {root!r}"))
    for key in (field.name for field in dataclasses.fields(kind) if field.name in ("validation", "test")):
        try:
            settings |= {key: quantity(settings[key], FRACTION)} if key in settings else {}
        except NasError as error:
            found.append(((key,), str(error)))
            settings.pop(key)
    return Data(_beside(found, kind, settings), root)


def _data_values(data: Data) -> dict[str, Any]:
    return {"name": data.source.name, **dataclasses.asdict(data.source), "root": data.root}


def _training(value: object) -> Training:
    """A training's settings, where a phase of one stage may give its epochs as a plain number."""
    if not isinstance(value, dict):
        return validated(Training, value)
    if isinstance(epochs := value.get("epochs"), dict):
        listed = {phase: length if isinstance(length, list) else [length] for phase, length in epochs.items()}
        value = value | {"epochs": listed}
    return _beside(_unknown_phases(value), Training, value)


def _unknown_phases(value: dict[str, Any]) -> list[Fault]:
    phases = next((known for strategy, known in PHASES.items() if strategy == value.get("strategy")), ())
    return [
        ((key, str(phase)), f"unknown phase of {value['strategy']}; {suggest(str(phase), phases)}")
        for key in ("epochs", "subnets_per_step")
        if phases and isinstance(value.get(key), dict)
        for phase in value[key]
        if phase not in phases
    ]


def _beside(found: list[Fault], kind: type[T], value: object) -> T:
    """The value, or all its faults: those found already, and those of its fields.

    Its own check of how the fields fit together says nothing new where some are known to be at fault.
    """
    try:
        made = validated(kind, value)
    except ValidationError as error:
        raise faults(found + [(e["loc"], e["msg"]) for e in error.errors() if e["loc"] or not found]) from None
    if found:
        raise faults(found)
    return made


def _samplers(value: object) -> dict[str, Sampler]:
    if not isinstance(value, dict) or not value:
        raise NasError(f"must map at least one of {', '.join(SAMPLERS)} to its settings; got {value!r}")
    samplers: dict[str, Sampler] = {}
    found: list[Fault] = []
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
    """The samplers that look for fronts, by name, each with its own settings.

    On each device the search is repeated after every `batch` of subnets on its front that are scored on the validation
    split and join the accuracy predictor's samples, until there were `evaluations` of them; 0 for a single search.
    """

    samplers: Annotated[dict[str, Sampler], PlainValidator(_samplers), PlainSerializer(_sampler_values)]
    evaluations: NonNegativeInt = 0
    batch: PositiveInt = 8


class FinalizeSettings(Section):
    """How many members of a front are fine-tuned and measured, and how many 8-bit dense ones for comparison.

    Their formats come from `range`. They are tuned further for `epochs`, 0 to leave it at that, where gradients pass
    the rounding by `gradient`; `lsq` learns the steps, too, where they need not be powers of two.
    """

    members: PositiveInt
    baseline: NonNegativeInt = 0
    epochs: NonNegativeInt
    learning_rate: PositiveFloat = 1e-3
    range: Range = "mse"
    gradient: Tuned = "clipped"


class Config(Section):
    """A whole run; `train_on` is what the supernet is trained on and its subnets are scored on."""

    name: Annotated[str, AfterValidator(_folder_name)]
    seed: NonNegativeInt = 0
    data: Annotated[Data, PlainValidator(_data), PlainSerializer(_data_values)]
    space: Annotated[Choices, PlainValidator(_space), PlainSerializer(_space_values)]
    supernet: Annotated[Training, PlainValidator(_training), PlainSerializer(dataclasses.asdict)]
    train_on: Literal["cpu", "cuda"] = "cpu"
    predictors: PredictorSettings
    devices: tuple[Target, ...]
    search: SearchSettings
    finalize: FinalizeSettings

    @field_validator("devices")
    @classmethod
    def _serve_each_device_once(cls, targets: tuple[Target, ...], info: ValidationInfo) -> tuple[Target, ...]:
        if not targets:
            raise NasError("must list at least one device; `nas device list` shows which there are")
        names = [target.name for target in targets]
        repeated = [((i, "name"), f"{n} is listed twice; keep one") for i, n in enumerate(names) if n in names[:i]]
        space: Choices | None = info.data.get("space")
        lacking = [((i, "name"), law) for i, n in enumerate(names) if space for law in unsupported(n, space.precision)]
        if repeated or lacking:
            raise faults(repeated + lacking)
        return targets

    @field_validator("search")
    @classmethod
    def _can_weigh_evaluations(cls, settings: SearchSettings, info: ValidationInfo) -> SearchSettings:
        for target in info.data.get("devices", ()) if settings.evaluations else ():
            if "error" not in target.objectives or len(target.objectives) > _MOST_WEIGHED:
                raise faults([(("evaluations",), (
                    f"subnets are chosen by the hypervolume they promise, for which a device needs error and at most "
                    f"{_MOST_WEIGHED - 1} other objectives; {target.name} has {', '.join(target.objectives)}: name "
                    f"fewer under its objectives, or set evaluations to 0"
                ))])  # fmt: skip
        return settings

    def build_space(self) -> SearchSpace:
        """The space over the shape of the data; reads no files."""
        return self.space.build(self.data.source.input_shape, self.data.source.classes)

    def slice(self, *paths: str) -> str:
        """Parts of the config as stable JSON, to hash.

        Args:
            paths: Key paths such as `supernet` or `predictors.accuracy`; a device goes by its name,
                `devices.zu3eg`.
        """
        return json.dumps({path: self._at(path) for path in paths}, sort_keys=True, separators=(",", ":"))

    def _at(self, path: str) -> Any:
        value: Any = self.model_dump(mode="json")
        for key in ("root", "workers"):  # where the files lie, and how many read them, changes nothing
            value["data"].pop(key, None)
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
