"""Whatever a server answers, the client raises only errors of its own, and never calls a paid submit unbilled."""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
from typing import Self

import pytest
from mutations import ANSWERS, LISTED, PREDICTION, Mutated, envelope, mutated

from wavespeed_qwen_async import (
    Limits,
    QwenImageSession,
    Retry,
    TextToImage,
    WaveSpeedError,
    _answers,
)
from wavespeed_qwen_async._completion import listing as _listing
from wavespeed_qwen_async.emulator.blank import blank_image
from wavespeed_qwen_async.webhooks import WebhookReceiver, sign

FOX = blank_image(8, 8, "png")
JOB = TextToImage(prompt="a fox", seed=7)
READERS = (
    _answers.read_prediction,
    lambda answer: _answers.read_prediction(answer, PREDICTION["id"]),
    _answers.read_page,
    _answers.read_balance,
    _answers.read_price,
    _answers.read_deleted_count,
    _answers.read_upload_ticket,
    _answers.read_uploaded,
    _answers.read_webhook_secret,
)


def paid(answer: Mutated) -> bool:
    """Whether anybody could read the id of an accepted prediction in it."""
    try:
        value = json.loads(answer.body)
        found = value["data"]["id"]
        found.encode()
    except (ValueError, RecursionError, TypeError, KeyError, IndexError, AttributeError):
        return False
    return 200 <= answer.status < 300 and bool(found)


def check_submit(answer: _answers.Answer, mutation: Mutated) -> None:
    try:
        prediction = _answers.read_submit(answer, JOB)
    except WaveSpeedError as error:
        check_error(error)
        if paid(mutation):
            assert error.billed != "no"  # noqa: PT017 - either end is one to check
    else:
        assert prediction.id
        check_prediction(prediction)


def check_error(error: WaveSpeedError) -> None:
    """It can be shown, and its numbers can be computed with."""
    assert "\n" not in error.message
    error.message.encode()
    assert error.retry_after is None or 0 <= error.retry_after < math.inf
    assert error.code is None or isinstance(error.code, int | float)


def check_prediction(prediction) -> None:
    """What the rest of the client does with one."""
    repr(prediction)
    prediction.id.encode()
    prediction.status.encode()
    if prediction.created_at is not None:
        assert prediction.created_at.tzinfo is not None
        assert 0 < prediction.created_at.timestamp() < 1e12
    failure = _answers.failure_of(prediction)
    if failure is not None:
        check_error(failure)
        assert failure.billed == "yes"
    for output in prediction.outputs:
        repr(output)
        try:
            output.decoded()
        except WaveSpeedError as error:
            check_error(error)


def check_value(value: object) -> None:
    if isinstance(value, _answers.Price):
        assert math.isfinite(value.amount)
        assert value.full_amount is None or math.isfinite(value.full_amount)
    elif isinstance(value, float | int):
        assert math.isfinite(value)
    elif isinstance(value, list):
        for item in value:
            check_prediction(item)
    elif hasattr(value, "raw_outputs"):
        check_prediction(value)


def check_listing(page: _listing.Page) -> None:
    for item in page.items:
        if isinstance(item, dict):
            prediction = _listing.whole(item)
            if prediction is not None:
                check_prediction(prediction)
    for number in (1, 3):
        assert page.in_all(number) >= number
        page.is_last(number)


def check_all_readers(mutation: Mutated, rng: random.Random) -> None:
    answer = _answers.Answer(*mutation)
    check_submit(answer, mutation)
    for read, check in ((rng.choice(READERS), check_value), (_listing.read_listing, check_listing)):
        try:
            value = read(answer)
        except WaveSpeedError as error:
            check_error(error)
        else:
            check(value)


class Webhooks:
    """A receiver that is handed signed deliveries."""

    def __init__(self) -> None:
        self.receiver = WebhookReceiver("https://me.example/hook", secrets=["whsec_a"], clock=lambda: 1000.0)
        self.receiver.attach(check_prediction)
        self.number = 0

    def deliver(self, body: bytes) -> None:
        self.number += 1
        headers = {"webhook-id": f"m{self.number}", "webhook-timestamp": "1000"}
        headers["webhook-signature"] = sign(f"m{self.number}", "1000", body, "whsec_a")
        assert self.receiver.receive(headers, body) in {200, 400}


async def fuzz(count: int, seed: int) -> None:
    rng, webhooks = random.Random(seed), Webhooks()
    for number in range(count):
        mutation = mutated(rng)
        try:
            check_all_readers(mutation, rng)
            webhooks.deliver(mutation.body)
        except Exception as error:
            error.add_note(f"answer {number} of seed {seed}: {mutation}"[:2000])
            raise


@pytest.mark.anyio
@pytest.mark.real_clock
async def test_two_thousand_mutated_answers() -> None:
    await fuzz(2000, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.anyio
@pytest.mark.real_clock
async def test_a_hundred_thousand_mutated_answers() -> None:
    await fuzz(100_000, seed=2)


# --- end to end -------------------------------------------------------------------------------------------------------


NO_CONTENT = 204


class Wild:
    """A server that answers over a real socket what it likes, framed as it likes."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.url = ""
        self.answered: dict[bytes, list[bool]] = {}
        self.sent_again: list[bytes] = []
        self.answers = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
        body = await reader.readexactly(int(length[1])) if length else b""
        self.answers += 1
        path = head.split(" ", 2)[1]
        mutation = mutated(self.rng, answers=self._fitting(path))
        framing = self._framing(mutation.body)
        if path.startswith("/api/v3/wavespeed-ai/"):
            self._remember(body, told=framing is None and mutation.status != NO_CONTENT and paid(mutation))
        fields = mutation.headers | (framing or {"Content-Length": str(len(mutation.body))})
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"HTTP/1.1 {mutation.status} Wild\r\n{lines}\r\n".encode("utf-8", "surrogatepass"))
        writer.write(b"" if mutation.status in {NO_CONTENT, 304} else mutation.body)
        await writer.drain()
        return framing is None and self.rng.random() < 0.9

    def _remember(self, body: bytes, *, told: bool) -> None:
        """What was answered with an id that anybody could read is never to be sent again."""
        if any(self.answered.setdefault(body, [])):
            self.sent_again.append(body)
        self.answered[body].append(told)

    def _framing(self, body: bytes) -> dict[str, str] | None:
        """Headers that lie about the body, now and then."""
        if self.rng.random() < 0.85:
            return None
        return self.rng.choice(
            (
                {"Content-Length": str(len(body) + 9)},
                {"Content-Length": "9" * 30},
                {"Content-Length": "x"},
                {"Transfer-Encoding": "chunked"},
                {"Content-Encoding": "gzip", "Content-Length": str(len(body))},
                {"Content-Encoding": "deflate", "Content-Length": str(len(body))},
                {"Connection": "close"},
                {"X" * 9000: "x", "Content-Length": str(len(body))},
                {"Location": self.rng.choice(("http://[", "ftp://x", "/", "")), "Content-Length": str(len(body))},
                {"Set-Cookie": "=;;=\x01", "Content-Length": str(len(body))},
            )
        )

    def _fitting(self, path: str) -> tuple[dict, ...]:
        """The answer that the question asks for, most of the time."""
        if self.rng.random() < 0.15:
            return ANSWERS
        here = PREDICTION | {"outputs": [f"{self.url}/out.png"], "id": f"{self.rng.getrandbits(128):032x}"}
        upload = {"url": f"{self.url}/put", "method": "PUT", "headers": {"Content-Type": "image/png"}}
        fitting = {
            "wavespeed-ai": self.rng.choice((here, here | {"status": "created", "outputs": []})),
            "predictions": {"page": 1, "total": 1, "items": [LISTED]},
            "result": here | {"id": path.split("/")[-2]},
            "media": {"download_url": f"{self.url}/src.png", "upload": upload},
            "balance": {"balance": 1.5},
            "delete": {"deleted_count": 1},
        }
        words = [word for word in reversed(path.split("/")) if word in fitting]
        return (envelope(fitting[words[0]]),) if words else ANSWERS


async def call(session: QwenImageSession, server: Wild, rng: random.Random, number: int) -> None:
    what = rng.randrange(12)
    if what < 4:
        await session.generate(f"p{number}")
    elif what == 4:
        await session.edit(FOX + bytes([number % 256, number // 256]), f"p{number}")
    elif what == 5:
        await session.result(f"{number:032x}")
    elif what == 6:
        await session.price({"prompt": "x"})
    elif what == 7:
        await session.balance()
    elif what == 8:
        async for _ in session.predictions():
            break
    elif what == 9:
        await session.delete("x")
    elif what == 10:
        await session.prediction(f"{number:032x}")
    else:
        await asyncio.gather(*(outcomes(session, f"p{number}/{part}") for part in range(4)))


async def outcomes(session: QwenImageSession, prompt: str) -> None:
    async for outcome in session.stream({"prompt": f"{prompt}/{part}"} for part in range(3)):
        assert outcome.ok or isinstance(outcome.error, WaveSpeedError)


async def wild_calls(count: int, seed: int) -> list[str]:
    """Make so many calls; gives the kinds of errors that they ended with."""
    rng, ends = random.Random(seed), []
    async with Wild(seed) as server:
        for start in range(0, count, 20):
            limits = Limits(max_per_minute=60_000, max_in_flight=50, learn=False, breaker_seconds=1e6)
            retry = Retry(read_budget=20, submit_budget=60)
            async with QwenImageSession(
                api_key="k", base_url=server.url, limits=limits, timeout=100, retry=retry, rng=rng
            ) as session:
                for number in range(start, start + 20):
                    try:
                        await call(session, server, rng, number)
                    except WaveSpeedError as error:
                        error.message.encode()
                        ends.append(type(error).__name__)
                    except BaseException as error:
                        error.add_note(f"call {number} of seed {seed}")
                        raise
                    else:
                        ends.append("ok")
        assert server.sent_again == []
        assert server.answers > 2 * count
    return ends


@pytest.mark.anyio
async def test_a_hundred_calls_to_a_wild_server(caplog) -> None:
    ends = await wild_calls(100, seed=3)
    assert len(set(ends)) > 6  # it is not one error that hides all others
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.anyio
async def test_a_thousand_calls_to_a_wild_server(caplog) -> None:
    await wild_calls(1000, seed=4)
    assert not [record for record in caplog.records if record.exc_info]
