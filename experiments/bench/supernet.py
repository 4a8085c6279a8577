"""Do subnets of a supernet reach what the same networks reach alone? And what does a step inside the supernet cost?"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from experiments.bench import CONFIGS
from experiments.bench.figures import accuracy_picture
from experiments.bench.results import Figure, figure
from experiments.config import Config, config_from
from experiments.context import CHECKPOINT, Context
from experiments.progress import progress
from experiments.rundir import atomic_write
from experiments.strict import read_yaml
from experiments.workers import parallel
from nas.counts import macs
from nas.genotype import FloatArray, Gene, IntArray, SearchSpace, canonical, largest, tilted_population
from nas.network import Network
from supernet.distributed import ALONE, Ranks, gpus, threads, training_device
from supernet.evaluate import error
from supernet.metrics import recorded
from supernet.overhead import StepCost, step_cost
from supernet.settings import Training
from supernet.train import SupernetTraining

SEEDS = (0, 1, 2)
SIZES: Mapping[str, float] = {"min": 0.0, "small": 0.25, "middle": 0.5, "large": 0.75, "max": 1.0}
"""The networks that are compared, by the share of every gene's choices that lies below theirs."""

Method = Literal["progressive", "sandwich", "uniform", "alone"]
SUPERNETS: tuple[Method, ...] = ("progressive", "sandwich", "uniform")


@dataclass(frozen=True)
class Job:
    """One training: a supernet, or one of its networks alone."""

    method: Method
    seed: int
    sizes: tuple[str, ...]

    @property
    def name(self) -> str:
        return "-".join([self.method, *(self.sizes if self.method == "alone" else ()), str(self.seed)])


@dataclass(frozen=True)
class Alone:
    """A space that holds one network."""

    network: Network
    genes: tuple[Gene, ...] = ()

    def lower(self, genotype: Sequence[int]) -> Network:
        return self.network

    def maximal(self) -> tuple[Network, ...]:
        return (self.network,)


def supernet(name: str, quick: bool, runs: Path, out: Path, say: Callable[[str], None]) -> dict[str, Figure]:
    """Train supernets three ways and their networks alone, all for the same number of steps, and compare.

    Args:
        name: Name of a shipped config; it trains on a GPU where there is one.
        quick: One seed, one epoch of each stage, three sizes.
        runs: Folder of runs; what an earlier call finished there is kept.
        out: Where the picture goes, `supernet-NAME.png`.
        say: Told of every training.
    """
    seeds, sizes = (SEEDS[:1], ("min", "middle", "max")) if quick else (SEEDS, tuple(SIZES))
    configs = {seed: _config(name, quick, seed) for seed in seeds}
    accuracy = _accuracy(configs, sizes, runs / f"bench-supernet-{name}", say)
    space = configs[seeds[0]].build_space()
    cost = [sum(map(macs, at_level(space, SIZES[size]))) for size in sizes]
    picture = out / f"supernet-{name}{'-quick' if quick else ''}.png"
    atomic_write(picture, accuracy_picture(sizes, cost, accuracy))
    return _figures(sizes, accuracy) | _step_figures(configs[seeds[0]], quick, say)


def _accuracy(
    configs: Mapping[int, Config], sizes: tuple[str, ...], folder: Path, say: Callable[[str], None]
) -> dict[str, FloatArray]:
    """Test accuracy by method, shape (seeds, sizes), of all trainings; the longest are begun first."""
    jobs = [Job(method, seed, sizes) for method in SUPERNETS for seed in configs]
    jobs += [Job("alone", seed, (size,)) for size in reversed(sizes) for seed in configs]
    found: dict[tuple[str, int, str], float] = {}
    with progress(f"{len(jobs)} trainings", len(jobs)) as advance:
        for (_, job), errors in parallel(partial(_train, dict(configs), folder), list(enumerate(jobs))):
            found |= {(job.method, job.seed, size): 1 - error for size, error in errors.items()}
            advance(note=job.name)
            say(f"{job.name}: " + ", ".join(f"{size} {1 - error:.2%}" for size, error in errors.items()))
    methods: tuple[Method, ...] = (*SUPERNETS, "alone")
    return {m: np.array([[found[m, seed, size] for size in sizes] for seed in configs]) for m in methods}


def _figures(sizes: tuple[str, ...], accuracy: Mapping[str, FloatArray]) -> dict[str, Figure]:
    """Differences in points of accuracy, and the accuracies; one value per seed."""
    ours = accuracy["progressive"]

    def points(values: FloatArray) -> Figure:
        return figure((100 * values).tolist(), "points of test accuracy")

    figures = {
        "ps_minus_uniform_smallest": points((ours - accuracy["uniform"])[:, 0]),
        "ps_minus_uniform_mean": points((ours - accuracy["uniform"]).mean(1)),
        "ps_minus_uniform_least": points((ours - accuracy["uniform"]).min(1)),
        "ps_minus_alone_mean": points((ours - accuracy["alone"]).mean(1)),
        "ps_minus_sandwich_mean": points((ours - accuracy["sandwich"]).mean(1)),
    }
    for method, values in accuracy.items():
        for column, size in enumerate(sizes):
            figures[f"accuracy[{method}, {size}]"] = figure((100 * values[:, column]).tolist(), "% of test images")
    return figures


def _step_figures(config: Config, quick: bool, say: Callable[[str], None]) -> dict[str, Figure]:
    """Cost of a step inside the supernet over the same network extracted, and images per second of a step."""
    context = Context(config, Path())
    training = context.training()
    images, labels = next(context.data.train.whole(training.device, config.supernet.batch))
    space, autocast = context.space, training.autocast_type
    drawn = tilted_population(space, 3 if quick else 12, np.random.default_rng(0), np.zeros_like(largest(space)))
    networks = [space.lower(genotype).as_float() for genotype in drawn.tolist()]

    def cost(network: Network) -> StepCost:
        rounds = 3 if quick else 15
        return step_cost(training.supernet, network, training.laid_out(images), labels, autocast, rounds)

    with threads(config.supernet.threads):
        costs, largest_cost = [cost(network) for network in networks], cost(training.full)
    say(f"steps of {len(images)} images on {training.device}, products in {config.supernet.autocast}")
    return {
        "step_overhead_median": figure([c.inside_s / c.alone_s for c in costs], "time inside / extracted, subnets"),
        "memory_overhead_median": figure([c.inside_bytes / c.alone_bytes for c in costs], "peak inside / extracted"),
        "images_per_s": figure([len(images) / largest_cost.inside_s], "largest subnet inside the supernet"),
        "images_per_s_share_of_alone": figure([largest_cost.alone_s / largest_cost.inside_s], "of the largest alone"),
    }


def _train(configs: Mapping[int, Config], folder: Path, numbered: tuple[int, Job]) -> dict[str, float]:
    """Train, or go on training, and score: the test error of each of the job's sizes. GPUs take jobs by turns."""
    number, job = numbered
    gpu = Ranks(local=number % len(gpus())) if gpus() else ALONE
    context = Context(configs[job.seed], folder)
    networks = {size: at_level(context.space, SIZES[size]) for size in job.sizes}
    space: SearchSpace = Alone(networks[job.sizes[0]]) if job.method == "alone" else context.space
    settings, device = _settings(context.config.supernet, job.method), training_device(context.config.train_on, gpu)
    home = folder / f"{job.name}-{_key(context.config, settings)}"
    home.mkdir(parents=True, exist_ok=True)
    done, checkpoint = home / "errors.json", home / CHECKPOINT
    if not done.exists():
        training = SupernetTraining(space, context.data.train, settings, job.seed, device)
        if checkpoint.exists():
            training.restore(checkpoint)
        with recorded(home, training.step) as report:
            training.run(checkpoint, report)
        found = {size: error(training.specialise(network), context.data.test) for size, network in networks.items()}
        atomic_write(done, json.dumps(found))
    errors: dict[str, float] = json.loads(done.read_text())
    return errors


def _key(config: Config, settings: Training) -> str:
    """Of everything a training depends on but its seed, so that a changed config trains anew."""
    parts = config.slice("data", "space", "train_on") + json.dumps(dataclasses.asdict(settings), sort_keys=True)
    return hashlib.sha256(parts.encode()).hexdigest()[:12]


def _config(name: str, quick: bool, seed: int) -> Config:
    values = {**read_yaml(CONFIGS / f"{name}.yaml"), "seed": seed, "train_on": "cuda" if gpus() else "cpu"}
    if quick:
        epochs = {phase: [1] for phase in values["supernet"]["epochs"]}
        values["supernet"] = {**values["supernet"], "epochs": epochs}
    return config_from(values, f"{name}.yaml, seed {seed}")


def at_level(space: SearchSpace, level: float) -> Network:
    """The float network whose genes lie at this share of their choices; every second gene is rounded up."""
    up = np.arange(len(space.genes)) % 2 * 0.5
    genotype = np.floor(np.minimum(level * largest(space) + up, largest(space))).astype(np.int64)
    chosen: IntArray = canonical(space, genotype[None] if 0 < level < 1 else np.round(level * largest(space))[None])
    return space.lower(chosen[0].astype(int).tolist()).as_float()


def _settings(trained: Training, method: Method) -> Training:
    """The config's training by another method, over the same number of epochs.

    Under the sandwich rule soft labels alone teach the smaller networks (BigNAS, section 3.1).
    """
    epochs = (sum(sum(lengths) for phase, lengths in trained.epochs.items() if phase != "precision"),)
    change = partial(dataclasses.replace, trained, shrink_rate=None, anneal="stage", distillation=0.0)
    match method:
        case "progressive":
            return dataclasses.replace(trained, epochs={k: v for k, v in trained.epochs.items() if k != "precision"})
        case "sandwich":
            subnets = {"train": 4}
            return change(strategy="sandwich", epochs={"train": epochs}, subnets_per_step=subnets, distillation=1.0)
        case "uniform":
            most = max(trained.subnets_per_step.values(), default=1)
            return change(strategy="uniform", epochs={"train": epochs}, subnets_per_step={"train": most})
        case "alone":
            return change(epochs={"full": epochs}, subnets_per_step={})
