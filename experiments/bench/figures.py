"""Pictures of benchmarks."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from experiments.report.theme import GRID, INK, MUTED
from nas.genotype import FloatArray

Curves = Mapping[str, FloatArray]
"""By searcher, the ratio of hypervolumes after 1, 2, ... queries, shape (seeds, devices, queries); ours first."""

_COLOURS = ("#0072b2", "#98a1ac", "#e69f00", "#d55e00", "#009e73", "#cc79a7")
_STYLE: dict[Any, Any] = {
    "font.size": 9.5, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": MUTED, "xtick.color": MUTED,
    "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": GRID, "axes.axisbelow": True, "legend.frameon": False,
}  # fmt: skip


def search_picture(curves: Curves) -> bytes:
    """Hypervolume against queries as PNG: mean over devices and seeds; the band holds the central 80 % of searches."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure((7.6, 4.6), layout="constrained")
        axes = figure.subplots()
        queries = np.arange(1, next(iter(curves.values())).shape[-1] + 1)
        for rank, ((name, curve), colour) in enumerate(zip(curves.items(), _COLOURS, strict=False)):
            missing = 1 - curve.reshape(-1, len(queries))
            low, high = np.quantile(missing, [0.1, 0.9], axis=0)
            axes.fill_between(queries, low, high, color=colour, alpha=0.12, linewidth=0)
            axes.plot(queries, missing.mean(axis=0), color=colour, linewidth=1.5 + (rank == 0), label=name)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(10, len(queries))
        axes.set_ylim(0.3, 0.001)
        axes.xaxis.set_major_locator(FixedLocator([10, 25, 50, 100, 200, 400]))
        axes.yaxis.set_major_locator(FixedLocator([0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001]))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{1 - y:.3g}"))
        axes.set_xlabel("accuracy queries")
        axes.set_ylabel("hypervolume / that of the true front")
        axes.legend(loc="upper left")
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=160, facecolor="white", metadata={"Software": None})
        return file.getvalue()
