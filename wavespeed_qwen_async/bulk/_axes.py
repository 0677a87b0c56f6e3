"""The axes of a sweep: their values, read from what people write, and how they are called on a contact sheet."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from wavespeed_qwen_async._inputs import is_url
from wavespeed_qwen_async.errors import InvalidJobError
from wavespeed_qwen_async.models import MAX_SEED, Lora, Size, invalid_job

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "AXES",
    "SCALES",
    "Axis",
    "combination",
    "drawn_seed",
    "labels_of",
    "name_of_source",
    "scale_of",
    "scales_of",
    "table_edges",
    "values_of",
]

AXES = ("prompt", "image", "model", "size", "seed", "lora", "scale")
"""What can be swept."""
SCALES = (0.2, 0.5, 0.8, 1.0)
"""The scales that a LoRA is tried at where none are given: from "subtle" to the "full strength" of the text-to-image
page, all within the range that the edit page recommends."""

_NAMES = {
    "prompt": "Prompt",
    "image": "Source",
    "model": "Model",
    "size": "Size",
    "seed": "Seed",
    "lora": "LoRA",
    "scale": "Scale",
}
_AS_COLUMNS = ("scale", "seed", "size", "model", "lora", "image", "prompt")
_AS_ROWS = ("lora", "image", "prompt", "model", "size", "seed", "scale")


class Axis(NamedTuple):
    """Something that varies.

    Attributes:
        key: One of ``AXES``.
        values: What it is given, in this order.
        labels: The same for people; no two of them are alike.
    """

    key: str
    values: tuple[Any, ...]
    labels: tuple[str, ...]

    @property
    def name(self) -> str:
        """What it is called for people."""
        return _NAMES[self.key]


def values_of(key: str, given: Any) -> tuple[Any, ...]:
    """A list is an axis, anything else one value."""
    values = tuple(given) if isinstance(given, list) else (given,)
    if not values:
        raise InvalidJobError(f"{key}: an axis needs a value", field=key)
    if key == "size":
        values = tuple(None if value is None else _validated(Size, value, "size") for value in values)
    if key in {"size", "seed", "prompt", "model"} and len(set(values)) < len(values):
        raise InvalidJobError(f"{key}: the same value stands there twice", field=key)
    return values


def _validated(kind: Any, value: Any, key: str = "") -> Any:
    """A value read; what is wrong with it is told with the axis that it is of."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        wrong = invalid_job(error)
        if not key:
            raise wrong from None
        where = key if wrong.field else f"{key} = {value!r}"
        raise InvalidJobError(f"{where}: {wrong.message}", field=key) from None


def combination(value: Any) -> tuple[Lora, ...] | None:
    """A value of the LoRA axis: several LoRAs, one, or none."""
    if isinstance(value, str):
        items = [part.strip() for part in value.split(" + ")]
        items = [item for item in items if item.lower() != "none"]
    elif isinstance(value, (tuple, list)) and not _is_pair(value):
        items = list(value)
    else:
        items = [] if value is None else [value]
    return tuple(_validated(Lora, item, "lora") for item in items) or None


def _is_pair(value: Sequence[Any]) -> bool:
    return len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], (int, float))  # noqa: PLR2004


def scales_of(given: Any, loras: tuple[Any, ...]) -> tuple[Any, ...]:
    """The scale axis: as given; else the usual scales, where there is a LoRA that does not bring its own."""
    open_ones = any("scale" not in lora.model_fields_set for combination in loras for lora in combination or ())
    if given is None:
        return SCALES if open_ones else (None,)
    if not open_ones:
        raise InvalidJobError("scale: there is no LoRA that takes it; give lora, without ':scale'", field="scale")
    numbers = tuple(_validated(Lora, {"path": "a/b", "scale": value}).scale for value in values_of("scale", given))
    if len(set(numbers)) < len(numbers):
        raise InvalidJobError("scale: the same value stands there twice", field="scale")
    return numbers


def scale_of(lora: Lora, scale: float | None) -> float:
    """A LoRA's own scale, else the axis's."""
    return lora.scale if scale is None or "scale" in lora.model_fields_set else scale


def drawn_seed(prompt: Any, image: Any) -> int:
    """Always the same for the same sweep: one that was stopped goes on with the seed that it began with."""
    source = image if isinstance(image, str) else getattr(image, "name", "")
    return random.Random(f"{prompt}\0{source}").randint(0, MAX_SEED)  # noqa: S311 - a seed, no secret


def labels_of(key: str, values: tuple[Any, ...]) -> tuple[str, ...]:
    """Short where that tells them apart, else whole, else numbered."""
    for label in (_short, _whole):
        labels = tuple(label(key, value) for value in values)
        if len(set(labels)) == len(labels):
            return labels
    return tuple(f"{number}: {_whole(key, value)}" for number, value in enumerate(values, 1))


def _short(key: str, value: Any) -> str:
    if key == "lora":
        own = "" if value is None else " + ".join(f"{_end(lora.path)}{_own(lora)}" for lora in value)
        return own or "no LoRA"
    if key == "image":
        several = value if isinstance(value, (tuple, list)) else [value]
        return " + ".join(_end(name_of_source(item)) for item in several)
    return _whole(key, value)


def _whole(key: str, value: Any) -> str:
    match key:
        case "lora":
            return " + ".join(f"{lora.path}{_own(lora)}" for lora in value) if value else "no LoRA"
        case "image":
            several = value if isinstance(value, (tuple, list)) else [value]
            return " + ".join(map(name_of_source, several))
        case "size":
            return "the server's size" if value is None else f"{value.width} \u00d7 {value.height}"
        case "scale":
            return "" if value is None else f"{value:g}" if value % 1 else f"{value:.1f}"
        case _:
            return "" if value is None else str(value)


def _own(lora: Lora) -> str:
    return f" \u00d7{lora.scale:g}" if "scale" in lora.model_fields_set else ""


def _end(path: str) -> str:
    """The last part of a URL or of a file's path; ``owner/name`` of a LoRA stays whole."""
    if not is_url(path):
        return path
    return path.partition("?")[0].rstrip("/").rpartition("/")[2].removesuffix(".safetensors") or path


def name_of_source(image: Any) -> str:
    """A source image's URL or file name."""
    if isinstance(image, str) and is_url(image):
        return image
    if isinstance(image, (str, Path)):
        return Path(image).name
    return "an image"


def table_edges(swept: list[str], rows: str | None, columns: str | None) -> tuple[str | None, str | None]:
    """Which axes are on the left and on the upper edge of the contact sheet."""
    for name, key in (("rows", rows), ("columns", columns)):
        if key is not None and key not in swept:
            known = ", ".join(swept) or "none"
            raise InvalidJobError(f"{name} = {key!r}: name an axis that varies ({known})", field=name)
    if rows is not None and rows == columns:
        raise InvalidJobError("rows and columns: name two axes", field="rows")
    if columns is None:
        columns = next((key for key in _AS_COLUMNS if key in swept and key != rows), None)
    if rows is None:
        rows = next((key for key in _AS_ROWS if key in swept and key != columns), None)
    return (rows, columns) if columns is not None else (None, rows)
