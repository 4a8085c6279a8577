"""Pictures of the benchmarks: PNG on white, to show beside a table."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from experiments.report import numbers
from experiments.report.theme import STYLE
from nas.genotype import FloatArray

Curves = Mapping[str, FloatArray]
"""By searcher, the ratio of hypervolumes after 1, 2, ... queries, shape (seeds, devices, queries); ours first."""

Fronts = Mapping[str, Sequence[FloatArray]]
"""By search, the cost in SI and the test error of the networks of each seed's front, shape (n, 2)."""

_COLOURS = ("#0072b2", "#98a1ac", "#e69f00", "#d55e00", "#009e73", "#cc79a7")

METHODS = {
    "alone": ("trained alone", "#1f2933", "s", (0, (4, 2))),
    "progressive": ("progressive shrinking", "#0072b2", "o", "-"),
    "sandwich": ("sandwich rule", "#009e73", "^", "-"),
    "uniform": ("uniform sampling", "#d55e00", "D", "-"),
}
"""Label, colour, marker and line of each way to train."""

SEARCHES = {
    "joint": ("all at once", "#0072b2", "o"),
    "sequential": ("one after the other", "#d55e00", "s"),
    "committed": ("one architecture", "#98a1ac", "^"),
}
"""Label, colour and marker of each way to search architecture, zeros and bits."""

TRANSFERS = (
    ("float predictor alone", "#98a1ac", "--"),
    ("from scratch", "#d55e00", "s-"),
    ("with transfer", "#0072b2", "o-"),
)
"""Label, colour and line of each way to predict quantized subnets."""

FAMILIES = {"mlp": ("MLP", "#d55e00"), "deepsets": ("deep sets", "#0072b2"), "interaction": ("interaction", "#009e73")}
"""Label and colour of each family of networks for jets."""

_READS = {"16 features": "D", "8": "o", "16": "s", "32": "^"}
"""Marker by how many particles a network reads."""

_SUBNETS = {"joint": "all bits and zeros of the config", "apq_bits": "4 to 8 bits, no zeros"}


def search_picture(curves: Curves) -> bytes:
    """Hypervolume against queries as PNG: mean over devices and seeds; the band holds the central 80 % of searches."""
    with matplotlib.rc_context(STYLE):
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
        return _png(figure)


def accuracy_picture(names: Sequence[str], macs: Sequence[int], accuracy: Mapping[str, FloatArray]) -> bytes:
    """Test accuracy of networks in the order of their sizes.

    Args:
        names: Of the networks, smallest first.
        macs: Multiply-accumulates of each.
        accuracy: By method, shape (seeds, networks), in [0, 1].
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure((6.4, 4.2), layout="constrained", facecolor="white")
        axes = figure.subplots()
        places = range(len(names))  # not by size: networks of nearly the same size would share a label's place
        for method, (label, colour, marker, line) in METHODS.items():
            _curve(axes, places, accuracy[method] * 100, label, colour, marker, line)
        axes.set_xticks(places, [f"{name}\n{count / 1e6:.3g} M" for name, count in zip(names, macs, strict=True)])
        seeds = len(accuracy["alone"])
        spread = f"; mean of {seeds} seeds, bars from the least to the largest" if seeds > 1 else ""
        axes.set(xlabel="multiply-accumulates", ylabel="test accuracy (%)")
        axes.set_title(f"Equal optimizer steps{spread}")
        axes.legend(loc="upper left")
        return _png(figure)


def fronts_picture(panels: Mapping[str, tuple[str, Fronts]]) -> bytes:
    """Tested fronts, a panel for each device; lines are the least error within each cost, one for each seed.

    Args:
        panels: By device, the metric of its cost, and the fronts.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure((4.4 * len(panels), 4.2), layout="constrained", facecolor="white")
        places = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (device, (metric, fronts)) in zip(places, panels.items(), strict=True):
            unit = numbers.scale(
                metric, np.concatenate([one for each in fronts.values() for one in each])[:, 0].tolist()
            )
            for search, seeds in fronts.items():
                for points in seeds:
                    _front(axes, points / (unit.worth, 0.01), search)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}" if x < 1e4 else f"{x / 1e3:g}k"))
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_minor_locator(NullLocator())
            axes.set(
                xlabel=" ".join([numbers.name(metric), f"({unit.unit})" * bool(unit.unit)]), ylabel="test error (%)"
            )
            axes.set_title(device)
            handles, labels = axes.get_legend_handles_labels()
            by_label = dict(zip(labels, handles, strict=True))
            axes.legend(by_label.values(), by_label.keys(), loc="best")
        return _png(figure)


def _front(axes: Axes, points: FloatArray, search: str) -> None:
    label, colour, marker = SEARCHES[search]
    cost, error = points[np.lexsort(points.T[::-1])].T
    axes.step(cost, np.minimum.accumulate(error), where="post", color=colour, linewidth=1, alpha=0.7)
    axes.scatter(cost, error, 14, color=colour, marker=marker, label=label)


def designs_picture(
    estimated: Mapping[tuple[str, str], FloatArray], synthesised: Mapping[tuple[str, str], FloatArray], hand: FloatArray
) -> bytes:
    """Accuracy of networks on an FPGA against their LUTs.

    Args:
        estimated: By family and what it reads, LUTs and accuracies in [0, 1], shape (n, 2).
        synthesised: Those of them that were synthesised.
        hand: LUTs and accuracy of the network made by hand, shape (2,).
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure((8.8, 4.8), layout="constrained", facecolor="white")
        axes = figure.subplots()
        for (family, reads), points in estimated.items():
            (label, colour), marker = FAMILIES[family], _READS[reads]
            lut, accuracy = points[np.lexsort(points.T[::-1])].T
            best = np.maximum.accumulate(accuracy) * 100
            axes.step(lut, best, where="post", color=colour, linewidth=1, alpha=0.6)
            axes.scatter(lut, accuracy * 100, 18, facecolor="white", edgecolor=colour, marker=marker, linewidth=0.9)
            made = synthesised.get((family, reads), np.zeros((0, 2)))
            axes.scatter(made[:, 0], made[:, 1] * 100, 30, color=colour, marker=marker, zorder=3)
            axes.plot([], [], color=colour, marker=marker, linewidth=1, label=f"{label}, {reads}")
        axes.scatter(hand[:1], hand[1:] * 100, 130, color="#1f2933", marker="*", zorder=4, label="made by hand, 8")
        axes.scatter([], [], 18, facecolor="white", edgecolor="#1f2933", linewidth=0.9, label="estimate")
        axes.scatter([], [], 30, color="#1f2933", label="yosys synthesis")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        axes.set(xlabel="LUT", ylabel="test accuracy (%)")
        figure.legend(loc="outside right upper")
        return _png(figure)


def transfer_picture(counts: Sequence[int], curves: Mapping[str, FloatArray], enough: float) -> bytes:
    """Pairwise accuracy and Kendall's tau against the number of quantized samples, a column for each kind of subnets.

    Args:
        counts: Of samples, ascending.
        curves: By kind of subnets, shape (repetitions, 2, ways, counts); ways are float alone, scratch, transfer.
        enough: The pairwise accuracy that is asked for.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure((4.4 * len(curves), 6.4), layout="constrained", facecolor="white")
        places = figure.subplots(2, len(curves), squeeze=False, sharex=True, sharey="row")
        for column, (name, found) in enumerate(curves.items()):
            for row, measure in enumerate(("pairwise accuracy", "Kendall tau")):
                axes = places[row, column]
                for way, (label, colour, line) in enumerate(TRANSFERS):
                    points = found[:, row, way]
                    axes.fill_between(counts, points.min(0), points.max(0), color=colour, alpha=0.14, linewidth=0)
                    middle = np.median(points, axis=0)
                    axes.plot(counts, middle, line, color=colour, linewidth=1.5, markersize=4, label=label)
                axes.set_ylabel(measure)
            top, bottom = places[:, column]
            top.axhline(enough, color="#1f2933", linewidth=0.8, linestyle=":")
            top.set_title(_SUBNETS[name])
            bottom.set_xscale("log")
            bottom.xaxis.set_major_locator(FixedLocator(list(counts)))
            bottom.xaxis.set_minor_locator(NullLocator())
            bottom.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            bottom.set_xlabel("quantized samples")
        places[0, 0].legend(loc="lower right")
        return _png(figure)


def _curve(
    axes: Axes, places: Sequence[int], points: FloatArray, label: str, colour: str, marker: str, line: object
) -> None:
    mean = points.mean(0)
    spread = [mean - points.min(0), points.max(0) - mean]
    axes.errorbar(
        places, mean, spread, color=colour, marker=marker, linestyle=line, linewidth=1.3, markersize=5.5, capsize=2.5,
        elinewidth=0.9, label=label,
    )  # fmt: skip


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
