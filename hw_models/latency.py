"""Measured latencies of architectures: what is stored is read, what is missing is measured and stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from hw_models.device import Device
from hw_models.measure import Campaign, Progress, fingerprint, measure, silent
from hw_models.onnx_model import to_onnx
from hw_models.reference import random_design
from hw_models.store import MeasurementStore
from nas.errors import NasError
from nas.network import Network


def measured_latencies(
    networks: Sequence[Network], device: Device, store_path: Path, seed: int, progress: Progress = silent
) -> tuple[dict[str, float], tuple[Campaign, ...]]:
    """Latency of each architecture on a device of the `onnxruntime` family, batch 1.

    Bits and zeros do not change this family's latency, so networks are measured as float, with random weights.

    Args:
        networks: Any number, of any precision; those of one architecture are measured once.
        device: Where; of the `onnxruntime` family.
        store_path: The device's measurement file, outside of any run so that runs share it.
        seed: Of the random weights and of the order of measuring.
        progress: Called after every round of a campaign.

    Returns:
        Seconds by `network.as_float().key`, comparable with all that the store holds for this machine, and the
        campaigns in which they were measured.

    Raises:
        NasError: The device runs another family, or the machine was too unsteady to measure on.
    """
    floats = {network.key: network for network in (network.as_float() for network in networks)}
    models = {key: partial(_model, network, seed) for key, network in floats.items()}
    return measured_models(models, device, store_path, seed, progress)


def measured_models(
    models: Mapping[str, Callable[[], bytes]],
    device: Device,
    store_path: Path,
    seed: int,
    progress: Progress = silent,
) -> tuple[dict[str, float], tuple[Campaign, ...]]:
    """Latency in seconds of each model, by its key, as `measured_latencies`; a stored model is not even built."""
    if device.threads is None:
        raise NasError(f"device {device.name}: latency is measured on the onnxruntime family only, not {device.family}")
    store, method = MeasurementStore(store_path), fingerprint(device.threads)
    stored = store.lookup(models, method)
    missing = {key: build() for key, build in models.items() if key not in stored}
    if missing:
        store.append(measure(missing, seed=seed, threads=device.threads, progress=progress))
    campaigns = tuple(c for c in store.campaigns(method) if not models.keys().isdisjoint(c.latency_s))
    return store.lookup(models, method), campaigns


def _model(network: Network, seed: int) -> bytes:
    return to_onnx(random_design(network, seed))
