"""One tiny run of the command, made once per session, and copies of it to try things on."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tiny_runs import NAS, TINY, Finished


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """`nas run tiny.yaml`, from nothing to its end. Read only."""
    runs = tmp_path_factory.mktemp("tiny") / "runs"
    command = [str(NAS), "run", str(TINY), "--runs", str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Finished(runs, done.stderr)


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Path:
    """A runs folder of one's own with the finished run in it, times of change kept."""
    return Path(shutil.copytree(finished.runs, tmp_path / "runs"))


@pytest.fixture
def measured_only(finished: Finished, tmp_path: Path) -> Path:
    """A runs folder with nothing but the measured latencies of the finished run, so that they are equal in both."""
    shutil.copytree(finished.runs / "measurements", tmp_path / "runs" / "measurements")
    return tmp_path / "runs"
