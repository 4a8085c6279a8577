"""Jets on FPGAs: accuracy against LUTs, flip-flops, DSP blocks and latency, beside published designs.

A row says how its figures were obtained. Resources and latency are those of RTL that takes a jet every cycle, all
particles at once, at 200 MHz; no timing was analysed. The data are simulated jets, the published designs' are others:
accuracies compare within the two, not across. Interaction networks on 16 and 32 particles are fine-tuned for fewer
epochs than all others here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench.figures import designs_picture
from experiments.bench.fpga_corpus import Row, synthesised
from experiments.bench.fpga_runs import DEVICE, Job, Made, alone, by_hand, cnn_config, finished, jobs, left
from experiments.bench.fpga_verified import WAYS, Verified, verified
from experiments.bench.fpga_verified import table as verifications
from experiments.bench.results import Figure
from experiments.config import Config
from experiments.plan import OpenRun
from experiments.rundir import atomic_write
from experiments.stages.finalize import member_design
from fpga import rtl
from fpga.positions import pieces
from fpga.tools import ToolError, find
from fpga.unrolling import products
from hw_models.rtl_cost import rtl_cost
from nas.design import Design
from nas.errors import NasError
from supernet.evaluate import all_images

CLOCK_HZ = 200e6
_LIMIT_S = 7200.0

Label = tuple[str, str, str]
"""Family, particles and name."""

HAND: Label = ("deepsets", "8", "32-32-32 / 32, made by hand")
_MOST_LUT = 120e3
"""Estimated LUTs of a piece of RTL that yosys maps within minutes; ten times as many take tens of GB."""

_SOON = 1500
"""Products of RTL that is simulated within seconds."""

YOSYS = "yosys.json"

_VERIFIED = """## Verification

Test images on which a way to compute differs from the integer reference in any logit. The CNN is trained on digits."""


@dataclass(frozen=True)
class Point:
    """A row of the table; None for what is not known.

    Attributes:
        family: What kind of network.
        particles: How many it reads, or that it reads features of the jet.
        name: Of the design.
        accuracy: On the test split, in [0, 1].
        lut: Lookup tables.
        ff: Flip-flops.
        dsp: DSP blocks.
        latency_ns: From a jet to its logits.
        obtained: How.
    """

    family: str
    particles: str
    name: str
    accuracy: float | None
    lut: float | None
    ff: float | None
    dsp: float | None
    latency_ns: float | None
    obtained: str


_MEMORY = "published, arXiv 2402.01876, quoted from memory"
PUBLISHED = (
    Point("mlp", "16 features", "hls4ml's jet tagger 16-64-32-32-5", 0.76, None, None, None, None, "published, hls4ml"),
    Point("mlp", "8", "MLP, XCVU13P", None, 155e3, None, 262, 105, _MEMORY),
    Point("deepsets", "8", "deep sets, XCVU13P", None, 386e3, None, 626, 95, _MEMORY),
    Point("interaction", "8", "interaction network, XCVU13P", None, 472e3, None, 2191, 160, _MEMORY),
    Point("deepsets", "8", "SNAC-Pack", 0.6384, None, None, None, None, "published, SNAC-Pack"),
    Point("linear attention", "8", "JEDI-linear", None, None, None, 0, 60, "published, an upper bound of the latency"),
)
"""Of the public jets; accuracies do not compare with those here."""


def designs(quick: bool, runs: Path, out: Path, say: Callable[[str], None]) -> dict[str, Figure]:
    """Make all runs, estimate their fronts, synthesise and verify some of each; write `fpga-designs.md`.

    Args:
        quick: One small run of each family; no synthesis, so that the ratio is one of estimates.
        runs: Folder of runs; what is there is used again.
        out: Where the table goes.
        say: Told of every step.
    """
    if commands := left(quick, runs):
        say(
            "\n".join(
                [f"{len(commands)} runs are not finished. They are made now, one after the other; or stop", *commands]
            )
        )
    small = cnn_config()
    checked = [_checked("small CNN, digits", alone(small, runs, say), small, say)]
    hand = by_hand(quick, runs, say)
    points = [*PUBLISHED, _estimated(HAND, hand)]
    theirs = points[-1] if quick else _synthesised(HAND, hand, say)
    points += [] if quick or theirs is None else [theirs]
    ratio: dict[str, Figure] = {}
    for job in jobs(quick):
        opened = finished(job, quick, runs, say)
        front = _front(opened)
        labels = {name: (job.family, str(job.particles or "16 features"), name) for name in front}
        points += [_estimated(labels[name], made) for name, made in front.items()]
        made = [] if quick else [_synthesised(labels[name], front[name], say) for name in _notable(front, hand)]
        points += [point for point in made if point is not None]
        if job == Job("deepsets", 8):
            ratio = _ratio([point for point in points if point.particles == "8"], theirs)
        chosen = _simulable(front, _SOON if quick else rtl.SOON)
        checked.append(_checked(" ".join(labels[chosen]), front[chosen], opened.context.config, say))
    name = f"fpga-designs{'-quick' if quick else ''}"
    drawn = f"![Accuracy of the networks made here against their LUTs]({name}.png)"
    atomic_write(out / f"{name}.md", f"{table(points)}\n{drawn}\n\n{_VERIFIED}\n\n{verifications(checked)}")
    atomic_write(out / f"{name}.png", picture(points))
    return ratio | mismatches(checked)


def _checked(name: str, made: Made, config: Config, say: Callable[[str], None]) -> Verified:
    return verified(name, made, all_images(config.data.load(config.seed).test, made.design.network), say)


def mismatches(checked: list[Verified]) -> dict[str, Figure]:
    """`mismatches` of all designs in all ways, and `ways_not_held`, which no tool could carry; the table says why."""
    counts = [sum(one for one in found.outcomes.values() if isinstance(one, int)) for found in checked]
    absent = [sum(isinstance(one, str) for one in found.outcomes.values()) for found in checked]
    unit = "test images with an answer that differs in any way, all designs"
    return {
        "mismatches": Figure(sum(counts), unit, (min(counts), max(counts)), len(checked)),
        "ways_not_held": Figure(
            sum(absent), f"of {len(WAYS)} for each design, all designs", (min(absent), max(absent)), len(checked)
        ),
    }


def _front(opened: OpenRun) -> dict[str, Made]:
    """The finalists on the run's front, by their ids."""
    context, stage = opened.context, opened.plan.device(DEVICE).finalize
    found = {}
    for member in opened.members(DEVICE):
        if member["on_front"]:
            home = context.run.stage_dir(stage) / member["id"].rsplit("-", 1)[1]
            found[member["id"]] = Made(member_design(context, home, member), member["measured"]["error"], home)
    return found


def _lut(made: Made) -> float:
    return rtl_cost(made.design.network)["lut"]


def _notable(front: Mapping[str, Made], hand: Made) -> list[str]:
    """The most accurate network, the cheapest as accurate as that made by hand, and the cheapest within 2 points."""
    best = min(front, key=lambda name: front[name].error)
    as_good = [name for name in front if front[name].error <= hand.error]
    near = [name for name in front if front[name].error <= front[best].error + 0.02]
    cheapest = [min(names, key=lambda name: _lut(front[name])) for names in (as_good, near) if names]
    return list(dict.fromkeys([best, *cheapest]))


def _simulable(front: Mapping[str, Made], most: int) -> str:
    """The most accurate network of at most so many products; where there is none, that of the fewest."""
    count = {name: products(made.design) for name, made in front.items()}
    small = [name for name in front if count[name] <= most]
    return min(small, key=lambda name: front[name].error) if small else min(front, key=lambda name: count[name])


def _estimated(label: Label, made: Made) -> Point:
    cost = rtl_cost(made.design.network)
    latency_ns = math.ceil(cost["cycles"]) / CLOCK_HZ * 1e9
    return Point(*label, 1 - made.error, cost["lut"], cost["ff"], cost["dsp"], latency_ns, "estimate")


def _synthesised(label: Label, made: Made, say: Callable[[str], None]) -> Point | None:
    """The design's point by yosys; None, and told why, where that cannot be had."""
    kept, parts, name = made.home / YOSYS, pieces(made.design), " ".join(label)
    try:
        find("yosys")
        if not kept.exists():
            say(f"{name}: synthesis")
            atomic_write(kept, json.dumps(_pieces(parts, made), indent=1))
    except ToolError as error:
        say(f"{name}: not synthesised, {error}")
        return None
    found = json.loads(kept.read_text())
    if isinstance(found, str):
        say(f"{name}: not synthesised, {found}; kept in {kept}")
        return None
    rows = [(Row(**row), count) for row, count in found]
    lut, ff = (float(sum(count * getattr(row, key) for row, count in rows)) for key in ("lut", "ff"))
    latency_ns = sum(row.cycles for row, _ in rows) / CLOCK_HZ * 1e9
    how = "yosys synthesis" if len(parts) == 1 else "yosys synthesis of one particle, times all, and of the rest"
    return replace(_estimated(label, made), lut=lut, ff=ff, dsp=0.0, latency_ns=latency_ns, obtained=how)


def _pieces(parts: list[tuple[Design, int]], made: Made) -> list[tuple[dict[str, Any], int]] | str:
    """Rows of the pieces, each with its count; or why there are none, which hours need not be spent on twice."""
    largest = max(rtl_cost(part.network)["lut"] for part, _ in parts)
    if largest > _MOST_LUT:
        return f"about {largest:,.0f} LUTs in one piece; yosys maps up to {_MOST_LUT:,.0f} in reasonable time"
    try:
        return [
            (asdict(synthesised("test", made.home.parents[1].name, part, _LIMIT_S)), count) for part, count in parts
        ]
    except NasError as error:
        return str(error).splitlines()[0]


def rows_of_runs(runs: Path) -> list[Row]:
    """What `designs` synthesised: networks that were searched, trained and fine-tuned, to none of which was fitted."""
    found = [json.loads(path.read_text()) for path in sorted(runs.glob(f"jets-*/*/*/{YOSYS}"))]
    return [Row(**row) for rows in found if not isinstance(rows, str) for row, _ in rows]


def _ratio(points: list[Point], theirs: Point | None) -> dict[str, Figure]:
    """`lut_ratio_to_paper_deepsets`: LUTs of our cheapest deep sets at least as accurate, both obtained in one way."""
    if theirs is None or theirs.accuracy is None or theirs.lut is None:
        return {}
    ours = [
        point.lut
        for point in points
        if point.family == "deepsets" and point.name != theirs.name and point.obtained == theirs.obtained
        and point.lut is not None and point.accuracy is not None and point.accuracy >= theirs.accuracy
    ]  # fmt: skip
    ratio = min(ours, default=float("inf")) / theirs.lut
    return {"lut_ratio_to_paper_deepsets": Figure(ratio, f"LUTs, {theirs.obtained}", (ratio, ratio), len(ours))}


def picture(points: list[Point]) -> bytes:
    """What was made here: accuracies against LUTs."""
    found: dict[str, dict[tuple[str, str], list[tuple[float, float]]]] = {"estimate": {}, "yosys": {}}
    hand = np.zeros(2)
    for point in points:
        how = point.obtained.split()[0]
        if how in found and point.lut is not None and point.accuracy is not None:
            if (point.family, point.particles, point.name) == HAND:
                hand = np.array([point.lut, point.accuracy])
            else:
                found[how].setdefault((point.family, point.particles), []).append((point.lut, point.accuracy))
    estimated, synthesised = ({key: np.array(rows) for key, rows in each.items()} for each in found.values())
    return designs_picture(estimated, synthesised, hand)


def table(points: list[Point]) -> str:
    """All points as a page of Markdown."""
    rows = [
        f"| {point.family} | {point.particles} | {point.name} | {_cell(point.accuracy, 100, '.2f')} | "
        f"{_cell(point.lut, 1, ',.0f')} | {_cell(point.ff, 1, ',.0f')} | {_cell(point.dsp, 1, ',.0f')} | "
        f"{_cell(point.latency_ns, 1, '.0f')} | {point.obtained} |"
        for point in points
    ]
    said = (__doc__ or "").split("\n\n", 1)
    head = "| family | particles | design | accuracy, % | LUT | FF | DSP | latency, ns | obtained by |"
    return "\n".join(
        [f"# {said[0]}", "", said[1].strip(), "", head, "|---|---|---|---|---|---|---|---|---|", *rows, ""]
    )


def _cell(value: float | None, scale: float, style: str) -> str:
    return "" if value is None else format(value * scale, style)
