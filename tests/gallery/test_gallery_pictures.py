"""Thumbnails: made once, made anew for what has changed, and never in anybody's way."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import CancelledError

import pytest
from gallery_folder import line, picture, write
from PIL import Image

from wavespeed_qwen_async.bulk.gallery import make_gallery
from wavespeed_qwen_async.bulk.gallery._entries import THUMBS
from wavespeed_qwen_async.bulk.gallery._page import GENERATOR
from wavespeed_qwen_async.bulk.gallery._pictures import SIDE, SIDE_OF_SOURCE, Pictures


def thumbs(folder):
    return sorted((folder / THUMBS).iterdir())


@pytest.mark.parametrize(
    ("size", "small"), [((1000, 500), (480, 240)), ((500, 1000), (240, 480)), ((64, 48), (64, 48))]
)
def test_a_thumbnail_keeps_the_shape(tmp_path, size, small):
    picture(tmp_path / "a.png", size=size)
    found = Pictures(tmp_path).look_at(["a.png"])["a.png"]
    assert (found.file, found.width, found.height) == ("a.png", *size)
    with Image.open(tmp_path / found.thumb) as image:
        assert (image.format, image.size) == ("JPEG", small)
        assert max(image.size) <= SIDE


def test_it_is_made_once(tmp_path):
    picture(tmp_path / "a.png")
    first = Pictures(tmp_path).look_at(["a.png"])["a.png"]
    mark = (tmp_path / first.thumb).stat().st_mtime_ns
    assert Pictures(tmp_path).look_at(["a.png"])["a.png"] == first
    assert (tmp_path / first.thumb).stat().st_mtime_ns == mark


def test_a_moved_folder_keeps_its_thumbnails(tmp_path):
    (tmp_path / "one").mkdir()
    picture(tmp_path / "one" / "a.png")
    first = Pictures(tmp_path / "one").look_at(["a.png"])
    (tmp_path / "one").rename(tmp_path / "two")
    assert Pictures(tmp_path / "two").look_at(["a.png"]) == first


def test_a_changed_image_gets_another_and_the_old_one_goes(tmp_path):
    picture(tmp_path / "a.png", "orange")
    first = Pictures(tmp_path).look_at(["a.png"])["a.png"]
    picture(tmp_path / "a.png", "navy")
    os.utime(tmp_path / "a.png", (1, 1))
    again = Pictures(tmp_path)
    second = again.look_at(["a.png"])["a.png"]
    assert second.thumb != first.thumb
    (tmp_path / THUMBS / "mine.jpg").write_bytes(b"")
    again.sweep()
    assert [path.name for path in thumbs(tmp_path)] == sorted([second.thumb.partition("/")[2], "mine.jpg"])
    with Image.open(tmp_path / second.thumb) as image:
        assert image.getpixel((5, 5))[2] > 100


def test_what_is_no_image_has_no_thumbnail(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    found = Pictures(tmp_path).look_at(["a.png", "gone.png"])
    assert found["a.png"] == ("a.png", None, 0, 0)
    assert found["gone.png"] == ("gone.png", None, 0, 0)
    assert thumbs(tmp_path) == []


def test_transparent_images_are_shown_on_white(tmp_path):
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(tmp_path / "a.png")
    found = Pictures(tmp_path).look_at(["a.png"])["a.png"]
    with Image.open(tmp_path / found.thumb) as image:
        assert min(image.getpixel((10, 10))) > 250


def test_a_source_elsewhere_is_copied_small(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    picture(tmp_path / "fox.jpg", size=(3000, 1500))
    kept = Pictures(out).keep_source(tmp_path / "fox.jpg")
    assert (kept.width, kept.height) == (SIDE_OF_SOURCE, SIDE_OF_SOURCE // 2)
    assert (out / kept.file).is_file()


def test_a_source_inside_is_used_as_it_is(tmp_path):
    picture(tmp_path / "fox.jpg")
    kept = Pictures(tmp_path).keep_source(tmp_path / "fox.jpg")
    assert kept.file == "fox.jpg"


def test_a_source_that_is_no_image_is_none(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "fox.txt").write_text("no image")
    assert Pictures(tmp_path / "out").keep_source(tmp_path / "fox.txt") is None
    assert Pictures(tmp_path / "out").keep_source(tmp_path / "gone.png") is None


@pytest.mark.parametrize("why", ["asked for", "no Pillow"])
def test_without_copies_nothing_is_written(tmp_path, monkeypatch, why):
    picture(tmp_path / "a.png")
    if why == "no Pillow":
        monkeypatch.setitem(sys.modules, "PIL", None)
    pictures = Pictures(tmp_path, copies=why != "asked for")
    assert pictures.look_at(["a.png"])["a.png"] == ("a.png", None, 64, 48)
    pictures.sweep()
    assert not (tmp_path / THUMBS).exists()


def test_a_full_disk_leaves_no_half_thumbnail(tmp_path, monkeypatch):
    def save(_, path, *args, **options):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    picture(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "save", save)
    assert Pictures(tmp_path).look_at(["a.png"])["a.png"].thumb is None
    assert thumbs(tmp_path) == []


def test_an_image_of_the_same_length_made_later_is_another(tmp_path):
    picture(tmp_path / "a.png")
    first = Pictures(tmp_path).look_at(["a.png"])["a.png"]
    os.utime(tmp_path / "a.png", (1, 1))
    assert Pictures(tmp_path).look_at(["a.png"])["a.png"].thumb != first.thumb


def test_told_to_stop_it_soon_gives_up_and_leaves_the_page_as_it_was(tmp_path):
    for number in range(50):
        picture(tmp_path / f"{number}.png")
    write(tmp_path, [line(number) for number in range(50)])
    (tmp_path / "index.html").write_text(GENERATOR)
    stop = threading.Event()
    stop.set()
    with pytest.raises(CancelledError):
        make_gallery(tmp_path, stop=stop)
    assert (tmp_path / "index.html").read_text() == GENERATOR
    assert thumbs(tmp_path) == []
    stop.clear()
    assert make_gallery(tmp_path, stop=stop).images == 50
