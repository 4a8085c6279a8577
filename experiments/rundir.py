"""The run directory: stages that are done or not, files that are whole or absent, one writer at a time.

    runs/<name>/config.yaml  environment.json
    runs/<name>/<stage>-<key>/ ... manifest.json

A stage's key covers its settings, its version and the keys of its inputs, so a changed config gives new
directories to the stages it touches and keeps the others. The manifest is written last: present means done.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from nas.errors import NasError

State = Literal["done", "partial", "absent"]

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Stage:
    """What a stage's result depends on.

    Attributes:
        name: The stage, such as `train`, or `search-local-cpu` where a device has one of its own.
        version: Raised when the stage's code starts to give other results for the same input.
        settings: Its slice of the config as stable JSON, see `Config.slice`.
        inputs: The stages whose artefacts it reads.
    """

    name: str
    version: int
    settings: str
    inputs: tuple[Stage, ...] = ()

    @property
    def key(self) -> str:
        """Short hash of everything the result depends on."""
        parts = [self.name, self.version, self.settings, [stage.key for stage in self.inputs]]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class RunDir:
    """One run's directory; `stage_dir` of a stage that is not done is where it resumes."""

    path: Path

    @property
    def config_path(self) -> Path:
        return self.path / "config.yaml"

    def holds(self, config_yaml: str) -> bool:
        """True where the record is of this very config."""
        return self.config_path.exists() and self.config_path.read_text() == config_yaml

    def start(self, config_yaml: str, environment: Mapping[str, Any]) -> None:
        """Record what is about to run and where; replaces an earlier record."""
        self.path.mkdir(parents=True, exist_ok=True)
        atomic_write(self.config_path, config_yaml)
        atomic_write(self.path / "environment.json", json.dumps(environment, indent=2) + "\n")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process; the system lets go of it however the process ends.

        Raises:
            NasError: Another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise NasError(
                    f"{self.path}: process {file.read().strip()} is working on this run; wait for it or stop it"
                ) from None
            file.truncate(0)
            print(os.getpid(), file=file, flush=True)
            yield

    def stage_dir(self, stage: Stage) -> Path:
        """The stage's directory, made where it is absent."""
        path = self._dir(stage)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def state(self, stage: Stage) -> State:
        """`partial` means that the stage was begun and resumes where it stopped."""
        if self.is_done(stage):
            return "done"
        return "partial" if self._dir(stage).exists() else "absent"

    def is_done(self, stage: Stage) -> bool:
        """True where the stage's manifest is present."""
        return (self._dir(stage) / MANIFEST).exists()

    def finish(self, stage: Stage, summary: Mapping[str, Any]) -> None:
        """Mark a stage done; all its artefacts must be written by now.

        Args:
            stage: The stage.
            summary: Its figures, JSON values: what a status line or a report quotes.
        """
        manifest = {
            "stage": stage.name,
            "key": stage.key,
            "version": stage.version,
            "settings": json.loads(stage.settings),
            "inputs": {source.name: source.key for source in stage.inputs},
            "summary": dict(summary),
        }
        atomic_write(self.stage_dir(stage) / MANIFEST, json.dumps(manifest, indent=2, allow_nan=False) + "\n")

    def summary(self, stage: Stage) -> dict[str, Any]:
        """The figures a finished stage left.

        Raises:
            NasError: The stage is not done.
        """
        if not self.is_done(stage):
            raise NasError(f"{self._dir(stage)}: stage {stage.name} is {self.state(stage)}; run `nas run` to finish it")
        summary: dict[str, Any] = json.loads((self._dir(stage) / MANIFEST).read_text())["summary"]
        return summary

    def _dir(self, stage: Stage) -> Path:
        return self.path / f"{stage.name}-{stage.key}"


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write a file that others see whole or not at all, even if the power fails; its directory must exist."""
    data = content.encode() if isinstance(content, str) else content
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Add one record to a JSON-lines log; on disk when this returns. A last line torn by a crash is cut off first."""
    with path.open("ab+") as file:
        _drop_torn_line(file)
        file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole records of a JSON-lines log, a torn last line left out; empty where there is no log.

    Raises:
        NasError: A line before the last is not JSON.
    """
    if not path.exists():
        return []
    records = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise NasError(f"{path}: line {number} is damaged ({error}); delete the file to collect it anew") from error
    return records


def _drop_torn_line(file: BinaryIO) -> None:
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
