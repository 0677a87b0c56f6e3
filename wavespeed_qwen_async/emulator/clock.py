"""The emulator's time: the event loop's clock, told as wall time where the protocol asks for dates."""

from __future__ import annotations

import asyncio
import re
import time
from calendar import timegm
from email.utils import formatdate
from functools import lru_cache

_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9})\d*)?)?)?(Z|[+-]\d\d:?\d\d)?$",
    re.IGNORECASE,
)


class Clock:
    """Loop time and wall time tied together when the server starts, so that a virtual loop moves both."""

    def __init__(self, skew: float = 0.0) -> None:
        self.skew = skew
        self.started: float = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wall = 0.0
        self._date: tuple[int, str] = (0, "")

    def start(self) -> None:
        """Tie the running loop's clock to the wall clock."""
        self._loop = asyncio.get_running_loop()
        self.started = self._loop.time()
        self._wall = time.time() - self.started

    def now(self) -> float:
        """Return the loop's time, on which every decision is taken; also from another thread, and after the end."""
        return self._loop.time() if self._loop is not None else 0.0

    def wall(self, now: float) -> float:
        """Return loop time `now` as Unix seconds on this server's (perhaps skewed) clock."""
        return self._wall + now + self.skew

    def nanoseconds(self, now: float) -> int:
        """Return loop time `now` as Unix nanoseconds."""
        return int(self.wall(now) * 1_000_000_000)

    def http_date(self, now: float) -> str:
        """Return the `Date` header's value, which HTTP gives in whole seconds."""
        second = int(self.wall(now))
        if self._date[0] != second:
            self._date = (second, formatdate(second, usegmt=True))
        return self._date[1]


@lru_cache(maxsize=4096)
def _seconds_text(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def iso(nanoseconds: int) -> str:
    """Write Unix nanoseconds as the API writes its times: nine digits and a `Z`."""
    second, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{_seconds_text(second)}.{rest:09d}Z"


def parse_iso(text: str) -> int:
    """Read an ISO 8601 time as Unix nanoseconds, keeping all nine digits; no zone means UTC.

    Raises:
        ValueError: the text is no such time.
    """
    match = _ISO.match(text.strip())
    if match is None:
        raise ValueError(f"not an ISO 8601 time: {text!r}")
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    fields = (int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0))
    try:
        stamp = timegm(time.strptime("{}-{}-{} {}:{}:{}".format(*fields), "%Y-%m-%d %H:%M:%S"))
    except ValueError as error:
        raise ValueError(f"not an ISO 8601 time: {text!r}") from error
    return (stamp - _offset(zone)) * 1_000_000_000 + int((fraction or "0").ljust(9, "0"))


def _offset(zone: str | None) -> int:
    if zone is None or zone in "Zz":
        return 0
    digits = zone[1:].replace(":", "")
    seconds = int(digits[:2]) * 3600 + int(digits[2:]) * 60
    return -seconds if zone[0] == "-" else seconds
