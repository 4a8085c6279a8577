import gc
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hw_models import measure as harness
from hw_models.device import load_device
from hw_models.latency import measured_latencies
from hw_models.measure import MAX_ATTEMPTS, Campaign, fingerprint, measure
from hw_models.onnx_model import to_onnx
from hw_models.reference import random_design
from hw_models.store import MeasurementStore
from nas.counts import macs
from nas.errors import NasError
from nas.genotype import SearchSpace
from nas.network import Conv2d, Input, Linear, Mean, Network

Draw = Callable[[SearchSpace, int], list[Network]]


def convolutions(width: int, size: int) -> Network:
    shape = (width, size, size)
    return Network(
        (
            Input("input", (1, size, size)),
            Conv2d("a", ("input",), (1, size, size), shape, 3, activation="relu"),
            Conv2d("b", ("a",), shape, shape, 3, activation="relu"),
            Mean("mean", ("b",), shape),
            Linear("head", ("mean",), (width,), (10,)),
        )
    )


SMALL, LARGE = convolutions(8, 8), convolutions(64, 16)


def models(*networks: Network) -> dict[str, bytes]:
    return {network.key: to_onnx(random_design(network, 0)) for network in networks}


@pytest.fixture(autouse=True)
def machine_is_left_as_found() -> Iterator[None]:
    cores = os.sched_getaffinity(0)
    yield
    assert os.sched_getaffinity(0) == cores
    assert gc.isenabled()


class Pace:
    """A clock on which the timing number n takes `pace(n)` microseconds, whatever ran."""

    def __init__(self, pace: Callable[[int], float]) -> None:
        self.pace, self.reads, self.now = pace, 0, 0

    def __call__(self) -> int:
        if self.reads % 2:
            self.now += int(1000 * self.pace(self.reads // 2))
        self.reads += 1
        return self.now


def test_a_network_of_a_hundred_times_the_macs_is_slower() -> None:
    small, large = (sum(macs(layer) for layer in network) for network in (SMALL, LARGE))
    assert large > 100 * small
    campaign = measure(models(SMALL, LARGE), rounds=10, runs=5)
    assert campaign.latency_s[LARGE.key] > 5 * campaign.latency_s[SMALL.key]
    assert 1e-7 < campaign.latency_s[SMALL.key] < 0.1


def test_a_campaign_tells_its_circumstances() -> None:
    seen: list[tuple[int, int]] = []
    campaign = measure(models(SMALL), rounds=10, runs=5, progress=lambda done, total: seen.append((done, total)))
    assert campaign.rounds >= 10
    assert campaign.runs == 5
    assert campaign.reference_s > 0
    assert 0 <= campaign.drift <= harness.MAX_DRIFT
    assert campaign.rejected >= 0
    assert campaign.load_average >= 0
    assert campaign.duration_s > 0
    assert campaign.cpu in campaign.fingerprint
    assert campaign.fingerprint == fingerprint(1)
    assert campaign.date.endswith("+00:00")
    assert {"python", "numpy", "onnxruntime", "system"} == set(campaign.versions)
    assert seen[-1] == (10, 10)


def test_cores_and_collector_are_restored_after_a_failure() -> None:
    """The fixture looks, after this test as after every other."""
    with pytest.raises(NasError, match="drifted"):
        measure(models(SMALL), rounds=8, runs=1, clock=Pace(lambda n: 100 * 1.5 ** (n % 7)))


def test_timings_are_divided_by_the_calls_of_a_batch() -> None:
    """One call takes 30 us on this clock, and so does a batch of four: 7.5 us a call."""
    campaign = measure(models(SMALL), rounds=3, runs=2, clock=Pace(lambda n: 30))
    assert math.ceil(harness.BATCH_S / 30e-6) == 4
    assert campaign.latency_s[SMALL.key] == pytest.approx(7.5e-6)
    assert campaign.reference_s == pytest.approx(7.5e-6)
    assert (campaign.rounds, campaign.rejected, campaign.drift) == (3, 0, 0)


def test_rounds_of_another_pace_are_repeated() -> None:
    """Three timings a round here; the machine runs at half speed for a while in the middle."""
    slow = range(20, 35)
    campaign = measure(models(SMALL), rounds=12, runs=1, clock=Pace(lambda n: 400 if n in slow else 200))
    assert campaign.rejected >= 4
    assert campaign.rounds == 12
    assert campaign.drift <= harness.MAX_DRIFT
    assert campaign.latency_s[SMALL.key] == pytest.approx(200e-6)
    assert campaign.reference_s == pytest.approx(200e-6)


def test_a_reference_that_never_rests_ends_the_campaign() -> None:
    clock = Pace(lambda n: 200 * (1 + 0.4 * (n % 5)))
    with pytest.raises(NasError, match=rf"drifted by \d+% .* of {5 * MAX_ATTEMPTS} rounds stayed within 15%, 5 are"):
        measure(models(SMALL), rounds=5, runs=1, clock=clock)


def campaign_of(latency_s: dict[str, float], reference_s: float) -> Campaign:
    real = measure(models(SMALL), rounds=1, runs=1, clock=Pace(lambda n: 30))
    return replace(real, latency_s=latency_s, reference_s=reference_s)


def test_the_store_gives_back_what_it_was_given(tmp_path: Path) -> None:
    store = MeasurementStore(tmp_path / "deep" / "local-cpu.jsonl")
    first = campaign_of({"a": 1.1e-5, "b": 0.1 + 0.2}, 2e-5)
    assert store.lookup(["a"], first.fingerprint) == {}
    store.append(first)
    assert store.campaigns(first.fingerprint) == (first,)
    assert store.lookup(["b", "missing"], first.fingerprint) == {"b": 0.1 + 0.2}
    assert store.lookup(["b"], "another machine") == {}


def test_campaigns_compare_through_the_reference(tmp_path: Path) -> None:
    """The second campaign ran on a machine half as fast for everything."""
    store = MeasurementStore(tmp_path / "m.jsonl")
    store.append(replace(campaign_of({"z": 1.0}, 9.0), fingerprint="another machine"))
    first, second = campaign_of({"a": 3e-5}, 2e-5), campaign_of({"a": 9e-5, "b": 8e-5}, 4e-5)
    store.append(first)
    before = store.lookup(["a"], first.fingerprint)
    store.append(second)
    found = store.lookup(["a", "b"], first.fingerprint)
    assert found == pytest.approx({"a": 3e-5, "b": 4e-5})
    assert found["a"] == before["a"]


def test_a_torn_line_is_neither_read_nor_kept(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    store = MeasurementStore(path)
    first, second = campaign_of({"a": 1.0}, 1.0), campaign_of({"b": 2.0}, 1.0)
    store.append(first)
    whole = path.read_bytes()
    store.append(second)
    both = path.read_bytes()
    for cut in range(len(whole), len(both)):
        path.write_bytes(both[:cut])
        assert store.lookup(["a", "b"], first.fingerprint) == {"a": 1.0}
    for cut in (len(whole), len(whole) + 1, len(both) - 1):
        path.write_bytes(both[:cut])
        store.append(second)
        assert path.read_bytes() == both
    path.write_bytes(whole[: len(whole) // 2])
    store.append(second)
    assert path.read_bytes() == both[len(whole) :]


def test_a_whole_line_that_is_no_campaign_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    MeasurementStore(path).append(campaign_of({"a": 1.0}, 1.0))
    path.write_bytes(path.read_bytes() + b'{"latency_s": {}}\n')
    with pytest.raises(NasError, match="line 2: is not a measurement campaign"):
        MeasurementStore(path).lookup(["a"], "x")


def test_random_numbers_follow_from_seed_and_architecture(mobile: SearchSpace, architectures: Draw) -> None:
    one, two = architectures(mobile, 2)
    assert to_onnx(random_design(one, 3)) == to_onnx(random_design(one, 3))
    assert to_onnx(random_design(one, 3)) != to_onnx(random_design(one, 4))
    first, second = (random_design(network, 3).numbers["stem"].weight for network in (one, two))
    assert first is not None
    assert second is not None
    assert first.tolist() != second.tolist()


def test_only_what_is_missing_is_measured(
    tmp_path: Path, mobile: SearchSpace, architectures: Draw, with_weight_bits: Callable[..., Network]
) -> None:
    device, path = load_device("local-cpu"), tmp_path / "local-cpu.jsonl"
    nets = architectures(mobile, 3)
    first, campaigns = measured_latencies(nets[:2], device, path, 0)
    assert list(first) == [network.as_float().key for network in nets[:2]]
    assert len(campaigns) == 1
    stored = path.read_bytes()
    quantized = [with_weight_bits(network, (2,)) for network in nets[:2]]
    assert measured_latencies(quantized, device, path, 1) == (first, campaigns)
    assert path.read_bytes() == stored
    third, more = measured_latencies(nets, device, path, 0)
    assert {key: third[key] for key in first} == first
    assert len(third) == 3
    assert len(more) == 2
    assert list(more[1].latency_s) == [nets[2].as_float().key]


def test_latency_is_not_measured_for_an_fpga(tmp_path: Path) -> None:
    with pytest.raises(NasError, match="device zu3eg: latency is measured on the onnxruntime family only"):
        measured_latencies([SMALL], load_device("zu3eg"), tmp_path / "m.jsonl", 0)
