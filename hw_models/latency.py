"""Measured latencies of architectures: what is stored is read, what is missing is measured and stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hw_models.device import Device
from hw_models.engines import DEFAULT
from hw_models.measure import Campaign, Progress, fingerprint, measure, silent
from hw_models.onnx_model import to_onnx
from hw_models.quantized_onnx import int8_network, random_int8_model
from hw_models.reference import random_design
from hw_models.remote import fingerprint_on, measure_on
from hw_models.store import MeasurementStore
from nas.errors import NasError
from nas.network import Network


@dataclass(frozen=True)
class Bench:
    """Where latency is measured, and with what.

    Attributes:
        engine: One of `hw_models.engines.ENGINES`.
        host: Another machine, as ssh takes it; None for this one.
        python: The command that starts Python on another machine.
    """

    engine: str = DEFAULT
    host: str | None = None
    python: str = "python3"

    def fingerprint(self, threads: int) -> str:
        """What a latency depends on beside the model; of another machine, it is asked."""
        if self.host is None:
            return fingerprint(threads, self.engine)
        return fingerprint_on(self.host, threads, self.engine, self.python)

    def measure(self, models: Mapping[str, bytes], *, seed: int, threads: int, progress: Progress = silent) -> Campaign:
        """One campaign over ONNX models, by their keys."""
        if self.host is None:
            return measure(models, seed=seed, threads=threads, engine=self.engine, progress=progress)
        return measure_on(
            self.host, models, seed=seed, threads=threads, engine=self.engine, python=self.python, progress=progress
        )


def bench_of(device: Device) -> Bench:
    """Where and with what the device's file says that it is measured."""
    return Bench(device.engine, device.host, device.python)


def measured_latencies(
    networks: Sequence[Network],
    device: Device,
    store_path: Path,
    seed: int,
    progress: Progress = silent,
    *,
    bench: Bench | None = None,
    int8: bool = False,
) -> tuple[dict[str, float], tuple[Campaign, ...]]:
    """Latency of each architecture on a device of the `onnxruntime` family, batch 1.

    Bits and zeros do not change this family's latency, so networks are measured as float, or else as int8, with random
    weights.

    Args:
        networks: Any number, of any precision; those of one architecture are measured once.
        device: Where; of the `onnxruntime` family.
        store_path: The device's measurement file, outside of any run so that runs share it.
        seed: Of the random weights and of the order of measuring.
        progress: Called after every round of a campaign.
        bench: The machine and the engine; those of the device's file if not given.
        int8: Whether weights and activations are quantized (`hw_models.quantized_onnx`).

    Returns:
        Seconds by `network.as_float().key`, of int8 by `int8_network(network).key`, comparable with all that the store
        holds for this bench, and the campaigns in which they were measured.

    Raises:
        NasError: The device runs another family, the bench is out of reach, or too unsteady to measure on.
    """
    prepare, build = (int8_network, random_int8_model) if int8 else (Network.as_float, _model)
    prepared = {network.key: network for network in map(prepare, networks)}
    models = {key: partial(build, network, seed) for key, network in prepared.items()}
    return measured_models(models, device, store_path, seed, progress, bench=bench)


def measured_models(
    models: Mapping[str, Callable[[], bytes]],
    device: Device,
    store_path: Path,
    seed: int,
    progress: Progress = silent,
    *,
    bench: Bench | None = None,
) -> tuple[dict[str, float], tuple[Campaign, ...]]:
    """Latency in seconds of each model, by its key, as `measured_latencies`; a stored model is not even built."""
    if device.threads is None:
        raise NasError(f"device {device.name}: latency is measured on the onnxruntime family only, not {device.family}")
    bench, store = bench or bench_of(device), MeasurementStore(store_path)
    method = bench.fingerprint(device.threads)
    stored = store.lookup(models, method)
    missing = {key: build() for key, build in models.items() if key not in stored}
    if missing:
        store.append(bench.measure(missing, seed=seed, threads=device.threads, progress=progress))
    campaigns = tuple(c for c in store.campaigns(method) if not models.keys().isdisjoint(c.latency_s))
    return store.lookup(models, method), campaigns


def _model(network: Network, seed: int) -> bytes:
    return to_onnx(random_design(network, seed))
