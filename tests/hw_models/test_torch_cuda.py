"""What needs a GPU is skipped without one."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from hw_models import onnx_runtime
from hw_models.engines import load_engine
from hw_models.machine import Cpu, Engine
from hw_models.measure import measure, reference_model, silent
from hw_models.onnx_model import to_onnx
from hw_models.reference import random_design
from hw_models.runner import Plan, run_campaign
from nas.errors import NasError
from nas.genotype import SearchSpace
from nas.network import Network

ENGINES = ("torch-cuda", "torch-cuda-fp16")


@pytest.fixture(params=ENGINES)
def gpu(request: pytest.FixtureRequest, installed_engine: Callable[[str], Engine]) -> Engine:
    return installed_engine(request.param)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_remedy_is_told(name: str) -> None:
    with pytest.raises(NasError, match=rf"engine {name}: torch .* sees no NVIDIA GPU .*or take engine torch"):
        load_engine(name)


class Timed:
    """Runs nothing, and tells 7 us of each call by a clock of its own."""

    NAME, VERSION, PROCESSOR = "timed", "1", Cpu()
    predict: Any = onnx_runtime.predict

    def repeated_call(self, model: bytes, threads: int = 1) -> Callable[[int], float]:
        return lambda times: times * 7e-6


def test_an_engine_with_a_clock_of_its_own_is_believed() -> None:
    campaign = run_campaign(Timed(), {"a": b""}, b"", Plan(3, 2, 0, 1), silent, time.perf_counter_ns)
    assert campaign.latency_s["a"] == pytest.approx(7e-6)
    assert campaign.reference_s == pytest.approx(7e-6)


def test_ten_times_the_replays_take_ten_times_as_long(
    gpu: Engine, mobile: SearchSpace, architectures: Callable[[SearchSpace, int], list[Network]]
) -> None:
    """By the GPU's clock, which the program's clock is never behind."""
    call = gpu.repeated_call(to_onnx(random_design(architectures(mobile, 1)[0], 0)))
    call(100)
    few, many = min(call(20) or 0 for _ in range(5)) / 20, min(call(200) or 0 for _ in range(5)) / 200
    assert few == pytest.approx(many, rel=0.1)
    start = time.perf_counter()
    call(200)
    assert 1e-6 < many < (time.perf_counter() - start) / 200


def test_a_campaign_on_a_gpu_tells_its_circumstances(gpu: Engine) -> None:
    model = reference_model()
    campaign = measure({"a": model, "b": model}, 3, 3, engine=gpu.NAME)
    assert campaign.cpu == torch.cuda.get_device_name()
    assert campaign.fingerprint == f"{campaign.cpu}, {gpu.NAME} {torch.__version__}, threads 1, harness 1"
    assert campaign.versions[gpu.NAME] == torch.__version__
    assert all(0.8 < seconds / campaign.reference_s < 1.25 for seconds in campaign.latency_s.values())
    if campaign.energy_j:
        assert campaign.energy_source == "NVML, the board"
        powers = np.array(list(campaign.energy_j.values())) / np.array(list(campaign.latency_s.values()))
        assert (powers > 10).all()
        assert (powers < 2000).all()
    else:
        assert campaign.energy_source.startswith("missing: ")
