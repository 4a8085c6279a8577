"""Training of a supernet, step by step.

All randomness of a step comes from (seed, step), the order of the images from (seed, epoch): a run killed anywhere
and resumed equals an uninterrupted one, bit for bit on a CPU, and any number of processes sees the same batches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.errors import NasError
from nas.genotype import SearchSpace, largest
from nas.network import Network
from supernet.channels import sort_channels
from supernet.checkpoint import save_atomically
from supernet.data.split import Split, Step, order
from supernet.distributed import ALONE, Ranks, average_gradients, mean_over, threads
from supernet.elastic import Supernet
from supernet.formats import FIXED, Formats
from supernet.layout import channels_last
from supernet.metrics import Progress, Report
from supernet.optimise import Average, all_finite, copy_into, distilled_loss, fresh_optimizer, set_rate
from supernet.schedule import Stage, describe, genotypes, network, rate_share, stages
from supernet.settings import Training
from supernet.subnet import Subnet

FLOATS = {"bf16": torch.bfloat16, "fp16": torch.float16}

CPU = torch.device("cpu")


class SupernetTraining:
    """A supernet in training, with all that a checkpoint has to hold."""

    def __init__(
        self,
        space: SearchSpace,
        data: Split,
        training: Training,
        seed: int,
        device: torch.device = CPU,
        ranks: Ranks = ALONE,
    ) -> None:
        """Start from random weights.

        Args:
            space: The networks to train.
            data: The training split; nothing else is ever read.
            training: How.
            seed: Of the weights, of the order and augmentation of images, and of the networks sampled.
            device: Where.
            ranks: This process among all that train; all of them construct and run the same training.

        Raises:
            NasError: There are fewer images than a batch, or it does not divide among the processes.
        """
        if len(data) < training.batch:
            raise NasError(f"batch must be at most the {len(data)} training images, got {training.batch}")
        self.space, self.data, self.training, self.seed = space, data, training, seed
        self.device, self.ranks, self.rows = device, ranks, ranks.rows(training.batch)
        self.epoch_steps = len(data) // training.batch
        self.stages = stages(training, self.epoch_steps)
        kernels = sorted({int(k) for gene in space.genes if gene.kind == "kernel" for k in gene.choices})
        self.supernet = Supernet(space.maximal(), kernels, seed, gradient=training.gradient).to(device)
        if training.channels_last:
            self.supernet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.full = space.lower(largest(space).tolist()).as_float()
        self.optimizer = fresh_optimizer(self.supernet, training)
        self.scaler = torch.amp.GradScaler(device.type, enabled=training.autocast == "fp16")
        self.average: Average | None = None
        self.teacher: Subnet | None = None
        self.step = 0
        self._compiled: dict[str, Callable[[Tensor], Tensor]] = {}

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.stages[-1].end

    @property
    def stage(self) -> Stage:
        """The stage of the next step; the last one when all are done."""
        return next((stage for stage in self.stages if self.step < stage.end), self.stages[-1])

    def run(self, checkpoint: Path, report: Report) -> Supernet:
        """Train to the end, from `checkpoint` where it exists; it is replaced atomically.

        Progress is reported, by the first process alone, every `log_steps`, before each checkpoint and at each
        stage's end.

        Raises:
            NasError: The loss or a weight is no longer finite; names the step, the network and the last checkpoint.
        """
        self.resume(checkpoint)
        self.supernet.synchronised = self.training.synchronised
        with threads(self.training.threads):
            self._train(checkpoint, report)
        self.supernet.synchronised = False  # whoever asks for subnets now may be one process alone
        return self.supernet

    def _train(self, checkpoint: Path, report: Report) -> None:
        losses: list[Tensor] = []  # of each step since the last look, still on the device
        started = time.perf_counter()
        for images, labels in self.data.stream(self._batches(self.step), self.training.augmentation, self.device):
            stage = self.stage
            if self.step == stage.start:
                self._enter(stage)
            set_rate(self.optimizer, self._rate(stage, self.step))
            losses.append(self._step(stage, images, labels))
            self.step += 1
            ended = self.step == stage.end
            saves = ended or self.step % self.training.checkpoint_steps == 0
            if saves or self.step % self.training.log_steps == 0:
                loss = self._look(stage, losses, checkpoint)
                elapsed, started = time.perf_counter() - started, time.perf_counter()
                if self.ranks.first:
                    report(self._progress(stage, loss, len(losses) / elapsed))
                losses.clear()
            if ended:
                self._leave(stage)
            if saves:
                self._save(stage, checkpoint)

    def _batches(self, start: int) -> Iterator[Step]:
        """The images of all steps from `start` on."""
        for epoch in range(start // self.epoch_steps, self.steps // self.epoch_steps):
            indices = order(len(self.data), self.training.batch, self.seed, epoch)
            for step, batch in enumerate(indices, epoch * self.epoch_steps):
                if step >= start:
                    yield Step(batch, (self.seed, step), self.rows)

    def _enter(self, stage: Stage) -> None:
        if stage.phase == "width":
            sort_channels(self.supernet, self.space.maximal())
        if self.training.ema:
            self.average = Average(self.supernet.parameters(), self.training.ema)

    def _leave(self, stage: Stage) -> None:
        """The average takes the weights' place; the full network, once trained, becomes the teacher if one is asked."""
        if self.average is not None:
            self.average.apply()
            self.average = None
        if self.training.distillation and stage.phase == "full" and stage.index == stage.count:
            self.teacher = self._frozen_full(self.calibration_images)
        self.optimizer = fresh_optimizer(self.supernet, self.training)

    def _step(self, stage: Stage, images: Tensor, labels: Tensor) -> Tensor:
        """Take one step; the losses of its networks, shape (networks,).

        The optimizer's decay is the sandwich rule's regularisation of the largest network alone: all weights are its
        weights, and they decay once a step, however many other networks share them.
        """
        training, images = self.training, self.laid_out(images)
        rows = genotypes(self.space, stage, self.step, self.seed)
        networks = [network(self.space, stage, row, self.step) for row in rows]
        soft = self._taught(images) if self.teacher is not None and stage.phase != "full" else None
        self.optimizer.zero_grad(set_to_none=True)
        losses: list[Tensor] = []
        for each in networks:
            leads = stage.strategy != "sandwich" or not losses  # not taught by the largest of this very step
            logits = self._logits(stage, images, each)
            smoothing = training.label_smoothing if leads else 0.0
            loss = distilled_loss(logits, labels, soft, training.distillation, smoothing)
            torch.autograd.backward(self.scaler.scale(loss / len(networks)))
            losses.append(loss.detach())
            if stage.strategy == "sandwich" and leads:
                soft = logits.detach()
        average_gradients(self.supernet, self.ranks)
        self.scaler.unscale_(self.optimizer)
        if training.clip:
            torch.nn.utils.clip_grad_norm_(self.supernet.parameters(), training.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.step - stage.start)
        return torch.stack(losses)

    def _logits(self, stage: Stage, images: Tensor, each: Network) -> Tensor:
        """Logits of a network inside the supernet, shape (n, classes), float32."""
        with self._autocast():
            if stage.phase == "full" and self.training.compile:
                return self._fixed(each.key, lambda x: self.supernet(x, each))(images).float()
            logits: Tensor = self.supernet(images, each)
            return logits.float()

    @torch.no_grad()
    def _taught(self, images: Tensor) -> Tensor:
        """The teacher's logits, shape (n, classes), float32."""
        assert self.teacher is not None
        with self._autocast():
            teach = self._fixed("teacher", self.teacher) if self.training.compile else self.teacher
            return teach(images).float()

    def _fixed(self, key: str, run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """A network that stays the same for many steps, compiled; sampled ones would compile in every step."""
        if key not in self._compiled:
            self._compiled[key] = torch.compile(run, dynamic=False)
        return self._compiled[key]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.autocast_type, enabled=self.autocast_type is not None)

    @property
    def autocast_type(self) -> torch.dtype | None:
        """The type products are computed in; None for that of the weights."""
        return FLOATS.get(self.training.autocast)

    def laid_out(self, images: Tensor) -> Tensor:
        """Images in the layout that the training asks for."""
        return channels_last(images) if self.training.channels_last else images

    def _rate(self, stage: Stage, step: int) -> float:
        first, end = stage.annealed
        return self.training.peak(stage.phase) * rate_share(step - first, end - first, self.training.warmup)

    def _look(self, stage: Stage, losses: list[Tensor], checkpoint: Path) -> float:
        """Mean loss over the steps since the last look; the one place that waits for the device."""
        seen = mean_over(torch.stack(losses), self.ranks).cpu()
        first = self.step - len(losses)
        bad = (~seen.isfinite()).nonzero().tolist()
        if bad:
            step, index = first + bad[0][0], bad[0][1]
            row = genotypes(self.space, stage, step, self.seed)[index]
            trained = describe(self.space, row)
            raise self._broken(stage, step, f"the loss of {trained} is {seen[bad[0][0], index]:g}", checkpoint)
        return float(seen.double().mean())

    def _broken(self, stage: Stage, step: int, fault: str, checkpoint: Path) -> NasError:
        kept = f"the last good weights are in {checkpoint}" if checkpoint.exists() else "there are no good weights yet"
        return NasError(
            f"training, step {step} (phase {stage.name}, epoch {step // self.epoch_steps}): {fault}; "
            f"lower the learning rate, {self._rate(stage, step):g} in this step, or look for broken images ({kept})"
        )

    def _progress(self, stage: Stage, loss: float, steps_per_s: float) -> Progress:
        rate, images_per_s = self._rate(stage, self.step - 1), steps_per_s * self.training.batch
        return Progress(self.step, stage.name, self.step / self.epoch_steps, loss, rate, images_per_s)

    def specialise(self, network: Network, formats: Formats = FIXED) -> Subnet:
        """Extract a subnet, calibrated on the first training images."""
        return self.supernet.specialise(network, self.calibration_images, formats)

    def full_subnet(self) -> Subnet:
        """The full network: as it was before shrinking, or as it is while there is no teacher."""
        return self.teacher or self.specialise(self.full)

    @cached_property
    def calibration_images(self) -> Tensor:
        """The first training images, on the device."""
        return self.laid_out(self.data.first(self.training.calibration, self.device))

    def _frozen_full(self, images: Tensor) -> Subnet:
        return self.supernet.specialise(self.full, images).eval().requires_grad_(False)

    def _save(self, stage: Stage, checkpoint: Path) -> None:
        if not all_finite(self.supernet.parameters()):  # the last loss came before the last update
            raise self._broken(stage, self.step - 1, "a weight is not finite after it", checkpoint)
        if self.ranks.first:
            save_atomically(self._state(), checkpoint)

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "supernet": self.supernet.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.values,
            "teacher": None if self.teacher is None else self.teacher.state_dict(),
        }

    def resume(self, checkpoint: Path) -> int:
        """Go back to where `checkpoint` was written, if it exists; the number of steps that are done."""
        if checkpoint.exists():
            self.restore(checkpoint)
        return self.step

    def restore(self, checkpoint: Path) -> None:
        """Go back to where `checkpoint` was written, by whatever number of processes on whatever device."""
        state = torch.load(checkpoint, map_location=self.device, weights_only=True)
        self.step = state["step"]
        self.supernet.load_state_dict(state["supernet"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        self.average = None
        if state["average"] is not None:
            self.average = Average(self.supernet.parameters(), self.training.ema)
            copy_into(self.average.values, state["average"])
        if state["teacher"] is not None:
            self.teacher = self._frozen_full(self.calibration_images[:2])  # for its form; the numbers follow
            self.teacher.load_state_dict(state["teacher"])
