"""What every stage works with: the config, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from experiments.config import Config
from experiments.rundir import RunDir
from nas.errors import NasError
from nas.genotype import SearchSpace
from nas.tables import LayerTable, layer_tables
from supernet.data import Dataset, load_dataset
from supernet.evaluate import FineTuning
from supernet.train import ProgressiveShrinking, Training, one_thread

CHECKPOINT = "checkpoint.pt"


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
        data = self.config.data
        return load_dataset(data.name, data.validation, data.test, self.config.seed)

    @cached_property
    def space(self) -> SearchSpace:
        return self.config.space.build(self.data.input_shape, self.data.classes)

    @cached_property
    def tables(self) -> tuple[LayerTable, ...]:
        """The forms of every layer of the space."""
        return layer_tables(self.space)

    def measurements(self, device: str) -> Path:
        """File of a device's latencies, of sampled architectures and of finalists, all in one unit."""
        return self.runs / "measurements" / f"{device}.jsonl"

    def training(self) -> ProgressiveShrinking:
        """The supernet's training, at its beginning; one thread, so that results do not depend on their number."""
        one_thread()
        settings = self.config.supernet
        training = Training(
            epochs=settings.epochs.model_dump(),
            batch=settings.batch,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            distillation=settings.distillation,
            subnets_per_step=settings.subnets_per_step,
            shift=self.config.data.shift,
            calibration=settings.calibration,
        )
        if len(self.data.train) < settings.batch:
            raise NasError(
                f"supernet.batch: must be at most the {len(self.data.train)} training images, got {settings.batch}"
            )
        return ProgressiveShrinking(self.space, self.data.train, training, self.config.seed)

    def trained(self, folder: Path) -> ProgressiveShrinking:
        """The finished training, from the train stage's folder."""
        training = self.training()
        training.restore(folder / CHECKPOINT)
        return training

    def fine_tuning(self) -> FineTuning:
        """How a finalist is fine-tuned."""
        settings, tuning = self.config.supernet, self.config.finalize
        return FineTuning(
            epochs=tuning.epochs,
            batch=settings.batch,
            learning_rate=tuning.learning_rate,
            distillation=settings.distillation,
            shift=self.config.data.shift,
        )
