"""The states of a job in the journal, and the one table of its legal moves."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["MOVES", "OPEN", "SOURCES_OF", "State"]


class State(IntEnum):
    """Where a job stands. The numbers are on disk: never change one, only add."""

    NEW = 0
    """Known, nothing sent: costs nothing."""
    SUBMITTING = 1
    """The intent is on disk; whether it was sent, and accepted, is not known yet."""
    SUBMITTED = 2
    """Accepted and billed: its prediction's id is on disk. Only ever awaited."""
    DONE = 3
    """Finished, and its file's name chosen. Only ever fetched."""
    SAVED = 4
    """Its file is whole and on the disk."""
    FAILED = 5
    """Ended without a file."""
    UNKNOWN = 6
    """Sent, and nothing tells whether it was accepted. Never sent again by itself."""


MOVES: dict[State, frozenset[State]] = {
    State.NEW: frozenset({State.SUBMITTING, State.FAILED}),
    # To itself: sent again after a refusal, or after the list of predictions showed that it never arrived.
    State.SUBMITTING: frozenset({State.SUBMITTING, State.SUBMITTED, State.NEW, State.FAILED, State.UNKNOWN}),
    State.SUBMITTED: frozenset({State.DONE, State.FAILED}),
    # To itself: a run that was killed while it saved chooses the name again.
    State.DONE: frozenset({State.DONE, State.SAVED, State.FAILED}),
    State.SAVED: frozenset(),
    State.FAILED: frozenset({State.NEW}),
    State.UNKNOWN: frozenset({State.SUBMITTED, State.NEW}),
}
"""From each state, where a job may go. Nothing leads from a billed state back to one that is sent."""

SOURCES_OF: dict[State, frozenset[State]] = {
    to: frozenset(state for state, following in MOVES.items() if to in following) for to in State
}
"""The same table read backwards."""

OPEN = frozenset({State.SUBMITTING, State.SUBMITTED, State.DONE})
"""Paid, or perhaps paid, and not at an end."""
