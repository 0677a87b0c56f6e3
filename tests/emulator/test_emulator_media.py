"""Uploads, the second origin, outputs, ranges, and what becomes of an edit's source."""

from __future__ import annotations

import asyncio
import struct
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from emulator_client import EDIT, KEY, Client, using

from wavespeed_qwen_async.emulator.blank import blank_image
from wavespeed_qwen_async.emulator.outputs import Outputs

pytestmark = pytest.mark.anyio
PNG = blank_image(300, 200, "png")


async def test_a_ticket_leads_to_another_origin_and_back(client: Client) -> None:
    url = await client.upload(PNG, "my fox.png")
    assert urlsplit(url).netloc != urlsplit(client.emulator.url).netloc
    async with client.http.get(url) as answer:
        assert answer.status == 200
        assert answer.content_type == "image/png"
        assert await answer.read() == PNG
    assert client.emulator.ledger.requests == {"ticket": 1, "put": 1, "source": 1}
    assert client.emulator.ledger.key_leaks == []


async def test_a_file_is_there_only_after_its_put(client: Client) -> None:
    ticket = await client.data("POST", "media/uploads", json={"filename": "a.png", "size": 3})
    assert (await client.fetch(ticket["download_url"]))[0] == 404


@pytest.mark.parametrize(
    ("data", "headers", "query", "status"),
    [
        (b"abc", {"Content-Type": "image/png"}, True, 200),
        (b"abcd", {"Content-Type": "image/png"}, True, 400),
        (b"abc", {"Content-Type": "image/jpeg"}, True, 403),
        (b"abc", {"Content-Type": "image/png"}, False, 403),
    ],
)
async def test_a_put_must_be_the_one_that_the_ticket_is_for(
    client: Client, data: bytes, headers: dict[str, str], query: object, status: int
) -> None:
    body = {"filename": "a.png", "size": 3, "content_type": "image/png"}
    url = (await client.data("POST", "media/uploads", json=body))["upload"]["url"]
    async with client.http.put(url if query else url.partition("?")[0], data=data, headers=headers) as answer:
        assert answer.status == status


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"filename": "a.png", "size": 20 * 1024**2, "content_type": "image/png"}, 200),
        ({"filename": "a.png", "size": 20 * 1024**2 + 1, "content_type": "image/png"}, 413),
        ({"filename": "a.zip", "size": 20 * 1024**2 + 1, "content_type": "application/zip"}, 200),
        ({"filename": "", "size": 1}, 400),
        ({"filename": 5, "size": 1}, 400),
        ({"filename": "a", "size": -1}, 400),
        ({"filename": "a", "size": True}, 400),
        ({"filename": "a"}, 400),
        ({"filename": "a", "size": 1, "content_type": 5}, 400),
        *(({"filename": "a", "size": 1, "content_type": f"image/{kind}"}, 200) for kind in ("jpeg", "PNG", "webp")),
        *(({"filename": "a", "size": 1, "content_type": f"image/{kind}"}, 200) for kind in ("gif", "bmp", "tiff")),
        *(({"filename": "a", "size": 1, "content_type": f"image/{kind}"}, 400) for kind in ("svg+xml", "heic", "")),
    ],
)
async def test_tickets_are_checked(client: Client, body: dict[str, Any], status: int) -> None:
    assert (await client.call("POST", "media/uploads", json=body))[0] == status


@pytest.mark.parametrize("name", ["../../etc/passwd", "..", "c:\\x\\y.png", "雪.png", "a?b#c%d.png", "\ud800.png"])
async def test_odd_file_names_make_urls_that_work(client: Client, name: str) -> None:
    url = await client.upload(b"abc", name)
    assert await client.fetch(url) == (200, b"abc")


async def test_the_older_upload_takes_a_multipart_field(client: Client) -> None:
    form = aiohttp.FormData()
    form.add_field("note", "x")
    form.add_field("file", PNG, filename="fox.png", content_type="image/png")
    data = await client.data("POST", "media/upload/binary", data=form)
    assert (data["type"], data["filename"], data["size"]) == ("image", "fox.png", len(PNG))
    assert await client.fetch(data["download_url"]) == (200, PNG)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"abc", "image/png"),
        (b"abc", "multipart/form-data; boundary=x"),
        (b"--x\r\n\r\nabc", "multipart/form-data; boundary=x"),
        (
            b"--x\r\nContent-Disposition: form-data; name=other\r\n\r\nabc\r\n--x--\r\n",
            "multipart/form-data; boundary=x",
        ),
        (b"abc", "multipart/form-data"),
    ],
)
async def test_a_broken_multipart_body_is_refused(client: Client, body: bytes, kind: str) -> None:
    status, _ = await client.call("POST", "media/upload/binary", data=body, headers={"Content-Type": kind})
    assert status == 400


async def test_uploads_are_kept_for_seven_days(client: Client) -> None:
    url = await client.upload(PNG)
    await asyncio.sleep(7 * 86_400 + 1)
    assert (await client.fetch(url))[0] == 404


@pytest.mark.parametrize("where", ["header", "bearer", "query"])
async def test_a_key_that_comes_to_the_media_host_is_written_down(client: Client, where: str) -> None:
    url = await client.upload(PNG)
    headers = {"header": {"X-Token": KEY}, "bearer": {"Authorization": "Bearer other"}, "query": {}}[where]
    await client.fetch(url + (f"?key={KEY}" if where == "query" else ""), headers=headers)
    (leak,) = client.emulator.ledger.key_leaks
    assert leak.method == "GET"
    assert leak.path.startswith("/uploads/")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/outputs/nothing.png", 404),
        ("GET", "/uploads/nothing/a.png", 404),
        ("PUT", "/uploads/nothing/a.png", 403),
        ("POST", "/uploads/nothing/a.png", 405),
        ("DELETE", "/outputs/nothing.png", 405),
        ("GET", "/", 404),
        ("GET", "/api/v3/balance", 404),
    ],
)
async def test_what_the_media_host_does_not_have(client: Client, method: str, path: str, status: int) -> None:
    async with client.http.request(method, client.emulator.media_url + path) as answer:
        assert answer.status == status


@pytest.mark.parametrize(
    ("asked", "status", "span", "told"),
    [
        ("bytes=0-9", 206, slice(0, 10), "bytes 0-9/{n}"),
        ("bytes=5-", 206, slice(5, None), "bytes 5-{last}/{n}"),
        ("bytes=-4", 206, slice(-4, None), "bytes {minus4}-{last}/{n}"),
        ("bytes=0-99999999", 206, slice(0, None), "bytes 0-{last}/{n}"),
        ("bytes=99999999-", 416, slice(0, 0), "bytes */{n}"),
        ("bytes=9-3", 416, slice(0, 0), "bytes */{n}"),
        ("bytes=-", 200, slice(0, None), None),
        ("items=1-2", 200, slice(0, None), None),
    ],
)
async def test_ranges_of_outputs(client: Client, asked: str, status: int, span: slice, told: str | None) -> None:
    done = await client.finished(await client.submit(size="256*256", output_format="png"))
    (url,) = done["outputs"]
    whole = blank_image(256, 256, "png")
    n = len(whole)
    async with client.http.get(url, headers={"Range": asked}) as answer:
        assert answer.status == status
        assert await answer.read() == whole[span]
        told = told and told.format(n=n, last=n - 1, minus4=n - 4)
        assert answer.headers.get("Content-Range") == told


async def test_a_range_of_a_file_that_changed_gives_the_whole(client: Client) -> None:
    url = await client.upload(PNG)
    async with client.http.get(url) as answer:
        tag = answer.headers["ETag"]
        assert answer.headers["Accept-Ranges"] == "bytes"
    async with client.http.get(url, headers={"Range": "bytes=0-1", "If-Range": '"other"'}) as answer:
        assert answer.status == 200
    async with client.http.get(url, headers={"Range": "bytes=0-1", "If-Range": tag}) as answer:
        assert answer.status == 206
    async with client.http.head(url) as answer:
        assert answer.headers["Content-Length"] == str(len(PNG))
        assert await answer.read() == b""


async def test_an_output_is_there_when_its_task_is_done_and_not_before(client: Client) -> None:
    created = await client.submit(output_format="webp")
    url = f"{client.emulator.media_url}/outputs/{created['id']}.webp"
    assert (await client.fetch(url))[0] == 404
    await client.finished(created)
    assert (await client.fetch(url))[0] == 200
    assert (await client.fetch(url.replace(".webp", ".png")))[0] == 404
    assert client.emulator.ledger.downloads == {f"{created['id']}.webp": 1}


@pytest.mark.parametrize("size", [(256, 256), (257, 300), (1536, 1536), (1001, 263)])
@pytest.mark.parametrize("output_format", ["jpeg", "png", "webp"])
def test_blank_images_are_valid(size: tuple[int, int], output_format: str) -> None:
    image = pytest.importorskip("PIL.Image")
    with image.open(BytesIO(blank_image(*size, output_format))) as opened:
        opened.load()
        assert (opened.size, opened.format) == (size, output_format.upper())
        assert opened.convert("RGB").getextrema() == ((128, 128),) * 3


@using(blank=False)
async def test_renders_are_shared_kept_and_read_back_as_sources(client: Client) -> None:
    first = await client.finished(await client.submit(size="320*256", output_format="png", seed=5))
    (url,) = first["outputs"]
    answers = await asyncio.gather(*(client.fetch(url) for _ in range(5)))
    assert len({data for _, data in answers}) == 1
    assert client.emulator.outputs.rendered == 1
    uploaded = await client.upload(PNG)
    sizes = {url: (320, 256), uploaded: (300, 256), "https://example.com/cat.png": (768, 768)}
    for source, size in sizes.items():
        done = await client.finished(await client.submit(EDIT, image=source, output_format="png", seed=1))
        status, data = await client.fetch(done["outputs"][0])
        assert status == 200
        assert struct.unpack(">II", data[16:24]) == size
    same = await client.finished(await client.submit(EDIT, image=url, output_format="png", seed=1))
    assert (await client.fetch(same["outputs"][0]))[1] != answers[0][1]


@using(blank=False)
async def test_who_waits_for_a_render_is_served_though_the_first_one_left(client: Client) -> None:
    done = await client.finished(await client.submit(size="256*256", seed=5))
    prediction = client.emulator.service.store.by_id[done["id"]]
    outputs = client.emulator.outputs
    first = asyncio.ensure_future(outputs.get(prediction))
    second = asyncio.ensure_future(outputs.get(prediction))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).startswith(b"\xff\xd8")
    assert outputs.rendered == 2


@using(blank=False)
async def test_few_renders_are_kept(client: Client) -> None:
    small = Outputs(client.emulator.service, blank=False, cache_bytes=1)
    rows = []
    for seed in range(2):
        done = await client.finished(await client.submit(size="256*256", seed=seed))
        rows.append(client.emulator.service.store.by_id[done["id"]])
    for row in (rows[0], rows[0], rows[1], rows[0]):
        await small.get(row)
    assert small.rendered == 3
