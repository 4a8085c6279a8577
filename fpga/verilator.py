"""Simulate an emitted project's RTL with Verilator; its VHDL by way of ghdl."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fpga.tools import find, run
from nas.errors import NasError
from nas.fixed_point import FixedPoint, quantize
from nas.genotype import FloatArray, IntArray

TOP = "network"
"""Name of the top module; `design` is a keyword of Verilog."""

TESTBENCH = f"{TOP}_tb"
INPUTS, OUTPUTS, EXPECTED = "inputs.hex", "outputs.hex", "expected.hex"
"""One vector per line, the first element in the lowest bits."""

INTERFACE_FILE = "interface.json"

VHDL = "vhdl"
"""Folder of the same project in VHDL."""

_UNOPTIMIZED = "OPT_FAST=-O0 OPT_SLOW=-O0 OPT_GLOBAL=-O0"  # compiles twice as fast, and 0.1 ms per vector is enough
_FLAGS = ("--binary", "--top-module", TESTBENCH, "-Wno-lint", "-Wno-fatal", "-MAKEFLAGS", _UNOPTIMIZED)


@dataclass(frozen=True)
class Word:
    """One element of a port: an integer of `bits` bits, none for a constant zero, with `frac_bits` fraction bits."""

    signed: bool
    bits: int
    frac_bits: int


@dataclass(frozen=True)
class Interface:
    """What a testbench has to know of the top module.

    Attributes:
        input_shape: Shape of one image, channels first.
        formats: `model_inp` holds the whole image, flattened, once in each of them: those in which layers read it.
        outputs: The elements of `model_out`: the last layer's output, flattened.
        latency_cycles: Clock edges from the one that takes a sample to the one that gives its result.
    """

    input_shape: tuple[int, ...]
    formats: tuple[FixedPoint, ...]
    outputs: tuple[Word, ...]
    latency_cycles: int

    def save(self, project: Path) -> None:
        (project / INTERFACE_FILE).write_text(json.dumps(asdict(self), indent=1) + "\n")

    def input_words(self, images: FloatArray) -> tuple[list[int], IntArray]:
        """Widths of the input port's elements, and their integers for images of shape (n, *input shape)."""
        if images.shape[1:] != self.input_shape:
            raise NasError(f"images have shape {images.shape}; the RTL reads (n, {self.input_shape})")
        integers = [quantize(images, fmt).reshape(len(images), -1) for fmt in self.formats]
        size = int(np.prod(self.input_shape))
        return [fmt.bits for fmt in self.formats for _ in range(size)], np.concatenate(integers, axis=1)


def load_interface(project: Path) -> Interface:
    """Read the interface of an emitted project."""
    try:
        fields = json.loads((project / INTERFACE_FILE).read_text())
    except FileNotFoundError:
        raise NasError(f"{project}: holds no RTL ({INTERFACE_FILE} is missing); emit it first") from None
    formats = tuple(FixedPoint(**fmt) for fmt in fields["formats"])
    outputs = tuple(Word(**word) for word in fields["outputs"])
    return Interface(tuple(fields["input_shape"]), formats, outputs, fields["latency_cycles"])


def simulate(project: Path, images: FloatArray, limit_s: float) -> FloatArray:
    """Compile the testbench with Verilator where needed and run it: (n, *input shape) -> values (n, outputs).

    Raises:
        ToolError: Verilator or g++ is missing, or one of them or the simulation fails or runs longer than `limit_s`.
    """
    interface, program = load_interface(project), compile_testbench(project, limit_s)
    widths, integers = interface.input_words(images)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / INPUTS).write_text(hex_lines(widths, integers))
        run([str(program)], Path(folder), limit_s)
        lines = (Path(folder) / OUTPUTS).read_text().split()
    return values(interface.outputs, lines)


def compile_testbench(project: Path, limit_s: float) -> Path:
    """Compile the testbench, or find it compiled from the same sources; returns the program."""
    project = project.resolve()
    verilator, _ = find("verilator"), find("g++")
    sources = [project / f"{TESTBENCH}.v", *sorted(project.glob("src/**/*.v"))]
    digest = hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    program = project / "build" / f"simulation-{digest}"
    if not program.exists():
        program.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=program.parent) as folder:
            command = [verilator, *_FLAGS, "--Mdir", folder, "-o", "program", *map(str, sources)]
            run(command, project, limit_s)
            (Path(folder) / "program").rename(program)
    return program


def from_vhdl(project: Path, limit_s: float) -> Path:
    """A project whose Verilog ghdl makes of the project's VHDL: what `simulate` and `compare` hold for it, VHDL holds.

    Raises:
        ToolError: ghdl is missing, fails or runs longer than `limit_s`.
    """
    ghdl, source = find("ghdl"), project / VHDL / "src"
    made = project / "build" / VHDL
    shutil.rmtree(made, ignore_errors=True)
    (made / "src").mkdir(parents=True)
    for name in (INTERFACE_FILE, f"{TESTBENCH}.v"):
        shutil.copy(project / name, made)
    stages = sorted(source.glob(f"{TOP}_stage*.vhd"))
    files = [str(path.resolve()) for path in (*sorted(source.glob("static/*.vhd")), *stages, source / f"{TOP}.vhd")]
    run([ghdl, "-a", "--std=08", *files], made, limit_s)
    (made / "src" / f"{TOP}.v").write_text(run([ghdl, "--synth", "--std=08", "--out=verilog", TOP], made, limit_s))
    return made


def hex_lines(widths: Sequence[int], integers: IntArray) -> str:
    """A vector per line, in hexadecimal: two's complement words side by side, the first lowest.

    Args:
        widths: Bits of each word.
        integers: Shape (n, words).
    """
    words = zip(integers.T, widths, strict=True)
    bits = np.concatenate([(word[:, None] >> np.arange(width)) & 1 for word, width in words], axis=1).astype(np.uint8)
    size, digits = bits.shape[1], -(-bits.shape[1] // 4)
    rows = np.packbits(np.pad(bits, ((0, 0), (0, -size % 8)))[:, ::-1], axis=1)
    return "".join(f"{row.tobytes().hex()[-digits:]}\n" for row in rows)


def values(words: Sequence[Word], lines: Sequence[str]) -> FloatArray:
    """The real numbers of lines of hexadecimal digits, the reverse of `hex_lines`; shape (lines, words)."""
    data = np.frombuffer(bytes.fromhex("".join(line.zfill(len(line) + len(line) % 2) for line in lines)), np.uint8)
    bits = np.unpackbits(data.reshape(len(lines), -1), axis=1)[:, ::-1].astype(np.int64)
    values, start = np.zeros((len(lines), len(words))), 0
    for column, word in enumerate(words):
        found = bits[:, start : start + word.bits]
        weights = 2 ** np.arange(word.bits)
        weights[-1:] *= -1 if word.signed else 1
        values[:, column] = (found @ weights) * 2.0**-word.frac_bits
        start += word.bits
    return values
