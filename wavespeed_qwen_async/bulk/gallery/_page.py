"""The page: one HTML file with its style, its script and its data inside, that asks nothing of any network."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from wavespeed_qwen_async.errors import ConfigurationError
from wavespeed_qwen_async.provenance import without_query

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._entries import Entry
    from ._pictures import Picture

__all__ = ["GENERATOR", "as_data", "payload", "render"]

GENERATOR = "wavespeed_qwen_async gallery"
_SCRIPTS = ("base.js", "filters.js", "grid.js", "slider.js", "view.js", "compare.js", "main.js")
_UNSAFE: dict[str, str | int | None] = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}


def render(title: str, data: Mapping[str, Any]) -> str:
    """The whole page.

    Raises:
        ConfigurationError: Jinja2 is not there.
    """
    try:
        import jinja2  # noqa: PLC0415 - an optional extra
        from markupsafe import Markup  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError("the gallery needs Jinja2: pip install 'wavespeed-qwen-async[gallery]'") from None
    style, script = _asset("page.css"), _script()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_asset("page.html.jinja")).render(
        title=title,
        generator=GENERATOR,
        policy=_policy(style, script),
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        data=Markup(as_data(data)),  # noqa: S704 - no character of it can end the element
    )


def as_data(value: Any) -> str:
    """JSON that can stand in a script element: nothing in it is markup, whatever the texts hold."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.translate(str.maketrans(_UNSAFE))


def payload(
    entries: Sequence[Entry], pictures: Mapping[str, Picture], sources: Mapping[int, Picture]
) -> dict[str, Any]:
    """What the script is told: prompts and LoRAs once each, an entry as few short names; ``base.js`` reads it.

    Args:
        entries: The jobs.
        pictures: The images by their paths.
        sources: The source images of edits, by the entry's place in ``entries``.
    """
    prompts, loras = _Table(), _Table()
    items = []
    for place, entry in enumerate(entries):
        item = _told(entry) | _shown(pictures.get(entry.file or ""), sources.get(place))
        item["p"] = prompts.place(entry.prompt)
        item["l"] = [[loras.place(without_query(path)), scale] for path, scale in entry.loras]
        items.append({name: value for name, value in item.items() if value not in (None, "", [], ())})
    return {"prompts": prompts.values, "loras": loras.values, "items": items}


class _Table:
    """Each text once, known by its place."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def place(self, text: str) -> int:
        return self._places.setdefault(text, len(self._places))

    @property
    def values(self) -> list[str]:
        return list(self._places)


def _told(entry: Entry) -> dict[str, Any]:
    return {
        "i": entry.index,
        "s": entry.status,
        "f": entry.file,
        "m": entry.model,
        "d": entry.seed,
        "z": entry.size,
        "o": entry.output_format,
        "r": [without_query(source) for source in entry.sources],
        "c": entry.price,
        "n": entry.seconds,
        "a": None if entry.created is None else round(entry.created * 1000),
        "q": entry.prediction_id,
        "e": entry.error,
        "k": entry.kind,
        "g": entry.billed,
    }


def _shown(picture: Picture | None, source: Picture | None) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if picture is not None:
        told = {
            "u": _url(picture.file),
            "t": _url(picture.thumb),
            "w": picture.width or None,
            "h": picture.height or None,
        }
    if source is not None:
        told["b"] = _url(source.file)
    return told


def _url(file: str | None) -> str | None:
    """A link beside the page, never to elsewhere: ``./`` keeps a colon in a name from being taken for a scheme."""
    return None if file is None else "./" + quote(file.encode("utf-8", "surrogateescape"))


def _policy(style: str, script: str) -> str:
    """Of scripts and styles only those two run; images come from beside the page, whether from disk or a server."""
    return "; ".join(
        (
            "default-src 'none'",
            "img-src 'self' file:",
            f"style-src '{_hash(style)}'",
            f"script-src '{_hash(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _script() -> str:
    return '"use strict";(() => {\n' + "\n".join(_asset(name) for name in _SCRIPTS) + "})();"


def _asset(name: str) -> str:
    return (files(__package__ or "") / "page" / name).read_text(encoding="utf-8")
