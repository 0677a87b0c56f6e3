"""How results are awaited: one keeper a session, by the list, single checks and pushes."""

from __future__ import annotations

from .keeper import Keeper

__all__ = ["Keeper"]
