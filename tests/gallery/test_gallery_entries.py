"""A folder is read for what it holds, whatever else is in it."""

from __future__ import annotations

import json

import pytest
from gallery_folder import failed, line, picture, write

from wavespeed_qwen_async import TextToImage
from wavespeed_qwen_async.bulk.gallery._entries import read_entries
from wavespeed_qwen_async.provenance import Provenance, embed


def one(folder):
    entries, unread = read_entries(folder)
    assert unread == 0
    (entry,) = entries
    return entry


def test_a_line_is_read(tmp_path):
    picture(tmp_path / "0.png")
    write(tmp_path, [line(0)])
    entry = one(tmp_path)
    assert (entry.index, entry.status, entry.file, entry.prompt) == (0, "saved", "0.png", "fox 0")
    assert entry.model == "text-to-image-lora"
    assert entry.loras == (("owner/ink", 0.8),)
    assert (entry.seed, entry.price, entry.seconds) == (0, 0.025, 7.5)
    assert entry.created == 1795248000.0
    assert entry.prediction_id == "0" * 32


def test_a_failure_keeps_its_reason(tmp_path):
    write(tmp_path, [failed(0)])
    entry = one(tmp_path)
    assert (entry.status, entry.error, entry.kind) == ("failed", "refused by the moderation", "ContentModerated")
    assert entry.billed == "no"
    assert entry.file is None


def test_the_last_line_of_a_job_counts(tmp_path):
    picture(tmp_path / "0.png")
    write(tmp_path, [failed(0, job=7), line(0, job=7)])
    assert one(tmp_path).status == "saved"


def test_jobs_of_one_place_are_both_there(tmp_path):
    picture(tmp_path / "0.png")
    write(tmp_path, [line(0, job=1), line(0, job=2)])
    assert len(read_entries(tmp_path).entries) == 2


def test_lines_without_a_job_go_by_their_place(tmp_path):
    picture(tmp_path / "0.png")
    first, second = failed(0), line(0)
    del first["job"], second["job"]
    write(tmp_path, [first, second])
    assert one(tmp_path).status == "saved"


def test_entries_come_in_the_order_of_the_source(tmp_path):
    write(tmp_path, [failed(2), failed(0), failed(1)])
    assert [entry.index for entry in read_entries(tmp_path).entries] == [0, 1, 2]


@pytest.mark.parametrize("rest", [b'{"index": 3, "li', b"\xff\xfe\n", b"[1, 2]\n", b"null\n", b"[" * 100_000 + b"\n"])
def test_a_broken_line_is_counted_and_left_out(tmp_path, rest):
    write(tmp_path, [failed(0)])
    with (tmp_path / "results.jsonl").open("ab") as file:
        file.write(b"\n\n" + rest)
    entries, unread = read_entries(tmp_path)
    assert (len(entries), unread) == (1, 1)


@pytest.mark.parametrize(
    "name",
    ["../0.png", "/etc/passwd", "a/../../0.png", "C:0.png", "\\\\host\\0.png", "a\\b.png", "a\0.png", "", 7, None],
)
def test_no_way_out_of_the_folder(tmp_path, name):
    folder = tmp_path / "out"
    folder.mkdir()
    picture(tmp_path / "0.png")
    write(folder, [line(0, file=name)])
    entry = one(folder)
    assert entry.file is None
    assert entry.status == "missing"


def test_a_file_in_a_folder_below_is_found(tmp_path):
    (tmp_path / "edit-lora").mkdir()
    picture(tmp_path / "edit-lora" / "0.png")
    write(tmp_path, [line(0, file="edit-lora/0.png")])
    assert (one(tmp_path).status, one(tmp_path).file) == ("saved", "edit-lora/0.png")


def test_a_file_that_is_told_without_its_folder_is_found_below_where_it_is_the_only_one(tmp_path):
    (tmp_path / "edit-lora").mkdir()
    (tmp_path / "thumbs").mkdir()
    picture(tmp_path / "edit-lora" / "0.png")
    picture(tmp_path / "thumbs" / "1.png")
    write(tmp_path, [line(0), line(1)])
    found = read_entries(tmp_path).entries
    assert [(entry.status, entry.file) for entry in found] == [("saved", "edit-lora/0.png"), ("missing", "1.png")]
    (tmp_path / "other").mkdir()
    picture(tmp_path / "other" / "0.png")
    assert read_entries(tmp_path).entries[0].status == "missing"


def test_a_file_that_is_gone_is_missing(tmp_path):
    write(tmp_path, [line(0)])
    assert one(tmp_path).status == "missing"


def test_values_of_the_wrong_kind_are_left_out(tmp_path):
    wrong = {"prompt": 7, "seed": True, "loras": [3, {"path": 1}, {"path": "a/b"}], "size": [], "image": {"a": 1}}
    told = failed(0, inputs=wrong, model=3, seconds="x", created_at="soon", prediction_id=[])
    told |= {"price": float("nan"), "error": "text", "index": "x", "status": "gone", "job": [1]}
    write(tmp_path, [told])
    entry = one(tmp_path)
    assert (entry.prompt, entry.seed, entry.size, entry.sources, entry.model) == ("", None, "", (), "")
    assert entry.loras == (("a/b", 1.0),)
    assert (entry.price, entry.seconds, entry.created, entry.prediction_id) == (None, None, None, "")
    assert (entry.error, entry.index, entry.status) == ("", 0, "failed")


def test_a_status_that_nobody_knows_goes_by_ok(tmp_path):
    picture(tmp_path / "0.png")
    write(tmp_path, [line(0, status="kept")])
    assert one(tmp_path).status == "saved"


def test_sources_are_read_from_all_three_names(tmp_path):
    inputs = {"prompt": "x", "image": "https://a/b.png", "images": ["https://c/d.png"], "local_images": ["fox.jpg"]}
    inputs["images"].append("data:image/png;base64,AAAA")
    write(tmp_path, [failed(0, inputs=inputs)])
    assert one(tmp_path).sources == ("https://a/b.png", "https://c/d.png", "fox.jpg")


def test_a_folder_without_results_is_read_by_its_images(tmp_path):
    picture(tmp_path / "other.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    job = TextToImage(prompt="一只狐狸", seed=5, loras=["owner/ink:0.5"])
    data = embed(picture(tmp_path / "raw.png").read_bytes(), Provenance(job=job, prediction_id="p1", price=0.025))
    (tmp_path / "fox.png").write_bytes(data)
    entry = one(tmp_path)
    assert (entry.file, entry.prompt, entry.seed, entry.price) == ("fox.png", "一只狐狸", 5, 0.025)
    assert entry.loras == (("owner/ink", 0.5),)
    assert entry.prediction_id == "p1"


def test_half_a_character_is_read(tmp_path):
    (tmp_path / "results.jsonl").write_text(json.dumps(failed(0, inputs={"prompt": "a\ud83d"})))
    assert one(tmp_path).prompt == "a\ud83d"
