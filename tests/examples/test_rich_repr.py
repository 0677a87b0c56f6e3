"""What a notebook shows of a prediction, by IPython's own formatter: the picture, never fetched, never markup."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import pytest
from IPython.core.formatters import DisplayFormatter
from PIL import Image

from wavespeed_qwen_async import Output, Prediction, TextToImage

CDN = "https://d1q70pf5vjeyhc.cloudfront.net/predictions/p1/1.jpeg"


def shown(thing):
    data, _ = DisplayFormatter().format(thing)
    return data


def encoded(kind):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "orange").save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def finished(*outputs, prompt="a fox"):
    prediction = Prediction(id="p1", model="m", status="completed", outputs=list(outputs))
    return prediction.bound(TextToImage(prompt=prompt), None)


class Tags(HTMLParser):
    def __init__(self, markup):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(markup)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("prefix", ["", "data:image/whatever;base64,"])
def test_an_image_at_hand_is_shown_as_it_is(kind, prefix):
    data = encoded(kind)
    for thing in (finished(prefix + data), finished(prefix + data).outputs[0]):
        bundle = shown(thing)
        assert bundle[f"image/{kind}"] == data
        assert bundle["text/plain"] == repr(thing)
        assert "text/html" not in bundle


def test_an_image_behind_a_url_is_for_the_readers_browser_to_fetch():
    for thing in (finished(CDN), finished(CDN).outputs[0]):
        ((tag, attributes),) = Tags(shown(thing)["text/html"]).tags
        assert (tag, attributes["src"], attributes["alt"]) == ("img", CDN, "a fox")
        assert attributes["referrerpolicy"] == "no-referrer"  # the address of the notebook is nobody's business


@pytest.mark.parametrize("text", ['"><script>alert(1)</script>', "' onerror='alert(1)", "<b>&amp;"])
def test_neither_the_server_nor_a_prompt_can_inject_markup(text):
    ((tag, attributes),) = Tags(shown(finished(f"{CDN}?{text}", prompt=text))["text/html"]).tags
    assert tag == "img"
    assert attributes.keys() == {"src", "alt", "referrerpolicy", "style"}
    assert (attributes["src"], attributes["alt"]) == (f"{CDN}?{text}", text)


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "file:///etc/passwd", "data:text/html,<b>", "//host/x.png", "ftp://host/x", "http://[x"],
)
def test_only_the_web_is_linked(url):
    assert shown(Output(url=url)) == {"text/plain": repr(Output(url=url))}


@pytest.mark.parametrize(
    "text",
    [
        "no base64 at all!",
        base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>").decode(),
        "data:text/html;base64,PHNjcmlwdD4=",
        "",
    ],
)
def test_what_is_no_picture_is_only_text(text):
    assert shown(finished(text)).keys() == {"text/plain"}


def test_what_has_no_picture_is_only_text():
    failed = Prediction(id="p1", status="failed", error="<b>no</b>")
    assert shown(failed) == {"text/plain": repr(failed)}


def test_several_images_are_all_shown():
    assert len(Tags(shown(finished(CDN, CDN + "?2"))["text/html"]).tags) == 2


def test_the_text_holds_no_image():
    data = encoded("png")
    assert data not in shown(finished(data))["text/plain"]
    assert not re.search(r"[\w+/]{100}", shown(finished(data).outputs[0])["text/plain"])
