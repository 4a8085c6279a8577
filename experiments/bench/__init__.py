"""Benchmarks by the name `nas bench` gives them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from experiments.bench import demo
from experiments.bench.results import Figure


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: its title, and what measures it: a function of (quick, folder of runs, of results, say)."""

    title: str
    measure: Callable[[bool, Path, Path, Callable[[str], None]], dict[str, Figure]]


BENCHMARKS: dict[str, Benchmark] = {"demo": Benchmark(demo.TITLE, demo.demo)}
