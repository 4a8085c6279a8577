"""What a benchmark leaves: figures with their spread, and all that is needed to make them again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from experiments.environment import environment
from experiments.rundir import atomic_write


@dataclass(frozen=True)
class Figure:
    """A figure of `n` repetitions: their median, and the least and the largest of them as `spread`."""

    value: float
    unit: str
    spread: tuple[float, float]
    n: int


def figure(values: Sequence[float], unit: str) -> Figure:
    """Median, least and largest of one value per repetition."""
    return Figure(float(np.median(values)), unit, (float(min(values)), float(max(values))), len(values))


def write_results(
    name: str, title: str, figures: Mapping[str, Figure], command: str, seed: int, out: Path
) -> tuple[Path, Path]:
    """Write `NAME.json` (`figures`, `command`, versions, date) and `NAME.md` (the table); gives both paths."""
    made = environment(seed)
    record = {"figures": {key: asdict(value) for key, value in figures.items()}, "command": command, **made}
    paths = out / f"{name}.json", out / f"{name}.md"
    atomic_write(paths[0], json.dumps(record, indent=2) + "\n")
    atomic_write(paths[1], _markdown(title, figures, command, made["date"], ", ".join([made["cpu"], *made["gpus"]])))
    return paths


def _markdown(title: str, figures: Mapping[str, Figure], command: str, date: str, processors: str) -> str:
    rows = [
        f"| {key} | {f.value:.4g} | {f.spread[0]:.4g} .. {f.spread[1]:.4g} | {f.n} | {f.unit} |"
        for key, f in figures.items()
    ]
    return "\n".join(
        [
            f"# {title}",
            "",
            f"`{command}`, {date}, {processors}. Median over n repetitions, with the least and the largest.",
            "",
            "| figure | value | spread | n | unit |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )
