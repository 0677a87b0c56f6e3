"""The models the emulator serves, and what their request bodies may hold."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

MISSING_PARAMETER: Final = 1400
INVALID_PARAMETER: Final = 1401
MIN_SIDE: Final = 256
MAX_SIDE: Final = 1536
MAX_LORAS: Final = 3
MAX_IMAGES: Final = 3
MAX_SCALE: Final = 4.0
MAX_SEED: Final = 2_147_483_647
FORMATS: Final = ("jpeg", "png", "webp")

_SIZE = re.compile(r"([0-9]{1,5})\*([0-9]{1,5})")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")

_NO_SIZE: Final = 'must be "width*height"'

Check = Callable[[Any], str | None]


class InvalidInputError(ValueError):
    """A request body that the API would answer with HTTP 400."""

    def __init__(self, message: str, code: int = INVALID_PARAMETER) -> None:
        super().__init__(message)
        self.code = code


def _prompt(value: Any) -> str | None:
    return None if isinstance(value, str) and value.strip() else "must be a non-empty string"


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) else "must be a string"


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _is_url(value: Any) -> bool:
    if not isinstance(value, str) or not value.startswith(("http://", "https://")):
        return False
    try:
        return bool(urlsplit(value).hostname)
    except ValueError:
        return False


def _url(value: Any) -> str | None:
    return None if _is_url(value) else "must be an http or https URL"


def _urls(value: Any) -> str | None:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_IMAGES:
        return f"must be a list of 1 to {MAX_IMAGES} URLs"
    return None if all(map(_is_url, value)) else "must hold http or https URLs only"


def _size(value: Any) -> str | None:
    return _size_problem(value) if isinstance(value, str) else _NO_SIZE


@lru_cache(maxsize=1024)  # a run asks for the same few sizes and LoRAs thousands of times
def _size_problem(text: str) -> str | None:
    match = _SIZE.fullmatch(text)
    if match is None:
        return _NO_SIZE
    if all(MIN_SIDE <= int(side) <= MAX_SIDE for side in match.groups()):
        return None
    return f"must be {MIN_SIDE} to {MAX_SIDE} pixels a side"


def _seed(value: Any) -> str | None:
    if type(value) is int and -1 <= value <= MAX_SEED:  # not True, which is an int to `isinstance`
        return None
    return f"must be an integer from -1 to {MAX_SEED}"


def _format(value: Any) -> str | None:
    return None if value in FORMATS else f"must be one of {', '.join(FORMATS)}"


def _is_number(value: Any, low: float, high: float) -> bool:
    return type(value) in {int, float} and bool(low <= value <= high)


def _positive(value: Any) -> str | None:
    return None if _is_number(value, 1e-12, 1e6) else "must be a positive number"


def _loras(value: Any) -> str | None:
    if not isinstance(value, list) or len(value) > MAX_LORAS:
        return f"must be a list of at most {MAX_LORAS} LoRAs"
    for number, item in enumerate(value):
        if (problem := _lora(number, item)) is not None:
            return problem
    return None


def _lora(number: int, item: Any) -> str | None:
    if not isinstance(item, dict) or item.keys() != {"path", "scale"}:
        return f"[{number}] must hold path and scale, and nothing else"
    if not isinstance(item["path"], str) or not _is_lora_path(item["path"]):
        return f"[{number}].path must be <owner>/<model-name> or a .safetensors URL"
    if not _is_number(item["scale"], 0.0, MAX_SCALE):
        return f"[{number}].scale must be a number from 0.0 to {MAX_SCALE}"
    return None


@lru_cache(maxsize=1024)
def _is_lora_path(text: str) -> bool:
    if _is_url(text):
        return urlsplit(text).path.lower().endswith(".safetensors")
    return _REPOSITORY.fullmatch(text) is not None


_COMMON: Final[dict[str, Check]] = {
    "prompt": _prompt,
    "size": _size,
    "seed": _seed,
    "output_format": _format,
    "enable_sync_mode": _flag,
    "enable_base64_output": _flag,
}
_LORAS: Final[dict[str, Check]] = {"loras": _loras}
_IMAGE: Final[dict[str, Check]] = {"image": _url}
_IMAGES: Final[dict[str, Check]] = {"images": _urls}
_TRAINER: Final[dict[str, Check]] = {
    "data": _url,
    "trigger_word": _text,
    "steps": _positive,
    "learning_rate": _positive,
    "lora_rank": _positive,
}


@dataclass(frozen=True, slots=True)
class Model:
    """One model: its path under /api/v3/, what it is for, and its fields."""

    name: str
    kind: str
    required: tuple[str, ...]
    checks: Mapping[str, Check]


def _model(path: str, kind: str, checks: Mapping[str, Check]) -> Model:
    required = tuple(name for name in ("data", "prompt", "image", "images") if name in checks)
    return Model(f"wavespeed-ai/{path}", kind, required, checks)


MODELS: Final[dict[str, Model]] = {
    model.name: model
    for model in (
        _model("qwen-image/text-to-image-lora", "text-to-image", {**_COMMON, **_LORAS}),
        _model("qwen-image/edit-lora", "image-to-image", {**_COMMON, **_IMAGE, **_LORAS}),
        _model("qwen-image/text-to-image", "text-to-image", _COMMON),
        _model("qwen-image/text-to-image-2512-lora", "text-to-image", {**_COMMON, **_LORAS}),
        _model("qwen-image/edit", "image-to-image", {**_COMMON, **_IMAGE}),
        _model("qwen-image/edit-plus", "image-to-image", {**_COMMON, **_IMAGES}),
        _model("qwen-image/edit-plus-lora", "image-to-image", {**_COMMON, **_IMAGES, **_LORAS}),
        _model("qwen-image/edit-2511", "image-to-image", {**_COMMON, **_IMAGES}),
        _model("qwen-image/edit-2511-lora", "image-to-image", {**_COMMON, **_IMAGES, **_LORAS}),
        _model("qwen-image-lora-trainer", "training", _TRAINER),
    )
}


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


# Made once: with a hook, `json.loads` would build a decoder for each request.
_DECODER: Final = json.JSONDecoder(parse_constant=_no_constant)


def parse_object(body: bytes) -> tuple[str, dict[str, Any]]:
    """Read a request body as text and as a JSON object, without what Python's reader takes beyond JSON."""
    try:
        text = body.decode("utf-8")
        value, end = _DECODER.raw_decode(text) if text.startswith("{") else (None, -1)
        if end != len(text):  # white space around it, no object, or something behind it; `decode` looks for all that
            value = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("the request body is not valid JSON", INVALID_PARAMETER) from error
    if not isinstance(value, dict):
        raise InvalidInputError("the request body must be a JSON object")
    return text, value


def check_inputs(model: Model, inputs: dict[str, Any], *, drop_unknown: bool) -> bool:
    """Check a submit's fields by the model's table; true if unknown ones were taken out.

    Raises:
        InvalidInputError: with the first thing that is wrong, and the API's code for it.
    """
    for name in model.required:
        if name not in inputs:
            raise InvalidInputError(f"property '{name}' is missing", MISSING_PARAMETER)
    checks, unknown = model.checks, []
    for name, value in inputs.items():
        check = checks.get(name)
        if check is None:
            unknown.append(name)
        elif (problem := check(value)) is not None:
            raise InvalidInputError(f"property '{name}' {problem}")
    if unknown and not drop_unknown:
        raise InvalidInputError(f"property '{unknown[0]}' is not supported")
    for name in unknown:
        del inputs[name]
    return bool(unknown)


def size_of(inputs: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the size asked for, None if the body left it out."""
    match = _SIZE.fullmatch(inputs.get("size", ""))
    return (int(match[1]), int(match[2])) if match else None


def sources_of(inputs: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the media URLs that a body names."""
    single = inputs.get("image", inputs.get("data"))
    return (single,) if single is not None else tuple(inputs.get("images", ()))
