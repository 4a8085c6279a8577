"""Stage `export`: files to deploy, each checked against the network it was made from."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from experiments.context import Context
from experiments.progress import progress
from experiments.rundir import atomic_write
from experiments.stages.finalize import load_members, member_design
from fpga import hls, rtl
from fpga.build import Build, folded_build
from fpga.folded import folded
from fpga.tools import ToolError
from fpga.unrolling import LARGEST_PRODUCTS, products
from hw_models.device import Device, load_device
from hw_models.onnx_runtime import predict
from hw_models.quantized_onnx import engine_model
from nas.design import Design, load_design, save_design
from nas.errors import NasError
from nas.genotype import FloatArray
from supernet.evaluate import all_images, design_logits

CHECKS = "checks.json"
ONNX_README = """# Networks for ONNX Runtime

Input `input`, float32, shape (n, ...); output `output`, the logits. Weights are stored in few bits and become floats as
the session is made. Make it as these latencies were measured, or the weights are converted in every call, which makes
small networks several times slower:

    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession("NETWORK.onnx", options, providers=["CPUExecutionProvider"])
    logits = session.run(None, {"input": images})[0]

A network whose activations are in 8 bits, too, runs in integer kernels: "onnx-int8" in `checks.json`. Leave out the
entry `session.disable_quant_qdq` for it.
"""
DESIGN_README = """# Networks in numbers

Each `.npz` holds the weights, biases and number formats of a network, as `nas.design.load_design` reads them.
"""
_TESTBENCH = 256
"""Images that lie beside the RTL for its testbench."""
_SIMULATION_S = 600.0

TOLERANCE = 1e-4
"""Largest difference of an ONNX model's logits from torch's, relative to the largest logit."""

INT8_TOLERANCE = 0.05
"""Largest share of images on which an int8 model answers otherwise than the design: engines round ties to even, and in
more places, see `hw_models.quantized_onnx`."""


def export(context: Context, device_name: str, finalize_folder: Path, folder: Path) -> dict[str, Any]:
    """Write the front of a measured device as ONNX, an FPGA's winner as an hls4ml project, another front as numbers.

    Raises:
        NasError: A file does not compute what its network does; it is not kept.
    """
    device, members = load_device(device_name), load_members(finalize_folder)
    match device.family:
        case "onnxruntime":
            chosen = [member for member in members if member["on_front"]]
            atomic_write(folder / "README.md", ONNX_README)
        case "bit-flexible" | "roofline" | "systolic" | "microcontroller" | "fitted":
            chosen = [member for member in members if member["on_front"]]
            atomic_write(folder / "README.md", DESIGN_README)
        case "unrolled-fpga" | "folded-fpga":
            chosen = [member for member in members if member["winner"]]
    checks = {}
    with progress(f"export for {device_name}", len(chosen)) as advance:
        for member in chosen:
            home = finalize_folder / member["id"].rsplit("-", 1)[1]
            design = member_design(context, home, member)
            checks[member["id"]] = _write(context, device, design, folder / member["id"])
            advance()
    atomic_write(folder / CHECKS, json.dumps(checks, indent=1))
    return {"files": sorted(checks), "checks": checks}


def _write(context: Context, device: Device, design: Design, path: Path) -> dict[str, Any]:
    match device.family:
        case "onnxruntime":
            return _write_onnx(context, design, path.with_name(f"{path.name}.onnx"))
        case "unrolled-fpga":
            return _write_hls(context, device, design, path)
        case "folded-fpga":
            build = folded_build(design.network, folded(design.network, device).options)
            return _write_project(context, device, design, path, build)
        case "bit-flexible" | "roofline" | "systolic" | "microcontroller" | "fitted":
            return _write_design(context, design, path.with_name(f"{path.name}.npz"))


def _write_onnx(context: Context, design: Design, path: Path) -> dict[str, Any]:
    images, model = _test_images(context, design), engine_model(design)
    expected = design_logits(design, images)
    logits = predict(model, images)
    difference = float(np.abs(logits - expected).max())
    if any(numbers.act for numbers in design.numbers.values()):
        return _write_int8(path, model, float((logits.argmax(1) != expected.argmax(1)).mean()), difference, len(images))
    if difference > TOLERANCE * np.abs(expected).max():
        raise NasError(
            f"{path.name}: the ONNX model's logits differ from torch's by {difference:.3g}, "
            f"more than {TOLERANCE:g} of the largest; it was not exported"
        )
    atomic_write(path, model)
    return {"kind": "onnx", "images": len(images), "max_abs_difference": difference}


def _write_int8(path: Path, model: bytes, share: float, difference: float, images: int) -> dict[str, Any]:
    if share > INT8_TOLERANCE:
        raise NasError(
            f"{path.name}: the int8 model answers otherwise than torch on {share:.1%} of {images} images, more than "
            f"{INT8_TOLERANCE:.0%}; it was not exported. A processor without VNNI saturates sums of products"
        )
    atomic_write(path, model)
    return {"kind": "onnx-int8", "images": images, "max_abs_difference": difference, "other_answers": share}


def _write_design(context: Context, design: Design, path: Path) -> dict[str, Any]:
    images = _test_images(context, design)
    save_design(design, path)
    read = load_design(design.network, path)
    difference = float(np.abs(design_logits(read, images) - design_logits(design, images)).max())
    if difference:
        path.unlink()
        raise NasError(f"{path.name}: as read back, its logits differ by {difference:.3g}; it was not exported")
    return {"kind": "design", "images": len(images), "max_abs_difference": difference}


def _write_hls(context: Context, device: Device, design: Design, path: Path) -> dict[str, Any]:
    """An unrolled design: its hls4ml project, and its RTL."""
    assert device.clock_hz is not None
    assert device.part is not None
    check, images = _write_project(context, device, design, path, hls.UNROLLED), _test_images(context, design)
    if (count := products(design)) <= rtl.SOON:
        return {**check, "rtl": _write_rtl(design, device.part, device.clock_hz, path, images)}
    return {**check, "rtl": {"missing": why_no_rtl(count, context.run.path, device.name)}}


def why_no_rtl(count: int, run: Path, device_name: str) -> str:
    """What to tell of a design of so many products, and the remedy."""
    what = f"{count} non-zero weights, each counted once per position"
    if count > LARGEST_PRODUCTS:
        return f"{what}, above {LARGEST_PRODUCTS}, are too many to unroll; prune more, or take fewer channels"
    remedy = f"`nas fpga synth {run} --device {device_name} --limit 3600` writes the RTL and simulates it"
    return f"{what}, above {rtl.SOON}, take more than a minute to simulate; {remedy}"


def _write_project(context: Context, device: Device, design: Design, path: Path, build: Build) -> dict[str, Any]:
    assert device.clock_hz is not None
    assert device.part is not None
    project = hls.emit(design, path, device.part, device.clock_hz, build)
    verification = verified(path, "C simulation", hls.compare(design, project, _test_images(context, design)))
    return {"kind": "hls4ml", **asdict(verification), "build": asdict(build)}


def _write_rtl(design: Design, part: str, clock_hz: float, path: Path, images: FloatArray) -> dict[str, Any]:
    """Beside the hls4ml project the RTL, verified with Verilator; `missing` says why that was not done."""
    try:
        project = rtl.emit(design, path / "rtl", part, clock_hz, images[:_TESTBENCH])
        return asdict(verified(path, "RTL", rtl.compare(design, project, images, _SIMULATION_S)))
    except ToolError as error:
        return {"missing": str(error)}


def verified(folder: Path, what: str, found: hls.Verification) -> hls.Verification:
    """The comparison, if nothing differed.

    Raises:
        NasError: Something did; the folder is removed.
    """
    if found.mismatches:
        shutil.rmtree(folder)
        raise NasError(
            f"{folder.name}: the {what} differs from the integer reference on {found.mismatches} of "
            f"{found.samples} images, first in layer {found.first_differing_layer}; it was not exported"
        )
    return found


def _test_images(context: Context, design: Design) -> FloatArray:
    return all_images(context.data.test, design.network)
