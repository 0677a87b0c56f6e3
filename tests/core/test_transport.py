"""What leaves this machine, where the key goes, and how each way of losing an answer is told."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import math
import os
import socket

import aiohttp
import pytest
from aiohttp import web
from scripted import Script, accepted, error, hang_up, ok, serving

from wavespeed_qwen_async import (
    ConfigurationError,
    LostAnswerError,
    NotSentError,
    SessionClosedError,
    SubmissionUnknown,
    Timeout,
)
from wavespeed_qwen_async import _wire as wire
from wavespeed_qwen_async._transport import Transport
from wavespeed_qwen_async.models import TextToImage

pytestmark = pytest.mark.anyio

SUBMIT = wire.submit_request(TextToImage(prompt="x", seed=1))
READ = wire.result_request("p1")
LIST = wire.list_request()


class opened:  # noqa: N801 - reads as a verb in the tests
    def __init__(self, url, **options):
        self.transport = Transport(api_key="the-key", base_url=url, **options)

    async def __aenter__(self):
        await self.transport.open()
        return self.transport

    async def __aexit__(self, *_):
        await self.transport.close()


async def test_a_request_carries_the_key_the_names_and_the_body():
    script = Script(accepted())
    async with serving(script) as url, opened(url + "/proxied/path/") as transport:
        answer = await transport.send(SUBMIT)
    (request,) = script.asked
    assert answer.status == 200
    assert request.path == "/proxied/path/api/v3/wavespeed-ai/qwen-image/text-to-image-lora"
    assert request.headers["Authorization"] == "Bearer the-key"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["X-Client-Name"] == "wavespeed_qwen_async"
    assert script.bodies == [b'{"prompt":"x","seed":1}']


async def test_ids_and_webhooks_are_not_quoted_twice():
    script = Script(ok({}))
    async with serving(script) as url, opened(url) as transport:
        await transport.send(wire.result_request("a/b c"))
        await transport.send(wire.submit_request(TextToImage(prompt="x"), webhook="https://me/h?a=1&b=2"))
    assert script.asked[0].raw_path == "/api/v3/predictions/a%2Fb%20c/result"
    assert script.asked[1].query["webhook"] == "https://me/h?a=1&b=2"


@pytest.mark.parametrize(
    ("request_", "kind"), [(SUBMIT, SubmissionUnknown), (READ, LostAnswerError), (LIST, LostAnswerError)]
)
async def test_an_answer_that_never_comes(request_, kind):
    async with serving(hang_up) as url, opened(url) as transport:
        with pytest.raises(kind) as caught:
            await transport.send(request_)
    assert caught.value.billed == ("unknown" if request_ is SUBMIT else "no")


async def test_a_submit_is_sent_once_only_even_on_a_dead_connection():
    """aiohttp sends again on a connection that turns out dead, for idempotent methods; it must not for submits."""
    script = Script(accepted(), hang_up, accepted())
    async with serving(script) as url, opened(url) as transport:
        await transport.send(SUBMIT)
        with pytest.raises(SubmissionUnknown):
            await transport.send(SUBMIT)
    assert len(script.asked) == 2


async def test_nobody_listening_is_certain():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with opened(f"http://127.0.0.1:{taken.getsockname()[1]}") as transport:
            for request in (SUBMIT, READ):
                with pytest.raises(NotSentError, match="no connection to 127.0.0.1") as caught:
                    await transport.send(request)
                assert caught.value.billed == "no"
            assert not transport.reached


async def test_a_connection_that_is_never_answered_is_certain():
    """A full backlog: the connect times out, so nothing was written."""
    with socket.socket() as full, socket.socket() as filler:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        filler.connect(full.getsockname())
        more = [socket.socket() for _ in range(4)]
        for each in more:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        async with opened(url, timeout=Timeout(connect=0.5)) as transport:
            with pytest.raises(NotSentError, match="timed out"):
                await transport.send(SUBMIT)
        for each in more:
            each.close()


async def test_a_closing_connection_before_the_first_byte_is_certain():
    """The connection dies between being chosen and being written to: the body was not handed over."""

    class Dying(aiohttp.TCPConnector):
        async def connect(self, req, traces, timeout):
            connection = await super().connect(req, traces, timeout)
            connection.transport.close()
            return connection

    async with serving(Script(accepted())) as url, aiohttp.ClientSession(connector=Dying()) as client:
        async with opened(url, client_session=client) as transport:
            with pytest.raises(NotSentError):
                await transport.send(SUBMIT)


async def test_a_slow_answer_times_out():
    async def slow(_):
        await asyncio.sleep(100)
        return web.Response()

    async with serving(slow) as url, opened(url, timeout=Timeout(read=3)) as transport:
        began = asyncio.get_running_loop().time()
        with pytest.raises(SubmissionUnknown, match="timed out"):
            await transport.send(SUBMIT)
        assert asyncio.get_running_loop().time() - began == pytest.approx(3, abs=0.1)


async def test_an_answer_that_drips_for_ever_times_out_too():
    async def drip(request):
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(1)

    async with serving(drip) as url, opened(url, timeout=Timeout(read=3)) as transport:
        with pytest.raises(LostAnswerError, match="timed out"):
            await transport.send(READ)


async def test_a_cut_body_is_a_lost_answer():
    async def cut(request):
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b'{"code":200')
        request.transport.close()
        return response

    async with serving(cut) as url, opened(url) as transport:
        with pytest.raises(SubmissionUnknown):
            await transport.send(SUBMIT)


async def test_an_endless_body_is_not_taken_into_memory(monkeypatch):
    monkeypatch.setattr("wavespeed_qwen_async._transport.MAX_ANSWER_BYTES", 1000)

    async def endless(request):
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        with_room = 1_000_000
        for _ in range(with_room):
            await response.write(b"x" * 1000)
        return response

    async with serving(endless) as url, opened(url) as transport:
        with pytest.raises(LostAnswerError):
            await transport.send(READ)


@pytest.mark.parametrize(
    ("head", "body"),
    [("Connection: close", b"x" * 5_000_000), ("Content-Encoding: gzip", gzip.compress(b"x" * 5_000_000))],
)
async def test_a_body_that_hides_its_length_is_not_taken_into_memory(monkeypatch, head, body):
    monkeypatch.setattr("wavespeed_qwen_async._transport.MAX_ANSWER_BYTES", 1_000_000)

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        length = f"\r\nContent-Length: {len(body)}" * head.startswith("Content")
        writer.write(f"HTTP/1.1 200 OK\r\n{head}{length}\r\n\r\n".encode() + body)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with opened(f"http://127.0.0.1:{port}") as transport:
            with pytest.raises(LostAnswerError):
                await transport.send(READ)


async def test_timeouts_without_end():
    endless = Timeout(connect=math.inf, read=math.inf, sync=math.inf, job=math.inf)
    async with serving(Script(ok({}))) as url, opened(url, timeout=endless) as transport:
        assert (await transport.send(SUBMIT, read_timeout=math.inf)).status == 200
        for data in (None, b"bytes"):
            async with transport.foreign("PUT", url, data=data) as response:
                assert response.status == 200


async def test_no_redirect_is_followed_with_the_key():
    elsewhere = Script(ok({}))
    async with serving(elsewhere) as other:
        here = Script(web.Response(status=307, headers={"Location": other}))
        async with serving(here) as url, opened(url) as transport:
            assert (await transport.send(READ)).status == 307
            assert (await transport.send(SUBMIT)).status == 307
    assert elsewhere.asked == []


async def test_media_hosts_never_see_the_key_not_even_after_a_redirect():
    last = Script(web.Response(body=b"image"))
    async with serving(last) as other:
        first = Script(web.Response(status=302, headers={"Location": other + "/b"}))
        async with serving(first) as cdn, opened("http://127.0.0.1:9") as transport:
            async with transport.foreign("GET", cdn + "/a", headers={"Range": "bytes=1-"}, redirects=3) as response:
                assert await response.read() == b"image"
    for script in (first, last):
        assert "Authorization" not in script.asked[0].headers
        assert "the-key" not in str(script.asked[0].headers)
    assert first.asked[0].headers["Range"] == "bytes=1-"


async def test_media_hosts_that_fail():
    async with opened("http://127.0.0.1:9") as transport:
        with pytest.raises(NotSentError):
            async with transport.foreign("GET", "http://127.0.0.1:9/a"):
                pass
        async with serving(hang_up) as cdn:
            with pytest.raises(LostAnswerError):
                async with transport.foreign("GET", cdn + "/a"):
                    pass
        async with serving(Script(web.Response(body=b"x"))) as cdn:
            with pytest.raises(LostAnswerError):
                async with transport.foreign("GET", cdn + "/a"):
                    raise TimeoutError


async def test_a_media_host_has_its_own_time_to_connect_and_then_to_answer():
    class Slow(aiohttp.ThreadedResolver):
        async def resolve(self, host, port=0, family=socket.AF_INET):
            await asyncio.sleep(1.0)
            return await super().resolve("127.0.0.1", port, family)

    async def fetched(url, timeout):
        connector = aiohttp.TCPConnector(resolver=Slow(), use_dns_cache=False)
        async with (
            aiohttp.ClientSession(connector=connector) as client,
            opened("http://127.0.0.1:9", client_session=client, timeout=timeout) as transport,
            transport.foreign("GET", url) as response,
        ):
            return await transport.next_piece(response)

    async with serving(Script(web.Response(body=b"x"), web.Response(body=b"x"))) as cdn:
        url = cdn.replace("127.0.0.1", "cdn.example") + "/a"
        assert await fetched(url, Timeout(connect=5.0, read=0.5)) == b"x"
        with pytest.raises(NotSentError):
            await fetched(url, Timeout(connect=0.5, read=5.0))


async def test_the_older_upload_goes_to_the_api_with_the_key():
    script = Script(ok({"download_url": "https://cdn/a"}))
    async with serving(script) as url, opened(url) as transport:
        form = aiohttp.FormData()
        form.add_field("file", b"bytes", filename="a.png")
        answer = await transport.multipart(wire.multipart_upload_path(), form)
        assert answer.status == 200
    (request,) = script.asked
    assert request.headers["Authorization"] == "Bearer the-key"
    assert request.headers["Content-Type"].startswith("multipart/form-data")


async def test_the_servers_clock():
    script = Script(web.json_response({}, headers={"Date": "Wed, 21 Oct 2026 07:28:00 GMT"}))
    async with serving(script) as url, opened(url) as transport:
        assert transport.server_time() is None
        await transport.send(READ)
        await asyncio.sleep(90)
        assert transport.server_time().isoformat(timespec="seconds") == "2026-10-21T07:29:30+00:00"


async def test_a_brought_client_session_stays_open():
    async with serving(Script(ok({}))) as url, aiohttp.ClientSession() as client:
        async with opened(url, client_session=client) as transport:
            await transport.send(READ)
        assert not client.closed


async def test_a_transport_not_open_says_so():
    transport = Transport(api_key="k", base_url="http://127.0.0.1:9")
    with pytest.raises(SessionClosedError, match="async with"):
        await transport.send(READ)


async def test_proxies_by_argument_and_environment(monkeypatch):
    proxy = Script(ok({}))
    async with serving(proxy) as url:
        async with opened("http://api.invalid", proxy=url) as transport:
            assert (await transport.send(READ)).status == 200
        monkeypatch.setenv("http_proxy", url)
        async with opened("http://api.invalid") as transport:
            assert (await transport.send(READ)).status == 200
        monkeypatch.setenv("no_proxy", "api.invalid")
        async with opened("http://api.invalid") as transport:
            with pytest.raises(NotSentError):
                await transport.send(READ)
    assert len(proxy.asked) == 2


@pytest.mark.parametrize("key", ["", "  ", "a b", "a\nb", "ключ", "a\x00"])
def test_keys_that_are_none_are_refused_without_showing_them(key):
    with pytest.raises(ConfigurationError) as caught:
        Transport(api_key=key)
    assert caught.value.billed == "no"
    assert not key.strip() or key not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["", "api.wavespeed.ai", "ftp://x", "https://", "https://x?y=1", "https://x#y", "https://x/api/v3", "http://[::1"],
)
def test_base_urls_that_are_none_are_refused(url):
    with pytest.raises(ConfigurationError, match="base_url"):
        Transport(api_key="k", base_url=url)


def test_a_password_in_the_base_url_is_refused_and_not_shown():
    with pytest.raises(ConfigurationError) as caught:
        Transport(api_key="k", base_url="https://me:secret@x")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["connect", "read", "sync", "job"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_timeouts_that_are_none_are_refused(name, value):
    with pytest.raises(ConfigurationError, match=name):
        Timeout(**{name: value})


async def test_the_key_is_in_no_repr_log_or_error(caplog, monkeypatch):
    monkeypatch.delenv("WAVESPEED_API_KEY", raising=False)  # of whoever runs the tests
    caplog.set_level(logging.DEBUG)
    shown = []
    async with serving(Script(error(401), hang_up)) as url, opened(url) as transport:
        shown += [repr(transport), repr(await transport.send(READ))]
        for request in (READ, SUBMIT):
            with pytest.raises((LostAnswerError, SubmissionUnknown)) as caught:
                await transport.send(request)
            shown += [repr(caught.value), str(caught.value.__dict__), str(caught.value.__cause__)]
    assert "the-key" not in " ".join(shown) + caplog.text
    assert os.environ.get("WAVESPEED_API_KEY") is None
