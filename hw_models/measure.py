"""Measure on this machine; the rules are those of `hw_models.runner`, here and on every other machine."""

from __future__ import annotations

import time
from collections.abc import Mapping

from hw_models.engines import DEFAULT, load_engine
from hw_models.onnx_model import to_onnx
from hw_models.reference import REFERENCE, random_design
from hw_models.runner import (
    BATCH_S,
    MAX_ATTEMPTS,
    MAX_DRIFT,
    Campaign,
    Clock,
    Plan,
    Progress,
    fingerprint_of,
    run_campaign,
)

__all__ = [
    "BATCH_S", "MAX_ATTEMPTS", "MAX_DRIFT", "Campaign", "Clock", "Progress",
    "fingerprint", "measure", "reference_model", "silent",
]  # fmt: skip


def silent(_done: int, _total: int) -> None:
    """Report no progress."""


def fingerprint(threads: int = 1, engine: str = DEFAULT) -> str:
    """What a latency depends on beside the model: processor, engine, threads, harness."""
    return fingerprint_of(load_engine(engine), threads)


def reference_model() -> bytes:
    """The model that every campaign is held against, as ONNX."""
    return to_onnx(random_design(REFERENCE, 0))


def measure(
    models: Mapping[str, bytes],
    rounds: int = 30,
    runs: int = 5,
    *,
    seed: int = 0,
    threads: int = 1,
    engine: str = DEFAULT,
    progress: Progress = silent,
    clock: Clock = time.perf_counter_ns,
) -> Campaign:
    """Measure ONNX models against each other, one input at a time.

    Args:
        models: Serialized models by key.
        rounds: Rounds to keep, each with one timing of every model.
        runs: Batches of calls in one timing.
        seed: Of the order within the rounds.
        threads: Of the engine.
        engine: One of `hw_models.engines.ENGINES`.
        progress: Called after every round.
        clock: Nanoseconds, ascending.

    Raises:
        NasError: The engine is not installed, or `MAX_ATTEMPTS * rounds` rounds did not give `rounds` with a steady
            reference.
    """
    plan = Plan(rounds, runs, seed, threads)
    return run_campaign(load_engine(engine), models, reference_model(), plan, progress, clock)
