"""Workers that share a study: real processes, one of them killed, on every kind of storage."""

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from storages import postgresql, proxy
from tiny_runs import NAS, TINY, Finished, tiny_config
from typer.testing import CliRunner

from experiments.cli import app
from experiments.config import load_config
from experiments.strict import read_yaml
from experiments.worker import candidates, front, work
from nas.errors import NasError
from nas.genotype import Genotype
from nas.problem import Constraint, Problem
from nas.search.ledger import Ledger
from nas.search.optuna_shared import SharedStudy
from nas.search.optuna_study import SamplerName

TRIALS = 7
LIMIT = 170.0
PATIENCE_S = 240


def small_problem(networks: int) -> Problem:
    """A problem of few networks; nothing is priced, since it is the workers' affair."""
    space = tiny_config().build_space()
    free = next(i for i, gene in enumerate(space.genes) if gene.gate is None and len(gene.choices) >= 3)
    second = next(i for i, gene in enumerate(space.genes) if i != free and gene.gate is None and len(gene.choices) > 1)
    many = {free: tuple(range(3)), second: tuple(range(networks // 3))}
    allowed = tuple(many.get(i, (len(gene.choices) - 1,)) for i, gene in enumerate(space.genes))
    limits = (Constraint("weight_bytes", LIMIT),)
    return Problem(space, ("error", "weight_bytes"), lambda rows: rows[:, :2] * 1.0, ("error",), limits, allowed, {})


def scored(genotype: Genotype, origin: int) -> dict[str, float]:
    return {"error": float(sum(genotype)), "weight_bytes": 10.0 * sum(genotype)}


@pytest.mark.filterwarnings("ignore")  # filters are the process's, and four threads silence Optuna's notes at once
@pytest.mark.parametrize("sampler", ["nsga2", "tpe"])
def test_four_workers_train_each_network_once_and_copies_get_its_result(sampler: SamplerName, tmp_path: Path) -> None:
    asked, trained = small_problem(6), Counter[Genotype]()

    def train(genotype: Genotype, origin: int) -> dict[str, float]:
        trained[genotype] += 1
        time.sleep(0.05)
        return scored(genotype, origin)

    def worker(_: int) -> Ledger:
        study = SharedStudy(f"journal://{tmp_path / 'log'}", "small", asked, sampler, 0, 20)
        return work(study, train, 60, lambda text: None)

    with ThreadPoolExecutor(4) as pool:
        ledgers = list(pool.map(worker, range(4)))
    assert set(trained.values()) == {1}
    assert 1 < len(trained) <= 6
    for ledger in ledgers:
        complete = [entry for entry in ledger.entries if entry.state == "complete"]
        assert len(complete) == 20
        assert all(e.genotype is not None and e.metrics == scored(e.genotype, 0) for e in complete)
        assert ledger.results.keys() == trained.keys()


def alone(log: Path, seed: int, stop: int | None = None) -> list[Genotype | None]:
    """Genotypes of a study that one worker works on, stopped by Ctrl-C in one of its trials."""
    trained = 0

    def train(genotype: Genotype, origin: int) -> dict[str, float]:
        nonlocal trained
        trained += 1
        if trained == stop:
            raise KeyboardInterrupt
        return scored(genotype, origin)

    def start() -> Ledger:
        return work(
            SharedStudy(f"journal://{log}", "a", small_problem(6), "nsga2", seed, 6), train, 60, lambda text: None
        )

    if stop is not None:
        with pytest.raises(KeyboardInterrupt):
            start()
    return [slot.genotype for slot in start().slots]


def test_the_seed_decides_and_a_stopped_worker_goes_on(tmp_path: Path) -> None:
    first = alone(tmp_path / "a", 0)
    assert alone(tmp_path / "b", 0) == first
    stopped = alone(tmp_path / "c", 0, stop=1)
    assert stopped[0] == first[0]
    assert len(stopped) == len(first)
    assert alone(tmp_path / "d", 1) != first


def test_a_network_that_cannot_be_trained_is_given_up_and_the_rest_is_not(tmp_path: Path) -> None:
    asked, told = small_problem(6), list[str]()
    bad = tuple(asked.genotypes(np.zeros((1, len(asked.allowed)), dtype=np.int64))[0].tolist())

    def train(genotype: Genotype, origin: int) -> dict[str, float]:
        if genotype == bad:
            raise RuntimeError("out of memory")
        return scored(genotype, origin)

    study = SharedStudy(f"journal://{tmp_path / 'log'}", "bad", asked, "tpe", 0, 30)
    ledger = work(study, train, 60, told.append)
    assert ledger.lost == [bad]
    assert sum("out of memory" in text for text in told) == 3
    assert len(ledger.results) == 5
    members = front(asked, ledger)
    limited = [genotype for genotype in ledger.results if 10 * sum(genotype) <= LIMIT]
    least = min(sum(genotype) for genotype in limited)
    assert [tuple(member["genotype"]) for member in members] == [g for g in limited if sum(g) == least]


def test_trials_belong_to_the_study(tmp_path: Path) -> None:
    def opened(trials: int | None) -> SharedStudy:
        return SharedStudy(f"journal://{tmp_path / 'log'}", "a", small_problem(6), "nsga2", 0, trials)

    assert opened(8).read().total == 8
    assert opened(None).read().total == 8
    with pytest.raises(NasError, match="8 trials already; ask for that many or more, not 5"):
        opened(5)
    assert opened(9).read().total == 9


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite:///study.db", "storage must be journal://PATH"),
        ("journal:///no/such/folder/log", "there is no folder /no/such/folder"),
        ("postgresql://me:secret@localhost:1/x", "cannot be reached"),
        ("postgresql+nodriver://localhost/x", "cannot be reached"),
        ("grpc://localhost", "cannot be reached"),
    ],
)
def test_a_storage_that_cannot_be_opened_is_named_without_its_password(url: str, says: str) -> None:
    if "postgresql" in url:
        pytest.importorskip("psycopg2")
    with pytest.raises(NasError, match=says) as told:
        SharedStudy(url, "a", small_problem(6), "nsga2", 0)
    assert "secret" not in str(told.value)


def test_what_is_missing_is_said_before_a_storage_is_opened(tmp_path: Path) -> None:
    def said(*arguments: str) -> str:
        storage = f"journal://{tmp_path / 'log'}"
        result = CliRunner().invoke(
            app, ["worker", str(TINY), "--runs", str(tmp_path), "--storage", storage, *arguments]
        )
        assert result.exit_code == 2
        return result.stderr

    assert "name it with --device: local-cpu, zu3eg" in said()
    assert "no device 'zu9'" in said("--device", "zu9")
    assert "stage train is absent; run `nas run`" in said("--device", "zu3eg")
    assert not (tmp_path / "log").exists()


@pytest.fixture(params=["journal", "postgresql", "grpc"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with ExitStack() as stack:
        match request.param:
            case "journal":
                yield f"journal://{tmp_path / 'study.log'}"
            case "postgresql":
                yield stack.enter_context(postgresql())
            case _:
                pytest.importorskip("grpc")
                yield stack.enter_context(proxy(stack.enter_context(postgresql())))


def started(config: Path, runs: Path, storage: str) -> subprocess.Popen[str]:
    options = {"runs": runs, "storage": storage, "device": "zu3eg", "trials": TRIALS, "patience": 6}
    command = [str(NAS), "worker", str(config), "--json", *(f"--{key}={value}" for key, value in options.items())]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def training_of(study: SharedStudy, worker: subprocess.Popen[str]) -> int:
    """A trial whose network a worker is training, once it is."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and worker.poll() is None:
        trials, ledger = study.trials(), study.read()  # in this order: a trial made in between is in the ledger alone
        for trial in trials:
            mine = str(trial.user_attrs.get("worker")).endswith(f"-{worker.pid}") and trial.state.name == "RUNNING"
            if mine and ledger.duty(trial.number) == "train" and ledger.entries[trial.number].beats >= 1:
                return trial.number
        time.sleep(0.1)
    raise AssertionError(f"it trains nothing: {worker.communicate()}")


@pytest.mark.slow
@pytest.mark.hls
def test_of_three_workers_one_is_killed_and_another_does_its_trial(
    storage: str, finished: Finished, tmp_path: Path
) -> None:
    config = tmp_path / "tiny.yaml"
    entries: dict[str, Any] = read_yaml(TINY)  # type: ignore[assignment]
    config.write_text(yaml.safe_dump(entries | {"finalize": {"members": 4, "baseline": 1, "epochs": 60}}))
    found = candidates(load_config(config), finished.runs, "zu3eg", "nsga2")
    with ExitStack() as running:
        workers = [running.enter_context(started(config, finished.runs, storage)) for _ in range(3)]
        for worker in workers:
            running.callback(worker.kill)
        study = SharedStudy(storage, found.name, found.problem, "nsga2", 0, TRIALS)
        killed = training_of(study, workers[0])
        workers[0].send_signal(signal.SIGKILL)
        said = [worker.communicate(timeout=PATIENCE_S) for worker in workers]
    assert [worker.returncode for worker in workers] == [-signal.SIGKILL, 0, 0], said
    ledger = study.read()

    complete = Counter(entry.origin for entry in ledger.entries if entry.state == "complete")
    assert complete == {slot.origin: 1 for slot in ledger.slots}
    assert len(ledger.slots) == TRIALS
    assert all(entry.finished for entry in ledger.entries)

    origin = ledger.entries[killed].origin
    assert ledger.entries[killed].state == "failed"
    (again,) = (t for t in study.trials() if ledger.entries[t.number].origin == origin and t.state.name == "COMPLETE")
    assert again.number != killed
    assert not again.user_attrs["worker"].endswith(f"-{workers[0].pid}")
    assert again.system_attrs["failed_trial"] == origin
    assert ledger.entries[again.number].genotype == ledger.entries[killed].genotype

    lines = [line for _, err in said for line in err.splitlines() if line.startswith("trial ") and ": error " in line]
    trained = [ledger.entries[int(line.split()[1].rstrip(":"))].genotype for line in lines]
    assert Counter(trained) == Counter(ledger.results.keys())

    printed = [json.loads(out) for out, _ in said[1:]]
    assert printed[0] == printed[1]
    assert printed[0]["front"] == front(found.problem, ledger)
    assert (printed[0]["study"], printed[0]["trials"], printed[0]["lost"]) == (found.name, TRIALS, [])
    genotype = ledger.entries[killed].genotype
    assert genotype is not None
    assert found.metrics(genotype, origin) == ledger.results[genotype].metrics  # whoever trains it
    assert replace(ledger, total=TRIALS + 1).room
