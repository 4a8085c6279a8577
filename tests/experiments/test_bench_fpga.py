"""What surrounds the runs of `nas bench fpga`: networks as text, the table, the ratio."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.bench.fpga_corpus import (
    DRAWN,
    SOURCES,
    from_text,
    read_table,
    source_config,
    to_text,
    write_table,
)
from experiments.bench.fpga_designs import (
    HAND,
    PUBLISHED,
    Point,
    _ratio,
    _simulable,
    _synthesised,
    mismatches,
    picture,
    table,
)
from experiments.bench.fpga_runs import CONFIGS, Job, Made, app, cnn_config, job_config, jobs, left
from experiments.bench.fpga_verified import WAYS, Verified, _operations, compared, verified
from experiments.bench.fpga_verified import table as verifications
from experiments.config import load_config
from fpga import rtl
from fpga.tools import missing
from nas.design import Design, LayerNumbers
from nas.fixed_point import FixedPoint
from nas.genotype import random_population
from nas.network import Input, Linear, Mean, Network, PairSum, Precision


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_networks_come_back_from_their_text(path: Path) -> None:
    space = load_config(path).build_space()
    for genotype in random_population(space, 3, np.random.default_rng(0)).tolist():
        network = space.lower(genotype)
        assert from_text(to_text(network)) == network


def test_a_table_comes_back_from_its_file(tmp_path: Path) -> None:
    rows = read_table()
    write_table(rows, tmp_path / "table.csv")
    assert rows
    assert read_table(tmp_path / "table.csv") == rows
    assert read_table(tmp_path / "absent.csv") == []


def test_the_table_holds_members_of_the_sources() -> None:
    """Drawn again, the genes of a source's space give networks of the same layers."""
    for row in read_table():
        if row.source in SOURCES:
            assert row.use in {use for use, _ in DRAWN.values()}
            names = {
                layer.name for network in source_config(row.source, 0).build_space().maximal() for layer in network
            }
            assert {layer.name for layer in from_text(row.network)} <= names


def test_every_run_has_a_config_of_its_particles() -> None:
    for job in jobs(False):
        config = job_config(job, False)
        assert config.name == f"jets-{job.name}"
        if job.particles:
            assert config.data.source.input_shape == (3, job.particles, 1)
            assert config.build_space().maximal()
        assert config.finalize.epochs == (4 if job in (Job("interaction", 16), Job("interaction", 32)) else 32)


OURS = Point("deepsets", "8", "ours", 0.63, 30.0, 1.0, 0.0, 40.0, "yosys synthesis")


def test_the_ratio_is_of_the_cheapest_that_is_as_accurate_and_obtained_alike() -> None:
    theirs = replace(OURS, name="theirs", accuracy=0.62, lut=100.0)
    worse, estimate = replace(OURS, accuracy=0.61, lut=10.0), replace(OURS, lut=5.0, obtained="estimate")
    dearer = replace(OURS, lut=50.0)
    found = _ratio([theirs, OURS, worse, estimate, dearer], theirs)["lut_ratio_to_paper_deepsets"]
    assert (found.value, found.n) == (0.3, 2)
    assert _ratio([theirs, worse], theirs)["lut_ratio_to_paper_deepsets"].value == float("inf")
    assert _ratio([OURS], None) == {}


def test_every_row_tells_how_it_was_obtained() -> None:
    page = table([*PUBLISHED, OURS])
    rows = [line for line in page.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == len(PUBLISHED) + 1
    assert all("published" in row for row in rows[:-1])
    assert rows[-1] == "| deepsets | 8 | ours | 63.00 | 30 | 1 | 0 | 40 | yosys synthesis |"


def test_the_picture_is_of_what_was_made_here() -> None:
    """Published figures of other data change nothing of it, a design more does."""
    hand = Point(*HAND, 0.62, 100.0, 1.0, 0.0, 40.0, "yosys synthesis")
    estimate = replace(OURS, lut=28.0, obtained="estimate")
    alone = picture([hand, estimate])
    assert alone.startswith(b"\x89PNG")
    assert picture([*PUBLISHED, hand, estimate]) == alone
    assert picture([hand, estimate, OURS]) != alone


def linear(width: int) -> Design:
    """A layer of that many products, as every one is kept."""
    layers = (Input("in", (width,)), Linear("head", ("in",), (width,), (1,), precision=Precision(2, 2)))
    numbers = LayerNumbers(FixedPoint(True, 2, 0), np.ones((1, width)), np.zeros(1), np.zeros(1, dtype=np.int64))
    return Design(Network(layers), {"head": numbers})


def pairs() -> Design:
    """Sums over pairs, which no stream carries."""
    layers = (
        Input("in", (2, 2, 1)),
        PairSum("pairs", ("in", "in"), (2, 2, 1), Precision(3, 3)),
        Mean("mean", ("pairs",), (2, 2, 2), Precision(3, 3)),
        Linear("head", ("mean",), (2,), (3,), precision=Precision(3, 3)),
    )
    fmt = FixedPoint(True, 3, 1)
    weight, frac = np.array([[1.0, -1.0], [0.5, 0.0], [1.5, 1.0]]), np.ones(3, dtype=np.int64)
    head = LayerNumbers(fmt, weight, np.zeros(3), frac)
    return Design(Network(layers), {"pairs": LayerNumbers(fmt), "mean": LayerNumbers(fmt), "head": head})


def test_the_small_cnn_has_every_kind_of_layer_and_differing_bits_and_zeros() -> None:
    space = cnn_config().build_space()
    network = space.lower(random_population(space, 1, np.random.default_rng(cnn_config().seed))[0].tolist())
    told = verifications([Verified("cnn", Made(linear(3), 0.25, Path()), 7, dict.fromkeys(WAYS, 0))])
    assert told.splitlines()[-1] == "| cnn | linear | 2 | 0 | 3 | 75.00 | 7 | 0 | 0 | 0 | 0 |"
    assert _operations(network) == "conv 3x3, pointwise, depthwise, residual sum, mean, linear"
    assert len({layer.precision for layer in network.weighted}) > 2
    assert len({layer.sparsity for layer in network.weighted}) > 1


@pytest.mark.skipif(bool({"verilator", "g++"} & missing().keys()), reason="needs verilator and g++")
def test_what_a_tool_cannot_carry_says_why_and_the_other_ways_are_held() -> None:
    design = pairs()
    outcomes = compared(design, np.random.default_rng(0).uniform(-3, 3, (200, 2, 2, 1)))
    assert {way: outcome for way, outcome in outcomes.items() if way != WAYS[2]} == dict.fromkeys(
        (way for way in WAYS if way != WAYS[2]), 0
    )
    assert "layer pairs: a sum over pairs needs all particles at once" in str(outcomes[WAYS[2]])
    found = mismatches([Verified("pairs", Made(design, 0.5, Path()), 200, outcomes)])
    assert (found["mismatches"].value, found["ways_not_held"].value) == (0, 1)
    wrong = mismatches([Verified("pairs", Made(design, 0.5, Path()), 200, {**outcomes, WAYS[3]: 5})])
    assert wrong["mismatches"].value == 5


def test_a_missing_tool_is_named_and_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    made, images = Made(linear(3), 0.5, tmp_path), np.random.default_rng(0).uniform(-3, 3, (50, 3))
    found = verified("linear", made, images, lambda _: None)
    assert found.outcomes[WAYS[0]] == 0
    assert all("is not on PATH" in str(found.outcomes[way]) for way in WAYS[1:])
    assert not list(tmp_path.iterdir())
    assert _synthesised(("mlp", "8", "linear"), made, lambda _: None) is None
    assert not list(tmp_path.iterdir())


def test_the_most_accurate_that_is_soon_simulated_is_verified_or_else_the_smallest() -> None:
    sizes = {"large": rtl.SOON + 2, "larger": rtl.SOON + 3, "small": 4, "worse": 3}
    front = {name: Made(linear(size), 0.1 * place, Path()) for place, (name, size) in enumerate(sizes.items())}
    assert _simulable(front, rtl.SOON) == "small"
    assert _simulable({name: front[name] for name in ("larger", "large")}, rtl.SOON) == "large"


def test_what_is_left_to_make_is_a_command_each(tmp_path: Path) -> None:
    commands = left(False, tmp_path)
    assert len(commands) == len(jobs(False))
    for command in commands:
        family, particles = command.split()[-2:]
        assert command == f"python -m experiments.bench.fpga_runs {tmp_path} {family} {particles}"
        assert Job(family, int(particles)) in jobs(False)
    assert not list(tmp_path.iterdir())
    assert left(True, tmp_path)[0].endswith(" 8 --quick")


def test_a_run_that_is_none_of_the_benchmark_is_refused(tmp_path: Path) -> None:
    for arguments, law in ((["deepsets", "12"], "one of \\[8, 16, 32\\], got 12"), (["sets"], "'sets' is not one of")):
        result = CliRunner().invoke(app, [str(tmp_path), *arguments])
        assert result.exit_code == 2
        assert re.search(law, result.stderr)
    assert not list(tmp_path.iterdir())
