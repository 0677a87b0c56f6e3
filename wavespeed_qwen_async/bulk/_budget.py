"""Money, in whole micro-dollars: reserved before a submit, settled after; what is reserved can't be spent twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from wavespeed_qwen_async._account import PRICE_ON_THE_PAGES
from wavespeed_qwen_async._answers import Price
from wavespeed_qwen_async._stream import FATAL
from wavespeed_qwen_async.errors import ConfigurationError, WaveSpeedError

if TYPE_CHECKING:
    from wavespeed_qwen_async.models import Job
    from wavespeed_qwen_async.session import QwenImageSession

__all__ = ["Budget", "Prices", "dollars", "micro"]

MICRO = 1_000_000
_ASKED_EVERY = 600.0  # seconds
_SOON = 5.0  # seconds
_ON_THE_PAGES = Price(PRICE_ON_THE_PAGES, source="pages")  # where the API does not tell


def micro(amount: float) -> int:
    """Dollars as micro-dollars."""
    return round(amount * MICRO)


def dollars(amount: int) -> float:
    """Micro-dollars as dollars."""
    return amount / MICRO


class Budget:
    """What may be spent, and what is.

    Attributes:
        limit: Micro-dollars; None is no limit.
        spent: What is spent or reserved.
        closed: Nothing more is waited for.
    """

    def __init__(self, limit: float | None, spent: int = 0) -> None:
        if limit is not None and not 0 < limit < float("inf"):
            raise ConfigurationError(f"budget = {limit!r}: give dollars, more than 0")
        self.limit = None if limit is None else micro(limit)
        self.spent = spent
        self.closed = False
        self._open = 0
        self._changed = asyncio.Event()

    @property
    def left(self) -> int | None:
        """What may still be spent; None where there is no limit."""
        return None if self.limit is None else max(0, self.limit - self.spent)

    def fits(self, price: int) -> bool:
        """Whether so much may still be spent."""
        return self.limit is None or self.spent + price <= self.limit

    def carry(self) -> None:
        """Something that earlier runs paid for is under way: it may yet fail and be refunded."""
        self._open += 1

    async def reserve(self, price: int) -> bool:
        """Take so much; waits while it does not fit and what is under way may yet bring a refund. False: used up."""
        while not self.fits(price):
            if not self._open or self.closed:
                return False
            self._changed.clear()
            await self._changed.wait()
        self.spent += price
        self._open += 1
        return True

    def settle(self, back: int = 0) -> None:
        """Something is at its end; ``back`` of its price was not spent, or is refunded."""
        self._open -= 1
        self.spent -= back
        self._changed.set()

    def close(self) -> None:
        """Let ``reserve`` wait no longer."""
        self.closed = True
        self._changed.set()


class Prices:
    """The price of an image, asked now and then for each kind of job: it may change while a long run goes on."""

    def __init__(self, session: QwenImageSession) -> None:
        self._session = session
        self._known: dict[tuple[str, str], tuple[Price, float]] = {}

    async def of(self, job: Job) -> Price:
        """What an image of this job costs: as the API says or said before, else the figure of its pages.

        That stands in for a price of nothing as well.

        Raises:
            WaveSpeedError: one after which no submit would succeed either.
        """
        kind, now = (job.model_id, str(job.size)), asyncio.get_running_loop().time()
        price, asked = self._known.get(kind, (None, now))
        if price is None or now - asked > _ASKED_EVERY:
            price = await self._told(job, price)
            self._known[kind] = price, now
        return price

    async def _told(self, job: Job, before: Price | None) -> Price:
        """The price as the API tells it now; where one is known, it is not waited for long."""
        try:
            async with asyncio.timeout(None if before is None else _SOON):
                told = await self._session.price(job)
        except FATAL:
            raise
        except (WaveSpeedError, TimeoutError):
            return before or _ON_THE_PAGES
        if not told.amount > 0:  # no budget would hold by it
            return _ON_THE_PAGES
        return before if before is not None and told.source == "pages" else told
