"""Benchmarks by the name `nas bench` gives them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from experiments.bench import demo
from experiments.bench.results import Figure


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: its title, and a function of (quick, folder of runs, say) that measures its figures."""

    title: str
    measure: Callable[[bool, Path, Callable[[str], None]], dict[str, Figure]]


BENCHMARKS: dict[str, Benchmark] = {"demo": Benchmark(demo.TITLE, demo.demo)}
