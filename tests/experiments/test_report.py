"""The report of a run whose artefacts are written here: the designs are real, the figures are chosen."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.config import Config, config_from
from experiments.context import Context
from experiments.plan import DeviceStages, OpenRun, plan
from experiments.report import numbers
from experiments.report.artefacts import device_results
from experiments.report.figures import front_picture
from experiments.report.layers import LayerRow, layer_order, layer_rows
from experiments.report.metrics import joint_over_dense, spearman
from experiments.report.page import write_report
from experiments.rundir import append_line
from experiments.stages.finalize import finalist_key, layer_costs
from fpga.adders import adder_graph_cost
from hw_models.device import load_device
from hw_models.onnx_model import stored_weight_bytes, to_onnx
from nas.design import Design, save_design
from nas.errors import NasError
from nas.genotype import canonical
from predictors.prediction import Prediction, score
from supernet.metrics import METRICS, Progress

CONFIG = {
    "name": "small",
    "data": {"name": "digits"},
    "space": {
        "name": "mobile", "stem": 4, "stages": [{"width": 4, "stride": 2, "depth": [1, 2]}], "kernel": [3, 5],
        "expand": [2], "precision": {"weight_bits": [4, 8], "act_bits": [6, 8, 32], "sparsity": [0, 0.5]},
    },
    "supernet": {
        "strategy": "progressive", "epochs": {"full": 2, "depth": [1, 1]}, "batch": 64, "learning_rate": 1e-3,
        "calibration": 64,
    },
    "predictors": {"accuracy": {"samples": 20}, "latency": {"samples": 10}},
    "devices": [{"name": "local-cpu", "constraints": {"error": "10 %"}}, {"name": "zu3eg"}],
    "search": {"samplers": {"nsga2": {}}},
    "finalize": {"members": 4, "baseline": 3, "epochs": 1},
}  # fmt: skip
ENVIRONMENT = {
    "date": "2026-01-02T03:04:05+00:00", "seed": 0, "platform": "Linux", "cpu": "Some <i>CPU</i> & co", "cpus": 2,
    "python": "3.11.0", "packages": {"hwnas": "0.1.0", "numpy": "2.0"},
}  # fmt: skip

FINALISTS = {
    "local-cpu": [
        {"depth": 1, "bits": 8, "acts": 32, "zeros": 0.0, "role": "dense-8bit", "found_by": "start"},
        {"depth": 1, "bits": 4, "acts": 32, "zeros": 0.5, "role": "joint", "found_by": "nsga2"},
        {"depth": 0, "bits": 4, "acts": 32, "zeros": 0.0, "role": "joint", "found_by": "nsga2"},
    ],
    "zu3eg": [
        {"depth": 1, "bits": 8, "acts": 8, "zeros": 0.0, "role": "dense-8bit", "found_by": "start"},
        {"depth": 1, "bits": 4, "acts": 6, "zeros": 0.5, "role": "joint", "found_by": "nsga2"},
        {"depth": 0, "bits": 4, "acts": 6, "zeros": 0.5, "role": "joint", "found_by": "nsga2"},
    ],
}
ERRORS = ((0.0375, 0.0325, False), (11 / 360, 0.0275, True), (0.0875, 0.0925, True))
"""Of each finalist: on the test split, on the validation split, and whether it is on the front."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> OpenRun:
    """A run all of whose stages but the report are done."""
    config: Config = config_from(CONFIG, "test")
    run = OpenRun(Context(config, tmp_path_factory.mktemp("runs")), plan(config))
    folder = run.context.run
    folder.start(config.to_yaml(), ENVIRONMENT)
    train = folder.stage_dir(run.plan.train)
    for phase, step, loss in (("full", 10, 2.0), ("full", 20, 0.5), ("depth 1/2", 30, 0.75), ("depth 2/2", 40, 0.8)):
        append_line(train / METRICS, asdict(Progress(step, phase, step / 10, loss, 1e-3, 1e4)))
    folder.finish(run.plan.train, {"parameters": 1234, "teacher_error": 0.02, "full_error": 0.03})
    folder.finish(run.plan.sample, {"samples": 20, "least_error": 0.03, "median_error": 0.1})
    folder.finish(run.plan.fit, write_held_out(folder.stage_dir(run.plan.fit), 0.1))
    for stages in run.plan.devices:
        finish_device(run.context, stages)
    return run


def finish_device(context: Context, stages: DeviceStages) -> None:
    run, target = context.run, stages.target
    designs = [design(context, finalist) for finalist in FINALISTS[target.name]]
    members = [member(context, target.name, index, design) for index, design in enumerate(designs)]
    if stages.measure is not None:
        folder = run.stage_dir(stages.measure)
        (folder / "campaigns.json").write_text(json.dumps([campaign({"other": 1e-5})]))
        timed = context.measurements(target.name)
        timed.parent.mkdir()
        append_line(timed, campaign({finalist_key(designs[0].network): 1.25e-5}) | {"rejected": 17})
        append_line(timed, campaign({"of another run": 1.0}) | {"rejected": 4321})
        run.finish(stages.measure, write_held_out(folder, 1e-5))
    search = run.stage_dir(stages.search)
    names = np.array(["error", "latency_s", "weight_bytes", "lut", "ff", "dsp", "bram"])
    metrics = np.tile([[0.05, 2e-6, 500, 9e3, 900, 0, 0]], (4, 1)) * np.array([[1.0], [1.5], [2.5], [9.0]])
    np.savez(search / "candidates.npz", metrics=metrics, names=names)
    proofs = [{"minimised": "latency_s", "limits": [{"metric": "error", "limit": 0.1}], "status": "optimal",
               "value": 4.5e-6, "bound": 4.5e-6, "member": 0}]  # fmt: skip
    (search / "proofs.json").write_text(json.dumps(proofs))
    found = {"nsga2": 4}
    run.finish(stages.search, {"candidates": 4, "front": 2, "candidates_by": found, "front_by": found,
                               "largest_gap": 2.5e-9})  # fmt: skip
    finalize = run.stage_dir(stages.finalize)
    for index, made in enumerate(designs):
        home = finalize / f"{index:02d}"
        home.mkdir()
        save_design(made, home / "design.npz")
        (home / "layers.json").write_text(json.dumps(layer_costs(made, load_device(target.name))))
    (finalize / "members.json").write_text(json.dumps(members))
    run.finish(stages.finalize, {"front": 2})
    check: dict[str, Any] = {"kind": "onnx", "images": 360, "max_abs_difference": 2.5e-6}
    if target.name == "zu3eg":
        check = {
            "kind": "hls4ml",
            "samples": 360,
            "mismatches": 3,
            "first_differing_layer": None,
            "rtl": {"missing": "no verilator"},
        }
    checks = {members[1]["id"]: check}
    (run.stage_dir(stages.export) / "checks.json").write_text(json.dumps(checks))
    run.finish(stages.export, {"checks": checks})


def genotype(context: Context, wanted: dict[str, Any]) -> list[int]:
    chosen = {"depth": wanted["depth"] + 1, "weight_bits": wanted["bits"], "act_bits": wanted["acts"],
              "sparsity": wanted["zeros"], "kernel": 5, "width": 2}  # fmt: skip
    raw = np.array([[gene.choices.index(chosen[gene.kind]) for gene in context.space.genes]])
    made: list[int] = canonical(context.space, raw)[0].tolist()
    return made


def design(context: Context, finalist: dict[str, Any]) -> Design:
    network = context.space.lower(genotype(context, finalist))
    return context.training().specialise(network).design()


def member(context: Context, device: str, index: int, made: Design) -> dict[str, Any]:
    finalist, (test, validation, on_front) = FINALISTS[device][index], ERRORS[index]
    if device == "zu3eg":
        cost = adder_graph_cost(made, 2e8).total() | {"weight_bytes": 500.0 + index}
    else:
        cost = {"latency_s": 12.5e-6 / (1 + index), "weight_bytes": float(stored_weight_bytes(to_onnx(made)))}
    return {
        "id": f"{device}-{index:02d}", "device": device, "genotype": genotype(context, finalist),
        "role": finalist["role"], "found_by": finalist["found_by"],
        "dense_8bit": finalist["bits"] == 8 and finalist["zeros"] == 0,
        "predicted": {"error": 0.04 + index / 30} | {name: value * 1.1 for name, value in cost.items()},
        "measured": {"error": test} | cost, "inherited_validation_error": 0.5, "validation_error": validation,
        "on_front": on_front, "winner": index == 1,
    }  # fmt: skip


def write_held_out(folder: Path, unit: float) -> dict[str, float]:
    truth = np.array([1.0, 2.0, 3.0, 4.0]) * unit
    prediction = Prediction(truth * 1.1, truth * 0.2)
    np.savez(folder / "held_out.npz", predicted=prediction.mean, std=prediction.std, truth=truth)
    return vars(score(prediction, truth))


def campaign(latency_s: dict[str, float]) -> dict[str, Any]:
    return {
        "latency_s": latency_s, "reference_s": 2.5e-5, "cpu": "Some CPU", "rounds": 30, "rejected": 2, "drift": 0.05,
        "load_average": 1.5, "date": "2026-01-02T03:04:05+00:00", "duration_s": 12.0,
    }  # fmt: skip


@pytest.fixture(scope="module")
def report(finished: OpenRun) -> Path:
    write_report(finished.context, finished.plan)
    return finished.context.run.path / "report"


@pytest.fixture(scope="module")
def page(report: Path) -> str:
    return (report / "index.html").read_text()


class Elements(HTMLParser):
    """Every start tag with its attributes, and whether all tags are balanced."""

    VOID = frozenset(("meta", "path", "use", "image", "br", "link", "img"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def values(self, *names: str) -> Iterator[str]:
        for _, attributes in self.found:
            yield from (value for name, value in attributes.items() if name in names and value)


def text_of(page: str) -> str:
    """What a reader sees outside of figures, white space collapsed."""
    return " ".join(re.sub(r"<svg.*?</svg>|<style.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL).split())


def test_the_page_loads_nothing_and_is_well_formed(page: str) -> None:
    elements = Elements(page)
    assert elements.open == []
    assert not {"script", "link", "iframe", "img"} & {tag for tag, _ in elements.found}
    targets = list(elements.values("href", "xlink:href", "src"))
    assert targets
    assert all(target.startswith(("#", "data:image/png;base64,")) or target == "front.csv" for target in targets)
    assert not re.search(r"@import|url\((?!#)", page)
    assert len(list(elements.values("id"))) == len(set(elements.values("id")))
    assert {target[1:] for target in targets if target[0] == "#"} <= set(elements.values("id"))
    assert sum(tag == "svg" for tag, _ in elements.found) == 8


def test_what_comes_from_outside_is_escaped(page: str) -> None:
    assert "Some &lt;i&gt;CPU&lt;/i&gt; &amp; co" in page


def test_colours_follow_the_theme(page: str) -> None:
    figures = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    used = set(re.findall(r"var\(--(\w+)\)", figures))
    assert used == {"ink", "muted", "grid", "paper", "joint", "dense"}
    assert all(f"--{variable}:" in page for variable in used)
    assert "#1f2933" not in figures


def test_the_table_holds_every_finalist_as_it_is(finished: OpenRun, report: Path) -> None:
    table = pd.read_csv(report / "front.csv")
    members = [member for stages in finished.plan.devices for member in finished.members(stages.target.name)]
    assert len(table) == len(members)
    for (_, row), expected in zip(table.iterrows(), members, strict=True):
        for key in ("id", "device", "role", "on_front", "winner", "validation_error"):
            assert row[key] == expected[key]
        assert json.loads(row["genotype"]) == expected["genotype"]
        for kind in ("predicted", "measured"):
            assert {n: row[f"{kind}_{n}"] for n in expected[kind]} == expected[kind]
    assert table.loc[table.device == "local-cpu", "measured_lut"].isna().all()


def test_the_front_is_shown_with_units_and_the_rest_is_not(page: str) -> None:
    text = text_of(page)
    for device, index in (("local-cpu", 1), ("local-cpu", 2), ("zu3eg", 1), ("zu3eg", 2)):
        assert f"{device}-{index:02d}" in text
    assert "local-cpu-00" not in text
    assert "zu3eg-00" not in text
    assert "11 of 360 images, measured" in text
    assert "11 of 360 images, simulated" in text
    assert "local-cpu-01 ★ 2.75 % 7.33 → 3.06 % 6.88 → 6.25 µs" in text.replace("\u202f", " ")
    assert "error ≤ 10 %" in text.replace("\u202f", " ")


def test_every_claim_is_that_of_an_artefact(finished: OpenRun, page: str) -> None:
    text = text_of(page).replace("\u202f", " ")
    assert "3 mismatches on 360 test images" in text
    assert "No synthesis was run" in text
    assert text.count("fewer bits make a network smaller, not faster") == 1
    for result in device_results(finished.context, finished.plan):
        assert f"{joint_over_dense(result.members, result.target.objectives):.2f}×" in text
    assert "2.5 × 10⁻⁶ at most" in text
    assert "1 of 1 solved to proved optimality, largest gap 2.5 × 10⁻⁹" in text
    assert "finalists 1 25 µs 5.0 % 30 17 1.50 12 s" in text
    assert "4321" not in text
    assert "name: small" in text


def test_the_same_run_gives_the_same_bytes(finished: OpenRun, report: Path, page: str) -> None:
    table = (report / "front.csv").read_bytes()
    summary = write_report(finished.context, finished.plan)
    assert (report / "index.html").read_text() == page
    assert (report / "front.csv").read_bytes() == table
    assert summary["figures"] == 8


def test_a_run_that_is_not_finished_has_no_report(finished: OpenRun) -> None:
    other = Context(finished.context.config, finished.context.runs / "elsewhere")
    with pytest.raises(NasError, match="stage measure-local-cpu is absent"):
        write_report(other, finished.plan)
    assert not (other.run.path / "report").exists()


def test_no_ratio_without_dense_networks(finished: OpenRun) -> None:
    for result in device_results(finished.context, finished.plan):
        joint = [member for member in result.members if member["role"] == "joint"]
        with pytest.raises(NasError, match="baseline"):
            joint_over_dense(joint, result.target.objectives)


def test_the_cloud_is_of_feasible_candidates_alone(finished: OpenRun) -> None:
    cpu, fpga = device_results(finished.context, finished.plan)
    assert cpu.cloud["error"].tolist() == [0.05, 0.05 * 1.5]
    assert fpga.cloud["lut"].tolist() == [9e3, 13.5e3, 22.5e3]


def test_the_training_is_drawn_with_its_phases(page: str) -> None:
    (drawn,) = (svg for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL) if "training loss" in svg)
    texts = re.findall(r"<text[^>]*>(.*?)</text>", drawn, flags=re.DOTALL)
    assert [text for text in texts if text.split()[0] in ("full", "depth", "width")] == [
        "full", "depth 1/2", "depth 2/2",
    ]  # fmt: skip


def rows(run: OpenRun, device: str, index: int) -> tuple[Design, tuple[LayerRow, ...]]:
    made = design(run.context, FINALISTS[device][index])
    return made, layer_rows(made, layer_costs(made, load_device(device)))


def test_layers_are_those_of_the_network(finished: OpenRun) -> None:
    made, found = rows(finished, "zu3eg", 1)
    assert [(row.name, row.kind, row.kernel, row.stride, row.shape) for row in found] == [
        ("input", "input", None, None, "1 → 1 @ 8×8"),
        ("stem", "convolution", 3, 1, "1 → 4 @ 8×8"),
        ("s1.b1.expand", "pointwise", 1, 1, "4 → 8 @ 8×8"),
        ("s1.b1.depthwise", "depthwise", 5, 2, "8 → 8 @ 8×8 → 4×4"),
        ("s1.b1.project", "pointwise", 1, 1, "8 → 4 @ 4×4"),
        ("s1.b2.expand", "pointwise", 1, 1, "4 → 8 @ 4×4"),
        ("s1.b2.depthwise", "depthwise", 5, 1, "8 → 8 @ 4×4"),
        ("s1.b2.project", "pointwise", 1, 1, "8 → 4 @ 4×4"),
        ("s1.b2.add", "add", None, None, "4 → 4 @ 4×4"),
        ("mean", "mean", None, None, "4 → 4 @ 4×4"),
        ("head", "linear", None, None, "4 → 10"),
    ]
    for row in found[1:]:
        assert row.act_bits == 6
        assert row.weight_bits == (4 if row.weights else None)
        assert row.kept == made.nonzeros(row.name)
    depthwise = found[3]
    assert (depthwise.weights, depthwise.macs) == (200, 3200)
    assert 0.5 <= depthwise.zeros < 0.7


def test_costs_of_layers_add_up_to_that_of_the_network(finished: OpenRun) -> None:
    made, found = rows(finished, "zu3eg", 1)
    total = adder_graph_cost(made, 2e8).total()
    assert sum(row.costs["lut"] for row in found) == total["lut"]
    assert sum(row.costs["cycles"] for row in found) / 2e8 == pytest.approx(total["latency_s"])
    made, found = rows(finished, "local-cpu", 1)
    assert sum(row.costs["weight_bytes"] for row in found) == stored_weight_bytes(to_onnx(made))


def test_alternative_last_layers_come_last() -> None:
    entries = CONFIG | {"space": {"name": "mlp", "depth": [1, 2, 3], "width": [8]}}
    space = config_from({**entries, "devices": [{"name": "local-cpu"}]}, "test").space.build((1, 8, 8), 10)
    assert layer_order(space) == ["input", "fc1", "fc2", "fc3", "head1", "head2", "head3"]


def test_the_picture_is_a_png_and_the_same_every_time(finished: OpenRun) -> None:
    picture = front_picture(finished)
    assert picture.startswith(b"\x89PNG\r\n")
    assert picture == front_picture(finished)


def finalist(role: str, on_front: bool, *values: float, dense_8bit: bool = False) -> dict[str, Any]:
    measured = dict(zip("ab", values, strict=True))
    return {"role": role, "dense_8bit": dense_8bit, "on_front": on_front, "measured": measured}


def test_joint_over_dense_by_hand() -> None:
    """The corner is 1.05 * (4, 4); the front holds 3.2 * 0.2 + 2.2 * 2, the dense one 1.2 * 1.2."""
    members = [
        finalist("joint", True, 1.0, 4.0),
        finalist("joint", True, 2.0, 2.0),
        finalist("joint", False, 4.0, 0.1),
        finalist("dense-8bit", False, 3.0, 3.0, dense_8bit=True),
    ]
    assert joint_over_dense(members, "ab") == pytest.approx((3.2 * 0.2 + 2.2 * 2.0) / 1.44)
    start = [*members[:3], finalist("joint", True, 3.0, 3.0, dense_8bit=True)]
    assert joint_over_dense(start, "ab") == pytest.approx(joint_over_dense(members, "ab"))
    scaled = [m | {"measured": {"a": m["measured"]["a"] * 1e-6, "b": m["measured"]["b"]}} for m in members]
    assert joint_over_dense(scaled, "ab") == pytest.approx(joint_over_dense(members, "ab"))


@pytest.mark.parametrize(
    ("predicted", "measured", "expected"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 400], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4], [1, 3, 2, 4], 0.8),
        ([1, 1, 2, 3], [1, 2, 3, 4], 4.5 / math.sqrt(4.5 * 5)),
    ],
)
def test_spearman_by_hand(predicted: list[float], measured: list[float], expected: float) -> None:
    pairs = zip(predicted, measured, strict=True)
    members = [{"predicted": {"x": before}, "measured": {"x": after}} for before, after in pairs]
    assert spearman(members, "x") == pytest.approx(expected)
    assert math.isnan(spearman([{"predicted": {"x": 0.0}, "measured": m["measured"]} for m in members], "x"))


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("error", 11 / 360, "3.06 %"),
        ("latency_s", 4.2391e-6, "4.24 µs"),
        ("latency_s", 5.1e-6, "5.10 µs"),
        ("latency_s", 3.0000000000000004e-08, "30 ns"),
        ("latency_s", 0.0, "0 ns"),
        ("weight_bytes", 544.0, "544 B"),
        ("weight_bytes", 1392.0, "1.39 kB"),
        ("weight_bytes", 2_500_000.0, "2.50 MB"),
        ("lut", 11245.0, "11 245"),
        ("dsp", 0.0, "0"),
        ("latency_s", math.nan, "undefined"),
    ],
)
def test_numbers_have_units(metric: str, value: float, text: str) -> None:
    assert numbers.shown(metric, value).replace(numbers.THIN, " ") == text


def test_a_change_shares_its_unit() -> None:
    assert numbers.change("weight_bytes", 990.0, 1010.0).replace(numbers.THIN, " ") == "0.990 → 1.01 kB"
    assert numbers.change("lut", 12632.2, 11245.0).replace(numbers.THIN, " ") == "12 632 → 11 245"


@pytest.mark.parametrize(
    ("number", "text"),
    [(999_999, "999 999"), (0, "0"), (833_000_000, "8.3 × 10⁸"), (7.93e-6, "7.9 × 10⁻⁶"), (3 * 10**30, "3.0 × 10³⁰")],
)
def test_large_and_small_numbers(number: float, text: str) -> None:
    assert numbers.scientific(number).replace(numbers.THIN, " ") == text
