"""Documented answers, and what becomes of them on a bad day: a seeded mutator, so that a run repeats."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    import random

PREDICTION: Final[dict[str, Any]] = {
    "id": "f3a1c0de" * 4,
    "model": "wavespeed-ai/qwen-image/text-to-image-lora",
    "outputs": ["https://cdn.example/f3a1.png"],
    "urls": {"get": "https://api.wavespeed.ai/api/v3/predictions/f3a1/result"},
    "has_nsfw_contents": [False],
    "status": "completed",
    "created_at": "2026-11-21T08:00:00.123456789Z",
    "error": "",
    "code": 0,
    "timings": {"inference": 6123},
}
LISTED: Final = PREDICTION | {"executionTime": 6123, "inputs": {"prompt": "a fox", "seed": 7, "size": "512*512"}}
TICKET: Final = {
    "download_url": "https://cdn.example/a.png",
    "upload": {"method": "PUT", "url": "https://up.example/a.png?t=1", "headers": {"Content-Type": "image/png"}},
}


def envelope(data: Any, code: int = 200, message: str = "success") -> dict[str, Any]:
    return {"code": code, "message": message, "data": data}


ANSWERS: Final[tuple[dict[str, Any], ...]] = (
    envelope(PREDICTION),
    envelope(PREDICTION | {"status": "created", "outputs": []}),
    envelope(PREDICTION | {"status": "failed", "outputs": [], "code": 1200, "error": "moderated"}),
    envelope(PREDICTION | {"status": "processing", "outputs": [], "code": 5004, "error": "Sync mode timed out"}),
    envelope(PREDICTION | {"outputs": ["data:image/png;base64,aGFsbG8="]}),
    envelope({"page": 1, "total": 2, "items": [LISTED, LISTED | {"id": "0" * 32, "status": "processing"}]}),
    envelope({"balance": 12.5}),
    envelope({"model_id": "m", "price": 0.03, "discounted_price": 0.025, "discount_rate": 83, "currency": "USD"}),
    envelope({"model_id": "m", "unit_price": 0.025, "currency": "USD"}),
    envelope({"deleted_count": 3}),
    envelope(TICKET),
    envelope({"type": "image", "download_url": "https://cdn.example/a.png", "filename": "a.png", "size": 3}),
    envelope({"secret": "whsec_abc"}),
    envelope(None, 429, "Too many requests"),
    envelope(None, 400, "Insufficient credits") | {"error_code": 1401},
)
PAGES: Final = (b"", b"<html><body>502 Bad Gateway</body></html>", b"\xff\xfe{}", b"null", b"[]", b'"x"', b"NaN", b"{")
VALUES: Final[tuple[Any, ...]] = (
    None,
    True,
    False,
    0,
    -1,
    200,
    404,
    1.5,
    10**400,
    -(10**25),
    2**63,
    float("nan"),
    float("inf"),
    -float("inf"),
    1e308,
    "",
    " ",
    "x" * 5000,
    "\ud800",
    "\x00\r\n",
    "\u0661\u0662",
    "http://[",
    "http://a.co:99999999/x",
    "https://cdn.example/\r\nX: y",
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59.999999-14:00",
    "2026-11-21T08:00:00",
    "completed",
    "failed",
    "exploded",
    [],
    {},
    [[]],
    [None],
    ["\ud800"],
    {"": None},
    {"id": "x"},
    {"\udfff": 1},
)
DATES: Final = (
    "Sat, 21 Nov 2026 08:00:00 GMT",
    "Sat, 21 Nov 2026 08:00:00 -0000",
    "Sat, 21 Nov 2026 08:00:00",
    "Fri, 31 Dec 9999 23:59:59 -1400",
    "Mon, 01 Jan 0001 00:00:00 +1400",
    "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
    "Sat, 21 Nov 2026 08:00:00 +99999999999999",
    "Sat, 99 Nov 2026 99:99:99 GMT",
    "yesterday",
    ",",
    "",
)
SECONDS: Final = ("0", "3", "2.5", ".", "1.", "-5", "1e3", "nan", "inf", "9" * 400, "\u0663", "\u00b2", "5, 6", " 7 ")
STATUSES: Final = (200, 200, 200, 201, 204, 301, 304, 400, 401, 402, 403, 404, 408, 413, 418, 429, 500, 502, 503, 504)


class Mutated(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def mutated(rng: random.Random, *, answers: tuple[dict[str, Any], ...] = ANSWERS) -> Mutated:
    """One answer, whole or not."""
    if rng.random() < 0.02:
        body = rng.choice(PAGES)
    else:
        value = json.loads(json.dumps(rng.choice(answers)))
        for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 5))):
            value = _changed(value, rng)
        body = _written(value, rng)
        for _ in range(rng.choice((0, 0, 0, 1, 2))):
            body = _spoilt(body, rng)
    status = 200 if rng.random() < 0.6 else rng.choice(STATUSES)
    return Mutated(status, _headers(rng), body)


def _headers(rng: random.Random) -> dict[str, str]:
    headers = {"Content-Type": rng.choice(("application/json", "text/html; charset=utf-8", "", ";"))}
    if rng.random() < 0.2:
        headers["Retry-After"] = rng.choice(SECONDS + DATES)
    if rng.random() < 0.3:
        headers["Date"] = rng.choice(DATES)
    if rng.random() < 0.1:
        headers[rng.choice(("X-Request-Id", "CF-Ray"))] = rng.choice(("", "r1", "x" * 3000))
    return headers


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every container with a key of it."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        found.append((value, key))
        _places(value[key], found)
    return found


def _any(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(VALUES))  # what is put in may be changed later


def _changed(value: Any, rng: random.Random) -> Any:
    places = _places(value, [])
    if not places:
        return _any(rng)
    container, key = rng.choice(places)
    what = rng.random()
    if what < 0.5:
        container[key] = _any(rng)
    elif what < 0.65:
        del container[key]
    elif what < 0.75:
        container[key] = [container[key]] * rng.choice((1, 2, 50))
    elif what < 0.8:
        container[key] = _deep(container[key], rng.choice((5, 50)))
    elif what < 0.9:
        other, place = rng.choice(places)
        container[key] = json.loads(json.dumps(other[place]))
    elif isinstance(container, dict):
        container[rng.choice(("id", "data", "code", "status", "outputs", "input", "error", "\ud800"))] = _any(rng)
    else:
        container.insert(0, _any(rng))
    return value


def _deep(value: Any, levels: int) -> Any:
    for level in range(levels):
        value = [value] if level % 2 else {"x": value}
    return value


def _written(value: Any, rng: random.Random) -> bytes:
    text = json.dumps(value, ensure_ascii=rng.random() < 0.7)
    if rng.random() < 0.05:  # deeper than any reader goes, or than `repr` does of what a reader took
        levels = rng.choice((150, 400, 700, 900, 985, 2000, 100_000))
        deep = "[" * levels + "]" * levels
        target = json.dumps(rng.choice(("success", "completed", "", 0, 200, 6123, None, False)))
        text = text.replace(target, deep, 1)
    if rng.random() < 0.05:
        name = rng.choice(("id", "data", "code", "status", "outputs"))
        text = f'{text[:-1]},"{name}":{json.dumps(_any(rng))}}}' if text.endswith("}") else text
    if rng.random() < 0.03:
        text = text.replace("6123", "1" * rng.choice((300, 5000)))
    return text.encode("utf-8", "surrogatepass")


def _spoilt(body: bytes, rng: random.Random) -> bytes:
    if not body:
        return body
    place, what = rng.randrange(len(body)), rng.random()
    if what < 0.5:
        return body[:place] + bytes([body[place] ^ (1 << rng.randrange(8))]) + body[place + 1 :]
    if what < 0.7:
        return body[:place]
    if what < 0.8:
        return body[:place] + body[place + rng.randint(1, 20) :]
    if what < 0.9:
        return body[:place] + rng.randbytes(rng.randint(1, 4)) + body[place:]
    end = place + rng.randint(1, 40)
    return body[:end] + body[place:end] + body[end:]
