"""A PostgreSQL of a test's own, and a gRPC proxy before it."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp

import pytest

PROXY = """
import sys, warnings
warnings.simplefilter("ignore")
from optuna.storages import get_storage, run_grpc_proxy_server
run_grpc_proxy_server(get_storage(sys.argv[1]), host="localhost", port=int(sys.argv[2]))
"""


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed; on Debian: apt-get install postgresql")
    if find_spec("psycopg2") is None:
        pytest.skip("psycopg2 is not installed; pip install 'hwnas[workers]'")
    return found[-1].parent


@contextmanager
def postgresql() -> Iterator[str]:
    """URL of an empty database on a local socket; the server refuses to be root, so root lends it a user of its own."""
    programs, root = _programs(), os.geteuid() == 0
    if root and shutil.which("runuser") is None:
        pytest.skip("PostgreSQL does not run as root, and there is no runuser to become another user")
    home = Path(mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path must be short, and no parent be root's alone
    if root:
        shutil.chown(home, "postgres")
    before = ["runuser", "-u", "postgres", "--"] if root else []

    def run(program: str, *arguments: str) -> None:
        command = [*before, str(programs / program), *arguments]
        with (home / "said").open("ab") as said:
            done = subprocess.run(command, stdout=said, stderr=said, cwd="/", check=False)
        assert done.returncode == 0, (home / "said").read_text()

    data, options = str(home / "data"), f"-k {home} -c listen_addresses='' -c fsync=off"
    try:
        run("initdb", "-D", data, "-A", "trust", "-U", "nas", "--no-sync")
        run("pg_ctl", "-D", data, "-w", "-l", str(home / "log"), "-o", options, "start")
        try:
            run("createdb", "-h", str(home), "-U", "nas", "study")
            yield f"postgresql://nas@/study?host={home}"
        finally:
            run("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(home)


@contextmanager
def proxy(url: str) -> Iterator[str]:
    """URL of Optuna's gRPC proxy before a database."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    driver = url.replace("postgresql://", "postgresql+psycopg2://")
    server = subprocess.Popen([sys.executable, "-c", PROXY, driver, str(port)], stderr=subprocess.DEVNULL)
    try:
        yield f"grpc://localhost:{port}"
    finally:
        server.kill()
        server.wait()
