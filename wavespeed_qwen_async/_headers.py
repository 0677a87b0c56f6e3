"""HTTP headers that tell times, purely."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["http_date", "retry_after"]

_LONGEST_WAIT = 7 * 24 * 3600.0  # after which there is nothing left to be asked for


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by the ``Retry-After`` header: seconds, or a date seen from the answer's own ``Date``."""
    text = headers.get("Retry-After", "").strip()
    if text.replace(".", "", 1).isdecimal():
        return min(float(text), _LONGEST_WAIT)
    until = http_date(text)
    if until is None:
        return None
    now = http_date(headers.get("Date", "")) or datetime.now(UTC)
    return min(max(0.0, (until - now).total_seconds()), _LONGEST_WAIT)


@lru_cache(maxsize=4)  # the same for all answers of a second
def http_date(text: str) -> datetime | None:
    """The moment that a header tells, None where it tells none."""
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
