"""Money: what each task costs, what comes back when it fails, and the questions about both."""

from __future__ import annotations

import heapq
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .tasks import Prediction

MICRO: Final = 1_000_000
TRAINER_PRICE: Final = 1.0


@dataclass(frozen=True, slots=True)
class Billing:
    """One line of the account: a deduction or a refund."""

    uuid: str
    kind: str
    time_ns: int
    prediction: Prediction


class Account:
    """The balance in whole millionths of a dollar, so that 10,000 images add up exactly."""

    def __init__(self, balance: float, price: float, prices: Mapping[str, float], refund_delay: float) -> None:
        self._balance = round(balance * MICRO)
        self._price = price
        self._prices = {"wavespeed-ai/qwen-image-lora-trainer": TRAINER_PRICE, **prices}
        self._refund_delay = refund_delay
        self._refunds: list[tuple[float, int, Prediction]] = []
        self._refunded: dict[str, float] = {}

    def price(self, model: str) -> float:
        """Return the price of one task in dollars."""
        return self._prices.get(model, self._price)

    def price_micro(self, model: str) -> int:
        """Return the price of one task in millionths of a dollar."""
        return round(self.price(model) * MICRO)

    def balance(self, now: float) -> float:
        """Return the balance in dollars, with the refunds that are due."""
        self._settle(now)
        return self._balance / MICRO

    def can_pay(self, price: int, now: float) -> bool:
        """Tell whether the balance covers `price` (in millionths)."""
        if self._refunds and self._balance < price:
            self._settle(now)
        return self._balance >= price

    def charge(self, prediction: Prediction) -> None:
        """Take the price of an accepted task; a failed one is given back when it is due."""
        self._balance -= prediction.price
        if prediction.outcome != "completed":
            due = prediction.end + self._refund_delay
            heapq.heappush(self._refunds, (due, prediction.number, prediction))

    def add(self, dollars: float) -> None:
        """Top the balance up."""
        self._balance += round(dollars * MICRO)

    def _settle(self, now: float) -> None:
        while self._refunds and self._refunds[0][0] <= now:
            due, _, prediction = heapq.heappop(self._refunds)
            self._balance += prediction.price
            self._refunded[prediction.id] = due

    def billings(self, rows: Iterable[Prediction], now: float) -> list[Billing]:
        """Return the account's lines for some tasks, oldest first."""
        self._settle(now)
        lines = []
        for row in rows:
            lines.append(Billing(row.id[::-1], "deduct", row.created_ns, row))
            if row.id in self._refunded:
                due = row.created_ns + int((self._refunded[row.id] - row.created) * 1e9)
                lines.append(Billing("f" + row.id[:0:-1], "refund", due, row))
        return sorted(lines, key=lambda line: line.time_ns)

    def usage(self, rows: Iterable[Prediction], now: float) -> dict[str, Any]:
        """Return the usage statistics of some tasks: by model, by day, in sum."""
        per_model: defaultdict[str, list[Prediction]] = defaultdict(list)
        per_day: defaultdict[str, defaultdict[str, list[Prediction]]] = defaultdict(lambda: defaultdict(list))
        for row in rows:
            per_model[row.model].append(row)
            per_day[_day(row)][row.model].append(row)
        everything = [row for each in per_model.values() for row in each]
        return {
            "per_model_usage": [self._model_usage(model, each) for model, each in per_model.items()],
            "daily_usage": [_day_usage(day, models) for day, models in sorted(per_day.items())],
            "summary": {
                "total_cost": _cost(everything),
                "total_requests": len(everything),
                "success_requests": sum(row.status(now) == "completed" for row in everything),
            },
        }

    def _model_usage(self, model: str, rows: list[Prediction]) -> dict[str, Any]:
        return {
            "model_uuid": model,
            "model_type": "image",
            "unit_price": self.price(model),
            "total_cost": _cost(rows),
            "total_count": len(rows),
            "last_used_date": max(map(_day, rows)),
        }


def _day_usage(day: str, models: Mapping[str, list[Prediction]]) -> dict[str, Any]:
    each = [{"model_uuid": name, "amount": _cost(rows), "count": len(rows)} for name, rows in models.items()]
    count = sum(len(rows) for rows in models.values())
    return {"date": day, "amount": sum(model["amount"] for model in each), "count": count, "models": each}


def _cost(rows: Iterable[Prediction]) -> float:
    return sum(row.price for row in rows) / MICRO


def _day(row: Prediction) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(row.created_ns // 1_000_000_000))
