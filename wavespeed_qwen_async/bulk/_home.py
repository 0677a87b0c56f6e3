"""Whose jobs a folder holds: its journal remembers the API that was paid, and no other one goes on with it.

An image that was saved from elsewhere would be skipped as if it had been made here, and an id of one server means
nothing at another. An in-process emulator is a server of its own each time: of what was under way when it ended it
knows nothing any more, and since that cost nothing, it is sent again.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from wavespeed_qwen_async.errors import ConfigurationError

from ._rows import Move
from ._states import OPEN, State

if TYPE_CHECKING:
    from pathlib import Path

    from wavespeed_qwen_async.session import QwenImageSession

    from ._store import Store

__all__ = ["EMULATOR", "address_of", "move_in"]

EMULATOR = "emulator"

logger = logging.getLogger(__name__)


def address_of(session: QwenImageSession, *, emulator: bool) -> str:
    """What the journal remembers of a session's API: its address, which of an in-process emulator tells nothing."""
    if emulator:
        return EMULATOR
    base = session._engine.api.transport.base_url  # noqa: SLF001 - of this house
    return f"{base.origin()}{base.path}".rstrip("/")


def move_in(store: Store, folder: Path, address: str) -> None:
    """Make ``folder`` this API's, where nothing was ever accepted, or perhaps accepted, by another.

    Raises:
        ConfigurationError: it belongs to another one.
    """
    known = store.api()
    if known == EMULATOR == address:
        _forget(store)
    elif known not in {None, address} and store.begun():
        if known == EMULATOR:
            raise ConfigurationError(
                f"{folder} holds a run of the emulator, whose images are no real ones: choose another folder. "
                "Nothing was sent"
            )
        raise ConfigurationError(
            f"{folder} holds a run at {known}, and this one is at {_told(address)}: choose another folder, or go on "
            f"with base URL {known}. Nothing was sent"
        )
    if known != address:
        store.set_api(address)


def _told(address: str) -> str:
    return "an emulator of its own" if address == EMULATOR else address


def _forget(store: Store) -> None:
    """What was under way at an emulator that has ended is new again: all its moves are legal, and none was paid."""
    count = 0
    while rows := store.in_state((*OPEN, State.UNKNOWN), 0):
        for row in rows:
            if row.state is not State.UNKNOWN:
                store.apply(Move(row.row, State.FAILED))
            store.apply(Move(row.row, State.NEW, price=0))
        count += len(rows)
    if count:
        logger.warning("%d jobs were under way at an emulator that has ended: they are sent again", count)
