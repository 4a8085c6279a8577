"""The hls4ml project of a design: emit it, simulate it, compare it with the integer reference.

hls4ml's exactness pass derives every accumulator and result type from the weights and the quantizers, so that
nothing wraps and nothing is rounded except where the design says so.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import math
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fpga import csim, reference
from fpga.build import Build, Strategy
from fpga.layer_list import LayerList, layer_list
from fpga.pair_sum import register_pair_sum
from fpga.quantizer import register_quantizer
from fpga.reference import accumulator_bound, act_format, integer_trace
from nas.design import Design
from nas.errors import NasError
from nas.fixed_point import FixedPoint
from nas.genotype import FloatArray
from nas.network import Input, Layer, Weighted

UNROLLED = Build()
"""Every product has hardware of its own, all tensors are wires."""

_STRATEGIES: dict[Strategy, str] = {
    "latency": "Latency", "resource": "Resource", "distributed_arithmetic": "distributed_arithmetic",
}  # fmt: skip

EXPLAINED_SAMPLES = 8
"""How many differing samples are traced to find the first differing layer."""


@dataclass(frozen=True)
class Verification:
    """Outcome of a comparison: differing samples have at least one logit that is not equal."""

    samples: int
    mismatches: int
    first_differing_layer: str | None


def emit(design: Design, folder: Path, part: str, clock_hz: float, build: Build = UNROLLED) -> Path:
    """Write the design as an hls4ml project for Vitis HLS and return its folder.

    The folder appears whole or not at all; one that is there is replaced.

    Args:
        design: Quantized in every layer.
        folder: Where the project will lie.
        part: The FPGA's part name, such as `xczu3eg-sbva484-1-e`.
        clock_hz: The clock that synthesis shall reach.
        build: How it computes; fully unrolled in wires if left out.

    Raises:
        NasError: A layer cannot be converted, or not be built so.
    """
    build.require(design.network)
    layers = layer_list(design, build.io)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        interface = _write_project(design, layers, fresh, _config(layers, fresh, part, clock_hz, build))
        interface.save(fresh)
        (fresh / "README.md").write_text(_readme(design, part, clock_hz, build))
        if folder.exists():
            shutil.rmtree(folder)
        fresh.chmod(0o755)
        return fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def simulate(project: Path, images: FloatArray) -> FloatArray:
    """Compile the project's C simulation where needed and run it: (n, *input shape) -> logits (n, classes).

    Raises:
        NasError: g++ is missing, or the project does not compile.
    """
    return csim.simulate(project, images)


def compare(design: Design, project: Path, images: FloatArray) -> Verification:
    """Hold the project's C simulation against the integer reference of the design.

    Where they differ, the first layer is named whose output, as its readers see it, is not the design's.
    """
    differs = (csim.simulate(project, images) != reference.run(design, images)).any(axis=1)
    layer = _first_difference(design, project, images[differs][:EXPLAINED_SAMPLES]) if differs.any() else None
    return Verification(len(images), int(differs.sum()), layer)


def _first_difference(design: Design, project: Path, images: FloatArray) -> str:
    expected, recorded = integer_trace(design, images), csim.simulate_traced(project, images)
    interface = csim.load_interface(project)
    for producer in design.network.layers[1:-1]:
        for layer in design.network.consumers[producer.name]:
            step = act_format(design, layer).step
            for index in (i for i, source in enumerate(layer.inputs) if source == producer.name):
                name = interface.reads.get(f"{layer.name}:{index}")
                if name is None:
                    raise NasError(f"{project}: is not an emission of this network; it has no layer {layer.name}")
                values = np.moveaxis(expected.reads[layer.name][index], 1, -1).reshape(len(images), -1) * step
                if not np.array_equal(values, recorded[name]):
                    return producer.name
    return design.network.layers[-1].name


def _write_project(design: Design, layers: LayerList, folder: Path, config: dict[str, Any]) -> csim.Interface:
    with _quiet():
        from hls4ml.model.graph import ModelGraph

        register_quantizer()
        register_pair_sum()
        model = ModelGraph.from_layer_list(
            config,
            copy.deepcopy(list(layers.entries)),  # conversion changes it
            inputs=[layers.entries[0]["name"]],
            outputs=[layers.entries[-1]["name"]],
        )
        model.write()
    _forget_path(folder)
    traces = {
        node.name: int(np.prod(node.get_output_variable().shape))
        for node in model.graph.values()
        if node.get_attr("function_cpp") and node.get_attr("trace")
    }
    reads = {
        f"{layer}:{index}": next(name for name in names if name in traces)
        for (layer, index), names in layers.reads.items()
        if names
    }
    network = design.network
    return csim.Interface(network.input.out_shape, network.layers[-1].out_shape[0], traces, reads)


def _config(layers: LayerList, folder: Path, part: str, clock_hz: float, build: Build) -> dict[str, Any]:
    model = {
        "Precision": {"default": "ap_fixed<16,6>"}, "ReuseFactor": 1, "Strategy": _STRATEGIES[build.strategy],
        "BitExact": True,
    }  # fmt: skip
    named: dict[str, dict[str, Any]] = {entry["name"]: {"Trace": True} for entry in layers.entries}
    for name, result in layers.results.items():
        named[name]["Precision"] = {"result": result}
    for layer, factor in build.reuse.items():
        strategy = build.strategy if factor > 1 else "latency"
        named[layers.names[layer]] |= {"ReuseFactor": factor, "Strategy": _STRATEGIES[strategy]}
    return {
        "OutputDir": str(folder), "ProjectName": csim.TOP, "Backend": "Vitis", "Part": part,
        "ClockPeriod": 1e9 / clock_hz, "ClockUncertainty": "12.5%", "IOType": f"io_{build.io}", "TraceOutput": True,
        "HLSConfig": {"Model": model, "LayerName": named},
        "WriterConfig": {
            "Namespace": None, "WriteWeightsTxt": True, "WriteTar": False,
            "TBOutputStream": "both", "WriteEmulationConstants": False,
        },
    }  # fmt: skip


def _forget_path(folder: Path) -> None:
    """hls4ml records the folder it wrote to, which is a temporary one."""
    config = folder / "hls4ml_config.yml"
    config.write_text(config.read_text().replace(str(folder), "."))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        disabled = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)


def _readme(design: Design, part: str, clock_hz: float, build: Build) -> str:
    rows = "\n".join(_row(design, layer, build) for layer in design.network.layers[1:])
    return f"""# An FPGA design

An hls4ml project (`io_{build.io}`, strategy `{_STRATEGIES[build.strategy]}`) for {part} at {clock_hz / 1e6:g} MHz.
It gives the logits; the class is the index of the largest. Images go in channels last, as real numbers.

| layer | shape | reads | weights | bits | non-zero | accumulator | reuse |
|---|---|---|---|---|---|---|---|
{rows}

`q3.5` is signed with 3 integer bits, sign included, and 5 fraction bits; `u` is unsigned. Rounding is half up,
overflow saturates. Accumulators never wrap. A multiplier makes as many products one after the other as it is reused.

- Synthesis with Vitis HLS: `vitis-run --mode hls --tcl build_prj.tcl` (its options are in `build_opt.tcl`).
- C simulation without Vitis: `./build_lib.sh` makes `firmware/{csim.TOP}-*.so` with g++.
"""


def _row(design: Design, layer: Layer, build: Build) -> str:
    assert not isinstance(layer, Input)
    head = f"| {layer.name} | {'x'.join(map(str, layer.out_shape))} | {_name(act_format(design, layer))} |"
    if not isinstance(layer, Weighted):
        return f"{head} | | | | |"
    weights = "x".join(map(str, layer.weight_shape))
    accumulator = math.ceil(math.log2(accumulator_bound(design, layer) + 1)) + 1
    bits, kept = layer.precision.weight_bits, design.nonzeros(layer.name)
    return f"{head} {weights} | {bits} | {kept} | {accumulator} bits | {build.reuse.get(layer.name, 1)} |"


def _name(fmt: FixedPoint) -> str:
    return f"{'q' if fmt.signed else 'u'}{fmt.bits - fmt.frac_bits}.{fmt.frac_bits}"
