"""Energy of one inference, by a processor's own counters.

Here those of CPUs (RAPL, as Linux shows them under powercap): counted is what the whole package takes while it does
nothing but infer, its rest included; memory and board are not. `hw_models.nvml` reads those of NVIDIA GPUs.
A counter advances in steps, of a millisecond for RAPL: a model runs from step to step, for much longer than one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
_LEAST_S = 0.2


@dataclass(frozen=True)
class Meter:
    """Counters of energy.

    Attributes:
        read_uj: Tells where each counter stands, in microjoules.
        turns_uj: Where each wraps to 0.
        least_s: Seconds a model runs for its energy.
    """

    read_uj: Callable[[], list[int]]
    turns_uj: tuple[int, ...]
    least_s: float

    def joules_since(self, before: list[int]) -> float:
        """What all counters counted since then: less than one turn."""
        return 1e-6 * sum((end - before[i]) % self.turns_uj[i] for i, end in enumerate(self.read_uj()))

    def joules_per_call(self, call: Callable[[int], object], batch: int) -> float:
        """Joules of one call, of as many batches of calls as fill `least_s` seconds, from step to step of a counter."""
        self._run(call, batch, 0)
        before = self.read_uj()
        calls = self._run(call, batch, self.least_s)
        return self.joules_since(before) / calls

    def _run(self, call: Callable[[int], object], batch: int, least_s: float) -> int:
        """Call for so many seconds and until a counter advances, which those that stand still do not; how often."""
        calls, start, stand, seconds, advanced = 0, time.perf_counter(), self.read_uj(), 0.0, False
        while seconds < least_s or not (advanced or seconds > least_s + self.least_s):
            call(batch)
            calls += batch
            before, stand = stand, self.read_uj()
            advanced, seconds = stand != before, time.perf_counter() - start
        return calls


def find_meter(powercap: Path = POWERCAP) -> tuple[Meter | None, str]:
    """The meter of this machine's CPUs, and its name; or none, and why."""
    packages = [name.parent for name in sorted(powercap.glob("*/name")) if name.read_text().startswith("package")]
    if not packages:
        return None, f"missing: {powercap} has no RAPL counter of a package"

    def read_uj() -> list[int]:
        return [int((package / "energy_uj").read_text()) for package in packages]

    try:
        read_uj()
    except PermissionError as error:
        return None, f"missing: {error.filename} is not readable; chmod a+r it as root"
    turns = tuple(int((package / "max_energy_range_uj").read_text()) + 1 for package in packages)
    return Meter(read_uj, turns, _LEAST_S), f"RAPL, {len(packages)} package{'s' if len(packages) > 1 else ''}"
