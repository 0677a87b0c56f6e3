"""What the coordinator and its workers say to each other: plain values that travel well."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from wavespeed_qwen_async._answers import Answer
    from wavespeed_qwen_async._wire import Request
    from wavespeed_qwen_async.errors import WaveSpeedError
    from wavespeed_qwen_async.predictions import Output
    from wavespeed_qwen_async.provenance import Provenance

__all__ = ["Done", "Handful", "Order", "SaveOrder", "SendOrder"]


class SendOrder(NamedTuple):
    """Leave to send one submit, once, within a time: its slot is held and its intent is on the disk."""

    request: Request
    read_timeout: float | None


class SaveOrder(NamedTuple):
    """Fetch an output and put it under ``name``, in the run's output folder. May be done twice."""

    output: Output
    name: str
    provenance: Provenance | None


class Order(NamedTuple):
    """One thing to do.

    Attributes:
        number: Its own, in one life of the coordinator.
        what: The thing.
    """

    number: int
    what: SendOrder | SaveOrder


class Handful(NamedTuple):
    """Orders that are handed out together.

    Attributes:
        life: The coordinator's life that they are of; another one knows nothing of them.
        number: Counts the handfuls of one worker; told at its next asking, so that none is lost on the way.
        held: Seconds for which the worker's question was held back before these were handed out.
        start_within: Seconds from then on in which a send may leave.
        orders: What to do.
        stop: The run is over.
    """

    life: str
    number: int
    held: float
    start_within: float
    orders: list[Order]
    stop: bool = False


class Done(NamedTuple):
    """How an order ended.

    Attributes:
        number: The order's.
        end: The answer to a send, None for what was saved, or what went wrong.
        disk: The number of the system's error behind ``end``, which an error loses on its way to another process.
    """

    number: int
    end: Answer | WaveSpeedError | None
    disk: int | None = None
