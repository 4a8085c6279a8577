"""How every command of `nas` ends."""

from __future__ import annotations

import errno
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from nas.errors import NasError


class Commands(TyperGroup):
    """Turns what the user can mend into a message and exit code 2, and an interrupt into 130; no tracebacks."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except NasError as error:
            _complain(f"error: {error}")
        except OSError as error:
            if (told := _disk_fault(error)) is None:
                raise
            _complain(f"error: {told}")
        except KeyboardInterrupt:
            _complain("stopped; run the same command again to resume")
            raise typer.Exit(130) from None
        raise typer.Exit(2)


def _disk_fault(error: OSError) -> str | None:
    """What is wrong with a file, a folder or the disk, and what to do; None where the error is of another kind."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{error.filename or 'disk'}: {error.strerror}; make room and run the same command again to resume"
    if error.filename is None:
        return None
    return f"{error.filename}: {error.strerror}; name a place that exists and that you may read and write"


def _complain(text: str) -> None:
    Console(stderr=True).print(text, style="red", markup=False, highlight=False, soft_wrap=True)
