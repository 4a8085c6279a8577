"""Activations of few bits without training: DQA beside direct quantization, at equal bits and at equal storage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from experiments.bench.demo import demo_config
from experiments.bench.results import Figure, figure
from experiments.context import CHECKPOINT, Context
from supernet.distributed import one_thread
from supernet.dqa import PostQuantized, dqa_format
from supernet.evaluate import error
from supernet.train import SupernetTraining

SEEDS = range(10)
BITS = (3, 4)
EXTRA, SHARE = 2, 0.5
"""Bits that half of the channels keep in addition."""


def measure(quick: bool, runs: Path, out: Path, say: Callable[[str], None]) -> dict[str, Figure]:
    """Train the largest network of the digits' supernet, one of each seed, and quantize what its layers read.

    Figures of each number of bits: `dqa_minus_direct_points` at equal bits of the integers; `dqa_stored_bits`, with the
    codes of DQA's shifting errors; and `dqa_minus_equal_storage_points`, against direct quantization in the nearest
    whole number of bits to what DQA stores, `equal_storage_bits`. Accuracies are those of the test split. Formats come
    from training images, those of direct quantization in the same way: as DQA's without important channels.

    Args:
        quick: One seed, fewer epochs.
        runs: Not used: nothing is kept.
        out: Not used: there is no picture.
        say: Told of every seed.
    """
    found: dict[str, list[float]] = {}
    for seed in SEEDS[:1] if quick else SEEDS:
        values = _seed(seed, 5 if quick else 30)
        say(f"seed {seed}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return {name: figure(values, _unit(name)) for name, values in found.items()}


def _unit(name: str) -> str:
    if "bits" in name:
        return "bits per activation"
    return "points of test accuracy" if "points" in name else "% of test images"


def _seed(seed: int, epochs: int) -> dict[str, float]:
    training, context = _trained(seed, epochs)
    subnet, samples, test = training.full_subnet(), training.calibration_images, context.data.test
    images = test.first(len(test), training.device)

    def quantized(bits: int, share: float) -> tuple[float, float]:
        """Accuracy in % and stored bits."""
        suits = partial(dqa_format, bits=bits, extra=EXTRA, share_of_important_channels=share)
        model = PostQuantized(subnet, samples, suits)
        return 100 * (1 - error(model, test)), model.stored_bits(images)

    values = {"float_accuracy": 100 * (1 - error(subnet, test))}
    for bits in BITS:
        (direct, _), (ours, stored) = quantized(bits, 0.0), quantized(bits, SHARE)
        whole = round(stored)
        equal, _ = quantized(whole, 0.0)
        values |= {
            f"direct_accuracy_{bits}bit": direct,
            f"dqa_accuracy_{bits}bit": ours,
            f"dqa_minus_direct_points_{bits}bit": ours - direct,
            f"dqa_stored_bits_{bits}bit": stored,
            f"equal_storage_bits_{bits}bit": whole,
            f"dqa_minus_equal_storage_points_{bits}bit": ours - equal,
        }
    return values


def _trained(seed: int, epochs: int) -> tuple[SupernetTraining, Context]:
    one_thread()
    config = demo_config(seed, quick=False)
    context = Context(config, Path())
    settings = replace(config.supernet, epochs={"full": (epochs,)})
    training = SupernetTraining(context.space, context.data.train, settings, seed)
    with TemporaryDirectory() as folder:
        training.run(Path(folder) / CHECKPOINT, lambda now: None)
    return training, context
