"""Benchmarks by the name `nas bench` gives them; each is imported when it is run."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from experiments.bench.results import Figure

CONFIGS = Path(__file__).parents[1] / "configs"
"""The shipped ones."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
        title: Of its table.
        module: Where it is, below `experiments.bench`.
        function: What measures it there: a function of (*arguments, quick, folder of runs, of results, say).
        arguments: What sets it apart from others of the same function.
    """

    title: str
    module: str
    function: str
    arguments: tuple[str, ...] = ()

    def measure(self, quick: bool, runs: Path, out: Path, say: Callable[[str], None]) -> dict[str, Figure]:
        """Run it; its figures by name. Pictures go to `out`, which must exist."""
        measure = getattr(import_module(f"experiments.bench.{self.module}"), self.function)
        figures: dict[str, Figure] = measure(*self.arguments, quick, runs, out, say)
        return figures


BENCHMARKS: dict[str, Benchmark] = {
    "demo": Benchmark("The main job, end to end: `digits.yaml`", "demo", "demo"),
    "search": Benchmark("Search by few trainings: NAS-Bench-201 with measured latencies", "search", "search"),
    "programs": Benchmark("Integer programs: proofs, and exhaustive search beside them", "programs", "programs"),
    "speed": Benchmark("Search by predictions: one core, and many devices in one go", "speed", "speed"),
    "hybrid": Benchmark(
        "Hybrid search, evolution alone and programs alone at equal time, on the digits' supernet", "hybrid", "hybrid"
    ),
    "supernet": Benchmark(
        "Subnets of a supernet against the same networks trained alone, Fashion-MNIST", "supernet", "supernet",
        ("fashion",),
    ),
    "supernet-cifar10": Benchmark(
        "Subnets of a supernet against the same networks trained alone, CIFAR-10", "supernet", "supernet",
        ("cifar10-short",),
    ),
    "latency": Benchmark(
        "Latency predictors on published tables: a new device from ten measurements", "latency", "latency"
    ),
    "latency-local": Benchmark(
        "Latency on this machine: subnets at 224 pixels from 30 measured ones", "latency_local", "local"
    ),
    "dqa": Benchmark("Activations of few bits without training: DQA beside direct quantization", "dqa", "measure"),
    "joint": Benchmark(
        "Architecture, zeros and bits searched at once against one after the other, Fashion-MNIST", "joint", "joint",
        ("fashion-joint",),
    ),
    "joint-cifar10": Benchmark(
        "Architecture, zeros and bits searched at once against one after the other, CIFAR-10", "joint", "joint",
        ("cifar10-joint",),
    ),
    "transfer": Benchmark(
        "Accuracy of quantized subnets from few samples, with and without many float ones", "transfer", "transferred"
    ),
    "fpga": Benchmark("Jets on FPGAs: designs, their cost model, and folding by an integer program", "fpga", "fpga"),
}  # fmt: skip
