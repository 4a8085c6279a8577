"""Stage `report`: one self-contained page for whoever decides, and the finalists as a table beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from experiments.context import Context
from experiments.plan import Plan
from experiments.report import figures, numbers
from experiments.report.artefacts import DeviceResult, Member, device_results, held_out
from experiments.report.layers import LayerRow, layer_order, layer_rows
from experiments.report.metrics import spearman
from experiments.rundir import atomic_write
from experiments.stages.finalize import load_layer_costs, member_design
from nas.genotype import count_networks
from supernet.metrics import read_metrics

FOLDER = "report"
PAGE = "index.html"
TABLE = "front.csv"


@dataclass(frozen=True)
class DeviceSection:
    """A device's part of the page: its result, figures as SVG, and the layers of every network on the front."""

    result: DeviceResult
    figures: Mapping[str, str]
    layers: Sequence[tuple[Member, Sequence[LayerRow]]]


def write_report(context: Context, plan: Plan) -> dict[str, Any]:
    """Write the page and the table of a run whose other stages are done.

    Raises:
        NasError: A stage is not done.
    """
    folder = context.run.path / FOLDER
    results = device_results(context, plan)
    page = render(context, plan, results)
    folder.mkdir(exist_ok=True)
    atomic_write(folder / TABLE, front_table(results).to_csv(index=False))
    atomic_write(folder / PAGE, page)
    return {"page": f"{FOLDER}/{PAGE}", "table": f"{FOLDER}/{TABLE}", "figures": page.count("<svg")}


def front_table(results: Sequence[DeviceResult]) -> pd.DataFrame:
    """All finalists, one a row, in SI; metrics that a device does not have are empty."""
    return pd.DataFrame([_record(member) for result in results for member in result.members])


def render(context: Context, plan: Plan, results: Sequence[DeviceResult]) -> str:
    """The page as HTML."""
    run, data = context.run, context.data
    sections = [_section(context, plan, result) for result in results]
    accuracy = held_out(run.stage_dir(plan.fit), run.summary(plan.fit))
    latencies = [(result.target.name, result.latency) for result in results if result.latency is not None]
    scored = [("error", "error", accuracy), *((f"latency, {name}", "latency_s", held) for name, held in latencies)]
    return _template().render(
        config=context.config,
        yaml=run.config_path.read_text(),
        environment=json.loads((run.path / "environment.json").read_text()),
        networks=count_networks(context.space),
        data=data,
        splits={name: len(getattr(data, name)) for name in ("train", "validation", "test")},
        training=run.summary(plan.train),
        training_figure=figures.training(read_metrics(run.stage_dir(plan.train))),
        sampled=run.summary(plan.sample),
        scored=scored,
        predictor_figure=figures.predictors(scored),
        sections=sections,
    )


def _section(context: Context, plan: Plan, result: DeviceResult) -> DeviceSection:
    home = context.run.stage_dir(plan.device(result.target.name).finalize)
    layers = [(member, _layers(context, home, member)) for member in result.front]
    rows = [(f"{member['id']}{' ★' if member['winner'] else ''}", row) for member, row in layers]
    drawn = {
        "front": figures.front(result),
        "agreement": figures.agreement(result),
    }
    if any(row.compressed for _, network in rows for row in network):
        drawn["precision"] = figures.precision_map(result.target.name, rows, layer_order(context.space))
    return DeviceSection(result, drawn, layers)


def _layers(context: Context, finalized: Path, member: Member) -> tuple[LayerRow, ...]:
    home = finalized / member["id"].rsplit("-", 1)[1]
    return layer_rows(member_design(context, home, member), load_layer_costs(home))


def _record(member: Member) -> dict[str, Any]:
    record = {key: member[key] for key in ("id", "device", "role", "on_front", "winner")}
    for kind in ("predicted", "measured"):
        record |= {f"{kind}_{metric}": member[kind][metric] for metric in member["predicted"]}
    return record | {"validation_error": member["validation_error"], "genotype": json.dumps(member["genotype"])}


def _count(value: float) -> str:
    return numbers.shown("", value)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("experiments.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"scientific": numbers.scientific, "metric_name": numbers.name, "count": _count}
    environment.globals |= {
        "shown": numbers.shown,
        "change": numbers.change,
        "name": numbers.name,
        "spearman": spearman,
        "correlation": numbers.correlation,
    }
    return environment.get_template("report.html.j2")
