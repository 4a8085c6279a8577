"""What the local benchmark keeps, and how it judges, on networks that take microseconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from experiments.bench import latency_local
from hw_models.onnx_model import to_onnx
from hw_models.reference import random_design
from nas.genotype import random_population
from nas.network import Network
from nas.spaces.mobile import MobileChoices, Stage


def networks(count: int) -> list[Network]:
    space = MobileChoices(8, (Stage(16, 2, (1, 2)), Stage(24, 2, (1, 3))), (3, 5), (2, 3, 4)).build((1, 8, 8), 10)
    return [space.lower(g) for g in random_population(space, count, np.random.default_rng(0)).tolist()]


def test_a_campaign_that_has_ended_is_not_measured_again(tmp_path: Path) -> None:
    measured = networks(3)

    def models() -> Mapping[str, bytes]:
        return {network.key: to_onnx(random_design(network, 0)) for network in measured}

    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    latencies = latency_local._campaign(first, models, measured, "onnxruntime", 3, 0)
    again = latency_local._campaign(second, models, measured, "onnxruntime", 3, 1)
    assert ((latencies > 0) & (again > 0)).all()
    for file, seconds in ((first, latencies), (second, again)):
        stored = file.read_bytes()
        kept = latency_local._campaign(file, dict, measured, "onnxruntime", 3, 0)
        assert np.array_equal(kept, seconds)
        assert file.read_bytes() == stored


def test_latencies_that_add_up_over_layers_are_judged_good() -> None:
    every = networks(60)
    latencies = np.array([1e-3 + 1e-9 * sum(np.prod(layer.out_shape) for layer in network) for network in every])
    values = latency_local._values(every[:30], every[30:], latencies, 1.02 * latencies[30:])
    assert values["spearman"] > 0.999
    assert values["within10"] == 1
    assert values["campaigns_tau"] == pytest.approx(1)
    assert values["campaigns_disagree"] == pytest.approx(0.02)
    assert values["latency_s"] == pytest.approx(np.median(latencies[30:]))
