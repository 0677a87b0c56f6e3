"""Whether a source URL leads to an image, asked from here before anything is paid."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from yarl import URL

from wavespeed_qwen_async._retry import next_wait
from wavespeed_qwen_async.errors import InvalidJobError, RequestError, WaveSpeedError

from .download import LEADS_NOWHERE
from .images import HEAD, sniff

if TYPE_CHECKING:
    from wavespeed_qwen_async._api import Api

__all__ = ["check_reachable"]

_BUDGET = 15.0  # seconds: the submit waits for it
_MAX_REDIRECTS = 5


class _UnreachableError(RequestError):
    """An answer that the server would not get an image from either."""


async def check_reachable(api: Api, url: str) -> None:
    """Fetch the URL's first bytes, without the key, and see whether they begin an image.

    Raises:
        InvalidJobError: ``field="image"``; they don't, or nothing comes within 15 s.
    """
    attempt, began = 0, asyncio.get_running_loop().time()
    while True:
        attempt += 1
        try:
            return await _look(api, url)
        except WaveSpeedError as error:
            elapsed = asyncio.get_running_loop().time() - began
            wait = next_wait(
                api.retry, error, attempt=attempt, elapsed=elapsed, submit=False, reached=True, rng=api.rng
            )
            if wait is None or elapsed + wait > _BUDGET or isinstance(error.__cause__, LEADS_NOWHERE):
                raise _invalid(url, error.message) from error
        await asyncio.sleep(wait)


async def _look(api: Api, url: str) -> None:
    try:
        URL(url)
    except ValueError:
        raise _invalid(url, "it can't be read") from None
    headers = {"Range": f"bytes=0-{HEAD - 1}", "Accept": "image/*", "Accept-Encoding": "identity"}
    async with api.transport.foreign("GET", url, headers=headers, redirects=_MAX_REDIRECTS) as response:
        if response.status not in {200, 206}:
            failure = _UnreachableError(f"HTTP {response.status}", status=response.status)
            failure.transient = response.status >= 500 or response.status == 429  # noqa: PLR2004 - HTTP statuses
            raise failure
        head = b""
        while len(head) < HEAD and (piece := await api.transport.next_piece(response)):
            head += piece
        response.close()  # the rest is not wanted
    if sniff(head) is None:
        raise _UnreachableError(f"what it leads to is no image ({response.content_type})")


def _invalid(url: str, why: str) -> InvalidJobError:
    shown = url.partition("?")[0]  # a query may carry a signature
    return InvalidJobError(f"image: {shown} can't be used: {why}", field="image")
