"""`nas device explain`: what binds the time of the smallest and the largest network."""

import json
from pathlib import Path

import pytest
from tiny_runs import TINY
from typer.testing import CliRunner

from experiments.cli import app
from experiments.config import load_config
from experiments.report import numbers
from hw_models.device import device_text, load_device
from hw_models.prices import layer_prices
from nas.counts import macs
from nas.genotype import canonical, largest

DIGITS = TINY.parents[2] / "experiments" / "configs" / "digits.yaml"


def explained(name: str, config: Path = DIGITS) -> dict[str, dict[str, float | str]]:
    ran = CliRunner().invoke(app, ["device", "explain", name, "--config", str(config), "--json"])
    assert ran.exit_code == 0, ran.output
    found: dict[str, dict[str, float | str]] = json.loads(ran.stdout)
    return found


def test_the_smallest_and_the_largest_network_are_explained() -> None:
    name, space = "raspberry-pi-4", load_config(DIGITS).build_space()
    found, price = explained(name), layer_prices(load_device(name))["latency_s"]
    assert list(found) == ["smallest", "largest"]
    top = space.lower(canonical(space, largest(space)[None])[0].tolist())
    assert found["largest"]["macs"] == sum(map(macs, top))
    assert found["smallest"]["latency_s"] < found["largest"]["latency_s"]  # type: ignore[operator]
    assert found["largest"]["latency_s"] <= sum(map(price, top))  # at most: perhaps it has no floats to compute with
    for one in found.values():
        assert " % of the time " in str(one["binds"])
        assert "-bound, mostly " in str(one["binds"])


def test_tiny_networks_wait_for_a_gpus_launches() -> None:
    assert str(explained("h200")["smallest"]["binds"]).startswith("100 % of the time launch-bound")
    table = CliRunner().invoke(app, ["device", "explain", "h200", "--config", str(DIGITS)], env={"COLUMNS": "200"})
    assert "launch-bound" in table.stdout
    assert "latency, estimated" in table.stdout


def test_a_systolic_arrays_utilisation_binds_where_layers_are_depthwise() -> None:
    largest = str(explained("edge-tpu")["largest"]["binds"])
    assert largest.endswith("% of the time compute-bound, mostly depthwise in s2")


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("h20", "did you mean h200"),
        ("bitfusion", "name one of family roofline, systolic or microcontroller"),
        ("local-cpu", "device local-cpu is of family onnxruntime, which does not tell"),
    ],
)
def test_what_cannot_be_explained_is_told(name: str, law: str) -> None:
    ran = CliRunner().invoke(app, ["device", "explain", name, "--config", str(DIGITS)])
    assert (ran.exit_code, law in ran.stderr) == (2, True)


def test_a_space_in_bits_that_the_device_lacks_names_the_gene(tmp_path: Path) -> None:
    config = tmp_path / "few.yaml"
    config.write_text(TINY.read_text().replace("weight_bits: [3, 4, 8]", "weight_bits: [4]"))
    ran = CliRunner().invoke(app, ["device", "explain", "h200", "--config", str(config)])
    assert (ran.exit_code, "h200 supports none of the choices of " in ran.stderr) == (2, True)


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [("energy_j", 3.2e-7, "320 nJ"), ("energy_j", 0.0021, "2.10 mJ"), ("peak_bytes", 65536.0, "65.5 kB")],
)
def test_energies_and_peaks_have_their_units(metric: str, value: float, text: str) -> None:
    assert numbers.shown(metric, value).replace(numbers.THIN, " ") == text
    assert numbers.name(metric) in ("energy", "peak memory")


def test_a_device_is_shown_with_the_one_it_is_like() -> None:
    shown = CliRunner().invoke(app, ["device", "show", "pynq-z2-folded"]).stdout
    alone = CliRunner().invoke(app, ["device", "show", "pynq-z2"]).stdout
    assert shown.startswith("like: pynq-z2\n")
    assert shown.endswith(f"# pynq-z2, for what is not said above\n{alone}")
    assert alone == device_text("pynq-z2")
