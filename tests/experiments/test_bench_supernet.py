"""The laws of `nas bench supernet`: which networks it compares, that all get equal steps, and how figures are made."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import tiny_config

from experiments.bench import supernet as bench
from experiments.bench.supernet import SIZES, SUPERNETS, Job, Method, at_level
from experiments.config import Config, load_config
from experiments.context import Context
from nas.counts import macs
from nas.genotype import SearchSpace, largest
from supernet.evaluate import design_logits
from supernet.schedule import stages
from supernet.settings import Training
from supernet.train import SupernetTraining

CONFIGS = Path(__file__).parents[2] / "experiments" / "configs"
SHIPPED = ("fashion", "cifar10-short")
METHODS: tuple[Method, ...] = (*SUPERNETS, "alone")


def tiny(changes: dict[str, Any] | None = None) -> Config:
    def edit(entries: dict[str, Any]) -> None:
        entries["supernet"] |= {"epochs": {"full": 3, "depth": [1, 1], "precision": 2}} | (changes or {})

    return tiny_config(edit)


def space_of(name: str) -> SearchSpace:
    return load_config(CONFIGS / f"{name}.yaml").build_space()


@pytest.mark.parametrize("name", [*SHIPPED, "imagenet-mobile", "imagenet-resnet"])
def test_the_networks_compared_are_distinct_and_grow_from_the_smallest_to_the_largest(name: str) -> None:
    space = space_of(name)
    networks = [at_level(space, level) for level in SIZES.values()]
    assert len({network.key for network in networks}) == len(SIZES) == 5
    cost = [sum(map(macs, network)) for network in networks]
    assert cost == sorted(set(cost))
    assert networks[0] == space.lower([0] * len(space.genes)).as_float()
    assert networks[-1] == space.lower(largest(space).tolist()).as_float()
    assert list(SIZES) == ["min", "small", "middle", "large", "max"]


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("quick", [False, True])
def test_all_methods_take_equal_steps_on_equal_images(name: str, quick: bool) -> None:
    trained = bench._config(name, quick, 1).supernet
    settings = {method: bench._settings(trained, method) for method in METHODS}
    assert len({stages(each, 7)[-1].end for each in settings.values()}) == 1
    assert stages(settings["alone"], 7)[-1].end == 7 * sum(map(sum, trained.epochs.values()))
    assert {each.strategy for each in settings.values()} == {"progressive", "sandwich", "uniform"}
    for method, each in settings.items():
        varied = {"strategy", "epochs", "subnets_per_step", "shrink_rate", "anneal", "distillation"}
        same = {field.name: getattr(trained, field.name) for field in dataclasses.fields(Training)}
        assert {key for key, value in same.items() if getattr(each, key) != value} <= varied, method
    assert settings["progressive"] == trained
    assert {m: each.distillation for m, each in settings.items() if m != "progressive"} == {
        "sandwich": 1, "uniform": 0, "alone": 0
    }  # fmt: skip
    assert [stage.phase for stage in stages(settings["alone"], 7)] == ["full"]
    assert {stage.networks for stage in stages(settings["alone"], 7)} == {1}


def test_precision_is_left_out() -> None:
    trained = tiny().supernet
    for method in METHODS:
        assert "precision" not in bench._settings(trained, method).epochs
        assert stages(bench._settings(trained, method), 1)[-1].end == 5


@pytest.mark.parametrize("method", METHODS)
def test_a_training_scores_its_networks_once_and_goes_on_where_it_stopped(method: Method, tmp_path: Path) -> None:
    config = tiny({"epochs": {"full": 2, "depth": 1}})
    job = Job(method, 1, ("min",) if method == "alone" else ("min", "max"))
    found = bench._train({1: config}, tmp_path, (0, job))
    assert tuple(found) == job.sizes
    assert all(0 < value < 0.9 for value in found.values())
    (home,) = tmp_path.iterdir()
    assert home.name.startswith(f"{job.name}-")
    (home / "errors.json").write_text(json.dumps(dict.fromkeys(job.sizes, 0.125)))
    assert bench._train({1: config}, tmp_path, (0, job)) == dict.fromkeys(job.sizes, 0.125)
    (home / "errors.json").unlink()
    before = (home / "checkpoint.pt").stat().st_mtime_ns
    assert bench._train({1: config}, tmp_path, (0, job)) == found
    assert (home / "checkpoint.pt").stat().st_mtime_ns == before
    changed = tiny({"epochs": {"full": 2, "depth": 2}})
    bench._train({1: changed}, tmp_path, (0, job))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_network_alone_is_trained_by_itself(tmp_path: Path) -> None:
    """The same as a space that holds nothing else, and none of the supernet's weights."""
    config = tiny({"epochs": {"full": 2}})
    context = Context(config, tmp_path)
    network = at_level(context.space, SIZES["min"])
    (found,) = bench._train({0: config}, tmp_path, (0, Job("alone", 0, ("min",)))).values()
    training = SupernetTraining(
        bench.Alone(network), context.data.train, bench._settings(config.supernet, "alone"), 0, torch.device("cpu")
    )
    alone = training.run(tmp_path / "checkpoint.pt", lambda now: None)
    assert sum(p.numel() for p in alone.parameters()) < sum(p.numel() for p in context.training().supernet.parameters())
    test = context.data.test
    images = test.first(len(test), torch.device("cpu")).double().numpy().reshape(-1, *network.input.out_shape)
    answers = design_logits(training.specialise(network).design(), images).argmax(1)
    assert found == pytest.approx(np.mean(answers != test.labels.numpy()), abs=1.5 / len(test))


def serial(function: Callable[[Any], Any], tasks: Sequence[Any]) -> Any:
    return ((task, function(task)) for task in tasks)


def test_accuracies_stand_by_method_seed_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[Job] = []
    value = {method: 0.1 * rank for rank, method in enumerate(METHODS)}

    def trained(configs: dict[int, Config], folder: Path, numbered: tuple[int, Job]) -> dict[str, float]:
        number, job = numbered
        assert number == len(jobs)
        jobs.append(job)
        return {size: value[job.method] + 0.03 * job.seed + 0.001 * list(SIZES).index(size) for size in job.sizes}

    monkeypatch.setattr(bench, "parallel", serial)
    monkeypatch.setattr(bench, "_train", trained)
    said: list[str] = []
    accuracy = bench._accuracy({0: tiny(), 2: tiny()}, ("min", "max"), tmp_path, said.append)
    assert len(jobs) == len({job.name for job in jobs}) == len(said) == 3 * 2 + 2 * 2
    assert tuple(accuracy) == METHODS
    for method, found in accuracy.items():
        expected = [[1 - value[method] - 0.03 * seed - 0.001 * size for size in (0, 4)] for seed in (0, 2)]
        np.testing.assert_allclose(found, expected)


def test_figures_are_differences_in_points() -> None:
    accuracy = {
        "progressive": np.array([[0.80, 0.90, 0.95], [0.82, 0.90, 0.94], [0.84, 0.90, 0.93]]),
        "uniform": np.array([[0.70, 0.90, 0.94], [0.74, 0.87, 0.94], [0.78, 0.91, 0.93]]),
        "sandwich": np.full((3, 3), 0.9),
        "alone": np.array([[0.80, 0.91, 0.95], [0.83, 0.91, 0.95], [0.84, 0.90, 0.93]]),
    }
    made = bench._figures(("min", "middle", "max"), accuracy)
    assert made["ps_minus_uniform_smallest"].value == pytest.approx(8)
    assert made["ps_minus_uniform_smallest"].spread == pytest.approx((6, 10))
    assert made["ps_minus_uniform_mean"].value == pytest.approx(11 / 3)
    assert made["ps_minus_uniform_least"].spread == pytest.approx((-1, 0))
    assert made["ps_minus_alone_mean"].spread == pytest.approx((-1, 0))
    assert made["accuracy[progressive, max]"].value == pytest.approx(94)
    assert all(figure.n == 3 for figure in made.values())


def test_step_figures_and_the_picture_of_a_tiny_supernet() -> None:
    made = bench._step_figures(tiny(), True, lambda text: None)
    assert set(made) == {
        "step_overhead_median", "memory_overhead_median", "images_per_s", "images_per_s_share_of_alone",
    }  # fmt: skip
    assert all(figure.value > 0 for figure in made.values())
    assert (made["step_overhead_median"].n, made["images_per_s"].n) == (3, 1)
    assert 0.5 < made["memory_overhead_median"].value < 5
    sizes = {method: np.array([[0.5, 0.7], [0.6, 0.7]]) for method in METHODS}
    picture = bench.accuracy_picture(("min", "max"), (10_000, 90_000), sizes)
    assert picture.startswith(b"\x89PNG\r\n")
    assert picture == bench.accuracy_picture(("min", "max"), (10_000, 90_000), sizes)
