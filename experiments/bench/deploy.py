"""Many devices and budgets in one go, from the digits' supernet: how long it takes, and how good the bounds are."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from experiments.bench.digits import digits_problems, five_devices
from experiments.bench.results import Figure, figure
from experiments.deploy import deploy

BUDGETS = 10


def deploy_figures(quick: bool, runs: Path, say: Callable[[str], None]) -> dict[str, Figure]:
    """`deploy_5x10_s`, from loading the predictors on, and the gaps to the bounds.

    Two of the five devices are derived from a shipped one: half the clock, half the resources.

    Args:
        quick: On the small training, once instead of three times.
        runs: Folder of runs.
        say: Told what comes next.
    """
    digits_problems(quick, runs, five_devices(), say)
    seconds, gaps, served = [], [], []
    for seed in range(1 if quick else 3):
        say(f"5 devices x {BUDGETS} budgets, seed {seed}")
        start = time.perf_counter()
        answers = deploy(digits_problems(quick, runs, five_devices(), lambda _: None), "latency_s", BUDGETS, seed)
        seconds.append(time.perf_counter() - start)
        gaps.append(float(np.mean([one.gap / one.metrics["error"] for one in answers if one.gap is not None])))
        served.append(float(sum(one.genotype is not None for one in answers)))
    return {
        "deploy_5x10_s": figure(seconds, "s, predictors included"),
        "deploy_5x10_networks": figure(served, "of 50 budgets"),
        "deploy_5x10_gap": figure(gaps, "share of the error above its bound, mean over budgets"),
    }
