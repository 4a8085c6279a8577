"""The compiler that the C simulation needs."""

from __future__ import annotations

import shutil

from nas.errors import NasError


def require_gxx() -> str:
    """Path of g++.

    Raises:
        NasError: It is not installed.
    """
    path = shutil.which("g++")
    if path is None:
        raise NasError("g++ is not on PATH; hls4ml's C simulation compiles C++. Install it (Debian: apt install g++)")
    return path
