"""An NVIDIA GPU as its management library (NVML) sees it: clock, driver, and the energy that the board took.

The library comes with the driver. Where it is missing, or does not tell, neither do we; nothing here needs CUDA.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hw_models.power import Meter

_LIBRARY = "libnvidia-ml.so.1"
_CLOCK_SM = 1
_TURN_UJ = 1000 << 64
_LEAST_S = 1.0
"""The counter of an H200 advances ten times a second."""


@dataclass(frozen=True)
class Gpu:
    """What `hw_models.machine.Processor` asks of a processor.

    Attributes:
        name: As the driver tells it.
        uuid: Without `GPU-`; unlike an index, it does not depend on which GPUs a process may see.
    """

    name: str
    uuid: str

    def clock_hz(self) -> float | None:
        """Clock of the multiprocessors at this moment; None where it is not told."""
        try:
            megahertz = ctypes.c_uint()
            _device(self.uuid)("nvmlDeviceGetClockInfo", _CLOCK_SM, ctypes.byref(megahertz))
        except OSError:
            return None
        return 1e6 * megahertz.value

    def versions(self) -> Mapping[str, str]:
        """Of the driver; nothing where it is not told."""
        try:
            text = ctypes.create_string_buffer(96)
            _library()("nvmlSystemGetDriverVersion", text, len(text))
        except OSError:
            return {}
        return {"driver": text.value.decode()}

    def meter(self) -> tuple[Meter | None, str]:
        """The board's counter of all energy since the driver was loaded, and its name; or none, and why."""
        try:
            ask = _device(self.uuid)
            ask("nvmlDeviceGetTotalEnergyConsumption", ctypes.byref(ctypes.c_ulonglong()))
        except OSError as error:
            return None, f"missing: {error.args[-1]}"

        def read_uj() -> list[int]:
            millijoules = ctypes.c_ulonglong()
            ask("nvmlDeviceGetTotalEnergyConsumption", ctypes.byref(millijoules))
            return [1000 * millijoules.value]

        return Meter(read_uj, (_TURN_UJ,), _LEAST_S), "NVML, the board"


def _library() -> Callable[..., None]:
    """What calls a function of the library by its name.

    Raises:
        OSError: There is no library, or later, a call fails; the last argument says why.
    """
    library = ctypes.CDLL(_LIBRARY)

    def ask(function: str, *arguments: object) -> None:
        status = getattr(library, function)(*arguments)
        if status:
            library.nvmlErrorString.restype = ctypes.c_char_p
            raise OSError(status, f"{function}: {library.nvmlErrorString(status).decode()}")

    ask("nvmlInit_v2")
    return ask


def _device(uuid: str) -> Callable[..., None]:
    """What calls functions of one GPU; raises as `_library`."""
    ask, handle = _library(), ctypes.c_void_p()
    ask("nvmlDeviceGetHandleByUUID", f"GPU-{uuid}".encode(), ctypes.byref(handle))
    return lambda function, *arguments: ask(function, handle, *arguments)
