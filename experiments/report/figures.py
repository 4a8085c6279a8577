"""The report's figures: inline SVG whose colours follow the page's light or dark theme, and one PNG for a README."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from experiments.plan import OpenRun
from experiments.report.artefacts import DeviceResult, HeldOut, Member, device_results
from experiments.report.layers import LayerRow
from experiments.report.metrics import is_dense_8bit, spearman
from experiments.report.numbers import Scale, correlation, name, scale, shown
from experiments.report.theme import CLOUD, DENSE, INK, JOINT, MUTED, PAPER, STYLE, themed
from nas.genotype import FloatArray
from nas.network import FLOAT_BITS
from supernet.metrics import Progress

BITS = {2: "#0b3c6f", 3: "#1c5c9c", 4: "#3f83c1", 6: "#86b6de", 8: "#c3dcf0", 16: "#dde2e8", FLOAT_BITS: "#eef0f3"}
"""The fewer the bits, the darker."""

_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_LEAST_AREA, _LARGEST_AREA = 26.0, 150.0


def front(result: DeviceResult) -> str:
    """Error against the main cost: predicted candidates, finalists as measured, and the least error at each cost."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((7.6, 4.8), layout="constrained")
        axes = figure.subplots()
        _front(axes, result)
        return _svg(figure, f"front-{result.target.name}")


def agreement(result: DeviceResult) -> str:
    """Predicted against measured error and main cost of all finalists."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((7.6, 3.5), layout="constrained")
        for axes, metric in zip(figure.subplots(1, 2), ("error", result.main_cost), strict=True):
            _agreement(axes, result, metric)
        return _svg(figure, f"agreement-{result.target.name}")


def predictors(results: Sequence[tuple[str, str, HeldOut]]) -> str:
    """Held-out samples of each predictor, given as (title, metric, samples), with the central 90 % interval."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((7.6, 3.5), layout="constrained")
        for axes, (title, metric, held) in zip(figure.subplots(1, max(2, len(results))), results, strict=False):
            _held_out(axes, metric, held)
            axes.set_title(title)
        for axes in figure.axes[len(results) :]:
            axes.set_axis_off()
        return _svg(figure, "predictors")


def training(reports: Sequence[Progress]) -> str:
    """Loss against epochs, with the phases marked."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((7.6, 2.9), layout="constrained")
        axes = figure.subplots()
        epochs, phases = [now.epoch for now in reports], [now.phase for now in reports]
        axes.plot(epochs, [now.loss for now in reports], color=JOINT, linewidth=1.1)
        axes.set_yscale("log")
        _plain_ticks(axes, "y")
        for phase in dict.fromkeys(phases):
            first = phases.index(phase)
            start = epochs[first - 1] if first else 0.0
            axes.axvline(start, color=MUTED, linewidth=0.7, linestyle=(0, (2, 2)))
            axes.text(
                start + 0.006 * epochs[-1], 1.02, phase, transform=axes.get_xaxis_transform(), fontsize=8.5, color=MUTED
            )
        axes.set(xlabel="epoch", ylabel="training loss", xlim=(0, epochs[-1]))
        return _svg(figure, "training")


def precision_map(device: str, networks: Sequence[tuple[str, Sequence[LayerRow]]], order: Sequence[str]) -> str:
    """Weight bits, activation bits and zeros of every weighted layer of some networks, one network a row."""
    present = {row.name for _, rows in networks for row in rows if row.weights}
    columns = [column for column in order if column in present]
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure((7.6, 0.75 + 0.34 * len(networks)), layout="constrained")
        axes = figure.subplots()
        for y, (_, rows) in enumerate(networks):
            for row in rows:
                if row.weights:
                    _cell(axes, columns.index(row.name), y, row, len(columns))
        axes.set(xlim=(0, len(columns)), ylim=(len(networks), 0))
        crowded = len(columns) * max(map(len, columns)) > 72
        axes.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=35 if crowded else 0,
                        ha="left" if crowded else "center", fontsize=8)  # fmt: skip
        axes.set_yticks(np.arange(len(networks)) + 0.5, [label for label, _ in networks], fontsize=8.5)
        axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
        axes.spines[:].set_visible(False)
        return _svg(figure, f"precision-{device}")


def front_picture(run: OpenRun) -> bytes:
    """The fronts of all devices of a finished run side by side, as a PNG on white."""
    results = device_results(run.context, run.plan)
    with matplotlib.rc_context(STYLE):
        figure = Figure((5.4 * len(results), 4.4), layout="constrained", facecolor="white")
        for axes, result in zip(np.atleast_1d(figure.subplots(1, len(results))), results, strict=True):
            _front(axes, result)
            axes.set_title(result.target.name, fontweight="bold")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=160, facecolor="white", metadata={"Software": None})
        return buffer.getvalue()


def _front(axes: Axes, result: DeviceResult) -> None:
    cost, unit = result.main_cost, _scale(result, result.main_cost)
    axes.scatter(
        result.cloud[cost] / unit.worth, result.cloud["error"] * 100, 4, CLOUD, alpha=0.4, linewidths=0, rasterized=True
    )
    areas = _areas(result)
    for member in result.members:
        _mark(axes, result, member, areas.get(member["id"], 50.0))
    _staircase(axes, result, [m for m in result.members if m["on_front"]], JOINT, "-")
    _staircase(axes, result, result.dense, DENSE, (0, (4, 2)))
    _frame(axes, result)
    winner = result.winner["measured"]
    x, y = winner[cost] / unit.worth, winner["error"] * 100
    axes.annotate(
        f"winner, {shown('error', winner['error'])}", (x, y), (-6, 58), textcoords="offset points", ha="right",
        fontsize=8.5, fontweight="bold", zorder=7, arrowprops={"arrowstyle": "-", "color": INK, "shrinkB": 9},
    )  # fmt: skip
    _front_legend(axes, result)


def _mark(axes: Axes, result: DeviceResult, member: Member, area: float) -> None:
    dense, on_front = is_dense_8bit(member), member["on_front"]
    colour = DENSE if dense else JOINT
    x, y = member["measured"][result.main_cost] / _scale(result, result.main_cost).worth, member["measured"]["error"]
    axes.scatter(
        x, y * 100, area, colour if on_front else PAPER, marker="D" if dense else "o", linewidths=1.0,
        edgecolors=colour, zorder=3 + on_front,
    )  # fmt: skip
    if member["winner"]:
        axes.scatter(x, y * 100, area + 130, "none", edgecolors=INK, linewidths=1.4, zorder=6)


def _staircase(
    axes: Axes, result: DeviceResult, members: Sequence[Member], colour: str, line: str | tuple[int, tuple[int, int]]
) -> None:
    """The least measured error among members at each cost."""
    if not members:
        return
    unit = _scale(result, result.main_cost).worth
    points = sorted((m["measured"][result.main_cost] / unit, m["measured"]["error"] * 100) for m in members)
    x, y = np.array(points).T
    end = _bounds(result)[1] / unit
    axes.step(
        np.append(x, end), np.append(np.minimum.accumulate(y), y.min()), where="post", color=colour, linestyle=line,
        linewidth=1.3, zorder=2,
    )  # fmt: skip


def _frame(axes: Axes, result: DeviceResult) -> None:
    unit, (low, high) = _scale(result, result.main_cost), _bounds(result)
    axes.set_xlim(low / unit.worth, high / unit.worth)
    if high / low > 8:
        axes.set_xscale("log")
        _plain_ticks(axes, "x")
    worst = max(member["measured"]["error"] for member in result.members) * 100
    axes.set_ylim(0, worst * 1.18)
    axes.set(xlabel=_axis(result.main_cost, unit, result.provenance(result.main_cost)), ylabel="test error (%)")


def _front_legend(axes: Axes, result: DeviceResult) -> None:
    entries = [
        Line2D([], [], color=JOINT, marker="o", markersize=6, label="joint front"),
        Line2D([], [], color=DENSE, marker="D", markersize=5, linestyle=(0, (4, 2)), label="8-bit dense"),
        Line2D([], [], color=MUTED, marker="o", markersize=6, linestyle="", markerfacecolor="none",
               label="finalist, not on the front"),
        Line2D([], [], color=CLOUD, marker="o", markersize=2.5, linestyle="", label="candidates, predicted"),
    ]  # fmt: skip
    if result.third is not None:
        values = sorted({member["measured"][result.third] for member in result.members})
        for value in dict.fromkeys((values[0], values[-1])):
            size = float(np.sqrt(_area(value, values[0], values[-1])))
            label = f"{name(result.third)} {shown(result.third, value)}"
            entries.append(Line2D([], [], color=MUTED, marker="o", markersize=size, linestyle="", label=label))
    axes.legend(
        handles=entries, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3, labelspacing=0.55, handlelength=2.8,
        columnspacing=1.6,
    )  # fmt: skip


def _agreement(axes: Axes, result: DeviceResult, metric: str) -> None:
    unit = _scale(result, metric)
    for members, colour, marker, label in (
        ([m for m in result.members if not is_dense_8bit(m)], JOINT, "o", "joint"),
        (result.dense, DENSE, "D", "8-bit dense"),
    ):
        pairs = np.array([[m["predicted"][metric], m["measured"][metric]] for m in members]).reshape(-1, 2)
        x, y = (pairs / unit.worth).T
        axes.scatter(x, y, 30, colour, marker=marker, alpha=0.85, linewidths=0, label=label)
    both = np.array([[m["predicted"][metric], m["measured"][metric]] for m in result.members]) / unit.worth
    if both.max() / max(both.min(), 1e-12) > 8 and metric != "error":
        axes.set(xscale="log", yscale="log")
        _plain_ticks(axes, "x")
        _plain_ticks(axes, "y")
    _identity(axes, both)
    what, suffix = "test error" if metric == "error" else name(metric), f" ({unit.unit})" if unit.unit else ""
    axes.set(xlabel=f"predicted {name(metric)}{suffix}", ylabel=f"{result.provenance(metric)} {what}{suffix}")
    axes.set_title(f"{name(metric)}: Spearman {correlation(spearman(result.members, metric))}")
    axes.legend(loc="upper left")


def _held_out(axes: Axes, metric: str, held: HeldOut) -> None:
    unit = scale(metric, held.truth.tolist())
    x, y, half = (values / unit.worth for values in (held.truth, held.predicted, 1.6449 * held.std))
    axes.errorbar(x, y, half, fmt="none", ecolor=CLOUD, elinewidth=0.8, alpha=0.7)
    axes.scatter(x, y, 20, JOINT, zorder=3, linewidths=0)
    _identity(axes, np.stack([x, y]))
    axes.set(xlabel=f"{name(metric)} found ({unit.unit})", ylabel=f"{name(metric)} predicted ({unit.unit})")


def _identity(axes: Axes, values: FloatArray) -> None:
    margin = 0.08 * (np.ptp(values) or 1.0)
    low, high = values.min() - margin, values.max() + margin
    if axes.get_xscale() == "log":
        low, high = values.min() / 1.25, values.max() * 1.25
    axes.plot([low, high], [low, high], color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)), zorder=1)
    axes.set(xlim=(low, high), ylim=(low, high))


def _cell(axes: Axes, x: int, y: int, row: LayerRow, columns: int) -> None:
    assert row.weight_bits is not None
    shade = BITS[min((bits for bits in BITS if bits >= row.weight_bits), default=FLOAT_BITS)]
    axes.fill([x + 0.02, x + 0.98, x + 0.98, x + 0.02], [y + 0.06, y + 0.06, y + 0.94, y + 0.94], color=shade, lw=0)
    act = "f" if row.act_bits == FLOAT_BITS else str(row.act_bits)
    text = f"{row.weight_bits}/{act}" + (f" {row.zeros:.0%}" if row.zeros >= 0.05 else "")
    dark = row.weight_bits <= 4
    size = 8.5 if columns <= 8 else 6.5
    axes.text(x + 0.5, y + 0.52, text, ha="center", va="center", fontsize=size, color="#fefefe" if dark else "#101418")


def _scale(result: DeviceResult, metric: str) -> Scale:
    return scale(metric, [member["measured"][metric] for member in result.members])


def _bounds(result: DeviceResult) -> tuple[float, float]:
    """Of the main cost's axis, in SI: that of the finalists and a little more on either side."""
    values = [member["measured"][result.main_cost] for member in result.members]
    low, high = min(values), max(values)
    margin = (high - low) or high
    return (low / 1.15, high * 1.25) if high / low > 8 else (low - 0.06 * margin, high + 0.1 * margin)


def _areas(result: DeviceResult) -> dict[str, float]:
    if result.third is None:
        return {}
    values = {member["id"]: member["measured"][result.third] for member in result.members}
    low, high = min(values.values()), max(values.values())
    return {key: _area(value, low, high) for key, value in values.items()}


def _area(value: float, low: float, high: float) -> float:
    return _LEAST_AREA + (_LARGEST_AREA - _LEAST_AREA) * ((value - low) / (high - low) if high > low else 0.2)


def _axis(metric: str, unit: Scale, kind: str) -> str:
    return f"{name(metric)}, {kind}" + (f" ({unit.unit})" if unit.unit else "")


def _plain_ticks(axes: Axes, which: str) -> None:
    """Numbers as they are instead of powers of ten; over fewer than three decades at 1, 2 and 5 of each."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}".replace(",", "\u202f")))
    axis.set_minor_formatter(NullFormatter())


def _svg(figure: Figure, salt: str) -> str:
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", dpi=150, metadata=_NO_METADATA)
    return themed(buffer.getvalue())
