import dataclasses
import time
from pathlib import Path

import pytest

from hw_models import onnx_runtime
from hw_models.machine import Cpu
from hw_models.measure import reference_model, silent
from hw_models.nvml import Gpu
from hw_models.power import Meter, find_meter
from hw_models.runner import Campaign, Plan, run_campaign

RANGE_UJ = 9999


class Processor:
    """Two packages and a core domain, whose counters wrap at 10 mJ, as powercap lays them out."""

    def __init__(self, folder: Path, start_uj: int) -> None:
        self.folder, self.counters = folder, {"rapl:0": start_uj, "rapl:1": 0, "rapl:0:0": 0}
        for name, kind in (("rapl:0", "package-0"), ("rapl:1", "package-1"), ("rapl:0:0", "core")):
            (folder / name).mkdir()
            (folder / name / "name").write_text(f"{kind}\n")
            (folder / name / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
            self.take(name, 0)

    def take(self, name: str, microjoules: int) -> None:
        self.counters[name] = (self.counters[name] + microjoules) % (RANGE_UJ + 1)
        (self.folder / name / "energy_uj").write_text(f"{self.counters[name]}\n")

    def call(self, times: int) -> None:
        """Each call takes 3 uJ of one package and 1 uJ of the other."""
        self.take("rapl:0", 3 * times)
        self.take("rapl:1", times)
        self.take("rapl:0:0", 2 * times)
        time.sleep(0.001)


def found(folder: Path) -> Meter:
    meter, source = find_meter(folder)
    assert source == "RAPL, 2 packages"
    assert meter is not None
    return meter


@pytest.mark.parametrize("start_uj", [0, 5000, RANGE_UJ])
def test_energy_of_a_call_is_counted_over_packages_and_turns(tmp_path: Path, start_uj: int) -> None:
    processor = Processor(tmp_path, start_uj)
    meter = dataclasses.replace(found(tmp_path), least_s=0.02)
    assert meter.joules_per_call(processor.call, 10) == pytest.approx(4e-6)
    before = meter.read_uj()
    processor.call(3000)
    assert meter.joules_since(before) == pytest.approx(12e-3)


def test_a_machine_without_counters_says_so(tmp_path: Path) -> None:
    assert find_meter(tmp_path / "none") == (None, f"missing: {tmp_path / 'none'} has no RAPL counter of a package")
    (tmp_path / "dtpm").mkdir()
    (tmp_path / "dtpm" / "name").write_text("dtpm\n")
    assert find_meter(tmp_path)[0] is None


def test_counters_of_root_alone_are_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Processor(tmp_path, 0)

    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    read = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path: refuse(path) if path.name == "energy_uj" else read(path))
    meter, why = find_meter(tmp_path)
    assert meter is None
    assert why == f"missing: {tmp_path / 'rapl:0' / 'energy_uj'} is not readable; chmod a+r it as root"


def test_a_campaign_holds_energies_or_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Processor(tmp_path, 0)
    model = reference_model()

    def campaign(powercap: Path) -> Campaign:
        monkeypatch.setattr(onnx_runtime, "PROCESSOR", Cpu(powercap))
        models = {"a": model, "b": model}
        return run_campaign(onnx_runtime, models, model, Plan(2, 2, 0, 1), silent, time.perf_counter_ns)

    counted, missing = campaign(tmp_path), campaign(tmp_path / "none")
    assert counted.energy_source == "RAPL, 2 packages"
    assert counted.energy_j == {"a": 0.0, "b": 0.0}, "these counters stand still"
    assert missing.energy_j == {}
    assert missing.energy_source.startswith("missing: ")


def test_a_gpu_that_is_not_there_tells_nothing() -> None:
    gpu = Gpu("NVIDIA H200", "00000000-0000-0000-0000-000000000000")
    meter, why = gpu.meter()
    assert meter is None
    assert why.startswith("missing: ")
    assert gpu.clock_hz() is None
