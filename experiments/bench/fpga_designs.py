"""Jets on FPGAs: accuracy against LUTs, flip-flops, DSP blocks and latency, beside published designs.

A row says how its figures were obtained. Resources and latency are those of RTL that takes a jet every cycle, all
particles at once, at 200 MHz; no timing was analysed. The data are simulated jets, the published designs' are others:
accuracies compare within the two, not across.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from experiments.bench.fpga_corpus import Row, synthesised
from experiments.bench.fpga_runs import DEVICE, FAMILIES, Job, Made, available, by_hand, finished, jobs
from experiments.bench.results import Figure
from experiments.plan import OpenRun
from experiments.rundir import atomic_write
from experiments.stages.finalize import member_design
from fpga import hls, reference, rtl
from fpga.positions import pieces
from fpga.tools import ToolError
from fpga.unrolling import products
from hw_models.rtl_cost import rtl_cost
from nas.design import Design
from nas.errors import NasError
from nas.genotype import FloatArray
from supernet.evaluate import all_images, design_logits

CLOCK_HZ = 200e6
_LIMIT_S = 7200.0
_MOST_SIMULATED = 5000
"""Products up to which compiling the RTL's simulation takes about a minute."""


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


_MEMORY = "published, arXiv 2402.01876"
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
    hand = by_hand(quick, runs, say)
    label = ("deepsets", "8", "32-32-32 / 32, made by hand")
    points, mismatches = [*PUBLISHED, _estimated(label, hand)], list[float]()
    theirs = points[-1] if quick else _synthesised(label, hand, runs / "jets-by-hand", say)
    points += [] if quick or theirs is None else [theirs]
    ratio: dict[str, Figure] = {}
    for job in jobs(quick):
        if not available(job.family):
            say(f"{job.name}: skipped, there is no config {FAMILIES[job.family]}.yaml")
            continue
        opened = finished(job, quick, runs, say)
        front, folder = _front(opened), runs / opened.context.config.name
        labels = {name: (job.family, str(job.particles or "16 features"), name) for name in front}
        points += [_estimated(labels[name], made) for name, made in front.items()]
        made = [] if quick else [_synthesised(labels[name], front[name], folder, say) for name in _notable(front, hand)]
        points += [point for point in made if point is not None]
        if job == Job("deepsets", 8):
            ratio = _ratio([point for point in points if point.particles == "8"], theirs)
        chosen = _simulable(front)
        if chosen is not None:
            mismatches.append(_mismatches(front[chosen].design, opened, folder / f"verified-{chosen}.json", say))
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(out / f"fpga-designs{'-quick' if quick else ''}.md", table(points))
    worst = (min(mismatches, default=0.0), max(mismatches, default=0.0))
    unit = "test jets with an answer that differs in any of the four ways, all designs"
    return ratio | {"mismatches": Figure(sum(mismatches), unit, worst, len(mismatches))}


Label = tuple[str, str, str]
"""Family, particles and name."""


def _front(opened: OpenRun) -> dict[str, Made]:
    """The finalists on the run's front, by their ids."""
    context, stage = opened.context, opened.plan.device(DEVICE).finalize
    found = {}
    for member in opened.members(DEVICE):
        if member["on_front"]:
            home = context.run.stage_dir(stage) / member["id"].rsplit("-", 1)[1]
            found[member["id"]] = Made(member_design(context, home, member), member["measured"]["error"])
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


def _simulable(front: Mapping[str, Made]) -> str | None:
    """The most accurate network whose RTL is soon simulated."""
    small = [name for name in front if products(front[name].design) <= _MOST_SIMULATED]
    return min(small, key=lambda name: front[name].error, default=None)


def _estimated(label: Label, made: Made) -> Point:
    cost = rtl_cost(made.design.network)
    latency_ns = math.ceil(cost["cycles"]) / CLOCK_HZ * 1e9
    return Point(*label, 1 - made.error, cost["lut"], cost["ff"], cost["dsp"], latency_ns, "estimate")


def _synthesised(label: Label, made: Made, folder: Path, say: Callable[[str], None]) -> Point | None:
    """The design's point by yosys; None, and told why, where that cannot be had."""
    kept, parts = folder / f"yosys-{label[2].split(',')[0].replace(' / ', '-')}.json", pieces(made.design)
    if not kept.exists():
        say(f"{' '.join(label)}: synthesis")
        try:
            found = [[asdict(synthesised("test", folder.name, part, _LIMIT_S)), count] for part, count in parts]
        except (ToolError, NasError) as error:
            say(f"{' '.join(label)}: not synthesised, {error}")
            return None
        atomic_write(kept, json.dumps(found, indent=1))
    rows = [(Row(**row), count) for row, count in json.loads(kept.read_text())]
    lut, ff = (float(sum(count * getattr(row, key) for row, count in rows)) for key in ("lut", "ff"))
    latency_ns = sum(row.cycles for row, _ in rows) / CLOCK_HZ * 1e9
    how = "yosys synthesis" if len(parts) == 1 else "yosys synthesis of one particle, times all, and of the rest"
    return replace(_estimated(label, made), lut=lut, ff=ff, dsp=0.0, latency_ns=latency_ns, obtained=how)


def rows_of_runs(runs: Path) -> list[Row]:
    """What `designs` synthesised: networks that were searched, trained and fine-tuned, to none of which was fitted."""
    kept = sorted(runs.glob("jets-*/yosys-*.json"))
    return [Row(**row) for path in kept for row, _ in json.loads(path.read_text())]


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


def _mismatches(design: Design, opened: OpenRun, kept: Path, say: Callable[[str], None]) -> float:
    """Test jets on which fake quantization, C simulation or RTL differ from the integer reference."""
    if not kept.exists():
        say(f"{kept.parent.name}: verification of {kept.stem.removeprefix('verified-')}")
        images = all_images(opened.context.data.test, design.network)
        atomic_write(kept, json.dumps(verified(design, images), indent=1))
    return float(sum(json.loads(kept.read_text()).values()))


def verified(design: Design, images: FloatArray) -> dict[str, int]:
    """By each of the other three ways, the images, shape (n, *input shape), on which it differs from the reference."""
    expected = reference.run(design, images)
    with tempfile.TemporaryDirectory() as place:
        project = hls.emit(design, Path(place) / "hls4ml", "xcvu13p-flga2577-2-e", CLOCK_HZ)
        in_c = hls.compare(design, project, images).mismatches
        in_rtl = rtl.compare(design, rtl.emit(design, Path(place) / "rtl", "", CLOCK_HZ, images[:1]), images, _LIMIT_S)
    torch = int((design_logits(design, images) != expected).any(axis=1).sum())
    return {"fake quantization": torch, "C simulation": in_c, "RTL": in_rtl.mismatches}


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
