"""The service behind the HTTP: what it accepts, what that costs, and how each task will go."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from .account import Account
from .clock import Clock, iso
from .ledger import Ledger
from .limits import SlidingWindow, Slots
from .schema import MAX_SEED, InvalidInputError, Model, check_inputs, parse_object, sources_of
from .settings import Settings, is_loopback
from .tasks import Prediction, Store
from .uploads import Uploads

if TYPE_CHECKING:
    from collections.abc import Callable

    from .faults import Faults, Plan

MODERATED: Final = "[moderated]"
"""A prompt that holds this word fails with code 1200."""

MESSAGES: Final[dict[int, str]] = {
    1200: "Content moderation: the request was rejected as sensitive content",
    1400: "A parameter is missing",
    1401: "A parameter is invalid",
    1402: "The media URL is not reachable",
    1403: "The task failed",
    1405: "The task failed",
    5000: "Internal error",
    5003: "Service unavailable",
    5004: "The task timed out",
}


class RefusalError(Exception):
    """A request that is answered with an HTTP error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        error_code: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.error_code = error_code
        self.headers: dict[str, str] = headers or {}


class Service:
    """One account on one emulated service. Knows no HTTP."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.faults: Faults = settings.faults
        self.clock: Clock = Clock(settings.clock_skew)
        self.store: Store = Store(settings.retention)
        self.ledger: Ledger = Ledger(_now=self.clock.now)
        self.account: Account = Account(settings.balance, settings.price, settings.prices, settings.refund_delay)
        self.uploads: Uploads = Uploads(settings.retention)
        self.api_url = ""
        self.media_url = ""
        self.on_accept: Callable[[Prediction], None] | None = None
        self.revoked = False
        self._good: tuple[str | None, str | None] | None = None  # nearly all requests of a run show the same
        rate, running = settings.limits
        self._window = SlidingWindow(rate, settings.window)
        self._slots = Slots(running)
        self._rng = random.Random(settings.seed)  # noqa: S311 - repeatable, not secret

    def new_id(self) -> str:
        """Draw an id of 32 hex digits."""
        return f"{self._rng.getrandbits(128):032x}"

    def authorize(self, header: str | None) -> None:
        """Let a request with a good key in."""
        expected = self.settings.api_key
        if self._good == (header, expected) and not self.revoked:
            return
        scheme, _, key = (header or "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            raise RefusalError(401, "Unauthorized: no API key")
        self.ledger.keys.add(key)
        if self.revoked or (expected is not None and key != expected):
            raise RefusalError(401, "Unauthorized: invalid API key")
        self._good = header, expected

    def accept(self, model: Model, body: bytes, webhook: str | None, plan: Plan) -> Prediction:
        """Take in a submit, or say why not; from here on it is billed."""
        now = self.clock.now()
        inputs, text = self._read(model, body)
        if webhook is not None:
            self._check_webhook(webhook)
        price = self.account.price_micro(model.name)
        if not self.account.can_pay(price, now):
            raise RefusalError(402, "Insufficient credits: please top up your account")
        self._admit(now)
        prediction = self._schedule(model, text, inputs, now, plan=plan, price=price)
        prediction.webhook = webhook
        self.account.charge(prediction)
        self.store.add(prediction)
        self.ledger.accept(prediction)
        if webhook is not None and self.on_accept is not None:
            self.on_accept(prediction)
        return prediction

    def _read(self, model: Model, body: bytes) -> tuple[dict[str, Any], str]:
        try:
            text, inputs = parse_object(body)
            changed = check_inputs(model, inputs, drop_unknown=self.settings.unknown_fields == "drop")
        except InvalidInputError as error:
            raise RefusalError(400, str(error), error_code=error.code) from error
        if not changed:
            return inputs, text
        return inputs, json.dumps(inputs, ensure_ascii=False).encode("utf-8", "replace").decode()

    def _check_webhook(self, url: str) -> None:
        try:
            parts = urlsplit(url)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise RefusalError(400, "webhook must be an http or https URL", error_code=1401)
        if not self.settings.allow_remote and not is_loopback(parts.hostname):
            raise RefusalError(400, "this emulator calls webhooks on loopback only", error_code=1401)

    def _admit(self, now: float) -> None:
        wait = self._window.wait(now)
        if wait <= 0.0:
            self._window.hit(now)
            return
        if self.settings.count_refused:
            self._window.hit(now)
        headers = {}
        if self.settings.retry_after == "seconds":
            headers["Retry-After"] = str(int(-(-wait // 1)))
        elif self.settings.retry_after == "date":
            headers["Retry-After"] = self.clock.http_date(now + wait + 1.0)
        raise RefusalError(429, "Too many requests: the limit of your tier is reached", headers=headers)

    def _schedule(
        self, model: Model, body: str, inputs: dict[str, Any], now: float, *, plan: Plan, price: int
    ) -> Prediction:
        low, high = self.settings.inference
        took = (low + (high - low) * self._rng.random()) / self.settings.speed
        if (action := plan.find("inference")) is not None:
            took = action["seconds"] / self.settings.speed
        start = self._slots.start_time(now)
        end = start + took
        self._slots.take(end)
        seed = inputs.get("seed", -1)
        nanoseconds = self.clock.nanoseconds(now)
        prediction = Prediction(
            id=self.new_id(),
            model=model.name,
            body=body,
            created=now,
            created_ns=nanoseconds,
            created_at=iso(nanoseconds),
            start=start,
            end=end,
            seed=self._rng.randint(0, MAX_SEED) if seed == -1 else seed,
            price=price,
            number=len(self.ledger.accepted_times),
            base64=inputs.get("enable_base64_output", False),
            output_format="safetensors" if model.kind == "training" else inputs.get("output_format", "jpeg"),
        )
        self._decide(prediction, inputs, plan)
        return prediction

    def _decide(self, prediction: Prediction, inputs: dict[str, Any], plan: Plan) -> None:
        if (action := plan.find("fail")) is not None:
            _fail(prediction, action["code"], action["message"])
        elif MODERATED in inputs.get("prompt", ""):
            _fail(prediction, 1200)
        elif not all(map(self.reachable, sources_of(inputs))):
            _fail(prediction, 1402)
        if not plan.actions:
            return
        if (action := plan.find("end")) is not None:
            prediction.outcome = action["status"]
        prediction.nsfw = plan.find("nsfw") is not None

    def reachable(self, url: str) -> bool:
        """Tell whether the service could fetch a source; only its own files are really looked for."""
        if url.startswith(self.media_url + "/"):
            return self.own_file(url) is not None
        return not (urlsplit(url).hostname or "").endswith(".invalid")

    def own_file(self, url: str) -> bytes | Prediction | None:
        """Return the uploaded bytes, or the prediction whose output it is, behind one of our URLs."""
        now = self.clock.now()
        folder, _, name = url[len(self.media_url) + 1 :].partition("/")
        if folder == "uploads":
            upload = self.uploads.get(name.partition("/")[0], now)
            return upload.data if upload is not None else None
        if folder == "outputs":
            return self.finished_output(name, now)
        return None

    def finished_output(self, name: str, now: float) -> Prediction | None:
        """Return the prediction whose output is that file, if it is there and kept."""
        found = self.store.by_id.get(name.partition(".")[0])
        if found is None or found.output_name != name or found.status(now) != "completed":
            return None
        return found if now - found.end <= self.settings.retention else None


def _fail(prediction: Prediction, code: int, message: str | None = None) -> None:
    prediction.outcome = "failed"
    prediction.code = code
    prediction.error = message or MESSAGES.get(code, "The task failed")
