"""What every stage works with: the config, and what follows from it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from experiments.config import Config
from experiments.rundir import RunDir
from experiments.workers import LOCAL_RANK
from hw_models.device import Device
from nas.genotype import SearchSpace
from nas.tables import LayerTable, layer_tables
from supernet.data.split import Dataset
from supernet.distributed import ALONE, Ranks, gpus, one_thread, training_device
from supernet.evaluate import FineTuning
from supernet.formats import Formats
from supernet.train import SupernetTraining

CHECKPOINT = "checkpoint.pt"

_PER_GPU = 8


@dataclass(frozen=True)
class Context:
    """A config and the folder of runs; measurements there are shared between runs."""

    config: Config
    runs: Path

    def __reduce__(self) -> tuple[type[Context], tuple[Config, Path]]:
        """A worker gets the config and derives the rest anew: data and tables do not travel with every task."""
        return Context, (self.config, self.runs)

    @property
    def run(self) -> RunDir:
        return RunDir(self.runs / self.config.name)

    @cached_property
    def data(self) -> Dataset:
        return self.config.data.load(self.config.seed)

    @cached_property
    def space(self) -> SearchSpace:
        return self.config.build_space()

    @cached_property
    def tables(self) -> tuple[LayerTable, ...]:
        """The forms of every layer of the space."""
        return layer_tables(self.space)

    def measurements(self, device: str) -> Path:
        """File of a device's latencies, of sampled architectures and of finalists, all in one unit."""
        return self.runs / "measurements" / f"{device}.jsonl"

    def training(self, ranks: Ranks = ALONE) -> SupernetTraining:
        """The supernet's training, at its beginning.

        Raises:
            NasError: The machine has no such device as the config trains on.
        """
        config = self.config
        device = training_device(config.train_on, ranks)
        return SupernetTraining(self.space, self.data.train, config.supernet, config.seed, device, ranks)

    @property
    def workers(self) -> int | None:
        """Most processes that have the supernet at once: a GPU has memory for a few of them; None for any number."""
        return _PER_GPU * len(gpus()) if self.config.train_on == "cuda" else None

    def trained(self, folder: Path) -> SupernetTraining:
        """The finished training, from the train stage's folder; one thread, so that results do not depend on more.

        Restored once and kept: who asks for it takes subnets out, which are copies. Workers of one run take GPUs by
        turns; processes started apart, as their process numbers fall.
        """
        if folder not in self._restored:
            one_thread()
            training = self.training(Ranks(local=int(os.environ.get(LOCAL_RANK, os.getpid())) % max(1, len(gpus()))))
            training.restore(folder / CHECKPOINT)
            self._restored[folder] = training
        return self._restored[folder]

    @cached_property
    def _restored(self) -> dict[Path, SupernetTraining]:
        return {}

    def fine_tuning(self) -> FineTuning:
        """How a finalist is fine-tuned."""
        settings, tuning = self.config.supernet, self.config.finalize
        return FineTuning(
            epochs=tuning.epochs,
            batch=settings.batch,
            learning_rate=tuning.learning_rate,
            distillation=settings.distillation,
            augmentation=settings.augmentation,
            gradient=tuning.gradient,
        )

    def formats(self, device: Device) -> Formats:
        """How the formats of a device's finalists are chosen: powers of two for an FPGA, free steps for others."""
        return Formats("fixed" if device.resources else "affine", self.config.finalize.range)
