import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
import yaml
from typer.testing import CliRunner

from experiments.cli import app
from experiments.commands import Commands
from experiments.config import load_config
from experiments.strict import read_yaml
from hw_models.device import device_names
from nas.errors import NasError
from nas.genotype import count_networks

CONFIGS = Path(__file__).parents[2] / "experiments" / "configs"
MLP = CONFIGS / "digits-mlp.yaml"


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.yaml"
    path.write_text(MLP.read_text().replace("depth: [1", "deptth: [1").replace("seed: 0", "seed: -1"))
    return path


def test_check_accepts_every_shipped_config() -> None:
    for path in sorted(CONFIGS.glob("*.yaml")):
        result = CliRunner().invoke(app, ["check", str(path)])
        assert result.exit_code == 0, result.output
        assert "OK" in result.stdout
        assert all(target.name in result.stdout for target in load_config(path).devices)


def test_check_lists_all_faults_on_stderr(broken: Path) -> None:
    result = CliRunner().invoke(app, ["check", str(broken)])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"error: {broken}: 3 faults",
        "seed: must be greater than or equal to 0; got -1",
        "space.depth: is missing",
        "space.deptth: unknown key; did you mean 'depth'?",
    ]


def test_check_exits_with_0_or_2_as_a_command_too(broken: Path) -> None:
    command = [str(Path(sys.executable).with_name("nas")), "check"]
    good = subprocess.run([*command, str(MLP)], capture_output=True, text=True, check=False)
    bad = subprocess.run([*command, str(broken)], capture_output=True, text=True, check=False)
    assert (good.returncode, bad.returncode) == (0, 2)
    assert "did you mean 'depth'?" in bad.stderr
    assert "Traceback" not in bad.stderr


def test_space_prints_every_gene_and_the_exact_number() -> None:
    result = CliRunner().invoke(app, ["space", str(MLP)])
    assert result.exit_code == 0
    space = load_config(MLP).space.build((1, 8, 8), 10)
    assert all(gene.name in result.stdout for gene in space.genes)
    precision = math.prod(map(len, (space.genes[2].choices, space.genes[3].choices, space.genes[4].choices)))
    layer = len(space.genes[1].choices) * precision
    exact = sum(layer ** int(depth) for depth in space.genes[0].choices) * precision
    assert f"{len(space.genes)} genes, {exact} distinct networks" in result.stdout


@pytest.mark.parametrize("config", ["fashion", "cifar10", "imagenet-mobile", "imagenet-resnet"])
def test_check_and_space_read_no_data(config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_DATA", str(tmp_path / "nowhere"))
    path = CONFIGS / f"{config}.yaml"
    with pytest.raises(NasError, match="nowhere"):
        load_config(path).data.load(0)
    networks = count_networks(load_config(path).build_space())
    space = CliRunner().invoke(app, ["space", str(path)])
    assert space.exit_code == 0, space.output
    assert f", {networks} distinct networks (" in space.stdout
    check = CliRunner().invoke(app, ["check", str(path)])
    assert check.exit_code == 0, check.output
    assert f"{path}: OK" in check.stdout


def test_what_a_device_cannot_run_is_told_before_anything_starts(tmp_path: Path) -> None:
    path = tmp_path / "fashion.yaml"
    entries = read_yaml(CONFIGS / "fashion.yaml")
    entries["space"]["precision"] = {"weight_bits": [4, 8], "act_bits": [8, 32]}
    entries["devices"].append({"name": "zu3eg"})
    path.write_text(yaml.safe_dump(entries))
    for command in (["check", str(path)], ["run", str(path), "--runs", str(tmp_path / "runs")]):
        result = CliRunner().invoke(app, command)
        assert (result.exit_code, result.stdout) == (2, "")
        lines = result.stderr.removeprefix("error: ").splitlines()
        assert len(lines) == len(set(lines)) >= 2
        assert all(line.startswith("zu3eg: layer s") for line in lines)
        assert any("hswish" in line for line in lines)
    assert not (tmp_path / "runs").exists()


def test_devices_as_table_and_as_json() -> None:
    table = CliRunner().invoke(app, ["device", "list"])
    assert all(name in table.stdout for name in device_names())
    listed = json.loads(CliRunner().invoke(app, ["device", "list", "--json"]).stdout)
    assert tuple(device["name"] for device in listed) == device_names()
    assert all(device["objectives"] for device in listed)


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (NasError("layer 7: too [wide]"), 2, "error: layer 7: too [wide]\n"),
        (KeyboardInterrupt(), 130, "stopped; run the same command again to resume\n"),
    ],
)
def test_an_error_or_an_interrupt_ends_a_command_with_a_message(raised: BaseException, code: int, message: str) -> None:
    commands = typer.Typer(cls=Commands)

    @commands.command()
    def work() -> None:
        raise raised

    @commands.command()
    def rest() -> None: ...

    result = CliRunner().invoke(commands, ["work"])
    assert (result.exit_code, result.stderr) == (code, message)


@pytest.mark.parametrize(
    "arguments", [["run", str(MLP), "--runs"], ["train", str(MLP), "--runs"], ["bench", "dqa", "--out"]]
)
def test_a_folder_that_cannot_be_is_named(arguments: list[str], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    result = CliRunner().invoke(app, [*arguments, str(file / "runs")])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {file / 'runs'}")
    assert "Not a directory; name a place that exists" in result.stderr
    assert file.read_text() == "mine"


def test_a_full_disk_ends_a_training_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk's end; run again, the training is that of a disk with room."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))"
    full = f"{limit}; from experiments.cli import app; app()"
    values = read_yaml(MLP)
    values["supernet"]["epochs"] = {"full": 1}
    values["supernet"]["checkpoint_steps"] = 5
    config = tmp_path / "short.yaml"
    config.write_text(yaml.safe_dump(values))
    arguments = ["train", str(config), "--runs", str(tmp_path / "runs")]
    ended = subprocess.run([sys.executable, "-c", full, *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "File too large; make room and run the same command again to resume" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list(tmp_path.glob("runs/*/*/checkpoint.pt"))
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert CliRunner().invoke(app, [*arguments[:-1], str(tmp_path / "room")]).exit_code == 0
    again, undisturbed = (
        torch.load(next(tmp_path.glob(f"{runs}/*/*/checkpoint.pt")), weights_only=False)["supernet"]
        for runs in ("runs", "room")
    )
    assert all(torch.equal(again[key], undisturbed[key]) for key in undisturbed)


def test_help_does_not_load_what_only_a_run_needs() -> None:
    code = "import sys, experiments.cli; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "sklearn", "matplotlib", "hls4ml", "optuna", "ortools", "pandas", "numpy", "pydantic"}
    assert "typer" in result.stdout.split()
    assert not heavy & set(result.stdout.split())
