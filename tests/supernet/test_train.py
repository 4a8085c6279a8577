"""Progressive shrinking: what each phase samples, and runs killed anywhere against uninterrupted ones."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from small_supernets import QUANTIZED

import supernet.train
from nas.errors import NasError
from nas.genotype import SearchSpace, largest
from nas.network import FLOAT, Conv2d, Network
from nas.spaces import MobileChoices
from nas.spaces.mobile import Stage
from supernet.channels import sort_channels
from supernet.data import Dataset, Split, TensorSplit, load_dataset
from supernet.elastic import Supernet
from supernet.train import PHASES, Epoch, ProgressiveShrinking, Training, save_atomically, set_cosine_rate

EPOCHS = {"full": 1, "kernel": 1, "depth": 1, "width": 2, "precision": 2}
TRAINING = Training(EPOCHS, 32, 5e-3, 1e-4, 0.5, 2, 1, 64)
TOTAL = sum(EPOCHS.values())


Finished = tuple[ProgressiveShrinking, object]


class Killed(Exception):
    """Stands for the end of the process."""


def space() -> SearchSpace:
    return MobileChoices(4, (Stage(6, 2, (1, 2)),), (3, 5), (1, 2), QUANTIZED).build((1, 8, 8), 10)


@cache
def digits_data() -> Dataset:
    return load_dataset("digits", 0.25, 0.2, 0)


def begin(seed: int = 0, training: Training = TRAINING, data: Split | None = None) -> ProgressiveShrinking:
    train = digits_data().train
    data = data or TensorSplit(train.images[:64].clone(), train.labels[:64])
    return ProgressiveShrinking(space(), data, training, seed)


def ignore(_: Epoch) -> None:
    pass


def killer(epochs: int) -> Callable[[Epoch], None]:
    """A report that kills the run after so many epochs."""
    seen: list[Epoch] = []

    def report(epoch: Epoch) -> None:
        seen.append(epoch)
        if len(seen) == epochs:
            raise Killed

    return report


def flat(state: object, path: str = "") -> dict[str, object]:
    """Every leaf of nested dictionaries and lists, by its path."""
    if isinstance(state, Mapping):
        parts = [flat(value, f"{path}/{key}") for key, value in state.items()]
    elif isinstance(state, list | tuple):
        parts = [flat(value, f"{path}/{index}") for index, value in enumerate(state)]
    else:
        return {path: state}
    return {key: value for part in parts for key, value in part.items()}


def equal(first: object, second: object) -> bool:
    one, two = flat(first), flat(second)
    return one.keys() == two.keys() and all(
        torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
        for value, other in zip(one.values(), two.values(), strict=True)
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """An uninterrupted run, and its last checkpoint."""
    training = begin()
    checkpoint = tmp_path_factory.mktemp("uninterrupted") / "checkpoint.pt"
    training.run(checkpoint, ignore)
    return training, torch.load(checkpoint, weights_only=True)


def require_same(resumed: ProgressiveShrinking, checkpoint: Path, expected: Finished) -> None:
    uninterrupted, state = expected
    assert equal(torch.load(checkpoint, weights_only=True), state)
    assert equal(resumed.supernet.state_dict(), uninterrupted.supernet.state_dict())
    assert equal(resumed.full_subnet().state_dict(), uninterrupted.full_subnet().state_dict())


@pytest.mark.parametrize("epochs", range(1, TOTAL + 1))
def test_killed_after_any_epoch_equals_uninterrupted(epochs: int, tmp_path: Path, finished: Finished) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(Killed):
        begin().run(checkpoint, killer(epochs))
    resumed, reports = begin(), []
    resumed.run(checkpoint, reports.append)
    assert [(report.phase, report.epoch) for report in reports] == list(resumed.plan[epochs:])
    require_same(resumed, checkpoint, finished)


@pytest.mark.parametrize(("phase", "epoch"), [("kernel", 0), ("width", 0), ("width", 1), ("precision", 0)])
def test_killed_within_an_epoch_equals_uninterrupted(
    phase: str,
    epoch: int,
    tmp_path: Path,
    finished: Finished,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Channels are already sorted, or weights already moved, when the process dies."""
    checkpoint, killed = tmp_path / "checkpoint.pt", begin()
    position = killed.plan.index((phase, epoch))

    def die(state: object, path: Path) -> None:
        if killed.done == position + 1:
            raise Killed
        save_atomically(state, path)

    with monkeypatch.context() as patched:
        patched.setattr(supernet.train, "save_atomically", die)
        with pytest.raises(Killed):
            killed.run(checkpoint, ignore)
    resumed = begin()
    resumed.run(checkpoint, ignore)
    require_same(resumed, checkpoint, finished)


def test_killed_by_the_system_equals_uninterrupted(tmp_path: Path, finished: Finished) -> None:
    """SIGKILL in the middle of the width phase, hash seeds differing between the processes."""
    checkpoint = tmp_path / "checkpoint.pt"
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import supernet.train; supernet.train.one_thread()\n"
        "from pathlib import Path; from test_train import begin\n"
        f"begin().run(Path({str(checkpoint)!r}), lambda epoch: print(epoch.phase, epoch.epoch, flush=True))\n"
        "sys.stdin.read()\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], text=True, env=environment, **pipes) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.split() == ["width", "0"]:
                child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    resumed = begin()
    resumed.restore(checkpoint)
    assert resumed.done >= resumed.plan.index(("width", 0)) + 1
    resumed.run(checkpoint, ignore)
    require_same(resumed, checkpoint, finished)


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    checkpoint, training = tmp_path / "checkpoint.pt", replace(TRAINING, epochs=dict.fromkeys(PHASES, 0) | {"full": 1})
    begin(training=training).run(checkpoint, ignore)
    begin(training=training).run(checkpoint, killer(1))


def test_a_write_that_fails_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.pt"
    save_atomically({"weights": torch.ones(3)}, path)

    def cut_short(state: object, file: object) -> None:
        file.write(b"half a che")  # type: ignore[attr-defined]
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", cut_short)
        with pytest.raises(Killed):
            save_atomically({"weights": torch.zeros(3)}, path)
    assert torch.equal(torch.load(path, weights_only=True)["weights"], torch.ones(3))


def test_seeds_decide_the_weights(tmp_path: Path, finished: Finished) -> None:
    other = begin(seed=1)
    other.run(tmp_path / "checkpoint.pt", ignore)
    assert not equal(other.supernet.state_dict(), finished[0].supernet.state_dict())


def test_training_changes_every_weight_and_learns(tmp_path: Path) -> None:
    training = begin(training=replace(TRAINING, epochs={**EPOCHS, "full": 40}, learning_rate=0.02, shift=0))
    start = {key: value.clone() for key, value in training.supernet.state_dict().items()}
    reports: list[Epoch] = []
    training.run(tmp_path / "checkpoint.pt", reports.append)
    changed = {key: not torch.equal(value, start[key]) for key, value in training.supernet.state_dict().items()}
    assert [key for key, moved in changed.items() if not moved] == ["layers.head.gain"]
    assert reports[39].loss < reports[0].loss / 3
    with torch.no_grad():
        right = training.full_subnet()(training.data.images).argmax(1) == training.data.labels
    assert float(right.double().mean()) > 0.8


def test_channels_are_sorted_once_as_width_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training, sorted_at = begin(), []

    def spy(supernet_: Supernet, maximal: Sequence[Network]) -> None:
        sorted_at.append(training.plan[training.done])
        sort_channels(supernet_, maximal)

    monkeypatch.setattr(supernet.train, "sort_channels", spy)
    training.run(tmp_path / "checkpoint.pt", ignore)
    assert sorted_at == [("width", 0)]


def test_the_teacher_is_the_full_network_before_shrinking(tmp_path: Path) -> None:
    training = begin()
    with pytest.raises(Killed):
        training.run(tmp_path / "checkpoint.pt", killer(EPOCHS["full"]))
    before = training.specialise(training.full).state_dict()
    assert equal(training.full_subnet().state_dict(), before)
    training.run(tmp_path / "checkpoint.pt", ignore)
    assert equal(training.full_subnet().state_dict(), before)
    assert not equal(training.specialise(training.full).state_dict(), before)
    assert not any(parameter.requires_grad for parameter in training.full_subnet().parameters())


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Network]]:
    """All networks that each phase trains."""
    training = begin(training=replace(TRAINING, epochs=dict.fromkeys(PHASES, 1), batch=16, subnets_per_step=4))
    networks: dict[str, list[Network]] = {}
    running: list[Network] = []
    training.supernet.register_forward_pre_hook(lambda _, arguments: running.append(arguments[1]))

    def report(epoch: Epoch) -> None:
        networks[epoch.phase] = running.copy()
        running.clear()

    training.run(tmp_path_factory.mktemp("sampled") / "checkpoint.pt", report)
    return networks


@pytest.mark.parametrize("phase", PHASES)
def test_a_phase_samples_the_opened_genes_and_no_others(phase: str, sampled: dict[str, list[Network]]) -> None:
    """What a network is, is read off its layers; the full network gives what closed genes are."""
    full = space().lower(largest(space()).tolist()).as_float()
    facts = {network: facts_of(network) for network in sampled[phase]}
    whole = facts_of(full)
    for kind in ("kernel", "depth", "width", "precision"):
        values = {fact[kind] for fact in facts.values()}
        if kind == "precision" and phase != "precision":
            assert values == {frozenset({(FLOAT, 0.0)})}
        elif kind == "precision" or list(PHASES).index(kind) <= list(PHASES).index(phase):
            assert len(values) > 1
        else:
            assert all(value <= whole[kind] for value in values)
            assert kind != "depth" or values == {whole["depth"]}


def facts_of(network: Network) -> dict[str, frozenset[object]]:
    return {
        "kernel": frozenset((layer.name, layer.kernel) for layer in network.weighted if isinstance(layer, Conv2d)),
        "depth": frozenset(layer.name for layer in network),
        "width": frozenset((layer.name, layer.out_shape) for layer in network),
        "precision": frozenset((layer.precision, layer.sparsity) for layer in network.weighted),
    }


def test_every_phase_opens_more_genes() -> None:
    opened = list(PHASES.values())
    assert all(set(few) < set(many) for few, many in itertools.pairwise(opened))
    assert set(opened[-1]) == {gene.kind for gene in space().genes}


@pytest.mark.parametrize("phase", PHASES)
def test_a_loss_that_is_not_finite_names_phase_and_checkpoint(phase: str, tmp_path: Path) -> None:
    epochs = dict.fromkeys(PHASES, 0) | {phase: 1}
    training = begin(training=replace(TRAINING, epochs=epochs, learning_rate=1e30, batch=8))
    with pytest.raises(NasError, match=rf"phase {phase}, epoch 0: the loss is (nan|inf).*no good weights yet"):
        training.run(tmp_path / "checkpoint.pt", ignore)


def test_the_last_good_weights_survive_a_bad_image(tmp_path: Path, finished: Finished) -> None:
    checkpoint, bad = tmp_path / "checkpoint.pt", begin()
    with pytest.raises(Killed):
        bad.run(checkpoint, killer(TOTAL - 1))
    good = checkpoint.read_bytes()
    bad.data.images[5, 0, 4, 4] = torch.inf
    with pytest.raises(NasError, match=rf"phase precision, epoch 1.*the last good weights are in {checkpoint}"):
        bad.run(checkpoint, ignore)
    assert checkpoint.read_bytes() == good
    resumed = begin()
    resumed.run(checkpoint, ignore)
    require_same(resumed, checkpoint, finished)


def test_training_sees_the_training_split_alone(tmp_path: Path) -> None:
    """Held-out images that are no numbers would poison every weight."""
    clean = digits_data()

    def poisoned(split: Split) -> Split:
        return TensorSplit(split.images * torch.nan, split.labels)

    data = Dataset("digits", 10, clean.train, poisoned(clean.validation), poisoned(clean.test))
    training = begin(training=replace(TRAINING, epochs=dict.fromkeys(PHASES, 1), batch=256), data=data.train)
    weights = training.run(tmp_path / "checkpoint.pt", ignore).state_dict()
    assert all(bool(value.isfinite().all()) for value in weights.values())
    assert training.specialise(training.full)(clean.validation.images).isfinite().all()


def test_the_rate_falls_along_a_cosine() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    for progress, share in ((0.0, 1.0), (1 / 3, 0.75), (0.5, 0.5), (1.0, 0.0)):
        set_cosine_rate(optimizer, 0.2, progress)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2 * share)
