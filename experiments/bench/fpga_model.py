"""How far `hw_models.rtl_cost` is from synthesis, on designs it was not fitted to, and from reports of C synthesis."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench.fpga_corpus import Row, from_text
from experiments.bench.results import Figure, figure
from hw_models.rtl_cost import rtl_cost
from nas.genotype import FloatArray
from nas.network import Input, Layer, Linear, Network, Precision
from predictors.prediction import spearman

REPORTS = "hls4ml-synth/designs.csv"
"""Below NAS_DATA: C synthesis of hls4ml's MLPs of 8 bits, with the zeros of each layer."""

UNITS: Mapping[str, str] = {"lut": "LUTs by yosys", "ff": "flip-flops by yosys", "cycles": "cycles of the RTL"}


def predicted(rows: Sequence[Row], name: str) -> FloatArray:
    """The model's figure of each design, shape (n,); cycles are whole."""
    values = np.array([rtl_cost(from_text(row.network))[name] for row in rows])
    found: FloatArray = np.ceil(values) if name == "cycles" else values
    return found


def model_figures(rows: Sequence[Row]) -> dict[str, Figure]:
    """Median errors relative to synthesis and rank correlations, over the table's designs that test the model."""
    tested, figures = [row for row in rows if row.use == "test"], dict[str, Figure]()
    for name, what in UNITS.items():
        truth, model = np.array([float(getattr(row, name)) for row in tested]), predicted(tested, name)
        errors = np.abs(model / truth - 1).tolist()
        figures[f"{name}_model_median_error"] = figure(errors, f"relative to {what}, designs not fitted to")
        if name == "lut":
            rho = spearman(model, truth)
            figures["lut_model_spearman"] = Figure(rho, f"rank correlation with {what}", (rho, rho), len(tested))
    return figures | {
        "lut_da4ml_median_error": figure(
            [abs(row.estimate_lut / row.lut - 1) for row in tested], "da4ml's estimate, relative to LUTs by yosys"
        )
    }


def finalist_figures(made: Sequence[Row], rows: Sequence[Row]) -> dict[str, Figure]:
    """`lut_model_finalists_median_error`: of designs of runs; those that the table has are left out."""
    known = {row.network for row in rows}
    fresh = [row for row in made if row.network not in known]
    if not fresh:
        return {}
    errors = np.abs(predicted(fresh, "lut") / np.array([row.lut for row in fresh]) - 1)
    return {"lut_model_finalists_median_error": figure(errors.tolist(), f"relative to {UNITS['lut']}, finalists")}


def csynth_figures() -> dict[str, Figure]:
    """`lut_model_over_csynth`: the model's LUTs over those that C synthesis reports of products made of LUTs.

    Of MLPs without reuse; none where the reports are not at hand. Those reports come before logic optimisation, know no
    shared sums, and count a softmax.
    """
    path = Path(os.environ.get("NAS_DATA", "data")) / REPORTS
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        chosen = [row for row in csv.DictReader(file) if row["config"] == "LUT_reuse1" and row["DSP"] == "0"]
    models, truths = ([*values] for values in zip(*((_lut(row), float(row["LUT"])) for row in chosen), strict=True))
    rho = spearman(np.array(models), np.array(truths))
    ratios = [model / truth for model, truth in zip(models, truths, strict=True)]
    return {
        "lut_model_over_csynth": figure(ratios, "hls4ml report of C synthesis, MLPs of 8 bits"),
        "lut_model_csynth_spearman": Figure(rho, "rank correlation with the same", (rho, rho), len(ratios)),
    }


def _lut(row: Mapping[str, Any]) -> float:
    layers: list[Layer] = [Input("input", (json.loads(row["layers"])[0]["n_in"],))]
    told = json.loads(row["layers"])
    for index, one in enumerate(told):
        sparsity = one["n_zeros"] / (one["n_zeros"] + one["n_nonzeros"])
        activation, shapes = "identity" if index == len(told) - 1 else "relu", ((one["n_in"],), (one["n_out"],))
        source = (layers[-1].name,)
        layers.append(Linear(one["name"], source, *shapes, activation, False, Precision(8, 8), sparsity))  # type: ignore[arg-type]
    return rtl_cost(Network(tuple(layers)))["lut"]
