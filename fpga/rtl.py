"""The RTL of a design: Verilog and VHDL by da4ml, simulated with Verilator, compared with the integer reference.

The whole network becomes one pipeline of shifts and adds (da4ml, arXiv 2507.04535) that takes a sample every clock;
a convolution has hardware for every position. It is not hls4ml's RTL but a second implementation of the same integers.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from da4ml.codegen import RTLModel
from da4ml.types import Pipeline, minimal_kif

from fpga.hls import EXPLAINED_SAMPLES, Verification
from fpga.reference import act_format, integer_trace, run
from fpga.unrolling import Logic, pipelined, unroll
from fpga.verilator import EXPECTED, INPUTS, OUTPUTS, TESTBENCH, TOP, VHDL, Interface, Word, hex_lines, simulate
from nas.design import Design
from nas.errors import NasError
from nas.fixed_point import FixedPoint
from nas.genotype import FloatArray

SOON = 5000
"""Products (`fpga.unrolling.products`) up to which RTL is traced, compiled and simulated within a minute.

On one core, 2000 images: 26 s for 4256 products of 6 bits, 53 s for 10992, 98 s for 20800; Verilator and g++ take most.
"""


def emit(design: Design, folder: Path, part: str, clock_hz: float, vectors: FloatArray) -> Path:
    """Write the design as a Verilog project with a testbench, and as VHDL below it, and return its folder.

    The folder appears whole or not at all; one that is there is replaced.

    Args:
        design: Quantized in every layer, small enough to unroll.
        folder: Where the project will lie.
        part: The FPGA's part name for Vivado.
        clock_hz: The clock of the constraints.
        vectors: Images of the testbench, shape (n, *input shape); what they shall give is written beside them.

    Raises:
        NasError: A layer is not quantized or of no operation that a design has, or the network is too large.
    """
    return _emit(design, _last(design), folder, part, clock_hz, vectors)


def compare(design: Design, project: Path, images: FloatArray, limit_s: float) -> Verification:
    """Hold the project's RTL against the integer reference of the design.

    Where they differ, RTL that gives every layer's output is emitted, to name the first that is not the design's.

    Raises:
        ToolError: Verilator or g++ is missing, fails or runs longer than `limit_s`.
        NasError: The project differs though a fresh emission would not.
    """
    expected = run(design, images).reshape(len(images), -1)
    differs = (simulate(project, images, limit_s) != expected).any(axis=1)
    explained = images[differs][:EXPLAINED_SAMPLES]
    layer = _first_difference(design, project, explained, limit_s) if differs.any() else None
    return Verification(len(images), int(differs.sum()), layer)


def sample_images(design: Design, count: int, seed: int) -> FloatArray:
    """Images where no data are at hand, off every grid, one in five beyond the widest format; (count, *input shape)."""
    formats = [act_format(design, layer) for layer in design.network.consumers[design.network.input.name]]
    low, high = min(fmt.low * fmt.step for fmt in formats), max((fmt.high + 1) * fmt.step for fmt in formats)
    beyond = (high - low) / 8
    shape = (count, *design.network.input.out_shape)
    return np.random.default_rng(seed).uniform(low - beyond, high + beyond, shape)


def _last(design: Design) -> tuple[str]:
    return (design.network.layers[-1].name,)


def _emit(
    design: Design, outputs: Sequence[str], folder: Path, part: str, clock_hz: float, vectors: FloatArray
) -> Path:
    logic = unroll(design, outputs)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        interface = _write_project(design, logic, fresh, part, clock_hz)
        widths, integers = interface.input_words(vectors)
        (fresh / INPUTS).write_text(hex_lines(widths, integers))
        expected = _expected(design, outputs, vectors) * 2.0 ** np.array([word.frac_bits for word in interface.outputs])
        (fresh / EXPECTED).write_text(hex_lines([word.bits for word in interface.outputs], expected.astype(np.int64)))
        if folder.exists():
            shutil.rmtree(folder)
        fresh.chmod(0o755)
        return fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _expected(design: Design, outputs: Sequence[str], images: FloatArray) -> FloatArray:
    tensors = integer_trace(design, images).outputs
    return np.concatenate([tensors[name].values().reshape(len(images), -1) for name in outputs], axis=1)


def _first_difference(design: Design, project: Path, images: FloatArray, limit_s: float) -> str:
    layers = design.network.layers[1:]
    names = [layer.name for layer in layers]
    with tempfile.TemporaryDirectory() as folder:
        found = simulate(_emit(design, names, Path(folder) / TOP, "", 1.0, images), images, limit_s)
    equal, start = (found == _expected(design, names, images)).all(axis=0), 0
    for layer in layers:
        size = int(np.prod(layer.out_shape))
        if not equal[start : start + size].all():
            return layer.name
        start += size
    raise NasError(f"{project}: is not an emission of this design; emit it again")


def _write_project(design: Design, logic: Logic, folder: Path, part: str, clock_hz: float) -> Interface:
    pipeline = pipelined(logic.comb)
    for home, flavor, suffix in ((folder, "verilog", "v"), (folder / VHDL, "vhdl", "vhd")):
        period = 1e9 / clock_hz
        RTLModel(pipeline, TOP, home, flavor, print_latency=False, part_name=part, clock_period=period).write()
        shutil.rmtree(home / "sim")  # da4ml's own testbench is for 32 bits per value, and not for every Verilator
        (home / f"src/{TOP}_wrapper.{suffix}").unlink()
    for source in folder.glob("src/static/*.v"):
        source.write_text(source.read_text().replace("WIDTHTRUNC", "WIDTH"))  # the name that Verilator 5.006 knows
    interface = _interface(design, logic, pipeline)
    interface.save(folder)
    (folder / f"{TESTBENCH}.v").write_text(_testbench(interface))
    (folder / "README.md").write_text(_readme(interface, part, clock_hz))
    return interface


def _interface(design: Design, logic: Logic, pipeline: Pipeline) -> Interface:
    kifs = (minimal_kif(interval) for interval in pipeline.out_qint)
    outputs = tuple(Word(bool(k), int(k) + int(i) + int(f), int(f)) for k, i, f in kifs)
    return Interface(design.network.input.out_shape, logic.formats, outputs, len(pipeline.solutions))


def _testbench(interface: Interface) -> str:
    size = int(np.prod(interface.input_shape))
    inputs, outputs = sum(fmt.bits * size for fmt in interface.formats), sum(word.bits for word in interface.outputs)
    return f"""`timescale 1 ns / 1 ps
// Takes a vector of {INPUTS} every clock and writes what comes of it to {OUTPUTS}.
module {TESTBENCH};
    localparam LATENCY = {interface.latency_cycles};
    reg clk = 0;
    reg [{inputs - 1}:0] model_inp;
    wire [{outputs - 1}:0] model_out;
    integer source, sink, cycle = 0, left = LATENCY;

    {TOP} dut (.clk(clk), .model_inp(model_inp), .model_out(model_out));

    initial begin
        source = $fopen("{INPUTS}", "r");
        sink = $fopen("{OUTPUTS}", "w");
        while (left > 0) begin
            if ($fscanf(source, "%h", model_inp) != 1) left = left - 1;
            #1 clk = 1;
            #1 clk = 0;
            if (cycle >= LATENCY) $fdisplay(sink, "%h", model_out);
            cycle = cycle + 1;
        end
        $finish;
    end
endmodule
"""


def _readme(interface: Interface, part: str, clock_hz: float) -> str:
    rows = "\n".join(f"- {_name(fmt)}" for fmt in interface.formats)
    logits = "\n".join(f"- {_name(word)}" for word in interface.outputs)
    return f"""# RTL of an FPGA design

Verilog of the whole network for {part} at {clock_hz / 1e6:g} MHz, and the same in VHDL in `{VHDL}`. The module
`{TOP}` is a pipeline of {interface.latency_cycles} stages that takes a sample every clock.

`model_inp` holds the image, channels first and flattened, the first element in the lowest bits, once in each of
{rows}

`model_out` holds the logits, the first in the lowest bits:
{logits}

`q3.5` is signed with 3 integer bits, sign included, and 5 fraction bits; `u` is unsigned.

- Simulation: `verilator --binary -Wno-lint -Wno-fatal --top-module {TESTBENCH} {TESTBENCH}.v $(find src -name '*.v')`,
  then `obj_dir/V{TESTBENCH} && cmp {OUTPUTS} {EXPECTED}`; any other simulator will do as well.
- Synthesis, place and route with Vivado: `vivado -mode batch -source build_vivado_prj.tcl`.
- Synthesis with yosys: `yosys -p 'read_verilog -defer src/static/*.v src/*.v; synth_xilinx -family xcup -flatten
  -top {TOP}; stat'`.
"""


def _name(word: FixedPoint | Word) -> str:
    return f"{'q' if word.signed else 'u'}{word.bits - word.frac_bits}.{word.frac_bits}"
