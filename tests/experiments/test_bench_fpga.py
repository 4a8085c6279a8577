"""What surrounds the runs of `nas bench fpga`: networks as text, the table, the ratio."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.bench.fpga_corpus import (
    DRAWN,
    SOURCES,
    from_text,
    read_table,
    source_config,
    to_text,
    write_table,
)
from experiments.bench.fpga_designs import PUBLISHED, Point, _ratio, table
from experiments.bench.fpga_runs import CONFIGS, available, job_config, jobs
from experiments.config import load_config
from nas.genotype import random_population


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
        if available(job.family):
            config = job_config(job, False)
            assert config.name == f"jets-{job.name}"
            if job.particles:
                assert config.data.source.input_shape == (3, job.particles, 1)
                assert config.build_space().maximal()


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
