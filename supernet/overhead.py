"""What a training step of a subnet costs inside the supernet, beside the same subnet extracted."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from nas.network import Network
from supernet.elastic import Supernet
from supernet.plain import extract


@dataclass(frozen=True)
class StepCost:
    """Forward and backward of one network: seconds in the median, and bytes at the peak, weights included."""

    inside_s: float
    alone_s: float
    inside_bytes: int
    alone_bytes: int


def step_cost(
    supernet: Supernet, network: Network, images: Tensor, labels: Tensor, autocast: torch.dtype | None, rounds: int
) -> StepCost:
    """Measure one network both ways, in turns, each round in the other order.

    Args:
        supernet: Where the network's weights are; its device is where everything runs.
        network: A float network of the space.
        images: One batch, shape (n, *input shape), on the device and laid out as in training.
        labels: Shape (n,), on the device.
        autocast: The type products are computed in; None for that of the weights.
        rounds: Timed steps of each.
    """
    plain = extract(supernet, network, supernet.statistics(network, images)).train()

    def step(model: nn.Module, logits: Callable[[], Tensor]) -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(images.device.type, autocast) if autocast else nullcontext():
            loss = F.cross_entropy(logits(), labels)
        loss.backward()  # type: ignore[no-untyped-call]

    steps: dict[str, tuple[nn.Module, Callable[[], None]]] = {
        "inside": (supernet, lambda: step(supernet, lambda: supernet(images, network))),
        "alone": (plain, lambda: step(plain, lambda: plain(images))),
    }
    peaks = {name: _peak_bytes(run, model, images.device) for name, (model, run) in steps.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds):
        for name in list(steps) if turn % 2 else reversed(list(steps)):
            seconds[name].append(_seconds(steps[name][1], images.device))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return StepCost(medians["inside"], medians["alone"], peaks["inside"], peaks["alone"])


def _seconds(run: Callable[[], None], device: torch.device) -> float:
    """Time of one run: of this process on a CPU, whatever else the machine does; until the end of the work on a GPU."""
    if device.type != "cuda":
        started = time.process_time()
        run()
        return time.process_time() - started
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    run()
    torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _peak_bytes(run: Callable[[], None], model: nn.Module, device: torch.device) -> int:
    """Bytes of the weights, and of the most that one run holds besides."""
    run()
    model.zero_grad(set_to_none=True)
    weights = _bytes(model.parameters())
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return weights + torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    changes = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == "[memory]")
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    return weights + peak


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
