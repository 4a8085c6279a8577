"""The pipelines behind `nas bench fpga`: three families on 8, 16 and 32 particles, a network made by hand, and a CNN.

Each is a run directory that resumes. Several may be made at once, elsewhere or beforehand:

    python -m experiments.bench.fpga_runs RUNS deepsets 8

`left` tells which of them are still to be made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer

from experiments.bench import CONFIGS
from experiments.bench.demo import merged
from experiments.config import Config, config_from
from experiments.context import Context
from experiments.pipeline import run, train_only
from experiments.plan import OpenRun, open_run, plan
from experiments.rundir import atomic_write
from experiments.strict import read_yaml
from fpga import reference
from hw_models.device import load_device
from nas.design import Design, load_design, save_design
from nas.errors import NasError
from nas.genotype import random_population
from supernet.evaluate import all_images, fine_tune

DEVICE = "alveo-u250-rtl"
"""Its chip is that of the published designs, an XCVU13P in another package, and holds all networks."""

FAMILIES: Mapping[str, str] = {"mlp": "jets", "deepsets": "jets-deepsets", "interaction": "jets-interaction"}
"""The shipped config of each family."""

PARTICLES = (8, 16, 32)
FEATURES = 0
"""Stands for no particles but the 16 high-level features."""

BY_HAND = {
    "phi": {"depth": [3], "width": [32]}, "rho": {"depth": [1], "width": [32]},
    "precision": {"weight_bits": [8], "act_bits": [8]},
}  # fmt: skip
"""Deep sets of arXiv 2402.01876: 32-32-32 for each particle, 32 behind the mean, 8 bits."""

CNN: Mapping[str, Any] = {
    "name": "mobile", "stem": 6, "stem_stride": 2, "kernel": [3], "expand": [2],
    "stages": [{"width": 6, "stride": 1, "depth": [1]}, {"width": 12, "stride": 2, "depth": [1]}],
    "precision": {"weight_bits": [3, 4, 6], "act_bits": [4, 6], "sparsity": [0, 0.25, 0.5]},
}  # fmt: skip
"""A standard, depthwise and pointwise convolutions, a residual sum and a mean, each in bits and with zeros of its own;
few enough products for RTL with all positions at once."""

QUICK: Mapping[str, Any] = {
    "predictors": {"accuracy": {"samples": 40}},
    "search": {
        "samplers": {
            "nsga2": {"population": 40, "generations": 10},
            "integer_program": {"budgets": 2, "effort": 1.0, "samples": 200},
        }
    },
    "finalize": {"members": 3, "baseline": 1, "epochs": 1},
}


@dataclass(frozen=True)
class Job:
    """A family, and how many particles it reads."""

    family: str
    particles: int

    @property
    def name(self) -> str:
        return f"{self.family}-{self.particles or 'features'}"


def jobs(quick: bool) -> list[Job]:
    """All, in the order of the table."""
    if quick:
        return [Job(family, 8) for family in FAMILIES]
    return [Job("mlp", FEATURES), *(Job(family, count) for family in FAMILIES for count in PARTICLES)]


def job_config(job: Job, quick: bool) -> Config:
    """The family's config on so many particles, without constraints, on the published designs' chip.

    Finalists are fine-tuned as those of deep sets are, but those with more than 64 pairs as their own config says, and
    these train on a GPU: an epoch takes a hundred times as long as one of deep sets, and hours on a CPU.
    """
    values = read_yaml(CONFIGS / f"{FAMILIES[job.family]}.yaml")
    values |= {"name": f"jets-{job.name}", "devices": [{"name": DEVICE, "objectives": ["error", "lut"]}]}
    sets = read_yaml(CONFIGS / f"{FAMILIES['deepsets']}.yaml")
    if job.family == "interaction" and job.particles > 8:
        values["train_on"] = "cuda"
    else:
        values["finalize"] = sets["finalize"]
    if job.particles:
        values["data"] = {**sets["data"], "particles": job.particles}
        values["space"] = {key: value for key, value in values["space"].items() if key != "particles"}
    return config_from(_shortened(values) if quick else values, f"{FAMILIES[job.family]}.yaml, for {job.name}")


def _shortened(values: dict[str, Any]) -> dict[str, Any]:
    return merged(values, {**QUICK, "supernet": {"epochs": dict.fromkeys(values["supernet"]["epochs"], 1)}})


def finished(job: Job, quick: bool, runs: Path, say: Callable[[str], None]) -> OpenRun:
    """The job's run, made or completed."""
    return open_run(run(job_config(job, quick), runs, say).path)


@dataclass(frozen=True)
class Made:
    """A trained design, its error on the test split by integer arithmetic, and the folder that is its own."""

    design: Design
    error: float
    home: Path


def by_hand(quick: bool, runs: Path, say: Callable[[str], None]) -> Made:
    """The network made by hand, on 8 particles: trained alone by the deep sets' recipe, and fine-tuned as finalists."""
    return alone(by_hand_config(quick), runs, say)


def by_hand_config(quick: bool) -> Config:
    """Deep sets' config, of one network."""
    values = read_yaml(CONFIGS / f"{FAMILIES['deepsets']}.yaml")
    floats = sum(epochs for phase, epochs in values["supernet"]["epochs"].items() if phase != "precision")
    once = {
        "strategy": "progressive", "subnets_per_step": {},
        "epochs": {"full": floats, "precision": values["supernet"]["epochs"]["precision"]},
    }  # fmt: skip
    values |= {"name": "jets-by-hand", "devices": [{"name": DEVICE}], "space": {"name": "deepsets", **BY_HAND}}
    values |= {"data": {**values["data"], "particles": 8}, "supernet": {**values["supernet"], **once}}
    return config_from(_shortened(values) if quick else values, "jets-deepsets.yaml, by hand")


def cnn_config() -> Config:
    """The digits' config with one architecture of `CNN`; it trains in seconds, so there is no short form."""
    values = read_yaml(CONFIGS / "digits.yaml")
    values |= {"name": "digits-cnn", "devices": [{"name": DEVICE}], "space": CNN}
    values["supernet"] |= {"epochs": {"full": 120, "precision": 40}}
    values["finalize"] |= {"epochs": 60, "learning_rate": 5e-3}
    return config_from(values, "digits.yaml, for a small CNN")


def alone(config: Config, runs: Path, say: Callable[[str], None]) -> Made:
    """A member of the config's space, drawn by its seed: trained, quantized and fine-tuned as finalists are."""
    train_only(config, runs, say)
    context = Context(config, runs)
    network = context.space.lower(random_population(context.space, 1, np.random.default_rng(config.seed))[0].tolist())
    trained = context.run.stage_dir(plan(config).train)
    home = trained / f"alone-{hashlib.sha256(config.slice('finalize').encode()).hexdigest()[:12]}"
    kept, score = home / "design.npz", home / "error.json"
    if not score.exists():
        home.mkdir(exist_ok=True)
        training = context.trained(trained)
        subnet = training.specialise(network, context.formats(load_device(DEVICE)))
        fine_tune(subnet, training.full_subnet(), context.data.train, context.fine_tuning(), config.seed)
        design = subnet.design()
        logits = reference.run(design, all_images(context.data.test, network))
        save_design(design, kept)
        atomic_write(score, json.dumps(float(np.mean(logits.argmax(1) != context.data.test.labels.numpy()))))
    return Made(load_design(network, kept), json.loads(score.read_text()), home)


def left(quick: bool, runs: Path) -> list[str]:
    """The commands that make those runs of the benchmark that are not finished, one after the other or at once."""
    wanted = [job for job in jobs(quick) if not _is_finished(job_config(job, quick), runs)]
    short = " --quick" if quick else ""
    return [f"python -m experiments.bench.fpga_runs {runs} {job.family} {job.particles}{short}" for job in wanted]


def _is_finished(config: Config, runs: Path) -> bool:
    return all(map(Context(config, runs).run.is_done, plan(config).all))


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    runs: Annotated[Path, typer.Argument(help="Folder of runs.")],
    what: Annotated[Literal["mlp", "deepsets", "interaction", "by-hand", "cnn"], typer.Argument(help="Which run.")],
    particles: Annotated[int, typer.Argument(help="8, 16 or 32; 0 for mlp's 16 high-level features.")] = 8,
    quick: Annotated[bool, typer.Option(help="As `nas bench fpga --quick` makes it.")] = False,
) -> None:
    """Make one run of `nas bench fpga`, or go on with it."""
    try:
        _make(runs, what, particles, quick)
    except NasError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def _make(runs: Path, what: str, particles: int, quick: bool) -> None:
    known = [job.particles for job in jobs(False) if job.family == what]
    if what == "by-hand":
        by_hand(quick, runs, print)
    elif what == "cnn":
        alone(cnn_config(), runs, print)
    elif particles in known:
        finished(Job(what, particles), quick, runs, print)
    else:
        raise NasError(f"PARTICLES of {what} must be one of {known}, got {particles}")


if __name__ == "__main__":
    app()
