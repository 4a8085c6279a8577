import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from experiments.config import Config, Data, load_config
from experiments.strict import read_yaml
from experiments.targets import Limit
from nas.errors import NasError
from nas.spaces import SPACES
from nas.spaces.mobile import MobileChoices
from supernet.data.digits import Digits
from supernet.data.split import Augmentation
from supernet.data.table import Table
from supernet.settings import Training

CONFIGS = Path("experiments/configs")
SHIPPED = sorted((Path(__file__).parents[2] / CONFIGS).glob("*.yaml"))
Edit = Callable[[dict[str, Any]], object]


def base() -> dict[str, Any]:
    return {
        "name": "tiny",
        "data": {"name": "digits"},
        "space": {
            "name": "mobile",
            "stem": 4,
            "stages": [{"width": 4, "stride": 1, "depth": [1, 2]}, {"width": 8, "stride": 2, "depth": [1]}],
            "kernel": [3, 5],
            "expand": [2, 3],
            "precision": {"weight_bits": [4, 8], "act_bits": [8, 32], "sparsity": [0, 0.5]},
        },
        "supernet": {"strategy": "progressive", "epochs": {"full": 2}, "batch": 64, "learning_rate": 1e-3},
        "predictors": {"accuracy": {"samples": 20}, "latency": {"samples": 10}},
        "devices": [{"name": "local-cpu", "constraints": {"error": "10 %", "latency_s": "100 us"}}, {"name": "zu3eg"}],
        "search": {"samplers": {"nsga2": {"population": 8, "generations": 2}}},
        "finalize": {"members": 2, "epochs": 1},
    }


def load(tmp_path: Path, edit: Edit = lambda _: None) -> Config:
    content = base()
    edit(content)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return load_config(path)


def faults(tmp_path: Path, edit: Edit) -> list[str]:
    with pytest.raises(NasError) as caught:
        load(tmp_path, edit)
    first, *lines = str(caught.value).split("\n")
    assert first == f"{tmp_path / 'config.yaml'}: {len(lines)} fault{'s' if len(lines) > 1 else ''}"
    return lines


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_config_loads_and_survives_being_written_out(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    copy = tmp_path / "config.yaml"
    copy.write_text(config.to_yaml())
    assert load_config(copy) == config


def test_those_of_the_issues_are_shipped() -> None:
    assert {path.stem for path in SHIPPED} >= {
        "digits", "digits-mlp", "fashion", "cifar10", "imagenet-mobile", "imagenet-resnet",
    }  # fmt: skip


def test_values_are_typed_and_in_si(tmp_path: Path) -> None:
    config = load(tmp_path)
    assert isinstance(config.space, MobileChoices)
    assert config.space.kernel == (3, 5)
    assert config.devices[0].constraints == {"error": Limit(0.1), "latency_s": Limit(1e-4)}
    assert config.devices[0].objectives == ("error", "latency_s", "weight_bytes")
    assert config.devices[1].objectives == ("error", "latency_s", "lut")
    assert config.search.samplers["nsga2"].__class__.__name__ == "Nsga2"
    assert config.data == Data(Digits(validation=0.25, test=0.2))
    assert config.supernet == Training("progressive", {"full": (2,)}, batch=64, learning_rate=1e-3)
    assert config.train_on == "cpu"


def test_epochs_are_a_number_or_one_for_each_stage_of_a_phase(tmp_path: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        content["supernet"] |= {
            "epochs": {"full": 3, "depth": [1, 2], "width": [4]},
            "subnets_per_step": {"depth": 2},
            "augmentation": {"shift": 1, "flip": True},
        }

    training = load(tmp_path, edit).supernet
    assert training.epochs == {"full": (3,), "depth": (1, 2), "width": (4,)}
    assert (training.networks("depth"), training.networks("width")) == (2, 1)
    assert training.augmentation == Augmentation(shift=1, flip=True)


TABLE = {
    "name": "table", "file": "jets/*.h5", "input_shape": [2], "classes": 5, "test_from": 10,
    "features": {"table": "jets", "names": "columns", "columns": ["mass", "width"]},
    "labels": {"table": "jets", "names": "columns", "columns": ["kind"]},
}  # fmt: skip
SOURCES: list[tuple[dict[str, Any], tuple[int, ...]]] = [
    ({"name": "digits", "validation": "30 %", "test": 0.1}, (1, 8, 8)),
    ({"name": "fashion-mnist", "validation": "5 %", "root": "somewhere"}, (1, 28, 28)),
    ({"name": "folder", "path": "pictures", "image_size": 16, "classes": 7, "workers": 0}, (3, 16, 16)),
    (TABLE, (2,)),
    ({"name": "jets", "file": "jets/*.h5", "particles": 8, "features": ["j1_ptrel"], "test": "30 %"}, (1, 8, 1)),
]


@pytest.mark.parametrize(("settings", "shape"), SOURCES, ids=[settings["name"] for settings, _ in SOURCES])
def test_a_data_source_is_its_settings_and_survives_being_written_out(
    settings: dict[str, Any], shape: tuple[int, ...], tmp_path: Path
) -> None:
    def edit(content: dict[str, Any]) -> None:
        content["data"] = settings
        content["space"] = {"name": "mlp", "depth": [1], "width": [8], "precision": content["space"]["precision"]}

    config = load(tmp_path, edit)
    source = config.data.source
    assert (source.name, source.input_shape) == (settings["name"], shape)
    assert config.data.root == settings.get("root")
    written = tmp_path / "written.yaml"
    written.write_text(config.to_yaml())
    assert load_config(written) == config
    (network, *_) = config.build_space().maximal()
    assert network.input.out_shape == (math.prod(shape),)
    assert network.layers[-1].out_shape == (source.classes,)


def test_data_lie_at_root_else_at_nas_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder, rows in ((here, 30), (there, 60)):
        folder.mkdir()
        np.savez(folder / "rows.npz", x=np.random.default_rng(0).random((rows, 3)), y=np.arange(rows) % 3)
    monkeypatch.setenv("NAS_DATA", str(there))
    table = Table("rows.npz", (3,), 3)

    def images(data: Data) -> int:
        loaded = data.load(0)
        return sum(map(len, (loaded.train, loaded.validation, loaded.test)))

    assert images(Data(table)) == 60
    assert images(Data(table, str(here))) == 30
    monkeypatch.delenv("NAS_DATA")
    monkeypatch.chdir(tmp_path)
    here.rename(tmp_path / "data")
    assert images(Data(table)) == 30
    monkeypatch.setenv("NAS_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(NasError, match=r"rows\.npz"):
        images(Data(table))


def test_exponents_without_a_point_are_floats(tmp_path: Path) -> None:
    path = tmp_path / "numbers.yaml"
    path.write_text("[3e-4, 1E3, -2e+1, .5e1, 3.0e-4, 12, 3e, e4, 1.5]")
    assert read_yaml(path) == [3e-4, 1000.0, -20.0, 5.0, 3e-4, 12, "3e", "e4", 1.5]


SINGLE: list[tuple[str, Edit]] = [
    ("sead: unknown key; did you mean 'seed'?", lambda c: c.update(sead=1)),
    ("space.kernal: unknown key; did you mean 'kernel'?", lambda c: c["space"].update(kernal=[3])),
    (
        "space.stages[1].stryde: unknown key; did you mean 'stride'?",
        lambda c: c["space"]["stages"][1].update(stryde=2),
    ),
    (
        "space.precision.act_bit: unknown key; did you mean 'act_bits'?",
        lambda c: c["space"]["precision"].update(act_bit=[8]),
    ),
    (
        "supernet.epochs.qq: unknown phase of progressive; valid are depth, full, kernel, precision, width",
        lambda c: c["supernet"]["epochs"].update(qq=1),
    ),
    (
        "supernet.epochs.kernal: unknown phase of progressive; did you mean 'kernel'?",
        lambda c: c["supernet"]["epochs"].update(kernal=[1, 2]),
    ),
    (
        "supernet.epochs.full: unknown phase of sandwich; valid are precision, train",
        lambda c: c["supernet"].update(strategy="sandwich"),
    ),
    (
        "supernet.subnets_per_step.with: unknown phase of progressive; did you mean 'width'?",
        lambda c: c["supernet"].update(subnets_per_step={"with": 4}),
    ),
    (
        "supernet.epochs.full[1]: must be a valid integer; got 1.5",
        lambda c: c["supernet"].update(epochs={"full": [1, 1.5]}),
    ),
    (
        "supernet.epochs.full[0]: must be a valid integer; got '2'",
        lambda c: c["supernet"].update(epochs={"full": "2"}),
    ),
    (
        "supernet: epochs must hold epochs of the first phase of progressive, full; got {'depth': (1,)}",
        lambda c: c["supernet"].update(epochs={"depth": 1}),
    ),
    (
        "supernet.strategy: must be 'progressive', 'sandwich' or 'uniform'; got 'progresive'",
        lambda c: c["supernet"].update(strategy="progresive"),
    ),
    ("supernet.batch: is missing", lambda c: c["supernet"].pop("batch")),
    ("supernet: must be an object; got None", lambda c: c.update(supernet=None)),
    ("supernet: learning_rate must be positive; got 0.0", lambda c: c["supernet"].update(learning_rate=0)),
    (
        "supernet.optimiser: unknown key; did you mean 'optimizer'?",
        lambda c: c["supernet"].update(optimiser="sgd"),
    ),
    (
        "supernet.augmentation.flp: unknown key; did you mean 'flip'?",
        lambda c: c["supernet"].update(augmentation={"flp": True}),
    ),
    (
        "supernet.augmentation: shift must be at least 0 pixels, got -1",
        lambda c: c["supernet"].update(augmentation={"shift": -1}),
    ),
    ("train_on: must be 'cpu' or 'cuda'; got 'gpu'", lambda c: c.update(train_on="gpu")),
    (
        "devices[1].constraint: unknown key; did you mean 'constraints'?",
        lambda c: c["devices"][1].update(constraint={}),
    ),
    (
        "search.samplers.nsga2.populations: unknown key; did you mean 'population'?",
        lambda c: c["search"]["samplers"]["nsga2"].update(populations=1),
    ),
    (
        "search.samplers.optun: unknown sampler 'optun'; did you mean 'optuna'?",
        lambda c: c["search"]["samplers"].update(optun={}),
    ),
    ("space: unknown space 'mobil'; did you mean 'mobile'?", lambda c: c["space"].update(name="mobil")),
    ("space.stem: is missing", lambda c: c["space"].pop("stem")),
    ("space.stem: must be a valid integer; got '4'", lambda c: c["space"].update(stem="4")),
    ("seed: must be a valid integer; got True", lambda c: c.update(seed=True)),
    ("space.kernel[1]: must be a valid integer; got 5.5", lambda c: c["space"].update(kernel=[3, 5.5])),
    ("space: kernel choices must be odd, got [4]", lambda c: c["space"].update(kernel=[4])),
    (
        "space.precision: weight_bits must be 2..16, or 32 for float; got 1",
        lambda c: c["space"]["precision"].update(weight_bits=[1, 8]),
    ),
    (
        "space.stages[0]: depth must list distinct choices, at least one; got []",
        lambda c: c["space"]["stages"][0].update(depth=[]),
    ),
    (
        "devices[0].constraints.latency_s: must be a time, such as '5 ms', '100 us' or '40 ns'; got '5 MB'",
        lambda c: c["devices"][0]["constraints"].update(latency_s="5 MB"),
    ),
    (
        "devices[0].constraints.error: a limit must be between 0 and 1, such as '10 %' or 0.1; got 10",
        lambda c: c["devices"][0]["constraints"].update(error=10),
    ),
    (
        "devices[0].constraints.lut: no metric of local-cpu: 'lut'; valid are error, latency_s, weight_bytes",
        lambda c: c["devices"][0]["constraints"].update(lut=100),
    ),
    (
        "devices[1].objectives[0]: no metric of zu3eg: 'latency'; did you mean 'latency_s'?",
        lambda c: c["devices"][1].update(objectives=["latency"]),
    ),
    (
        "devices[0].constraints.latency_s: a limit is a quantity, or has max and confidence; got max, confidense",
        lambda c: c["devices"][0]["constraints"].update(latency_s={"max": "1 ms", "confidense": 0.9}),
    ),
    (
        "devices[0].constraints.latency_s: confidence must be at least 0.5 and below 1, such as 0.95; got 95",
        lambda c: c["devices"][0]["constraints"].update(latency_s={"max": "1 ms", "confidence": 95}),
    ),
    (
        "devices[1].constraints.lut: lut of zu3eg is no latency predicted from measurements; give a plain limit",
        lambda c: c["devices"][1].update(constraints={"lut": {"max": 30000, "confidence": 0.9}}),
    ),
    ("devices[1].name: device 'zu3g' is unknown; did you mean zu3eg?", lambda c: c["devices"][1].update(name="zu3g")),
    (
        "devices[1].name: local-cpu is listed twice; keep one",
        lambda c: c["devices"][1].update(name="local-cpu"),
    ),
    (
        "devices: must list at least one device; `nas device list` shows which there are",
        lambda c: c.update(devices=[]),
    ),
    ("data: unknown data set 'digit'; did you mean 'digits'?", lambda c: c["data"].update(name="digit")),
    ("data.validaton: unknown key; did you mean 'validation'?", lambda c: c["data"].update(validaton=0.1)),
    ("data.root: must be the path of a folder; got 3", lambda c: c["data"].update(root=3)),
    (
        "data.validation: must be a fraction, such as '10 %' or 0.1; got '5 MB'",
        lambda c: c["data"].update(validation="5 MB"),
    ),
    ("data: test must be a share between 0 and 1, got 1.5", lambda c: c["data"].update(test=1.5)),
    ("data: validation must be a share between 0 and 1, got 0", lambda c: c["data"].update(validation="0 %")),
    (
        "data: validation + test must leave images to train; got 1.1",
        lambda c: c["data"].update(validation=0.5, test=0.6),
    ),
    (
        "data.test: unknown key; valid are validation",
        lambda c: c.update(data={"name": "fashion-mnist", "test": "10 %"}),
    ),
    ("data.path: is missing", lambda c: c.update(data={"name": "folder", "image_size": 8, "classes": 2})),
    (
        "data.features.colums: unknown key; did you mean 'columns'?",
        lambda c: c.update(data=TABLE | {"features": TABLE["features"] | {"colums": []}}),
    ),
    (
        "data: must be a mapping with a name, one of digits, mnist, fashion-mnist, cifar10, cifar100, folder, table, "
        "jets; got 'digits'",
        lambda c: c.update(data="digits"),
    ),
    (
        "predictors.accuracy.samples: must be greater than 0; got 0",
        lambda c: c["predictors"]["accuracy"].update(samples=0),
    ),
    (
        "name: must name a folder: letters, digits, '.', '_' and '-', the first a letter or digit; got '../up'",
        lambda c: c.update(name="../up"),
    ),
]


@pytest.mark.parametrize(("line", "edit"), SINGLE, ids=[line.split(":")[0] for line, _ in SINGLE])
def test_a_fault_is_one_line_with_key_path_law_and_value(line: str, edit: Edit, tmp_path: Path) -> None:
    assert faults(tmp_path, edit) == [line]


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        content["sead"] = 1
        content["space"]["stages"][0]["stride"] = 0
        content["space"]["stages"][1]["with"] = 8
        content["space"]["precision"]["sparsity"] = [1.0]
        content["devices"][0]["constraints"] = {"error": "5 MB", "energy_j": 1}
        content["devices"][1]["name"] = "zu3g"
        content["search"]["samplers"] = {"nsga2": {"population": 1}, "annealing": {}}
        content["data"] = {"name": "digits", "root": 3, "validation": "x", "tset": 0.2}
        content["supernet"] |= {"epochs": {"full": "x", "deph": 1}, "batsh": 1, "clip": "y"}
        del content["finalize"]

    paths = [line.split(":")[0] for line in faults(tmp_path, edit)]
    assert sorted(paths) == sorted(
        [
            "sead",
            "space.stages[0]",
            "space.stages[1].with",
            "space.precision",
            "devices[0].constraints.error",
            "devices[0].constraints.energy_j",
            "devices[1].name",
            "search.samplers.nsga2",
            "search.samplers.annealing",
            "data.root",
            "data.validation",
            "data.tset",
            "supernet.epochs.full[0]",
            "supernet.epochs.deph",
            "supernet.batsh",
            "supernet.clip",
            "finalize",
        ]
    )


def test_choices_a_device_cannot_compute_with_are_a_fault_of_that_device(tmp_path: Path) -> None:
    (line,) = faults(tmp_path, lambda c: c["space"]["precision"].update(act_bits=[32]))
    assert line.startswith("devices[1].name: zu3eg supports none of space.precision.act_bits [32]; add one of [2, 3,")
    (line,) = faults(tmp_path, lambda c: c["space"]["precision"].update(act_bits=[8]))
    assert line == "devices[0].name: local-cpu supports none of space.precision.act_bits [8]; add one of [32]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nseed: 0\nname: b\n", "line 3: the key 'name' is repeated; keep one of them"),
        ("data:\n  name: digits\n  name: digits\n", "line 3: the key 'name' is repeated; keep one of them"),
        ("name: [1, 2\nseed: 0\n", "line 2: expected ',' or ']'"),
        ("name: a\n\tseed: 0\n", "line 2: found character '\\t'"),
        ("a: &a\n  b: *a\n", "nothing may contain itself"),
        ("2026-01-01: a\n", "keys must be text"),
        ("", "must be an object"),
        ("- name\n", "must be an object"),
        ("name: \x00\n", "not YAML text"),
    ],
)
def test_what_is_no_config_at_all_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(NasError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(NasError, match=r"nowhere\.yaml: cannot be read: No such file"):
        load_config(tmp_path / "nowhere.yaml")
    with pytest.raises(NasError, match="cannot be read: Is a directory"):
        load_config(tmp_path)


def test_a_slice_changes_with_its_own_part_alone(tmp_path: Path) -> None:
    config = load(tmp_path)
    searched = load(tmp_path, lambda c: c["search"]["samplers"]["nsga2"].update(population=10))
    assert searched.slice("search") != config.slice("search")
    assert searched.slice("seed", "data", "space", "supernet") == config.slice("seed", "data", "space", "supernet")
    relaxed = load(tmp_path, lambda c: c["devices"][0]["constraints"].update(error="20 %"))
    assert relaxed.slice("devices.local-cpu") != config.slice("devices.local-cpu")
    assert relaxed.slice("devices.zu3eg", "search") == config.slice("devices.zu3eg", "search")


def test_a_slice_does_not_depend_on_the_order_of_keys_or_on_how_a_quantity_is_written(tmp_path: Path) -> None:
    def rewrite(content: dict[str, Any]) -> None:
        content["devices"][0]["constraints"] = {"latency_s": "0.1 ms", "error": 0.1}
        content["space"] = dict(reversed(content["space"].items()))

    paths = ("space", "devices", "search", "supernet")
    assert load(tmp_path, rewrite).slice(*paths) == load(tmp_path).slice(*paths)


def test_a_slice_does_not_depend_on_where_the_data_lie_or_how_many_processes_decode_them(tmp_path: Path) -> None:
    folder = {"name": "folder", "path": "pictures", "image_size": 16, "classes": 7}
    one = load(tmp_path, lambda c: c.update(data=folder | {"root": "here", "workers": 2}))
    other = load(tmp_path, lambda c: c.update(data=folder | {"root": "there", "workers": 0}))
    assert one != other
    assert one.slice("data") == other.slice("data")
    assert one.slice("data") != load(tmp_path, lambda c: c.update(data=folder | {"path": "others"})).slice("data")


def test_a_config_does_not_change(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(tmp_path).seed = 1


@pytest.mark.parametrize("name", SPACES)
def test_a_space_is_checked_by_its_own_fields(name: str, tmp_path: Path) -> None:
    fields = dict.fromkeys(SPACES[name].__dataclass_fields__)
    lines = faults(tmp_path, lambda c: c.update(space={"name": name, **fields}))
    assert {line.split(":")[0] for line in lines} == {f"space.{field}" for field in fields}
