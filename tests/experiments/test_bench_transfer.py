"""The laws of `nas bench transfer`, and the whole of it on a small training."""

from pathlib import Path

import numpy as np
import pytest

from experiments.bench.demo import demo_config
from experiments.bench.transfer import ENOUGH, WAYS, _figures, _networks, sampled, samples_needed, transferred
from experiments.context import Context
from nas.network import Weighted

ROWS = {"floats": 20, "joint": 30, "apq_bits": 30}


@pytest.mark.parametrize(
    ("accuracy", "needed"),
    [
        ([0.75, 0.95, 0.99], 10 * 10**0.5),
        ([0.86, 0.90, 0.80], 10),
        ([0.50, 0.60, 0.70], 1000),
        ([0.50, 0.85, 0.70], 100),
    ],
)
def test_samples_needed_by_hand(accuracy: list[float], needed: float) -> None:
    assert ENOUGH == 0.85
    assert samples_needed((10, 100, 1000), np.array(accuracy)) == pytest.approx(needed)


def test_figures_by_hand() -> None:
    """One repetition; transfer is there at 10 samples, scratch at 100."""
    pairwise = np.array([[0.6, 0.6], [0.7, 0.85], [0.85, 0.9]])
    made = _figures("apq_bits", np.stack([pairwise, pairwise / 2])[None], (10, 100))
    assert len(WAYS) == len(pairwise)
    assert made["transfer_samples_ratio[apq_bits]"].value == pytest.approx(10)
    assert made["least_gain_over_float[apq_bits]"].value == pytest.approx(0.25)
    assert made["gain_over_scratch_100[apq_bits]"].value == pytest.approx(0.05)
    assert made["pairwise_scratch_100[apq_bits]"].value == 0.85
    assert made["tau_transfer_10[apq_bits]"].value == pytest.approx(0.425)


def test_subnets_have_the_bits_and_zeros_they_are_said_to_have(tmp_path: Path) -> None:
    drawn = sampled(Context(demo_config(0, True), tmp_path), ROWS)
    assert {name: len(one.genotypes) for name, one in drawn.items()} == ROWS
    found = {
        name: {
            (layer.precision.weight_bits, layer.precision.act_bits, layer.sparsity)
            for network in _networks(one, range(20))
            for layer in network.layers
            if isinstance(layer, Weighted)
        }
        for name, one in drawn.items()
    }
    assert found["floats"] == {(32, 32, 0.0)}
    assert found["apq_bits"] == {(weight, act, 0.0) for weight in (4, 8) for act in (4, 6, 8)}
    assert {weight for weight, _, _ in found["joint"]} == {2, 3, 4, 8}


@pytest.mark.slow
def test_quick_leaves_its_picture_and_runs_again_from_what_it_kept(tmp_path: Path) -> None:
    first, second = (transferred(True, tmp_path / "runs", tmp_path, print) for _ in range(2))
    assert first == second
    assert first["least_gain_over_float"].n == 3
    assert (tmp_path / "transfer-quick.png").read_bytes().startswith(b"\x89PNG")
