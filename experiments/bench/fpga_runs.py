"""The pipelines behind `nas bench fpga`: three families on 8, 16 and 32 particles, and a network made by hand.

Each is a run directory that resumes. Several may be made at once, elsewhere or beforehand:

    python -m experiments.bench.fpga_runs RUNS deepsets 8
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench.demo import CONFIG, merged
from experiments.config import Config, config_from
from experiments.context import Context
from experiments.pipeline import run, train_only
from experiments.plan import OpenRun, open_run, plan
from experiments.rundir import atomic_write
from experiments.strict import read_yaml
from fpga import reference
from nas.design import Design, load_design, save_design
from supernet.evaluate import all_images, fine_tune

CONFIGS = CONFIG.parent
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


def available(family: str) -> bool:
    """Whether there is a config of a family."""
    return (CONFIGS / f"{FAMILIES[family]}.yaml").exists()


def job_config(job: Job, quick: bool) -> Config:
    """The family's config on so many particles, without constraints, on the published designs' chip.

    All finalists are fine-tuned as those of deep sets are.
    """
    values = read_yaml(CONFIGS / f"{FAMILIES[job.family]}.yaml")
    values |= {"name": f"jets-{job.name}", "devices": [{"name": DEVICE, "objectives": ["error", "lut"]}]}
    sets = read_yaml(CONFIGS / f"{FAMILIES['deepsets']}.yaml")
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
    """A design, and its error on the test split by integer arithmetic."""

    design: Design
    error: float


def by_hand(quick: bool, runs: Path, say: Callable[[str], None]) -> Made:
    """The network made by hand, on 8 particles: trained alone by the deep sets' recipe, and fine-tuned as finalists."""
    values = read_yaml(CONFIGS / f"{FAMILIES['deepsets']}.yaml")
    floats = sum(epochs for phase, epochs in values["supernet"]["epochs"].items() if phase != "precision")
    alone = {
        "strategy": "progressive", "subnets_per_step": {},
        "epochs": {"full": floats, "precision": values["supernet"]["epochs"]["precision"]},
    }  # fmt: skip
    values |= {"name": "jets-by-hand", "devices": [{"name": DEVICE}], "space": {"name": "deepsets", **BY_HAND}}
    values |= {"data": {**values["data"], "particles": 8}, "supernet": {**values["supernet"], **alone}}
    config = config_from(_shortened(values) if quick else values, "jets-deepsets.yaml, by hand")
    train_only(config, runs, say)
    context = Context(config, runs)
    network = context.space.lower([0] * len(context.space.genes))
    folder = context.run.stage_dir(plan(config).train)
    key = hashlib.sha256(config.slice("finalize").encode()).hexdigest()[:12]
    kept, score = folder / f"by-hand-{key}.npz", folder / f"by-hand-{key}.json"
    if not score.exists():
        training = context.trained(folder)
        subnet = training.specialise(network)
        fine_tune(subnet, training.full_subnet(), context.data.train, context.fine_tuning(), config.seed)
        design = subnet.design()
        logits = reference.run(design, all_images(context.data.test, network))
        save_design(design, kept)
        atomic_write(score, json.dumps(float(np.mean(logits.argmax(1) != context.data.test.labels.numpy()))))
    return Made(load_design(network, kept), json.loads(score.read_text()))


def main() -> None:
    """Make one run: the folder of runs, the family or `by-hand`, and the particles, 0 for the 16 features."""
    runs, family, *particles = sys.argv[1:]
    if family == "by-hand":
        by_hand(False, Path(runs), print)
    else:
        finished(Job(family, int(particles[0])), False, Path(runs), print)


if __name__ == "__main__":
    main()
