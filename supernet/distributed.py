"""Processes and threads: one training on any number of processes, started by `torchrun`."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nas.errors import NasError


@dataclass(frozen=True)
class Ranks:
    """This process among all that train together, and among those of its machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this process reports and writes."""
        return self.rank == 0

    def rows(self, batch: int) -> slice:
        """This process's rows of a batch.

        Raises:
            NasError: The batch does not divide among the processes.
        """
        size, rest = divmod(batch, self.world)
        if rest or not size:
            fits = f"{size * self.world} or {(size + 1) * self.world}" if size else f"{self.world}"
            raise NasError(f"batch must divide among the {self.world} processes, got {batch}; take {fits}")
        return slice(self.rank * size, (self.rank + 1) * size)


ALONE = Ranks()


def gpus() -> tuple[str, ...]:
    """Names of the GPUs that torch finds on this machine."""
    return tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


@contextmanager
def processes(device: str) -> Iterator[Ranks]:
    """Join the processes that `torchrun` started, and leave them at the end; started otherwise, be alone.

    They meet before they leave: a thread of the group that still held a tensor would want the interpreter's lock while
    this one, which has it, waits for the thread. One that fails does not wait for the others. With GPUs, Ctrl-C ends
    each of them where it is: no exception reaches one that waits on its GPU for another, and torchrun gives it 30 s.

    Args:
        device: What all of them train on, `cpu` or `cuda`.
    """
    if "RANK" not in os.environ:
        yield ALONE
        return
    ranks = Ranks(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    training_device(device, ranks)
    at_interrupt = signal.getsignal(signal.SIGINT)
    if device == "cuda":
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield ranks
        dist.barrier(device_ids=[ranks.local] if device == "cuda" else None)
    finally:
        dist.destroy_process_group()
        signal.signal(signal.SIGINT, at_interrupt)


def training_device(device: str, ranks: Ranks = ALONE) -> torch.device:
    """The device of this process: the CPU, or for `cuda` the GPU of its local rank, made the current one.

    Raises:
        NasError: The machine lacks it.
    """
    if device != "cuda":
        return torch.device(device)
    found = torch.cuda.device_count()
    if ranks.local >= found:
        needed = f"cuda needs one GPU per process; this machine has {found}, and a process has local rank {ranks.local}"
        raise NasError(f"{needed}; train on the CPU or lower torchrun's --nproc-per-node")
    here = torch.device("cuda", ranks.local)
    torch.cuda.set_device(here)
    return here


def average_gradients(model: nn.Module, ranks: Ranks) -> None:
    """Make each gradient its mean over the processes, in one exchange; all have gradients of the same parameters."""
    if ranks.world == 1:
        return
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    together = mean_over(torch.cat([gradient.flatten() for gradient in gradients]), ranks)
    for gradient, mean in zip(gradients, torch.split(together, [each.numel() for each in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def mean_over(values: Tensor, ranks: Ranks) -> Tensor:
    """Mean of a tensor over the processes; where it is not finite on one, it is on none."""
    if ranks.world > 1:
        dist.all_reduce(values)
    return values / ranks.world


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run torch on so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_thread() -> None:
    """Run torch on one thread in this process: sums come out the same on any number of cores."""
    torch.set_num_threads(1)
