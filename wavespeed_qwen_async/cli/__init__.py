"""The command ``wavespeed-qwen``: images from a shell, one or a million."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with ``arguments`` (default: those of the process); returns its exit code, see `exits`."""
    try:
        if arguments is None:
            _stand_in_for_closed_streams()
        return _main(arguments)
    except KeyboardInterrupt:  # before there was anything to interrupt
        return 130
    finally:
        if arguments is None:  # the process ends: a Ctrl+C from here on would only show its insides
            with contextlib.suppress(ValueError):  # not the main thread
                signal.signal(signal.SIGINT, signal.SIG_IGN)


def _stand_in_for_closed_streams() -> None:
    """Python has None for a stream that is closed from the start (``>&-``): that must not end paid work."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: PTH123, SIM115 - to the end


def _main(arguments: Sequence[str] | None) -> int:
    try:
        import rich  # noqa: F401, PLC0415 - an extra of the package, so it may be missing
        import typer  # noqa: F401, PLC0415
    except ImportError as error:
        sys.stderr.write(
            f"error: wavespeed-qwen needs {error.name}, which is not installed: "
            "pip install 'wavespeed-qwen-async[cli]'\n"
        )
        return 3
    from .app import run  # noqa: PLC0415 - needs both

    return run(arguments)
