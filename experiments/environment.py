"""Where and with what a result came about."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

_CPU_INFO = Path("/proc/cpuinfo")


def environment(seed: int) -> dict[str, Any]:
    """Versions, processor, platform, date (UTC) and seed, as JSON values."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in ("hwnas", *_dependencies())},
    }


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    text = _CPU_INFO.read_text() if _CPU_INFO.exists() else ""
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return named[1] if named else platform.processor() or platform.machine()


def _dependencies() -> list[str]:
    """Names of the direct dependencies, extras left out."""
    required = [line for line in metadata.requires("hwnas") or [] if "extra ==" not in line]
    return sorted(name[0] for line in required if (name := re.match(r"[\w.-]+", line)))
