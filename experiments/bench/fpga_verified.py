"""Designs held against the integer reference by every tool, on the whole test split; or why one cannot carry them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from experiments.bench.fpga_runs import Made
from experiments.rundir import atomic_write
from fpga import hls, reference, rtl
from fpga.build import Build
from fpga.tools import missing
from fpga.unrolling import products
from nas.design import Design
from nas.errors import NasError
from nas.genotype import FloatArray
from nas.network import Conv2d, Layer, Network
from supernet.evaluate import design_logits

WAYS = ("fake quantization", "C simulation, wires", "C simulation, streams", "RTL")
"""Torch in float64; hls4ml's project with all positions at once, and position after position; da4ml's Verilog."""

_PART, _CLOCK_HZ, _LIMIT_S = "xcvu13p-flga2577-2-e", 200e6, 7200.0

Outcome = int | str
"""Images on which a way differs in any logit, or why it could not be taken."""

Check = Callable[[Design, FloatArray, Path], int]


@dataclass(frozen=True)
class Verified:
    """A design and what became of it; `outcomes` has one for each of `WAYS`, on so many `images`."""

    name: str
    made: Made
    images: int
    outcomes: Mapping[str, Outcome]


def verified(name: str, made: Made, images: FloatArray, say: Callable[[str], None]) -> Verified:
    """Hold a design against the reference on images of shape (n, *input shape), once; its folder keeps the outcomes."""
    kept = made.home / "verified.json"
    if kept.exists():
        return Verified(name, made, len(images), json.loads(kept.read_text()))
    say(f"{name}: verification on {len(images)} test images")
    outcomes = compared(made.design, images)
    if not {"g++", "verilator"} & missing().keys():
        atomic_write(kept, json.dumps(outcomes, indent=1))
    return Verified(name, made, len(images), outcomes)


def compared(design: Design, images: FloatArray) -> dict[str, Outcome]:
    """The outcome of each way, on images of shape (n, *input shape)."""
    checks: tuple[Check, ...] = (_torch, partial(_hls, Build("parallel")), partial(_hls, Build("stream")), _rtl)
    outcomes: dict[str, Outcome] = {}
    for way, check in zip(WAYS, checks, strict=True):
        try:
            with tempfile.TemporaryDirectory() as place:
                outcomes[way] = check(design, images, Path(place) / "project")
        except NasError as error:
            outcomes[way] = str(error)
    return outcomes


def _torch(design: Design, images: FloatArray, _: Path) -> int:
    return int((design_logits(design, images) != reference.run(design, images)).any(axis=1).sum())


def _hls(build: Build, design: Design, images: FloatArray, folder: Path) -> int:
    return hls.compare(design, hls.emit(design, folder, _PART, _CLOCK_HZ, build), images).mismatches


def _rtl(design: Design, images: FloatArray, folder: Path) -> int:
    return rtl.compare(design, rtl.emit(design, folder, _PART, _CLOCK_HZ, images[:1]), images, _LIMIT_S).mismatches


def table(found: list[Verified]) -> str:
    """Designs by rows, ways by columns, as Markdown."""
    head = ["design", "layers", "bits of weights", "zeros, %", "products", "accuracy, %", "test images", *WAYS]
    rows = [_row(one) for one in found]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)) + "\n"


def _row(one: Verified) -> list[str]:
    network, design = one.made.design.network, one.made.design
    bits = sorted({layer.precision.weight_bits for layer in network.weighted})
    kept = sum(design.nonzeros(layer.name) for layer in network.weighted)
    zeros = 1 - kept / sum(design.weight_integers(layer.name).size for layer in network.weighted)
    outcomes = [_cell(one.outcomes[way]) for way in WAYS]
    cells = [_operations(network), ", ".join(map(str, bits)), f"{100 * zeros:.0f}", f"{products(design):,}"]
    return [one.name, *cells, f"{100 * (1 - one.made.error):.2f}", f"{one.images:,}", *outcomes]


def _cell(outcome: Outcome) -> str:
    return str(outcome) if isinstance(outcome, int) else f"not held: {outcome.splitlines()[0].replace('|', '/')}"


def _operations(network: Network) -> str:
    return ", ".join(dict.fromkeys(map(_operation, network.layers[1:])))


def _operation(layer: Layer) -> str:
    if not isinstance(layer, Conv2d):
        return {"Add": "residual sum", "PairSum": "sum over pairs"}.get(
            type(layer).__name__, type(layer).__name__
        ).lower()
    return (
        "depthwise" if layer.depthwise else "pointwise" if layer.kernel == 1 else f"conv {layer.kernel}x{layer.kernel}"
    )
