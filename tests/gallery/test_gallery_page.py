"""The page: closed to the network, and to markup from whoever wrote a prompt or an error."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import sys

import pytest
from gallery_folder import data_of, failed, line, picture, write

from wavespeed_qwen_async.bulk.gallery import make_gallery
from wavespeed_qwen_async.bulk.gallery._page import as_data
from wavespeed_qwen_async.errors import ConfigurationError

NASTY = ["</script><script>alert(1)</script>", "<!--", "]]>", "&lt;", "\u2028\u2029", '"\\', "一只狐狸", "\0"]


def made(folder, **options):
    report = make_gallery(folder, **options)
    return report, report.path.read_text(encoding="utf-8")


@pytest.mark.parametrize("text", NASTY)
def test_data_holds_no_markup_and_reads_back(text):
    data = as_data({text: [text]})
    assert not set("<>&\u2028\u2029") & set(data)
    assert json.loads(data) == {text: [text]}


def test_texts_of_others_stand_in_the_data_alone(tmp_path):
    mark = "<b>QQQ</b>"
    picture(tmp_path / "0.png")
    inputs = {"prompt": mark, "loras": [{"path": mark, "scale": 1}], "local_images": [mark], "size": mark}
    write(tmp_path, [line(0, inputs=inputs, model=mark, prediction_id=mark), failed(1, mark)])
    _, page = made(tmp_path, title=mark)
    assert mark not in page
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    outside = re.sub(r'<script type="application/json".*?</script>', "", page, flags=re.DOTALL)
    assert outside.count("QQQ") == outside.count(html.escape(mark)) == 2  # title and heading
    data = data_of(page)
    assert data["prompts"][0] == data["loras"][0] == data["items"][1]["e"] == mark


def test_only_our_script_and_style_may_run(tmp_path):
    write(tmp_path, [failed(0)])
    _, page = made(tmp_path)
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1])
    rules = dict(part.split(" ", 1) for part in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "'self' file:"
    for rule, tag in (("script-src", "<script>"), ("style-src", "<style>")):
        text = page.partition(tag)[2].partition(tag.replace("<", "</"))[0]
        expected = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{expected}'"
    assert "unsafe" not in policy


def test_nothing_of_the_page_is_elsewhere(tmp_path):
    write(tmp_path, [failed(0)])
    _, page = made(tmp_path)
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert links
    assert all(link.startswith("#") for link in links)
    assert set(re.findall(r"https?://[^\"'\s]+", page)) == {"http://www.w3.org/2000/svg"}
    for word in ("@import", "url(", "innerHTML", "insertAdjacentHTML", "document.write", "eval(", "fetch("):
        assert word not in page


def test_images_are_linked_beside_the_page(tmp_path):
    name = "a b#c?d%e:狐.png"
    picture(tmp_path / name)
    write(tmp_path, [line(0, file=name)])
    _, page = made(tmp_path)
    (item,) = data_of(page)["items"]
    assert item["u"] == "./a%20b%23c%3Fd%25e%3A%E7%8B%90.png"
    assert item["t"].startswith("./thumbs/")
    assert (item["w"], item["h"], item["f"]) == (64, 48, name)


def test_prompts_and_loras_are_told_once(tmp_path):
    write(
        tmp_path,
        [failed(index, inputs={"prompt": "one", "loras": [{"path": "a/b", "scale": 1}]}) for index in range(3)],
    )
    _, page = made(tmp_path)
    data = data_of(page)
    assert (data["prompts"], data["loras"]) == (["one"], ["a/b"])
    assert [(item["p"], item["l"]) for item in data["items"]] == [(0, [[0, 1]])] * 3


def test_a_page_tells_no_query_of_a_url(tmp_path):
    """It may be somebody's token or a signature, and pages are given away."""
    inputs = {
        "prompt": "one",
        "loras": [{"path": "https://civitai.com/api/download/models/7?token=secret", "scale": 1}],
        "image": "https://example.com/fox.jpg?signature=secret",
    }
    write(tmp_path, [failed(0, inputs=inputs)])
    _, page = made(tmp_path)
    data = data_of(page)
    assert data["loras"] == ["https://civitai.com/api/download/models/7"]
    assert data["items"][0]["r"] == ["https://example.com/fox.jpg"]
    assert "secret" not in page


def test_the_report_counts(tmp_path):
    picture(tmp_path / "0.png")
    write(tmp_path, [line(0), line(1), failed(2)])
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write("{")
    report, page = made(tmp_path)
    assert (report.images, report.failed, report.unread) == (1, 2, 1)
    assert data_of(page)["unread"] == 1
    assert [item["s"] for item in data_of(page)["items"]] == ["saved", "missing", "failed"]


def test_the_title_is_the_folders_name(tmp_path):
    write(tmp_path, [])
    assert f"<title>{tmp_path.name}</title>" in made(tmp_path)[1]
    assert "<title>Foxes &amp; friends</title>" in made(tmp_path, title="Foxes & friends")[1]


def test_a_page_of_another_hand_is_left_alone(tmp_path):
    write(tmp_path, [])
    (tmp_path / "index.html").write_text("<h1>mine</h1>")
    with pytest.raises(ConfigurationError, match="not a gallery of ours"):
        make_gallery(tmp_path)
    assert (tmp_path / "index.html").read_text() == "<h1>mine</h1>"


def test_our_own_page_is_renewed_and_nothing_else_left(tmp_path):
    write(tmp_path, [])
    make_gallery(tmp_path)
    picture(tmp_path / "0.png")
    write(tmp_path, [line(0)])
    assert make_gallery(tmp_path).images == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "index.html", "results.jsonl", "thumbs"]


def test_thumbnails_of_images_that_are_gone_go_too(tmp_path):
    for index in range(2):
        picture(tmp_path / f"{index}.png")
    write(tmp_path, [line(0), line(1)])
    make_gallery(tmp_path)
    (tmp_path / "0.png").unlink()
    make_gallery(tmp_path)
    assert len(list((tmp_path / "thumbs").iterdir())) == 1


def test_half_a_character_does_not_break_the_page(tmp_path):
    write(tmp_path, [])
    (tmp_path / "results.jsonl").write_text(json.dumps(failed(0, inputs={"prompt": "a\ud83d"})))
    assert data_of(made(tmp_path)[1])["prompts"] == ["a?"]


def test_without_jinja_it_says_what_to_install(tmp_path, monkeypatch):
    write(tmp_path, [])
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'wavespeed-qwen-async\[gallery\]'"):
        make_gallery(tmp_path)


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(ConfigurationError, match="no such folder"):
        make_gallery(tmp_path / "gone")


# --- what an edit began with ------------------------------------------------------------------------------------------


def edit(index, **inputs):
    return line(index, model="wavespeed-ai/qwen-image/edit-lora", inputs={"prompt": "snow", **inputs})


def before(folder, **options):
    (*_, item) = data_of(made(folder, **options)[1])["items"]
    return item.get("b")


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    picture(folder / "0.png")
    picture(folder / "1.png")
    picture(tmp_path / "fox.png", "green")
    return folder


@pytest.mark.parametrize("told", ["path", "name and folder", "name and file"])
def test_a_local_source_is_found_and_copied(out, told):
    fox = out.parent / "fox.png"
    write(out, [edit(0, local_images=[str(fox) if told == "path" else "fox.png"])])
    places = {"path": [], "name and folder": [out.parent], "name and file": [fox]}[told]
    found = before(out, sources=places)
    assert found.startswith("./thumbs/")
    assert (out / found).is_file()


def test_a_source_that_is_not_here_is_left_out(out):
    write(out, [edit(0, local_images=["fox.png"]), edit(1, image="https://example.com/fox.png")])
    assert all("b" not in item for item in data_of(made(out)[1])["items"])


def test_an_edit_of_an_image_of_the_same_folder(out):
    write(out, [line(0), edit(1, image=f"https://cdn.example.com/outputs/{0:032x}/0.png")])
    assert before(out) == "./0.png"


def test_a_source_is_kept_when_the_gallery_is_made_again(out):
    write(out, [edit(0, local_images=["fox.png"])])
    first = before(out, sources=[out.parent])
    assert before(out, sources=[out.parent]) == first
    assert (out / first).is_file()
