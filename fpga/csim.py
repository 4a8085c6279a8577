"""Compile and call an emitted project's C simulation."""

from __future__ import annotations

import ctypes
import hashlib
import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fpga.tools import find
from nas.errors import NasError
from nas.genotype import FloatArray

TOP = "design"
"""Name of the top function and of its files."""

INTERFACE_FILE = "interface.json"

_SOURCE = f"""#include "firmware/nnet_utils/nnet_conv2d.h"
#include "firmware/nnet_utils/nnet_helpers.h"
#include "build/nnet_code_gen.h"
#include "firmware/{TOP}.cpp"
#include "{TOP}_bridge.cpp"
"""
"""The simulation in one file; the line buffers' include guard keeps the tabulated ones."""

_PARTITIONS = re.compile(r"(?:\s*if \(partition ==\s+\d+\) \{[^{}]*\})+")
_MOVE = re.compile(r"buffer\[(\d+)\]\[(\d+)\] =\s+(?:data\[(\d+)\]|0);")

_INCLUDES = ("-Ifirmware/ap_types", "-Ifirmware", "-Ifirmware/nnet_utils")
_FLAGS = ("-O1", "-w", "-DNDEBUG", "-std=c++17", "-fPIC", "-fno-gnu-unique", "-shared", "-I.", *_INCLUDES)
"""Without assertions: where a number is rounded away whole, `ap_fixed` reads a bit beyond it, which it does not use."""


@dataclass(frozen=True)
class Interface:
    """What a caller of the simulation has to know of it, shapes channels first.

    Attributes:
        input_shape: Shape of one image.
        classes: Number of logits.
        traces: hls4ml's layers whose outputs are recorded, in order of name, with their sizes.
        reads: For each `layer:index` of a read, the recorded layer that holds the quantized tensor.
    """

    input_shape: tuple[int, ...]
    classes: int
    traces: Mapping[str, int]
    reads: Mapping[str, str]

    def save(self, project: Path) -> None:
        fields = {name: getattr(self, name) for name in ("input_shape", "classes", "traces", "reads")}
        (project / INTERFACE_FILE).write_text(json.dumps(fields, indent=1) + "\n")


def load_interface(project: Path) -> Interface:
    """Read the interface of an emitted project."""
    try:
        fields = json.loads((project / INTERFACE_FILE).read_text())
    except FileNotFoundError:
        raise NasError(f"{project}: holds no emitted design ({INTERFACE_FILE} is missing); emit it first") from None
    return Interface(tuple(fields["input_shape"]), fields["classes"], fields["traces"], fields["reads"])


def compile_library(project: Path) -> Path:
    """Compile the simulation, or find it compiled from the same sources."""
    project = project.resolve()
    compiler = find("g++")
    sources = [*sorted(project.glob("firmware/*.*")), *sorted(project.glob("firmware/weights/*.txt"))]
    sources += [project / f"{TOP}_bridge.cpp", project / "firmware/nnet_utils/nnet_code_gen.h"]
    digest = hashlib.sha256("\0".join((_SOURCE, *_FLAGS)).encode())
    for source in sources:
        digest.update(source.read_bytes())
    # A new name for new sources: a process keeps the library it once loaded from a path.
    library = project / "build" / f"csim-{digest.hexdigest()[:16]}.so"
    if not library.exists():
        _compile(compiler, project, library)
    return library


def _compile(compiler: str, project: Path, library: Path) -> None:
    library.parent.mkdir(exist_ok=True)
    source, fresh = library.with_suffix(".cpp"), library.with_suffix(".tmp")
    source.write_text(_SOURCE)
    code = (project / "firmware/nnet_utils/nnet_code_gen.h").read_text()
    (library.parent / "nnet_code_gen.h").write_text(tabulated(code))
    weights = f'-DWEIGHTS_DIR="{project / "firmware/weights"}"'
    command = [compiler, *_FLAGS, weights, str(source), "-o", str(fresh)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NasError(f"{project}: the C simulation does not compile:\n{done.stderr[-2000:]}")
    fresh.rename(library)


def tabulated(code: str) -> str:
    """The generated line buffers with each one's moves as a table and a loop.

    hls4ml spells out tens of thousands of assignments, one per element of every window; compiling them takes most of
    the time. The table holds the very indices of those assignments, so what is simulated is what was emitted.
    """
    return _PARTITIONS.sub(_table, code)


def _table(partitions: re.Match[str]) -> str:
    moves = _MOVE.findall(partitions[0])
    places = [(int(pixel), int(element)) for pixel, element, _ in moves]
    window = [(pixel, element) for pixel in range(places[-1][0] + 1) for element in range(places[-1][1] + 1)]
    if window * (len(places) // len(window)) != places:
        return partitions[0]
    return f"""
        static const int from[] = {{{", ".join(source or "-1" for _, _, source in moves)}}};
        const int *move = from + partition * {len(window)};
        for (int pixel = 0; pixel < {places[-1][0] + 1}; pixel++)
            for (int element = 0; element < {places[-1][1] + 1}; element++, move++)
                if (*move < 0) buffer[pixel][element] = 0;
                else buffer[pixel][element] = data[*move];
"""


def simulate(project: Path, images: FloatArray) -> FloatArray:
    """Logits of images of shape (n, *input shape), shape (n, classes)."""
    interface, library = load_interface(project), ctypes.CDLL(str(compile_library(project)))
    return _call(library, interface, images)


def simulate_traced(project: Path, images: FloatArray) -> dict[str, FloatArray]:
    """Every recorded tensor, channels last and flattened: shape (n, size) by the name of hls4ml's layer."""
    interface, library = load_interface(project), ctypes.CDLL(str(compile_library(project)))
    samples = [_traced(library, interface, image[None]) for image in images]
    return {name: np.stack([sample[name] for sample in samples]) for name in interface.traces}


class _TraceRecord(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("data", ctypes.c_void_p))


def _call(library: ctypes.CDLL, interface: Interface, images: FloatArray) -> FloatArray:
    if images.shape[1:] != interface.input_shape:
        raise NasError(f"images have shape {images.shape}; the project reads (n, {interface.input_shape})")
    channels_last = np.ascontiguousarray(np.moveaxis(images, 1, -1), dtype=np.float64)
    logits = np.zeros((len(images), interface.classes))
    top = getattr(library, f"{TOP}_double")
    for image, row in zip(channels_last, logits, strict=True):
        top(image.ctypes.data_as(ctypes.c_void_p), row.ctypes.data_as(ctypes.c_void_p))
    return logits


def _traced(library: ctypes.CDLL, interface: Interface, image: FloatArray) -> dict[str, FloatArray]:
    library.allocate_trace_storage(ctypes.c_size_t(8))
    try:
        _call(library, interface, image)
        records = (_TraceRecord * len(interface.traces))()
        library.collect_trace_output(records)
        return {record.name.decode(): _copy(record.data, interface.traces[record.name.decode()]) for record in records}
    finally:
        library.free_trace_storage()


def _copy(address: int, size: int) -> FloatArray:
    return np.array((ctypes.c_double * size).from_address(address), dtype=np.float64)
