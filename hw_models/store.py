"""Measurements that outlive a run: one JSON-lines file per device, one campaign a line.

A campaign is a line, so it is stored whole or not at all: a line without its newline was torn by a kill, is
not read, and is cut off by the next append. Latencies are stored as the campaign saw them and read in the
unit of its reference model: value / reference, times the reference of the file's first campaign with that
fingerprint. So values of all campaigns compare, and a value, once stored, never changes.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from hw_models.measure import Campaign
from nas.errors import NasError


@dataclass(frozen=True)
class MeasurementStore:
    """The measurements of one device; the file need not exist yet.

    Processes may share the file: they append one after the other.
    """

    path: Path

    def campaigns(self, fingerprint: str) -> tuple[Campaign, ...]:
        """Campaigns of this fingerprint, oldest first.

        Raises:
            NasError: A whole line is not a campaign.
        """
        stored = [self._campaign(number, line) for number, line in enumerate(self._whole_lines(), 1)]
        return tuple(campaign for campaign in stored if campaign.fingerprint == fingerprint)

    def lookup(self, keys: Iterable[str], fingerprint: str) -> dict[str, float]:
        """Comparable latencies in seconds of those keys that are stored; a key's oldest measurement counts."""
        wanted, found = set(keys), dict[str, float]()
        campaigns = self.campaigns(fingerprint)
        for campaign in campaigns:
            unit = campaigns[0].reference_s / campaign.reference_s
            for key, latency_s in campaign.latency_s.items():
                if key in wanted:
                    found.setdefault(key, latency_s * unit)
        return found

    def append(self, campaign: Campaign) -> None:
        """Add a campaign, on the disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(asdict(campaign)).encode() + b"\n"
        with self.path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.truncate(sum(map(len, self._whole_lines())))
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _whole_lines(self) -> list[bytes]:
        if not self.path.exists():
            return []
        return [line for line in self.path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]

    def _campaign(self, number: int, line: bytes) -> Campaign:
        try:
            return Campaign(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise NasError(
                f"{self.path}, line {number}: is not a measurement campaign ({error}); delete the line"
            ) from error
