"""What a command says: lines for people or JSON for programs on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import traceback
import warnings
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .exits import Exit, exit_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wavespeed_qwen_async.errors import WaveSpeedError

__all__ = ["Output", "clean", "money"]

_BY_ID = " ('wavespeed-qwen download {}' gets it, also later: it is kept for 7 days)"
_PAID_AND_GOES_ON = "prediction {0} is paid and goes on: 'wavespeed-qwen download {0}' gets its image"
_NO_KEY_NEEDED = "; --emulator needs no key"


def clean(text: str) -> str:
    """The text in one line and without control characters: it may be a server's or a file's."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))


def money(amount: float) -> str:
    """Dollars and cents, and as many digits more as are needed not to lie."""
    text = f"{amount:.6f}".rstrip("0")
    whole, _, cents = text.partition(".")
    return f"${whole}.{cents.ljust(2, '0')}"


class Output:
    """One command's voice.

    Args:
        as_json: JSON, one object a line, in place of lines for people.
        verbose: Tracebacks and the library's own log as well.
    """

    def __init__(self, *, as_json: bool, verbose: bool) -> None:
        self.as_json = as_json
        self.verbose = verbose
        self.journaled = False
        """What is paid is written down: whoever is cancelled need not be told its ids."""
        self.above: Callable[[str, bool], None] | None = None
        """Prints a line above a progress bar, while there is one on the terminal: whole, or cut to its width."""
        for stream in (sys.stdout, sys.stderr):  # a terminal that can't show a character must not end a paid run
            with contextlib.suppress(AttributeError, ValueError):
                stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]

    def line(self, text: str, *, whole: bool = True) -> None:
        """A line for people, on stdout; above a progress bar it is cut to the terminal's width unless ``whole``."""
        if not self.as_json:
            self._write(text, sys.stdout, whole=whole)

    def event(self, event: str, **data: Any) -> None:
        """A line for programs, on stdout."""
        if self.as_json:
            record = {"event": event, **data}
            self._write(json.dumps(record, ensure_ascii=False, default=_plain), sys.stdout)

    def note(self, text: str) -> None:
        """A line on stderr, in both cases."""
        self._write(clean(text), sys.stderr)

    def failed(self, error: BaseException, *, about: str = "") -> Exit:
        """Say what went wrong, and with what, and what to do, in one line; returns the exit code."""
        code = exit_of(error)
        text = describe(error)
        self.note(f"error: {about}: {text}" if about and about not in text else f"error: {text}")
        self.event("error", **({"about": about} if about else {}), **error_data(error), exit_code=int(code))
        if self.verbose:
            self._write("".join(traceback.format_exception(error)), sys.stderr)
        return code

    def _write(self, text: str, stream: Any, *, whole: bool = True) -> None:
        if self.above is not None and stream.isatty():
            self.above(text, whole)
            return
        try:
            stream.write(text + "\n")
            stream.flush()
        except BrokenPipeError:  # nobody listens any more: that is no reason to lose paid images
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

    @contextlib.contextmanager
    def hearing(self) -> Iterator[None]:
        """While inside, the library's warnings and log come out as notes."""
        logger = logging.getLogger("wavespeed_qwen_async")
        handler, level = _Notes(self), logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO if self.verbose else logging.WARNING)
        told: set[str] = set()

        def show(message: Warning | str, *_: Any) -> None:
            if str(message) not in told:
                told.add(str(message))
                self.note(f"warning: {message}")

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("default" if self.verbose else "ignore")
                warnings.filterwarnings("always", category=UserWarning)
                warnings.showwarning = show  # type: ignore[assignment]  # it takes the rest, too
                yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)


class _Notes(logging.Handler):
    """The library's log, as lines of a command."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        ids = getattr(record, "prediction_ids", None) or [getattr(record, "prediction_id", None)]
        if "cancelled" in record.msg or "left with" in record.msg:
            if self._output.journaled:
                return
            for prediction_id in filter(None, ids):
                self._output.note(_PAID_AND_GOES_ON.format(prediction_id))
            if any(ids):
                return
        self._output.note(f"{record.levelname.lower()}: {record.getMessage()}")
        if self._output.verbose and record.exc_info:
            self._output.note("".join(traceback.format_exception(*record.exc_info)))


def describe(error: BaseException) -> str:
    """What happened and what to do, in one line."""
    from wavespeed_qwen_async import errors  # noqa: PLC0415 - --help needs none of it

    if not isinstance(error, errors.WaveSpeedError):
        return _describe_other(error)
    text = clean(error.message)
    if isinstance(error, errors.ConfigurationError) and "API key" in text:
        text = text.replace(" or pass api_key=", "") + _NO_KEY_NEEDED
    text = text.replace("check WAVESPEED_API_KEY or api_key=", "check WAVESPEED_API_KEY")
    text = text.replace("set tier= or max_per_minute= to", "set --tier or --max-per-minute to")
    if isinstance(error, errors.NotSentError):
        text += ": check the network, --base-url and WAVESPEED_BASE_URL"
    if isinstance(error, errors.SubmissionUnknown):
        text += "; 'wavespeed-qwen history' shows whether it was"
    if isinstance(error, errors.ResultTimeout | errors.DownloadError) and error.prediction_id:
        text += _BY_ID.format(error.prediction_id)
    return text


def _describe_other(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if error.filename else ""
        return f"{name}{error.strerror}"
    if exit_of(error) is Exit.DEFECT:
        return f"unexpected {type(error).__name__}: {error}; run it again with --verbose and report what it says"
    return str(error)


def error_data(error: BaseException) -> dict[str, Any]:
    """An error for programs."""
    known = ("billed", "transient", "prediction_id", "status", "code", "retry_after", "request_id")
    data = {name: getattr(error, name, None) for name in known}
    return {"kind": type(error).__name__, "message": describe(error)} | {
        name: value for name, value in data.items() if value is not None
    }


def why(error: WaveSpeedError) -> str:
    """An error as part of a line about one job: its message and whether it cost money."""
    from wavespeed_qwen_async import PredictionFailed  # noqa: PLC0415 - --help needs none of it

    paid = {"no": "not billed", "yes": "billed", "unknown": "may be billed"}[error.billed]
    if isinstance(error, PredictionFailed):
        paid = "to be refunded"
    return f"{describe(error)} [{paid}]"


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)
