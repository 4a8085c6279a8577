"""One of several processes that run one supernet on their parts of a batch; starts under `spawn`."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from small_supernets import EXAMPLES, FLOATS, some_images, some_networks, supernet_of
from torch import Tensor

from nas.network import Network
from nas.spaces.precision import PrecisionChoices
from supernet.elastic import Supernet

EXAMPLE, BATCH = "squeezed", 16
WEIGHTS_ONLY = PrecisionChoices((2, 4, 8), (32,))


def cases() -> list[tuple[Supernet, Network]]:
    """Float networks, and one whose BatchNorm is folded as it trains."""
    spaces = [EXAMPLES[EXAMPLE](precision) for precision in (FLOATS, FLOATS, WEIGHTS_ONLY)]
    networks = [some_networks(space, 3, seed)[-1] for seed, space in enumerate(spaces)]
    return [
        (supernet_of(space, seed), network) for seed, (space, network) in enumerate(zip(spaces, networks, strict=True))
    ]


def images() -> Tensor:
    return some_images(EXAMPLES[EXAMPLE](FLOATS), BATCH, 0)


def outcome(supernet: Supernet, network: Network, rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits of some rows, and the gradients of their part of the mean loss of the whole batch."""
    logits = supernet(images()[rows], network)
    (logits.square().sum() / BATCH).backward()
    gradients = {name: value.grad for name, value in supernet.named_parameters() if value.grad is not None}
    return logits.detach(), gradients


def train(rank: int, folder: str, bounds: list[int]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(bounds) - 1)
    results = []
    for supernet, network in cases():
        supernet.synchronised = True
        logits, gradients = outcome(supernet, network, slice(bounds[rank], bounds[rank + 1]))
        for gradient in gradients.values():
            dist.all_reduce(gradient)
        statistics = supernet.statistics(network, images()) if rank == 0 else {}  # not a collective
        results.append((logits, gradients, statistics))
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
