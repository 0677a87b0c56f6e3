"""What must not hold up the event loop, done beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ParamSpec, TypeVar

    P = ParamSpec("P")
    T = TypeVar("T")

__all__ = ["aside"]


async def aside(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Call a blocking function in a thread."""
    import asyncio  # noqa: PLC0415 - a tenth of the time of --help, which needs none of it

    return await asyncio.to_thread(function, *arguments, **options)
