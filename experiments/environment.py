"""Where and with what a result came about."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from hw_models.machine import cpu_model


def environment(seed: int) -> dict[str, Any]:
    """Versions, processors, platform, date (UTC) and seed, as JSON values."""
    from supernet.distributed import gpus  # brings torch, which takes seconds

    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cpus": os.cpu_count(),
        "gpus": list(gpus()),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in ("hwnas", *_dependencies())},
    }


def _dependencies() -> list[str]:
    """Names of the direct dependencies, extras left out."""
    required = [line for line in metadata.requires("hwnas") or [] if "extra ==" not in line]
    return sorted(name[0] for line in required if (name := re.match(r"[\w.-]+", line)))
