"""Designs that are synthesised to calibrate `hw_models.unrolled`, and others to test it: members of trained supernets.

Their weights are what training, magnitude pruning and rounding leave, their bits and zeros are drawn for each layer.
`nas bench fpga` adds to the table what is not in it, by yosys; tests/hw_models/calibration.py fits to it.
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench import CONFIGS
from experiments.bench.demo import merged
from experiments.config import Config, config_from
from experiments.context import Context
from experiments.pipeline import train_only
from experiments.plan import plan
from experiments.rundir import atomic_write
from experiments.strict import read_yaml
from fpga.positions import pieces
from fpga.synthesis import estimated, synthesised_rtl
from fpga.unrolling import products
from nas import network as layers
from nas.counts import nonzeros
from nas.design import Design
from nas.genotype import distinct, random_population
from nas.network import Layer, Network, Precision

TABLE = Path(__file__).parents[1] / "results" / "fpga-designs.csv"

_PRECISION = {
    "weight_bits": [2, 3, 4, 5, 6, 8], "act_bits": [3, 4, 5, 6, 8], "sparsity": [0, 0.25, 0.5, 0.75, 0.9],
}  # fmt: skip
_CNN = {
    "name": "mobile", "stem": 4, "stem_stride": 4, "kernel": [3], "expand": [1],
    "stages": [{"width": 4, "stride": 1, "depth": [1]}, {"width": 6, "stride": 1, "depth": [1]}],
    "precision": {**_PRECISION, "sparsity": [0, 0.25, 0.5, 0.75]},
}  # fmt: skip
_WIDER_CNN = {
    **_CNN, "stem": 6, "expand": [1, 2],
    "stages": [{"width": 6, "stride": 1, "depth": [1]}, {"width": 8, "stride": 2, "depth": [1]}],
}  # fmt: skip
_TOWERS = {"phi": {"depth": [1, 2, 3], "width": [4, 8, 12, 16]}, "rho": {"depth": [1, 2], "width": [8, 16, 24]}}
_WIDER_TOWERS = {"phi": {"depth": [1, 2, 3], "width": [8, 16, 24, 32]}, "rho": {"depth": [1, 2], "width": [8, 16, 32]}}
_PAIRS = {"edge": {"depth": [1, 2], "width": [4, 8, 12]}, "node": {"depth": [1, 2], "width": [4, 8, 12]}}
_SPREAD = 8
"""How many times the expected LUTs of a source's least design its largest may have."""

_LIMIT_S = 1200.0


@dataclass(frozen=True)
class Source:
    """Where designs come from.

    Attributes:
        base: The shipped config whose data they read.
        space: What they are members of.
        epochs: Of their supernet.
        particles: Read of each jet; 0 where none are.
        largest: Expected LUTs of the largest design; yosys takes some ten seconds for 4500.
        cut: Whether the designs are cut into what one particle goes through and the rest.
    """

    base: str
    space: Mapping[str, Any]
    epochs: Mapping[str, list[int]]
    particles: int = 0
    largest: int = 4500
    cut: bool = False


_SHORT = {"train": [2], "precision": [2]}
SOURCES: Mapping[str, Source] = {
    "mlp-digits": Source(
        "digits-mlp", {"name": "mlp", "depth": [1, 2, 3], "width": [8, 12, 16, 24]}, {"train": [80], "precision": [80]}
    ),
    "mlp-jets": Source("jets", {"name": "mlp", "depth": [1, 2, 3], "width": [8, 16, 24, 32]}, _SHORT),
    "deepsets-jets": Source("jets-deepsets", {"name": "deepsets", **_TOWERS}, _SHORT, 4),
    "cnn-digits": Source("digits", _CNN, {"train": [30], "precision": [30]}),
    "wide-mlp-jets": Source(
        "jets", {"name": "mlp", "depth": [1, 2, 3], "width": [8, 16, 32, 48, 64]}, _SHORT, largest=16000
    ),
    "cut-deepsets-jets": Source(
        "jets-deepsets", {"name": "deepsets", **_WIDER_TOWERS}, _SHORT, 8, largest=24000, cut=True
    ),
    "interaction-jets": Source("jets-interaction", {"name": "interaction", **_PAIRS}, _SHORT, 2),
    "wide-cnn-digits": Source("digits", _WIDER_CNN, {"train": [30], "precision": [30]}, largest=9000),
}

_FIRST = ("mlp-digits", "mlp-jets", "deepsets-jets", "cnn-digits")
DRAWN: Mapping[int, tuple[str, Mapping[str, int]]] = {
    0: ("fit", dict.fromkeys(_FIRST, 12)),
    1: ("fit", dict.fromkeys(_FIRST, 7)),
    2: ("test", {**dict.fromkeys(_FIRST, 4), **dict.fromkeys(tuple(SOURCES)[len(_FIRST) :], 5)}),
}
"""By the seed of the supernets, the use of their designs, and how many there are of each source.

Formulas were chosen with those of seeds 0 and 1 and the finalists of earlier runs in sight, so they are all fitted to;
the designs of seed 2 were listed before the formula was made that they test.
"""


@dataclass(frozen=True)
class Row:
    """A design and what it takes.

    Attributes:
        use: `fit` or `test`: whether constants may be fitted to it.
        source: Which of `SOURCES` it is of, or the run that it is a finalist of.
        network: The layers as JSON.
        products: Weights that are really not zero, each counted once per position.
        estimate_lut: da4ml's estimate.
        estimate_ff: da4ml's estimate.
        cycles: Stages of the RTL's pipeline.
        lut: By yosys.
        ff: By yosys.
    """

    use: str
    source: str
    network: str
    products: int
    estimate_lut: int
    estimate_ff: int
    cycles: int
    lut: int
    ff: int


def to_text(network: Network) -> str:
    """Layers as JSON; what a layer has by default is left out."""
    return json.dumps([[type(layer).__name__, _told(layer)] for layer in network], separators=(",", ":"))


def from_text(text: str) -> Network:
    """The network that `to_text` wrote."""
    return Network(tuple(_layer(kind, told) for kind, told in json.loads(text)))


def _told(layer: Layer) -> dict[str, Any]:
    return {f.name: v for f in fields(layer) if (v := asdict(layer)[f.name]) != f.default} | _precision(layer)


def _precision(layer: Layer) -> dict[str, Any]:
    return {} if isinstance(layer, layers.Input) else {"precision": asdict(layer.precision)}


def _layer(kind: str, told: Mapping[str, Any]) -> Layer:
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}
    if "precision" in values:
        values["precision"] = Precision(**told["precision"])
    made: Layer = getattr(layers, kind)(**values)
    return made


def read_table(path: Path = TABLE) -> list[Row]:
    """All rows; none where there is no table."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        lines = list(csv.reader(file))[1:]
    return [Row(use, source, network, *map(int, figures)) for use, source, network, *figures in lines]


def write_table(rows: Sequence[Row], path: Path = TABLE) -> None:
    """Replace the table."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    atomic_write(path, text.getvalue())


def synthesised(use: str, source: str, design: Design, limit_s: float = _LIMIT_S) -> Row:
    """What the design's RTL takes.

    Raises:
        ToolError: yosys is missing, or takes longer than the limit.
    """
    estimate = estimated(design)
    with tempfile.TemporaryDirectory() as folder:
        found = synthesised_rtl(design, Path(folder) / "rtl", limit_s)
    figures = (estimate.lut, estimate.ff, estimate.latency_cycles, found.lut, found.ff)
    return Row(use, source, to_text(design.network), products(design), *(value or 0 for value in figures))


def completed(runs: Path, say: Callable[[str], None], path: Path = TABLE) -> list[Row]:
    """The table with every design of `SOURCES`; those that are not in it are synthesised, each kept at once."""
    rows = read_table(path)
    for seed, (use, counts) in DRAWN.items():
        for name, count in counts.items():
            if _complete(rows, use, name):
                continue
            for design in drawn(name, seed, count, runs, say):
                if not any((row.source, row.network) == (name, to_text(design.network)) for row in rows):
                    rows.append(synthesised(use, name, design))
                    write_table(rows, path)
                    say(f"{use}, {name}: {rows[-1].lut} LUT by yosys, {rows[-1].estimate_lut} by da4ml")
    return rows


def _complete(rows: Sequence[Row], use: str, name: str) -> bool:
    wanted = sum(counts.get(name, 0) for kind, counts in DRAWN.values() if kind == use)
    return sum((row.use, row.source) == (use, name) for row in rows) >= wanted * (1 + SOURCES[name].cut)


def source_config(name: str, seed: int) -> Config:
    """The config that trains the supernet of a source."""
    source = SOURCES[name]
    values = merged(read_yaml(CONFIGS / f"{source.base}.yaml"), {"name": f"{name}-{seed}", "seed": seed})
    values |= {"space": {"precision": _PRECISION, **source.space}, "devices": [{"name": "zu3eg"}]}
    if source.particles:
        values["data"] = {**values["data"], "particles": source.particles}
    uniform = {"strategy": "uniform", "epochs": source.epochs, "subnets_per_step": {}, "distillation": 0.0}
    values["supernet"] = {**values["supernet"], **uniform}
    return config_from(values, f"{source.base}.yaml, for {name}")


def drawn(name: str, seed: int, count: int, runs: Path, say: Callable[[str], None]) -> Iterator[Design]:
    """So many random members of a supernet, which is trained first where it is not."""
    config = source_config(name, seed)
    train_only(config, runs, say)
    context = Context(config, runs)
    training = context.trained(context.run.stage_dir(plan(config).train))
    population = distinct(random_population(context.space, 20 * count, np.random.default_rng([seed, 7])))
    networks = (context.space.lower(genotype) for genotype in population.tolist())
    largest, cut = SOURCES[name].largest, SOURCES[name].cut
    fitting = [network for network in networks if largest / _SPREAD <= expected_lut(network) <= largest]
    for network in fitting[:count]:
        design = training.specialise(network).design()
        yield from (part for part, _ in pieces(design)) if cut else [design]


def expected_lut(network: Network) -> float:
    """What decides whether a design is worth its synthesis: bits of all partial products, thirds of weights' bits."""
    return sum(
        nonzeros(layer) * layer.positions * layer.precision.weight_bits / 3 * (layer.precision.act_bits + 2)
        for layer in network.weighted
    )
