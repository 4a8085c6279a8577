"""Training: runs killed anywhere against uninterrupted ones, teachers, averages, and losses that are not finite."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_trainings import PROGRESSIVE, SANDWICH, TRAININGS, UNIFORM, begin, digits_data, few_digits, ignore, space

import supernet.train
from nas.errors import NasError
from nas.genotype import Gene, largest
from nas.network import Network
from supernet.channels import sort_channels
from supernet.checkpoint import save_atomically
from supernet.data.split import Dataset, Split, order
from supernet.data.tensor_split import TensorSplit
from supernet.elastic import Supernet
from supernet.metrics import Progress, read_metrics
from supernet.optimise import Average, distilled_loss
from supernet.schedule import describe, genotypes, network
from supernet.settings import Training
from supernet.train import SupernetTraining

Finished = tuple[SupernetTraining, object, list[tuple[int, str, float]]]


class Killed(Exception):
    """Stands for the end of the process."""


def killer(reports: int) -> Callable[[Progress], None]:
    """A report that kills the run at so many reports."""
    seen: list[Progress] = []

    def report(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == reports:
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


def copy(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in state.items()}


def told(reports: Sequence[Progress]) -> list[tuple[int, str, float]]:
    """Reports without their speed."""
    return [(report.step, report.phase, report.loss) for report in reports]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finished]:
    """Uninterrupted runs, their last checkpoints and what they reported."""
    runs: dict[str, Finished] = {}
    for name, settings in TRAININGS.items():
        training, reports = begin(settings), list[Progress]()
        checkpoint = tmp_path_factory.mktemp(name) / "checkpoint.pt"
        training.run(checkpoint, reports.append)
        runs[name] = training, torch.load(checkpoint, weights_only=True), told(reports)
    return runs


def require_same(resumed: SupernetTraining, checkpoint: Path, expected: Finished) -> None:
    uninterrupted, state, _ = expected
    assert equal(torch.load(checkpoint, weights_only=True), state)
    assert equal(resumed.supernet.state_dict(), uninterrupted.supernet.state_dict())
    assert equal(resumed.full_subnet().state_dict(), uninterrupted.full_subnet().state_dict())


def test_reports_and_checkpoints_come_when_due(finished: dict[str, Finished]) -> None:
    """Every 2 steps, every 3 steps and at the end of each stage: of 4 steps, the last one of 8."""
    steps = [step for step, _, _ in finished["progressive"][2]]
    assert steps == [step for step in range(1, 33) if step % 2 == 0 or step % 3 == 0 or step % 4 == 0]
    assert begin().steps == 32
    assert finished["progressive"][0].step == 32


@pytest.mark.parametrize("name", TRAININGS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
def test_killed_at_any_report_equals_uninterrupted(
    name: str, share: float, tmp_path: Path, finished: dict[str, Finished]
) -> None:
    expected, settings, checkpoint = finished[name], TRAININGS[name], tmp_path / "checkpoint.pt"
    with pytest.raises(Killed):
        begin(settings).run(checkpoint, killer(max(1, round(share * len(expected[2])))))
    resumed, reports = begin(settings), list[Progress]()
    resumed.run(checkpoint, reports.append)
    assert told(reports) == expected[2][len(expected[2]) - len(reports) :]
    require_same(resumed, checkpoint, expected)


@pytest.mark.parametrize("step", [8, 16, 18, 24, 32])
def test_killed_before_a_checkpoint_is_written_equals_uninterrupted(
    step: int, tmp_path: Path, finished: dict[str, Finished], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher is appointed, channels are sorted, the average has taken the weights' place when the process dies."""
    checkpoint, killed = tmp_path / "checkpoint.pt", begin()

    def die(state: object, path: Path) -> None:
        if killed.step == step:
            raise Killed
        save_atomically(state, path)

    with monkeypatch.context() as patched:
        patched.setattr(supernet.train, "save_atomically", die)
        with pytest.raises(Killed):
            killed.run(checkpoint, ignore)
    resumed = begin()
    resumed.run(checkpoint, ignore)
    require_same(resumed, checkpoint, finished["progressive"])


@pytest.mark.parametrize("name", ["progressive", pytest.param("sandwich", marks=pytest.mark.slow)])
def test_killed_by_the_system_again_and_again_equals_uninterrupted(
    name: str, tmp_path: Path, finished: dict[str, Finished]
) -> None:
    """SIGKILL at random moments within epochs, hash seeds differing between the processes."""
    checkpoint, rng, kills, seed = tmp_path / "checkpoint.pt", random.Random(name), 0, 0
    program = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from pathlib import Path\nfrom dataclasses import replace\nfrom small_trainings import TRAININGS, begin\n"
        "from supernet.metrics import recorded\n"
        f"training = begin(replace(TRAININGS[{name!r}], log_steps=1)); folder = Path({str(tmp_path)!r})\n"
        f"checkpoint = Path({str(checkpoint)!r})\n"
        "with recorded(folder, training.resume(checkpoint)) as record:\n"
        "    training.run(checkpoint, lambda p: (record(p), print(p.step, flush=True)))\n"
    )
    while True:
        seed += 1
        environment, after = {**os.environ, "PYTHONHASHSEED": str(seed)}, rng.randint(4, 13)
        with subprocess.Popen(
            [sys.executable, "-c", program], text=True, env=environment, stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            for count, _ in enumerate(child.stdout, 1):
                if count == after and kills < 2:
                    child.send_signal(signal.SIGKILL)
            if child.wait() == 0:
                break
            assert child.returncode == -signal.SIGKILL
            kills += 1
    assert kills
    resumed = begin(TRAININGS[name])
    resumed.restore(checkpoint)
    assert resumed.step == resumed.steps
    require_same(resumed, checkpoint, finished[name])
    assert [line.step for line in read_metrics(tmp_path)] == list(range(1, resumed.steps + 1))


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    begin(UNIFORM).run(checkpoint, ignore)
    begin(UNIFORM).run(checkpoint, killer(1))


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


def test_seeds_decide_the_weights(tmp_path: Path, finished: dict[str, Finished]) -> None:
    other = begin(UNIFORM, seed=1)
    other.run(tmp_path / "checkpoint.pt", ignore)
    assert not equal(other.supernet.state_dict(), finished["uniform"][0].supernet.state_dict())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_training_changes_every_weight_and_learns(optimizer: str, tmp_path: Path) -> None:
    rate = {"sgd": 0.1, "adamw": 0.02}[optimizer]
    settings = replace(PROGRESSIVE, epochs={**PROGRESSIVE.epochs, "full": (60,)}, learning_rate=rate, log_steps=4)
    training = begin(replace(settings, optimizer=optimizer, augmentation=UNIFORM.augmentation))  # type: ignore[arg-type]
    start, reports = copy(training.supernet.state_dict()), list[Progress]()
    training.run(tmp_path / "checkpoint.pt", reports.append)
    changed = {key: not torch.equal(value, start[key]) for key, value in training.supernet.state_dict().items()}
    assert [key for key, moved in changed.items() if not moved] == ["layers.head.gain"]
    with torch.no_grad():
        right = training.full_subnet()(training.data.first(64, training.device)).argmax(1) == training.data.labels
    assert float(right.double().mean()) > 0.8


def test_a_step_is_what_its_formula_says() -> None:
    """Sandwich, one step of plain gradient descent, written out; momentum starts at the gradient."""
    settings = replace(SANDWICH, weight_decay=0.0, clip=0.0, ema=0.0, distillation=0.6, warmup=0.0)
    training, other = begin(settings), begin(settings)
    stage, images, labels = training.stage, few_digits().images[:16], few_digits().labels[:16]
    networks = [network(space(), stage, row, 0) for row in genotypes(space(), stage, 0, 0)]
    logits = [other.supernet(images, each) for each in networks]
    losses = [distilled_loss(logits[0], labels, None, 0, 0.1)]
    losses += [distilled_loss(each, labels, logits[0].detach(), 0.6) for each in logits[1:]]
    torch.autograd.backward(sum(losses, torch.zeros(())) / len(losses))
    expected = {
        name: parameter.detach() if parameter.grad is None else parameter.detach() - 5e-3 * 1.9 * parameter.grad
        for name, parameter in other.supernet.named_parameters()
    }
    found = training._step(stage, images, labels)
    assert torch.allclose(found, torch.stack(losses).detach(), atol=1e-6)
    for name, parameter in training.supernet.named_parameters():
        assert torch.allclose(parameter, expected[name], atol=1e-6), name


def test_channels_are_sorted_before_each_width_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training, sorted_at = begin(), []

    def spy(supernet_: Supernet, maximal: Sequence[Network]) -> None:
        sorted_at.append((training.stage.name, training.step))
        sort_channels(supernet_, maximal)

    monkeypatch.setattr(supernet.train, "sort_channels", spy)
    training.run(tmp_path / "checkpoint.pt", ignore)
    assert sorted_at == [("width 1/2", 16), ("width 2/2", 20)]


def test_the_teacher_is_the_full_network_before_shrinking(tmp_path: Path) -> None:
    checkpoint, first = tmp_path / "checkpoint.pt", begin()
    with pytest.raises(Killed):  # at the first report after phase full
        first.run(checkpoint, killer(4))
    training = begin()
    training.restore(checkpoint)
    assert training.stage.name == "kernel"
    before = training.specialise(training.full).state_dict()
    assert equal(training.full_subnet().state_dict(), before)
    training.run(checkpoint, ignore)
    assert equal(training.full_subnet().state_dict(), before)
    assert not equal(training.specialise(training.full).state_dict(), before)
    assert not any(parameter.requires_grad for parameter in training.full_subnet().parameters())


@pytest.mark.parametrize("name", ["sandwich", "uniform"])
def test_only_progressive_shrinking_has_a_teacher_of_its_own(name: str, finished: dict[str, Finished]) -> None:
    training = finished[name][0]
    assert training.teacher is None
    assert equal(training.full_subnet().state_dict(), training.specialise(training.full).state_dict())


def test_without_distillation_nothing_is_frozen_to_teach(tmp_path: Path) -> None:
    settings = replace(PROGRESSIVE, distillation=0.0, epochs={"full": (1,), "kernel": (1,)})
    training = begin(settings)
    training.run(tmp_path / "checkpoint.pt", ignore)
    assert training.teacher is None
    assert equal(training.full_subnet().state_dict(), training.specialise(training.full).state_dict())


def test_the_average_takes_the_weights_place_as_a_stage_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of a run without average, averaged by hand; the first stage, as later ones start elsewhere."""
    settings, seen = replace(PROGRESSIVE, epochs={"full": (2,)}, clip=0.0), list[dict[str, torch.Tensor]]()
    plain = begin(replace(settings, ema=0.0, log_steps=1))
    expected = {key: value.double() for key, value in plain.supernet.state_dict().items()}
    plain.run(tmp_path / "plain.pt", lambda _: seen.append(copy(plain.supernet.state_dict())))
    for step, weights in enumerate(seen):
        decay = min(0.9, (1 + step) / (10 + step))
        expected = {key: decay * expected[key] + (1 - decay) * weights[key] for key in expected}
    averaged = begin(settings).run(tmp_path / "averaged.pt", ignore).state_dict()
    assert all(torch.allclose(averaged[key], value.float(), atol=1e-6) for key, value in expected.items())
    assert not equal(averaged, seen[-1])


def first_use(image: int) -> tuple[int, int]:
    """The first step that sees an image, and the epoch."""
    for epoch in range(8):
        for step, indices in enumerate(order(64, 16, 0, epoch)):
            if image in indices:
                return epoch * 4 + step, epoch
    raise AssertionError


@pytest.mark.parametrize("name", TRAININGS)
@pytest.mark.parametrize("log_steps", [1, 4])
def test_a_loss_that_is_not_finite_names_step_and_network(name: str, log_steps: int, tmp_path: Path) -> None:
    """However many steps later anybody looks."""
    images = few_digits()
    images.images[5, 0, 4, 4] = torch.nan
    training = begin(replace(TRAININGS[name], log_steps=log_steps, checkpoint_steps=100), data=images)
    step, epoch = first_use(5)
    trained = describe(space(), genotypes(space(), training.stages[0], step, 0)[0])
    law = rf"training, step {step} \(phase {training.stages[0].name}, epoch {epoch}\): the loss of {trained} is nan; .*"
    with pytest.raises(NasError, match=law + "no good weights yet"):
        training.run(tmp_path / "checkpoint.pt", ignore)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_the_last_good_weights_survive_a_bad_image(tmp_path: Path, finished: dict[str, Finished]) -> None:
    checkpoint, images = tmp_path / "checkpoint.pt", few_digits()
    bad = begin(data=images)
    with pytest.raises(Killed):
        bad.run(checkpoint, killer(15))
    good, step = checkpoint.read_bytes(), torch.load(checkpoint, weights_only=True)["step"]
    images.images[:, 0, 4, 4] = torch.inf
    with pytest.raises(NasError, match=rf"step {step} .*the loss of .* is nan.*last good weights are in {checkpoint}"):
        bad.run(checkpoint, ignore)
    assert checkpoint.read_bytes() == good
    resumed = begin()
    resumed.run(checkpoint, ignore)
    require_same(resumed, checkpoint, finished["progressive"])


def test_weights_that_are_not_finite_are_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last step before a checkpoint breaks them, after its loss was taken."""
    checkpoint, training = tmp_path / "checkpoint.pt", begin(replace(PROGRESSIVE, checkpoint_steps=4))
    update = Average.update

    def breaking(average: Average, steps: int) -> None:
        update(average, steps)
        if training.step == 7:
            average.values[0][0] = torch.nan

    monkeypatch.setattr(Average, "update", breaking)
    with pytest.raises(
        NasError, match=rf"step 7 \(phase kernel, epoch 1\): a weight is not finite after it.*{checkpoint}"
    ):
        training.run(checkpoint, ignore)
    assert torch.load(checkpoint, weights_only=True)["step"] == 4


def test_a_rate_out_of_bounds_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(NasError, match=r"lower the learning rate, .*no good weights yet"):
        begin(replace(PROGRESSIVE, learning_rate=1e30, checkpoint_steps=100)).run(tmp_path / "checkpoint.pt", ignore)


def test_training_sees_the_training_split_alone(tmp_path: Path) -> None:
    """Held-out images that are no numbers would poison every weight."""
    clean = digits_data()

    def poisoned(split: Split) -> Split:
        return TensorSplit(split.first(len(split), torch.device("cpu")) * torch.nan, split.labels)

    data = Dataset("digits", 10, clean.train, poisoned(clean.validation), poisoned(clean.test))
    settings = replace(PROGRESSIVE, epochs=dict.fromkeys(PROGRESSIVE.epochs, (1,)), batch=256)
    training = begin(settings, data=data.train)
    weights = training.run(tmp_path / "checkpoint.pt", ignore).state_dict()
    assert all(bool(value.isfinite().all()) for value in weights.values())


@pytest.mark.parametrize(
    "changes",
    [{"autocast": "bf16", "channels_last": True}, {"channels_last": True, "optimizer": "sgd"}, {"autocast": "fp16"}],
)
def test_other_number_formats_train_alike_and_resume(changes: dict[str, object], tmp_path: Path) -> None:
    """Half precision changes losses by its rounding; a killed run goes on with its scale."""
    epochs = {"full": (2,), "kernel": (1,), "width": (1,)}
    plain = replace(PROGRESSIVE, epochs=epochs, log_steps=1, optimizer=changes.get("optimizer", "adamw"))  # type: ignore[arg-type]
    settings: Training = replace(plain, **changes)  # type: ignore[arg-type]
    reports: dict[str, list[Progress]] = {"plain": [], "other": [], "resumed": []}
    begin(plain).run(tmp_path / "plain.pt", reports["plain"].append)
    other, resumed = begin(settings), begin(settings)
    other.run(tmp_path / "other.pt", reports["other"].append)
    losses = {name: np.array([report.loss for report in found]) for name, found in reports.items()}
    assert np.abs(losses["other"] - losses["plain"])[:8].max() < (0.1 if "autocast" in changes else 1e-4)
    with pytest.raises(Killed):
        begin(settings).run(tmp_path / "killed.pt", killer(11))
    resumed.run(tmp_path / "killed.pt", ignore)
    assert equal(resumed.supernet.state_dict(), other.supernet.state_dict())


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(NasError, match="batch must be at most the 64 training images, got 65"):
        begin(replace(PROGRESSIVE, batch=65))


@dataclass(frozen=True)
class Alone:
    """A space of one network, without genes."""

    network: Network
    genes: tuple[Gene, ...] = ()

    def lower(self, genotype: Sequence[int]) -> Network:
        return self.network

    def maximal(self) -> tuple[Network, ...]:
        return (self.network,)


def test_a_network_trains_alone(tmp_path: Path) -> None:
    alone = Alone(space().lower(largest(space()).tolist()).as_float())
    settings = replace(PROGRESSIVE, epochs={"full": (20,)}, learning_rate=0.02)
    training = SupernetTraining(alone, few_digits(), settings, 0)
    reports: list[Progress] = []
    training.run(tmp_path / "checkpoint.pt", reports.append)
    assert reports[-1].loss < reports[0].loss - 0.3


@pytest.mark.slow
@pytest.mark.hls
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")
def test_compiled_networks_train_alike(tmp_path: Path) -> None:
    """The full network as it trains, then as the teacher."""
    alone = Alone(space().lower([0] * len(space().genes)).as_float())
    settings = replace(PROGRESSIVE, epochs={"full": (1,), "kernel": (1,)}, log_steps=1)
    reports: dict[bool, list[Progress]] = {True: [], False: []}
    for compiled, found in reports.items():
        training = SupernetTraining(alone, few_digits(), replace(settings, compile=compiled), 0)
        training.run(tmp_path / f"{compiled}.pt", found.append)
        assert bool(training._compiled) == compiled
    assert np.allclose(*([report.loss for report in found] for found in reports.values()), atol=1e-2)
