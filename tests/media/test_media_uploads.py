from __future__ import annotations

import asyncio
import io
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from media_server import KEY, client, padded_png, picture
from PIL import Image

from wavespeed_qwen_async import errors
from wavespeed_qwen_async._media import upload
from wavespeed_qwen_async._media.files import CHUNK
from wavespeed_qwen_async._media.upload import KEPT, MARGIN, MemoryUploads
from wavespeed_qwen_async._retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from media_server import World

    from wavespeed_qwen_async.media import Media

pytestmark = pytest.mark.anyio


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "Mein Foto \u96ea.png"
    path.write_bytes(padded_png(1, 2_000_000))  # some chunks long
    return path


async def test_a_url_stays_a_url(media: Media, world: World) -> None:
    assert await media.url_for("https://example.com/a.png") == "https://example.com/a.png"
    assert world.seen == []


async def test_a_file_goes_by_ticket_and_put_and_the_key_to_the_api_only(media, world, photo) -> None:
    url = await media.url_for(photo)
    [upload] = world.uploaded.items()
    assert url == world.media_url + upload[0]
    assert upload[1] == photo.read_bytes()
    [ticket, put] = world.seen
    assert ticket.headers["Authorization"] == f"Bearer {KEY}"
    assert (put.host, put.method) == ("media", "PUT")
    assert KEY not in repr(put.headers)
    assert put.headers["x-amz-meta"] == "a"
    assert put.headers["Content-Length"] == str(photo.stat().st_size)
    assert b"Foto" not in ticket.body
    assert b'"content_type":"image/png"' in ticket.body


async def test_the_same_content_is_sent_once_however_it_is_given(media, world, photo) -> None:
    data = photo.read_bytes()
    copy = photo.with_name("copy")
    copy.write_bytes(data)
    urls = {await media.url_for(source) for source in (photo, str(photo), data, copy)}
    urls.add(await media.upload(io.BytesIO(data)))
    with photo.open("rb") as file:
        urls.add(await media.upload(file))
    assert len(urls) == len(world.uploaded) == 1


async def test_a_thousand_edits_of_ten_files_by_a_hundred_at_once_are_ten_uploads(media, world, tmp_path) -> None:
    pictures = [picture(number) for number in range(10)]
    for number in range(10):
        (tmp_path / f"{number}.png").write_bytes(pictures[number])
    numbers = iter(range(1000))

    async def starter() -> None:
        for number in numbers:
            url = await media.url_for(tmp_path / f"{number % 10}.png")
            assert world.uploaded[url.removeprefix(world.media_url)] == pictures[number % 10]

    await asyncio.gather(*(starter() for _ in range(100)))
    assert len(world.to("/put/")) == len(world.to("/media/uploads")) == 10


async def test_a_second_session_with_the_same_store_uploads_nothing(world, photo) -> None:
    store = MemoryUploads()
    urls = []
    for _ in range(2):
        async with client(world, store=store) as made:
            urls.append(await made.media.url_for(photo))
    assert urls[0] == urls[1]
    assert len(world.to("/put/")) == 1


async def test_another_api_does_not_get_the_url_of_this_one(world, photo) -> None:
    store = MemoryUploads()
    async with client(world, store=store) as made:
        await made.media.url_for(photo)
    world.api_url = world.api_url.replace("127.0.0.1", "localhost")
    async with client(world, store=store) as made:
        await made.media.url_for(photo)
    assert len(world.to("/put/")) == 2


@pytest.mark.parametrize(("age", "uploads"), [(KEPT - MARGIN - 60, 1), (KEPT - MARGIN + 60, 2)])
async def test_an_upload_is_used_until_shortly_before_its_week_is_over(world, photo, monkeypatch, age, uploads) -> None:
    async with client(world) as made:
        await made.media.url_for(photo)
        later = time.time() + age
        monkeypatch.setattr(made.media._uploader, "_clock", lambda: later)
        await made.media.url_for(photo)
    assert len(world.to("/put/")) == uploads


async def test_a_cancelled_caller_leaves_the_upload_to_the_others(media, world, photo) -> None:
    world.gate = asyncio.Event()
    first, second = (asyncio.create_task(media.url_for(photo)) for _ in range(2))
    while not world.to("/media/uploads"):  # noqa: ASYNC110 - the other side is no task of ours
        await asyncio.sleep(0.01)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    world.gate.set()
    assert (await second).startswith(world.media_url)
    assert len(world.to("/put/")) == 1


async def test_a_failed_upload_is_not_remembered_and_each_waiter_gets_an_error_of_its_own(world, photo) -> None:
    world.scripts["put"] = ["413"]
    world.gate = asyncio.Event()
    async with client(world) as made:
        waiters = [asyncio.create_task(made.media.url_for(photo)) for _ in range(3)]
        await asyncio.sleep(1)  # of virtual time, which stands still while threads read the file: all have joined
        world.gate.set()
        failures = await asyncio.gather(*waiters, return_exceptions=True)
        assert {type(failure) for failure in failures} == {errors.UploadError}
        assert len({id(failure) for failure in failures}) == 3
        first: Any = failures[0]
        assert (first.billed, first.status, first.transient) == ("no", 413, False)
        assert "HTTP 413" in first.message
        assert "\n" not in first.message
        assert (await made.media.url_for(photo)).startswith(world.media_url)


async def test_an_upload_whose_waiters_have_all_gone_fails_in_silence(media, world, photo) -> None:
    world.scripts["put"] = ["413"]
    world.gate = asyncio.Event()
    only = asyncio.create_task(media.url_for(photo))
    await asyncio.sleep(0.1)
    only.cancel()
    await asyncio.wait([only])
    world.gate.set()
    await asyncio.sleep(0.1)
    assert media._uploader._flights._under_way == {}


async def test_closing_ends_uploads_and_tells_who_waits(world, photo) -> None:
    world.gate = asyncio.Event()
    async with client(world) as made:
        waiter = asyncio.create_task(made.media.url_for(photo))
        await asyncio.sleep(0.1)
        await made.media.close()
        with pytest.raises(errors.SessionClosedError):
            await waiter
        with pytest.raises(errors.SessionClosedError):
            await made.media.url_for(photo)


@pytest.mark.parametrize("fault", ["500", "503", "429", "403", "drop"])
async def test_what_may_pass_is_tried_again_with_a_new_ticket(media, world, photo, fault) -> None:
    world.scripts["put"] = [fault, fault]
    url = await media.url_for(photo)
    assert world.uploaded[url.removeprefix(world.media_url)] == photo.read_bytes()
    assert len(world.to("/put/")) == 3
    if fault != "drop":  # which aiohttp itself sends again once: a PUT may be
        assert len(world.to("/media/uploads")) == 3


async def test_a_host_that_refuses_every_ticket_is_not_asked_for_long(media, world, photo) -> None:
    world.scripts["put"] = ["403"] * 20
    with pytest.raises(errors.UploadError, match="HTTP 403"):
        await media.url_for(photo)
    assert len(world.to("/put/")) == 3


async def test_the_read_budget_ends_the_tries(world, photo) -> None:
    world.scripts["put"] = ["500"] * 1000
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with client(world, retry=Retry(read_budget=60.0)) as made:
        with pytest.raises(errors.UploadError) as caught:
            await made.media.url_for(photo)
    assert caught.value.transient
    assert 20 < loop.time() - began <= 60


@pytest.mark.parametrize("status", ["404", "405"])
async def test_where_there_are_no_tickets_the_older_way_is_taken_and_kept(media, world, photo, status) -> None:
    world.scripts["ticket"] = [status]
    world.scripts["binary"] = ["502"]
    url = await media.url_for(photo)
    assert world.uploaded[url.removeprefix(world.media_url)] == photo.read_bytes()
    await media.url_for(picture(3))
    # The 502 proved nothing about tickets, so the second try asked for one again: it came.
    assert len(world.to("/media/uploads")) == 3
    world.scripts["ticket"] = [status]
    await media.url_for(picture(4))
    await media.url_for(picture(5))
    assert [len(seen.body) > 0 for seen in world.to("/upload/binary")] == [True] * 3
    assert all("Content-Length" in seen.headers for seen in world.to("/upload/binary"))


async def test_a_wrong_key_is_said_as_such(media, world, photo) -> None:
    world.scripts["ticket"] = ["401"]
    with pytest.raises(errors.AuthenticationError):
        await media.url_for(photo)


async def test_an_unreachable_server_is_one_line(world, photo) -> None:
    world.api_url = "http://127.0.0.1:9"
    async with client(world) as made:
        with pytest.raises(errors.UploadError, match="could not be uploaded: no connection to") as caught:
            await made.media.url_for(photo)
    assert caught.value.billed == "no"


@pytest.mark.parametrize("size", [1000, 2_000_000])  # read whole; read in chunks
async def test_a_file_that_changes_on_its_way_is_not_kept(media, world, photo, monkeypatch, size) -> None:
    photo.write_bytes(padded_png(1, size))
    changed_after_reading(media, monkeypatch, lambda: photo.write_bytes(padded_png(2, size)))
    with pytest.raises(errors.UploadError, match="changed"):
        await media.url_for(photo)
    assert world.uploaded == {}
    monkeypatch.undo()
    await media.url_for(photo)
    assert list(world.uploaded.values()) == [photo.read_bytes()]


@pytest.mark.parametrize("size", [1000, 2_000_000])
async def test_a_file_that_is_gone_on_its_way_is_said_as_such(media, world, photo, monkeypatch, size) -> None:
    photo.write_bytes(padded_png(1, size))
    changed_after_reading(media, monkeypatch, photo.unlink)
    with pytest.raises(errors.UploadError, match="could not be uploaded: No such file or directory"):
        await media.url_for(photo)
    assert world.uploaded == {}


@pytest.mark.parametrize("size", [1000, 2_000_000])
async def test_what_is_uploaded_is_the_file_byte_for_byte(media, world, photo, size) -> None:
    photo.write_bytes(padded_png(1, size))
    await media.url_for(photo)
    assert list(world.uploaded.values()) == [photo.read_bytes()]


def changed_after_reading(media: Media, monkeypatch: pytest.MonkeyPatch, change: Callable[[], Any]) -> None:
    read = media._sources.read

    def read_then_change(source: Any) -> Any:
        found = read(source)
        change()
        return found

    monkeypatch.setattr(media._sources, "read", read_then_change)


def _patched(place: int, data: bytes) -> bytes:
    whole = bytearray(picture())
    whole[place : place + len(data)] = data
    return bytes(whole)


CONTENTS = {
    "empty": lambda: b"",
    "text": lambda: b"BMW is no bitmap, though it begins like one",
    "large": lambda: padded_png(1, 20 * 2**20),
    "bomb": lambda: _patched(16, (60_000).to_bytes(4, "big") * 2),
    "no pixels": lambda: _patched(16, bytes(4)),
    "cut webp": lambda: picture(kind="webp")[:-20],
    "cut jpeg header": lambda: picture(kind="jpeg")[:100],
}


def _make(tmp_path: Path, what: str) -> Any:
    path = tmp_path / "source.png"
    if what in CONTENTS:
        path.write_bytes(CONTENTS[what]())
    elif what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "text file":
        return io.StringIO("text")
    elif what == "closed file":
        file = io.BytesIO()
        file.close()
        return file
    elif what == "number":
        return 7
    return path


SAYS = {
    "missing": "No such file",
    "folder": "this is a folder",
    "pipe": "no regular file",
    "empty": "empty",
    "text": "none of JPEG, PNG",
    "large": "20.0 MB, the API takes 20 MB",
    "bomb": "60000 x 60000 pixels",
    "no pixels": "none of JPEG",
    "cut webp": "cut off",
    "cut jpeg header": "none of JPEG",
    "text file": "binary mode",
    "closed file": "closed",
    "number": "int is no image",
}


@pytest.mark.parametrize("what", SAYS)
async def test_a_source_that_can_not_do_is_refused_before_anything_is_sent(media, world, tmp_path, what) -> None:
    source = _make(tmp_path, what)
    with pytest.raises(errors.InvalidJobError, match=SAYS[what]) as caught:
        await media.upload(source)
    assert (caught.value.field, caught.value.billed) == ("image", "no")
    assert "\n" not in caught.value.message
    assert world.seen == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
async def test_an_unreadable_file_is_refused(media, photo) -> None:
    photo.chmod(0)
    with pytest.raises(errors.InvalidJobError, match="Permission denied"):
        await media.url_for(photo)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "gif", "bmp", "tiff"])
async def test_every_format_of_the_api_goes_byte_for_byte(media, world, kind) -> None:
    data = picture(kind=kind)
    url = await media.url_for(data)
    assert world.uploaded[url.removeprefix(world.media_url)] == data
    assert world.to("/put/")[0].headers["Content-Type"] == f"image/{kind}"


async def test_a_pil_image_is_sent_once_as_png_and_again_when_it_changed(media, world) -> None:
    image = Image.open(io.BytesIO(picture(kind="jpeg")))
    first = await media.url_for(image)
    assert await media.url_for(image.copy()) == first
    sent = Image.open(io.BytesIO(world.uploaded[first.removeprefix(world.media_url)]))
    assert (sent.format, sent.tobytes()) == ("PNG", image.tobytes())
    image.putpixel((0, 0), (1, 2, 3))
    assert await media.url_for(image) != first
    await media.url_for(Image.new("CMYK", (9, 9)))
    assert len(world.uploaded) == 3


async def test_fit_scales_large_images_down_and_leaves_small_ones_as_they_are(world) -> None:
    large, small = picture(size=(1200, 600), kind="jpeg"), picture(size=(300, 200), kind="jpeg")
    async with client(world, fit=600) as made:
        urls = [await made.media.url_for(source) for source in (large, small, large)]
    sent = [world.uploaded[url.removeprefix(world.media_url)] for url in urls]
    shrunk = Image.open(io.BytesIO(sent[0]))
    assert (shrunk.format, shrunk.size) == ("JPEG", (600, 300))
    assert sent[1] == small
    assert len(world.uploaded) == 2


async def test_fit_brings_a_file_beyond_20_mb_within_them(world, tmp_path) -> None:
    path = tmp_path / "huge.bmp"
    Image.new("RGB", (3000, 2500), (9, 99, 9)).save(path)
    async with client(world, fit=1536) as made:
        await made.media.url_for(path)
    [sent] = world.uploaded.values()
    assert Image.open(io.BytesIO(sent)).size == (1536, 1280)


async def test_autorotate_turns_the_pixels_once(world) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned, upright = picture(kind="jpeg", exif=exif), picture(kind="jpeg")
    async with client(world, autorotate=True) as made:
        urls = [await made.media.url_for(source) for source in (turned, upright)]
    sent = [world.uploaded[url.removeprefix(world.media_url)] for url in urls]
    image = Image.open(io.BytesIO(sent[0]))
    assert image.size == (48, 64)
    assert 0x0112 not in image.getexif()
    assert sent[1] == upright


@pytest.mark.parametrize("fit", [0, -1, True, 1.5])
async def test_fit_is_a_number_of_pixels(world, fit) -> None:
    with pytest.raises(errors.ConfigurationError, match="fit"):
        async with client(world, fit=fit):
            pass


async def test_a_folder_is_uploaded_by_its_files(media, world, tmp_path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    (tmp_path / ".DS_Store").write_bytes(b"x")
    found = await media.upload_folder(tmp_path)
    assert [path.name for path in found] == ["0.png", "1.png", "2.png"]
    assert [world.uploaded[url.removeprefix(world.media_url)] for url in found.values()] == [
        picture(n) for n in range(3)
    ]


async def test_a_file_that_goes_away_before_it_is_sent(media, world, photo, monkeypatch) -> None:
    read = media._sources.read

    def read_then_remove(source: Any) -> Any:
        found = read(source)
        photo.unlink()
        return found

    monkeypatch.setattr(media._sources, "read", read_then_remove)
    with pytest.raises(errors.UploadError, match="No such file"):
        await media.url_for(photo)


async def test_a_damaged_image_is_found_where_it_must_be_decoded(world, tmp_path) -> None:
    cut = picture(size=(900, 700))[:3000]
    lazy = Image.open(io.BytesIO(cut))
    async with client(world, fit=100) as made:
        for source in (cut, lazy):
            with pytest.raises(errors.InvalidJobError, match=r"can't be (decoded|read)"):
                await made.media.url_for(source)
    assert world.seen == []


async def test_a_url_needs_no_upload(media) -> None:
    with pytest.raises(errors.InvalidJobError, match="needs no upload"):
        await media.upload("https://example.com/a.png")


async def test_the_store_can_be_changed_for_a_run(media, world, photo) -> None:
    plain, media.store = media.store, MemoryUploads()
    await media.url_for(photo)
    media.store = plain
    await media.url_for(photo)
    assert len(world.to("/put/")) == 2


async def test_without_pillow_fit_says_what_to_install(world, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(errors.ConfigurationError, match=r"wavespeed-qwen-async\[images\]"):
        async with client(world, fit=100):
            pass


async def test_a_folder_with_something_else_in_it_names_that(media, world, tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    (tmp_path / "notes.txt").write_text("buy milk")
    with pytest.raises(errors.InvalidJobError, match=r"notes\.txt"):
        await media.upload_folder(tmp_path)
    with pytest.raises(errors.InvalidJobError, match="No such file"):
        await media.upload_folder(tmp_path / "nowhere")


async def test_no_more_than_a_chunk_is_in_memory(media, world, tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(padded_png(1, 19_000_000))
    read, most = upload._read, []

    def noted(*args: Any) -> bytes:
        piece = read(*args)
        most.append(len(piece))
        return piece

    monkeypatch.setattr(upload, "_read", noted)
    await media.url_for(path)
    assert sum(most) == path.stat().st_size
    assert max(most) <= CHUNK


async def test_a_file_hashed_before_is_hashed_again_only_when_it_changed(media, world, photo, monkeypatch) -> None:
    os.utime(photo, (1e9, 1e9))
    monkeypatch.setattr("time.time_ns", lambda: time.time() * 1e9 + 1e10)
    await media.url_for(photo)
    assert len(media._sources._seen) == 1
    monkeypatch.setattr("wavespeed_qwen_async._media.sources._blob_of_file", None)
    await media.url_for(photo)
    monkeypatch.undo()
    photo.write_bytes(picture(9))
    await media.url_for(photo)
    assert len(world.uploaded) == 2


class TestCheckUrls:
    async def test_a_url_that_leads_to_an_image_is_looked_at_once_and_without_the_key(self, world) -> None:
        url = world.add("a.png", picture()).url
        async with client(world, check_urls=True) as made:
            await asyncio.gather(*(made.media.url_for(url) for _ in range(5)))
            assert await made.media.url_for(url) == url
        [seen] = world.seen
        assert KEY not in repr(seen.headers)

    @pytest.mark.parametrize(
        ("behaviour", "says"),
        [("404", "HTTP 404"), ("html", "no image"), ("file:///etc/passwd", "can't be used"), ("500", "HTTP 500")],
    )
    async def test_one_that_does_not_is_refused_before_paying(self, world, behaviour, says) -> None:
        url = f"{world.add('a.png', picture()).url}?token=secret"
        world.scripts["/out/a.png"] = [behaviour] * 99
        async with client(world, check_urls=True) as made:
            with pytest.raises(errors.InvalidJobError, match=says) as caught:
                await made.media.url_for(url)
        assert caught.value.field == "image"
        assert "secret" not in caught.value.message
        assert (len(world.seen) > 1) == (behaviour == "500")  # only that may pass

    async def test_what_may_pass_is_looked_at_again(self, world) -> None:
        url = world.add("a.png", picture()).url
        world.scripts["/out/a.png"] = ["500", "cut", "503"]
        async with client(world, check_urls=True) as made:
            assert await made.media.url_for(url) == url

    async def test_a_url_that_can_not_be_read(self, world) -> None:
        async with client(world, check_urls=True) as made:
            with pytest.raises(errors.InvalidJobError, match="can't be used"):
                await made.media.url_for("http://[broken/a.png")
