"""The runner really runs, in a shell of its own, behind an `ssh` that goes no further than this machine."""

import ast
import io
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from hw_models.device import load_device
from hw_models.engines import ENGINES
from hw_models.latency import Bench, measured_latencies
from hw_models.machine import Engine
from hw_models.measure import fingerprint
from hw_models.onnx_model import to_onnx
from hw_models.quantized_onnx import int8_network
from hw_models.reference import REFERENCE, random_design
from hw_models.remote import fingerprint_on, measure_on, pack
from nas.errors import NasError

HOST = "user@pi"
MODEL = to_onnx(random_design(REFERENCE, 1))
SSH = """#!/bin/sh
while [ "$1" != "--" ]; do shift; done
[ "$2" = {host} ] || { echo "ssh: Could not resolve hostname $2: Name or service not known" >&2; exit 255; }
echo "Welcome to Pi"
cd {home} && exec env -i HOME={home} TMPDIR={home} PATH=/usr/bin:/bin sh -c "$3"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is there on the other machine."""
    home, ssh = tmp_path / "home", tmp_path / "bin" / "ssh"
    for folder in (home, ssh.parent):
        folder.mkdir()
    ssh.write_text(SSH.replace("{host}", HOST).replace("{home}", str(home)))
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:/usr/bin:/bin")
    return home


@pytest.mark.parametrize(
    "engine", [pytest.param(name, marks=pytest.mark.slow if name == "executorch" else ()) for name in ENGINES]
)
def test_the_harness_there_is_the_harness_here(
    home: Path, engine: str, installed_engine: Callable[[str], Engine]
) -> None:
    installed_engine(engine)
    seen: list[tuple[int, int]] = []
    campaign = measure_on(
        HOST, {"a": MODEL, "b": MODEL}, 4, 3, engine=engine, python=sys.executable,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert campaign.fingerprint == fingerprint(1, engine)
    assert fingerprint_on(HOST, 1, engine, sys.executable) == campaign.fingerprint
    assert list(campaign.latency_s) == ["a", "b"]
    assert all(0.3 < seconds / campaign.reference_s < 3 for seconds in campaign.latency_s.values())
    assert (campaign.runs, campaign.rounds) == (3, 4)
    assert seen[-1] == (4, 4)
    assert list(home.iterdir()) == [], "nothing is left behind, nor has the engine written its reports"


def test_latencies_from_there_are_stored(home: Path, tmp_path: Path) -> None:
    device, path, bench = load_device("local-cpu"), tmp_path / "pi.jsonl", Bench(host=HOST, python=sys.executable)
    floats, _ = measured_latencies([REFERENCE], device, path, 0, bench=bench)
    found, campaigns = measured_latencies([REFERENCE], device, path, 0, bench=bench, int8=True)
    assert list(floats) == [REFERENCE.key]
    assert list(found) == [int8_network(REFERENCE).key]
    stored = path.read_bytes()
    assert measured_latencies([REFERENCE], device, path, 0, bench=bench, int8=True) == (found, campaigns)
    assert path.read_bytes() == stored


def test_an_unknown_host(home: Path) -> None:
    with pytest.raises(NasError, match=r"me@nowhere: no connection \(.*resolve hostname.*ssh-copy-id me@nowhere"):
        measure_on("me@nowhere", {"a": MODEL})


def test_a_host_is_never_an_option(home: Path) -> None:
    with pytest.raises(NasError, match="no connection"):
        fingerprint_on("-oProxyCommand=touch pwned")


def test_no_ssh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NasError, match=r"ssh is not installed on this machine; .*openssh-client"):
        measure_on(HOST, {"a": MODEL})


def test_no_python_there(home: Path) -> None:
    with pytest.raises(NasError, match=r"user@pi: python9 is not there.*not found\); install Python there"):
        measure_on(HOST, {"a": MODEL}, python="python9")


def test_an_old_python_there(home: Path) -> None:
    old = home / "old"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    with pytest.raises(NasError, match=r"~/old is not there, or older than 3\.9"):
        measure_on(HOST, {"a": MODEL}, python="~/old")


def test_no_engine_there(home: Path) -> None:
    with pytest.raises(
        NasError, match=r"user@pi: engine onnxruntime: is not installed .*there, pip install 'onnxruntime"
    ):
        measure_on(HOST, {"a": MODEL}, python=f"{sys.executable} -S")


def test_a_model_the_engine_does_not_read(home: Path) -> None:
    with pytest.raises(NasError, match=r"user@pi: measuring ended with status 1 \(.*INVALID_PROTOBUF"):
        measure_on(HOST, {"a": b"no model"}, 1, 1, python=sys.executable)
    assert list(home.iterdir()) == []


def test_a_stopped_campaign_is_ended(home: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_on(HOST, {"a": MODEL}, python=sys.executable, progress=stop)


def test_all_that_runs_there_is_sent(tmp_path: Path) -> None:
    """Its imports are among it, and it starts with the standard library alone."""
    bundle = io.BytesIO()
    pack(bundle, {})
    bundle.seek(0)
    with tarfile.open(fileobj=bundle) as tar:
        tar.extractall(tmp_path, filter="data")
        names = set(tar.getnames())
    for name in names:
        for node in ast.walk(ast.parse((tmp_path / name).read_text(encoding="utf-8"), feature_version=(3, 9))):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in ("hw_models", "nas"):
                modules = {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
                assert {f"{str(module).replace('.', '/')}.py" for module in modules} & names, node.module
    subprocess.run([sys.executable, "-S", "-c", "import hw_models.runner"], cwd=tmp_path, check=True)
