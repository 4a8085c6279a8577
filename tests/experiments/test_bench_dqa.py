"""The DQA benchmark, at its quick size."""

from pathlib import Path

from experiments.bench import dqa


def test_figures_belong_together(tmp_path: Path) -> None:
    said: list[str] = []
    figures = dqa.measure(True, tmp_path, tmp_path, said.append)
    assert len(said) == 1
    assert not list(tmp_path.iterdir())
    assert all(found.n == 1 for found in figures.values())
    value = {name: found.value for name, found in figures.items()}
    for bits in dqa.BITS:
        gain = value[f"dqa_accuracy_{bits}bit"] - value[f"direct_accuracy_{bits}bit"]
        assert value[f"dqa_minus_direct_points_{bits}bit"] == gain > 0
        stored = value[f"dqa_stored_bits_{bits}bit"]
        assert bits + 0.9 * dqa.SHARE < stored < bits + 1.1 * dqa.SHARE * dqa.EXTRA  # channels come in whole numbers
        assert value[f"equal_storage_bits_{bits}bit"] == round(stored)
        assert figures[f"dqa_stored_bits_{bits}bit"].unit == "bits per activation"
        assert figures[f"dqa_accuracy_{bits}bit"].unit == "% of test images"
        assert figures[f"dqa_minus_equal_storage_points_{bits}bit"].unit == "points of test accuracy"
