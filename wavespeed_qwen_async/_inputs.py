"""The values inside a job: sizes, LoRAs and source images, read from what people write, checked before sending."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, field_validator, model_validator

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from PIL.Image import Image as PILImage

__all__ = ["Image", "ImageSource", "Lora", "LoraLike", "Size", "SizeLike", "Value", "is_url", "not_bool"]

# What the type checker is told; at run time Pillow stays optional.
ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | PILImage"
SizeLike: TypeAlias = "Size | str | tuple[int, int]"
LoraLike: TypeAlias = "Lora | str | tuple[str, float] | Mapping[str, Any]"

_SIZE = re.compile(r"\s*(\d{1,6})\s*[*xX\u00d7]\s*(\d{1,6})\s*")
_HUB_PATH = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SCALE_SUFFIX = re.compile(r"(?P<path>.+):(?P<scale>[-+]?\d*\.?\d+)")


class Value(BaseModel):
    """A frozen value that refuses names it doesn't know, and says the nearest right one."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_names(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            for name in data:
                if name not in cls.model_fields:
                    raise ValueError(_unknown_name(str(name), cls.model_fields))
        return data

    @property
    def model_fields_set(self) -> set[str]:
        """The names of the fields that were given. A set of the caller's own: ours are shared by many values."""
        return set(self.__pydantic_fields_set__)

    def changed(self, **values: Any) -> Self:
        """The same with other ``values``, which are not checked: ``model_copy(update=...)`` at a third of its cost."""
        copy = type(self).__new__(type(self))
        _set(copy, "__dict__", {**self.__dict__, **values})
        _set(copy, "__pydantic_fields_set__", _shared(self.__pydantic_fields_set__ | values.keys()))
        _set(copy, "__pydantic_extra__", None)
        _set(copy, "__pydantic_private__", None)
        return copy


_set = object.__setattr__  # values are frozen for everybody else
_sets: dict[frozenset[str], set[str]] = {}  # by their content, of which there are few: a set takes 216 bytes


def _shared(names: set[str]) -> set[str]:
    return _sets.setdefault(frozenset(names), names)


def _unknown_name(name: str, known: Iterable[str]) -> str:
    import difflib  # noqa: PLC0415 - wanted by few

    known = list(known)
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    return f"unknown parameter {name!r}: {hint}"


def not_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is needed, not a boolean")  # noqa: TRY004 - pydantic turns it into its own
    return value


class Size(Value):
    """Width and height of the image in pixels, each 256 to 1536 (per the parameter tables of both pages).

    Where a size is asked for, ``"1024*1024"``, ``"1024x1024"`` and ``(1024, 1024)`` do as well.
    """

    width: Annotated[int, BeforeValidator(not_bool), Field(ge=256, le=1536)]
    height: Annotated[int, BeforeValidator(not_bool), Field(ge=256, le=1536)]

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, str):
            found = _SIZE.fullmatch(value)
            if not found:
                raise ValueError("write 'width*height' in pixels, for example '1024*1024'")
            return {"width": int(found[1]), "height": int(found[2])}
        if isinstance(value, Sequence):
            if len(value) != 2:  # noqa: PLR2004 - width and height
                raise ValueError("give two numbers, (width, height)")
            return {"width": value[0], "height": value[1]}
        return value

    def __str__(self) -> str:
        return f"{self.width}*{self.height}"


class Lora(Value):
    """A LoRA and how strongly it is blended in.

    Where a LoRA is asked for, these do as well: ``"owner/name"``, ``"owner/name:0.8"``, a ``.safetensors`` URL with
    or without ``:scale`` behind it, a pair ``(path, scale)`` and a mapping.

    Attributes:
        path: ``<owner>/<model-name>`` or the URL of a ``.safetensors`` file (per the text-to-image-lora page);
            Civitai's download links, which do not show the file's name, are taken too, since that page names Civitai.
        scale: 0.0 to 4.0, per both pages; default 1.0, per the text-to-image-lora page. For edits 0.1 to 1.0 is
            recommended, per the edit-lora page.
    """

    path: str
    scale: Annotated[float, BeforeValidator(not_bool), Field(ge=0.0, le=4.0, allow_inf_nan=False)] = 1.0

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, str):
            return _split_scale(value.strip())
        if isinstance(value, Sequence):
            if len(value) != 2:  # noqa: PLR2004 - path and scale
                raise ValueError("give a pair (path, scale)")
            return {"path": value[0], "scale": value[1]}
        return value

    @field_validator("path")
    @classmethod
    def _check_path(cls, path: str) -> str:
        path = path.strip()
        if is_url(path):
            _check_lora_url(path)
        elif not _HUB_PATH.fullmatch(path):
            raise ValueError("a LoRA is '<owner>/<model-name>' or the http(s) URL of a .safetensors file")
        return path


def _split_scale(text: str) -> dict[str, Any]:
    found = _SCALE_SUFFIX.fullmatch(text)
    if not found:
        return {"path": text}
    if is_url(text):
        parts = urlsplit(found["path"])
        if parts.query or parts.fragment:
            raise ValueError("does ':number' at the end belong to the URL or is it the scale? Give a pair (url, scale)")
        if not parts.path.strip("/"):  # the number is a port: https://host:8080
            return {"path": text}
    return {"path": found["path"], "scale": float(found["scale"])}


def is_url(text: str) -> bool:
    return text[:8].lower().startswith(("http://", "https://"))


def _is_sendable(url: str) -> bool:
    """No white space, and no half of a surrogate pair, which JSON can write and nothing can send."""
    return not any(c.isspace() or "\ud800" <= c <= "\udfff" for c in url)


def _check_lora_url(url: str) -> None:
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    civitai = host == "civitai.com" or host.endswith(".civitai.com")
    if not host or not (civitai or ".safetensors" in url.lower()):
        raise ValueError("the URL must lead to a .safetensors file")
    if not _is_sendable(url):
        raise ValueError("the URL holds white space or half a character: write it in %-codes, as %20")


def _read_image(value: Any) -> Any:
    """A URL stays text, a path becomes a Path; bytes and PIL images stay. Nothing is opened here."""
    if isinstance(value, bytes | bytearray | memoryview):
        if not len(value):
            raise ValueError("the image is empty: no bytes")
        return bytes(value)
    if isinstance(value, str):
        return _read_image_text(value)
    if isinstance(value, os.PathLike):
        return Path(value)
    if type(value).__module__.partition(".")[0] == "PIL":
        return value
    raise ValueError("an image is a URL, a path, bytes or a PIL image")


def _read_image_text(text: str) -> str | Path:
    if is_url(text):
        if not urlsplit(text).hostname or not _is_sendable(text):
            raise ValueError("the URL must have a host, no white space and no half characters")
        return text
    if "://" in text[:12] or text[:5].lower() == "data:":
        raise ValueError("an image URL starts with http:// or https://; give other data as bytes or a path")
    if not text.strip() or "\0" in text:
        raise ValueError("the image's path is empty or holds a NUL")
    return Path(text)


Image = Annotated[Any, PlainValidator(_read_image)]
