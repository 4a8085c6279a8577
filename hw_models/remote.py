"""Measure on another machine: the harness and the models go there over ssh, the campaign comes back as JSON.

What is needed there: sh, tar, Python 3.9 or newer, and the engine. Nothing is left behind.
"""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib import resources
from typing import IO, Any

from hw_models.engines import DEFAULT
from hw_models.measure import reference_model, silent
from hw_models.runner import JOB, Campaign, Plan, Progress
from nas.errors import NasError

SSH = ("ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15", "--")
SENT = {
    "hw_models": (
        "__init__.py",
        "engines.py",
        "executorch_engine.py",
        "machine.py",
        "nvml.py",
        "onnx_runtime.py",
        "openvino_engine.py",
        "power.py",
        "runner.py",
        "torch_cuda_engine.py",
        "torch_engine.py",
    ),
    "nas": ("__init__.py", "errors.py"),
}
"""What runs there, by package."""

_NO_CONNECTION, _NO_PYTHON = 255, 97
_PYTHON_THERE = "python3"
_REFERENCE = "reference.onnx"


def measure_on(
    host: str,
    models: Mapping[str, bytes],
    rounds: int = 30,
    runs: int = 5,
    *,
    seed: int = 0,
    threads: int = 1,
    engine: str = DEFAULT,
    python: str = _PYTHON_THERE,
    progress: Progress = silent,
) -> Campaign:
    """Measure ONNX models against each other on another machine; as `hw_models.measure.measure` does on this one.

    Args:
        host: As ssh takes it: `user@pi`, or a name of `~/.ssh/config`. It must let us in without a password.
        models: Serialized models by key.
        rounds: Rounds to keep, each with one timing of every model.
        runs: Batches of calls in one timing.
        seed: Of the order within the rounds.
        threads: Of the engine.
        engine: One of `hw_models.engines.ENGINES`, installed there.
        python: The command that starts Python there, such as `~/venv/bin/python`.
        progress: Called after every round.

    Raises:
        NasError: There is no way there, Python or the engine are missing there, or that machine is too unsteady.
    """
    files = {f"{number}.onnx": model for number, model in enumerate(models.values())}
    job = _job(engine, Plan(rounds, runs, seed, threads))
    job |= {"models": list(zip(models, files, strict=True)), "reference": _REFERENCE}
    answer = _ask(host, python, job, {**files, _REFERENCE: reference_model()}, progress)
    return Campaign(**answer["campaign"])


def fingerprint_on(host: str, threads: int = 1, engine: str = DEFAULT, python: str = _PYTHON_THERE) -> str:
    """The fingerprint of what `measure_on` measures; raises as that does."""
    answer = _ask(host, python, _job(engine, Plan(1, 1, 0, threads)), {}, silent)
    return str(answer["fingerprint"])


def _job(engine: str, plan: Plan) -> dict[str, Any]:
    return {"engine": engine, "plan": asdict(plan)}


def _ask(
    host: str, python: str, job: Mapping[str, Any], files: Mapping[str, bytes], progress: Progress
) -> Mapping[str, Any]:
    """Have a job done there; the runner's last word."""
    last: Mapping[str, Any] = {}
    with tempfile.TemporaryFile() as bundle, tempfile.TemporaryFile() as complaints:
        pack(bundle, {**files, JOB: json.dumps(job).encode()})
        bundle.seek(0)
        with _started([*SSH, host, _command(python)], bundle, complaints) as process:
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    last = _spoken(line) or last
                    if "progress" in last:
                        progress(*last["progress"])
                status = process.wait()
            finally:
                process.kill()
        complaints.seek(0)
        if "error" in last:
            raise NasError(f"{host}: {last['error']}")
        if status != 0 or not {"campaign", "fingerprint"} & last.keys():
            raise _failed(host, python, status, complaints.read().decode(errors="replace").strip())
    return last


def pack(bundle: IO[bytes], files: Mapping[str, bytes]) -> None:
    """Write a tar of the harness and these files."""
    sources = {
        f"{package}/{name}": (resources.files(package) / name).read_bytes()
        for package, names in SENT.items()
        for name in names
    }
    with tarfile.open(fileobj=bundle, mode="w") as tar:
        for name, content in {**sources, **files}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(content), int(time.time())
            tar.addfile(entry, io.BytesIO(content))


def _command(python: str) -> str:
    """For any login shell; `python` is not quoted, so that it may begin with ~."""
    script = (
        f'{python} -c "import sys; sys.exit(sys.version_info < (3, 9))" || exit {_NO_PYTHON}; '
        'folder=$(mktemp -d) && trap "rm -rf $folder" EXIT && cd "$folder" && tar xf - && '
        'export TMPDIR="$folder" && '
        f"{python} -m hw_models.runner ."
    )
    return f"sh -c {shlex.quote(script)}"


def _started(command: list[str], bundle: IO[bytes], complaints: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(command, stdin=bundle, stdout=subprocess.PIPE, stderr=complaints)
    except FileNotFoundError as error:
        raise NasError("ssh is not installed on this machine; on Debian: apt-get install openssh-client") from error


def _spoken(line: bytes) -> Mapping[str, Any]:
    """What the runner says in a line; nothing where a login script talks."""
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _failed(host: str, python: str, status: int, complaint: str) -> NasError:
    said = complaint.splitlines()[-1] if complaint else "no word why"
    if status == _NO_CONNECTION:
        return NasError(
            f"{host}: no connection ({said}); `ssh -o BatchMode=yes {host} true` must work without a password: "
            f"check the name, and give it a key with `ssh-copy-id {host}`"
        )
    if status == _NO_PYTHON:
        return NasError(
            f"{host}: {python} is not there, or older than 3.9 ({said}); install Python there, or name the command "
            "that starts it"
        )
    return NasError(
        f"{host}: measuring ended with status {status} ({said}); see that sh, tar and the engine work there"
    )
