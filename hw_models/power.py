"""Energy of one inference, by the processor's own counters (RAPL, as Linux shows them under powercap).

Counted is what the whole package takes while it does nothing but infer, its rest included; memory and board are not.
The counters advance about once a millisecond, so a model runs for much longer than that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
LEAST_S = 0.2
"""Seconds a model runs for its energy."""


@dataclass(frozen=True)
class Meter:
    """The counters of all packages: folders with `energy_uj`, which wraps to 0 behind `max_energy_range_uj`."""

    packages: tuple[Path, ...]

    def read_uj(self) -> list[int]:
        """Where each counter stands."""
        return [int((package / "energy_uj").read_text()) for package in self.packages]

    def joules_since(self, before: list[int]) -> float:
        """What all packages took since then: less than one turn of a counter."""
        turns = [int((package / "max_energy_range_uj").read_text()) + 1 for package in self.packages]
        return 1e-6 * sum((end - before[i]) % turns[i] for i, end in enumerate(self.read_uj()))

    def joules_per_call(self, call: Callable[[int], None], batch: int, least_s: float = LEAST_S) -> float:
        """Joules of one call, of as many batches of calls as fill `least_s` seconds."""
        calls, start, before = 0, time.perf_counter(), self.read_uj()
        while time.perf_counter() - start < least_s:
            call(batch)
            calls += batch
        return self.joules_since(before) / calls


def find_meter(powercap: Path = POWERCAP) -> tuple[Meter | None, str]:
    """The meter of this machine, and its name; or none, and why."""
    packages = [name.parent for name in sorted(powercap.glob("*/name")) if name.read_text().startswith("package")]
    if not packages:
        return None, f"missing: {powercap} has no RAPL counter of a package"
    try:
        meter = Meter(tuple(packages))
        meter.read_uj()
    except PermissionError as error:
        return None, f"missing: {error.filename} is not readable; chmod a+r it as root"
    return meter, f"RAPL, {len(packages)} package{'s' if len(packages) > 1 else ''}"
