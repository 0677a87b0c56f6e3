"""The receiver in an aiohttp application and as an ASGI application."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from wavespeed_qwen_async.errors import ConfigurationError
from wavespeed_qwen_async.webhooks import WebhookReceiver, sign

pytestmark = pytest.mark.anyio

SECRET = "whsec_receiver"
NOW = 1_800_000_000.0


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


def delivery(prediction_id="p", *, status="completed", webhook_id=None, secret=SECRET, at=NOW, body=None, **more):
    item = {"id": prediction_id, "status": status, "outputs": [f"https://cdn/{prediction_id}.png"], **more}
    raw = json.dumps(item).encode() if body is None else body
    webhook_id = webhook_id or f"msg_{prediction_id}"
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(at)),
        "webhook-signature": sign(webhook_id, str(int(at)), raw, secret),
        "content-type": "application/json",
    }, raw


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def pushed():
    return []


@pytest.fixture
async def receiver(clock, pushed):
    made = WebhookReceiver("https://me.example/hook", secrets=[SECRET], clock=clock, max_body=10_000)
    made.attach(pushed.append)
    return made


@asynccontextmanager
async def mounted(receiver):
    app = web.Application()
    app.router.add_post("/hook", receiver.aiohttp_handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        async with aiohttp.ClientSession() as client:
            yield client, f"http://{host}:{port}/hook"
    finally:
        await runner.cleanup()


async def by_asgi(app, headers, body, *, method="POST", pieces=3):
    step = max(1, len(body) // pieces)
    parts = [body[at : at + step] for at in range(0, len(body), step)] or [b""]
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages.append({"type": "http.request"})
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": "/",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    await app(scope, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    return sent[0]["status"]


async def test_a_delivery_is_handed_over_by_both_ways_to_mount_it(receiver, pushed):
    async with mounted(receiver) as (client, url):
        headers, body = delivery("one", input={"prompt": "p"}, has_nsfw_contents=[False])
        async with client.post(url, headers=headers, data=body) as response:
            assert (response.status, await response.text()) == (200, "taken")
    assert await by_asgi(receiver.asgi, *delivery("two")) == 200
    assert [(prediction.id, prediction.status) for prediction in pushed] == [("one", "completed"), ("two", "completed")]
    assert pushed[0].inputs == {"prompt": "p"}


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({}, b"{}", 401),
        (*delivery(secret="whsec_forged"), 401),
        (delivery()[0], b'{"id":"other","status":"completed"}', 401),
        (*delivery(at=NOW - 301), 401),
        (*delivery(body=b"x" * 20_000), 413),
        (*delivery(body=b"not json"), 400),
        (*delivery(body=b'{"hello": 1}'), 400),
        (*delivery(body=b"[" * 5000), 400),
        (*delivery(body=b"\xff"), 400),
    ],
    ids=["unsigned", "forged", "changed", "old", "large", "no json", "no prediction", "deep", "no text"],
)
async def test_what_is_refused_is_not_handed_over(receiver, pushed, headers, body, status):
    async with mounted(receiver) as (client, url):
        async with client.post(url, headers=headers, data=body) as response:
            assert response.status == status
    assert await by_asgi(receiver.asgi, headers, body) == status
    assert not pushed


async def test_a_large_body_without_a_length_is_cut_off(receiver, pushed):
    async def endless():
        for _ in range(100):
            yield b"x" * 1000

    headers, _ = delivery()
    async with mounted(receiver) as (client, url), client.post(url, headers=headers, data=endless()) as response:
        assert response.status == 413
    assert not pushed


async def test_repeats_are_dropped_by_their_webhook_id(receiver, pushed):
    headers, body = delivery()
    assert [receiver.receive(headers, body) for _ in range(3)] == [200, 200, 200]
    assert len(pushed) == 1


async def test_an_unreadable_delivery_may_be_repeated_readably(receiver, pushed):
    assert receiver.receive(*delivery(webhook_id="m", body=b"{")) == 400
    assert receiver.receive(*delivery(webhook_id="m")) == 200
    assert len(pushed) == 1


async def test_what_is_remembered_is_bounded_and_outlives_every_repeat_that_would_be_believed(clock, pushed):
    receiver = WebhookReceiver("http://me/hook", secrets=[SECRET], clock=clock, remembered=10)
    receiver.attach(pushed.append)
    for index in range(100):
        receiver.receive(*delivery(f"p{index}"))
    assert len(receiver._seen) == 10
    clock.now += 299  # the last moment at which a repeat is believed, sent with a timestamp 300 s ahead
    receiver.receive(*delivery("p99"))
    assert len(pushed) == 100
    clock.now += 1000
    receiver.receive(*delivery("late", at=clock.now))
    assert list(receiver._seen) == ["msg_late"]


async def test_without_a_secret_or_session_the_api_is_asked_to_try_again(pushed, clock):
    receiver = WebhookReceiver("http://me/hook", clock=clock)
    assert receiver.needs_secret
    receiver.attach(pushed.append)
    assert receiver.receive(*delivery()) == 503
    receiver.add_secret(SECRET)
    receiver.detach(pushed.append)
    assert receiver.receive(*delivery()) == 503
    receiver.attach(pushed.append)
    assert (receiver.needs_secret, receiver.receive(*delivery())) == (False, 200)
    assert len(pushed) == 1


async def test_two_sessions_are_handed_a_prediction_each(receiver, pushed):
    others = []
    receiver.attach(others.append)
    receiver.receive(*delivery())
    assert pushed[0] == others[0]
    assert pushed[0] is not others[0]


async def test_a_thread_without_a_loop_may_hand_over_too(receiver, pushed):
    assert await asyncio.to_thread(receiver.receive, *delivery()) == 200
    await asyncio.sleep(0)
    assert [prediction.id for prediction in pushed] == ["p"]


async def test_a_session_on_another_loop_is_handed_it_there(clock):
    receiver = WebhookReceiver("http://me/hook", secrets=[SECRET], clock=clock)
    where, ready, done = [], threading.Event(), threading.Event()

    async def session() -> None:
        taken = asyncio.Event()
        receiver.attach(lambda _: (where.append(asyncio.get_running_loop()), taken.set()))
        ready.set()
        await taken.wait()
        done.set()

    thread = threading.Thread(target=asyncio.run, args=(session(),))
    thread.start()
    assert ready.wait(5)
    assert receiver.receive(*delivery()) == 200
    assert done.wait(5)
    thread.join(5)
    assert where != [asyncio.get_running_loop()]
    assert receiver.receive(*delivery("after")) == 200  # that loop is closed: nobody there any more


async def test_asgi_answers_only_posts_and_lives_by_itself(receiver):
    assert await by_asgi(receiver.asgi, *delivery(), method="GET") == 405
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message["type"])

    await receiver.asgi({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    with pytest.raises(ValueError, match="websocket"):
        await receiver.asgi({"type": "websocket"}, receive, send)


async def test_a_caller_that_hangs_up_in_the_middle_is_not_believed(receiver, pushed):
    headers, body = delivery()
    messages = [
        {"type": "http.request", "body": body[:5], "more_body": True},
        {"type": "http.disconnect"},
    ]
    statuses = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        statuses.append(message.get("status"))

    scope = {"type": "http", "method": "POST", "headers": [(k.encode(), v.encode()) for k, v in headers.items()]}
    await receiver.asgi(scope, receive, send)
    assert statuses[0] == 401
    assert not pushed


@pytest.mark.parametrize("url", ["", "me.example/hook", "ftp://me/hook", "https://"])
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(ConfigurationError, match="url"):
        WebhookReceiver(url)


@pytest.mark.parametrize("secret", ["", " ", "whsec_"])
def test_an_empty_secret_would_let_anybody_sign(secret):
    with pytest.raises(ConfigurationError, match="empty"):
        WebhookReceiver("https://me/hook", secrets=[secret])


def test_the_secret_is_not_shown():
    assert "receiver" not in repr(WebhookReceiver("https://me/hook", secrets=[SECRET]))
