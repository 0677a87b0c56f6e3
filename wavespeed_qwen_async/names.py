"""File names for images, by a template: always inside the folder, never one name for two, the same in every run."""

from __future__ import annotations

import hashlib
import json
import re
import string
import unicodedata
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ._inputs import is_url
from .errors import ConfigurationError
from .models import Edit

if TYPE_CHECKING:
    import os

    from .models import Job

__all__ = ["DEFAULT_TEMPLATE", "FIELDS", "NameTemplate"]

DEFAULT_TEMPLATE = "{index:06d}-{slug}-{seed}.{ext}"
FIELDS = {
    "index": "the job's place in its source, from 0",
    "slug": "the prompt's first words",
    "seed": "the seed, or 'random' where the server draws it",
    "model": "the model's short name",
    "size": "width x height, or 'auto'",
    "hash": "8 hex digits of all that the job asks for",
    "prediction": "the prediction's id",
    "output": "the image's place among the prediction's outputs, from 0",
    "ext": "the file's suffix by its format",
}
"""What a template may hold, and what it stands for."""

MAX_BYTES = 255
"""Of one name: ext4, APFS and NTFS all take that many (bytes, UTF-16 units at the last two, which are never more)."""

_SLUG_CHARACTERS = 60
_SLUG_BYTES = 150
_SLUG_READ = 400
_MARK = "~"  # begins what tells two files apart; it stands nowhere else in a name
_FORBIDDEN = frozenset('<>:"/\\|?*' + _MARK)  # Windows' and our own
_DASHES = dict.fromkeys(map(ord, _FORBIDDEN), "-")
_ASCII_WORD = re.compile("[a-z0-9]+")
# CON.txt is the console too (learn.microsoft.com, "Naming files, paths, and namespaces").
_RESERVED = frozenset(
    {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "CLOCK$"}
    | {f"{port}{number}" for port in ("COM", "LPT") for number in "0123456789\u00b9\u00b2\u00b3"}
)
_PLAIN_NUMBER = re.compile(r"(0?[1-9]\d?)?d?")
_MAX_INDEX = 10**18


class _Field(NamedTuple):
    name: str
    spec: str


_Part = str | _Field


class NameTemplate:
    """Where each image of a run is put.

    Args:
        template: Text with fields in braces, as in ``str.format``; ``/`` begins a folder. ``FIELDS`` tells which there
            are. The file's suffix comes at the end, whether ``.{ext}`` is there or not. Where a name does not begin
            with ``{index}`` and what separates it, ``~`` and the index are put behind it: two jobs never share a file.

    Raises:
        ConfigurationError: an unknown field, a format that does not fit it, or a way out of the folder.
    """

    def __init__(self, template: str = DEFAULT_TEMPLATE) -> None:
        self.template = template
        self._components = _parsed(template)
        self._tells_index = any(_begins_with_index(parts) for parts in self._components)
        self._tells_hash = any(isinstance(part, _Field) and part.name == "hash" for part in chain(*self._components))
        self._tells_output = any(_goes_on_with_output(parts) for parts in self._components)
        self._render({name: 0 if name in {"index", "output", "seed"} else "x" for name in FIELDS})

    def __repr__(self) -> str:
        return f"NameTemplate({self.template!r})"

    def path(
        self,
        folder: str | os.PathLike[str],
        job: Job,
        index: int,
        ext: str,
        *,
        output: int = 0,
        prediction_id: str = "",
    ) -> Path:
        """The file for one image. Depends on its arguments alone, so that a resumed run finds the same name.

        Args:
            folder: Where all of them go.
            job: The job, its seed drawn.
            index: The job's place in its source, 0 to 10**18; no two jobs of a run may share it.
            ext: The suffix, such as ``"jpg"``.
            output: The image's place among the prediction's outputs, from 0.
            prediction_id: For ``{prediction}``.
        """
        return Path(folder, self.name(job, index, ext, output=output, prediction_id=prediction_id))

    def name(self, job: Job, index: int, ext: str, *, output: int = 0, prediction_id: str = "") -> str:
        """The same as a relative path, with ``/`` between its parts."""
        if not 0 <= index < _MAX_INDEX or not 0 <= output < _MAX_INDEX:
            raise ValueError(f"index = {index}, output = {output}: from 0")
        suffix = re.sub(r"[^a-z0-9]", "", ext.lower())[:10] or "img"
        values = {
            "index": index,
            "slug": _slug(job.prompt),
            "seed": "random" if job.seed is None or job.seed < 0 else job.seed,
            "model": job.model,
            "size": f"{job.size.width}x{job.size.height}" if job.size else "auto",
            "hash": _fingerprint(job) if self._tells_hash else "",
            "prediction": prediction_id or "none",
            "output": output,
            "ext": suffix,
        }
        *folders, stem = self._render(values)
        end = f"{self._mark(index, output)}.{suffix}"
        return "/".join([*map(_name, folders), _name(stem, len(end)) + end])

    def _render(self, values: dict[str, Any]) -> list[str]:
        return ["".join(_text(part, values, self.template) for part in parts) for parts in self._components]

    def _mark(self, index: int, output: int) -> str:
        number = "" if not output or self._tells_output else f"-{output + 1}"
        if self._tells_index:
            return f"{_MARK}{number[1:]}" if number else ""
        return f"{_MARK}{index}{number}"


def _parsed(template: str) -> list[list[_Part]]:
    """The template's folders and its name, each as texts and fields."""
    components: list[list[_Part]] = [[]]
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise _bad(template, str(error)) from None
    for literal, name, spec, conversion in parsed:
        first, *others = literal.split("/")
        components[-1].append(first)
        components.extend([other] for other in others)
        if name is not None:
            components[-1].append(_field(template, name, spec or "", conversion))
    found = [[part for part in parts if part != ""] for parts in components]
    _check(template, found)
    if found[-1][-1] == _Field("ext", ""):  # it comes at the end by itself
        *stem, last = found[-1][:-1] or [""]
        found[-1] = [*stem, last.removesuffix(".")] if isinstance(last, str) else [*stem, last]
        found[-1] = [part for part in found[-1] if part != ""]
    return found


def _check(template: str, components: list[list[_Part]]) -> None:
    for parts in components:
        if not parts:
            raise _bad(template, "it has an empty part: begin with no '/', end with none, and write no '//'")
        if parts in (["."], [".."]) or any(isinstance(part, str) and "\\" in part for part in parts):
            raise _bad(template, "it must stay inside the folder: no '.', '..' or '\\'")
        if any(isinstance(part, str) and not part.isprintable() for part in parts):
            raise _bad(template, "it holds control characters")


def _field(template: str, name: str, spec: str, conversion: str | None) -> _Field:
    if name not in FIELDS:
        raise _bad(template, f"unknown field {name!r}; known are {', '.join(FIELDS)}")
    if conversion is not None:
        raise _bad(template, f"field {name!r}: no conversion (!{conversion}) is needed")
    if "{" in spec or re.search(r"\d{4}", spec):
        raise _bad(template, f"field {name!r}: the format {spec!r} can't be used")
    return _Field(name, spec)


def _text(part: _Part, values: dict[str, Any], template: str) -> str:
    if isinstance(part, str):
        return _clean(part)
    value = values[part.name]
    spec = "" if part.name == "seed" and isinstance(value, str) else part.spec
    try:
        return _clean(format(value, spec))
    except ValueError as error:
        raise _bad(template, f"field {part.name!r}: {error}") from None


def _bad(template: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"name template {template!r}: {why}")


def _begins_with_index(parts: list[_Part]) -> bool:
    """Whether the part's first digits are the index and nothing else, whatever the other fields hold."""
    return bool(parts) and _is_number(parts[0], "index") and (len(parts) == 1 or _ends_number(parts[1]))


def _goes_on_with_output(parts: list[_Part]) -> bool:
    """Whether the output follows the index in the same certain way."""
    if len(parts) < 3 or not _begins_with_index(parts):  # noqa: PLR2004 - index, separator, output
        return False
    separator, number = str(parts[1]), parts[2]
    known = not any(character.isdigit() for character in separator)
    return known and _is_number(number, "output") and (len(parts) == 3 or _ends_number(parts[3]))  # noqa: PLR2004


def _is_number(part: _Part, name: str) -> bool:
    return isinstance(part, _Field) and part.name == name and _PLAIN_NUMBER.fullmatch(part.spec) is not None


def _ends_number(part: _Part) -> bool:
    return isinstance(part, str) and not isinstance(part, _Field) and not part[0].isdigit()


def _clean(text: str) -> str:
    """No separators, nothing that Windows refuses, nothing that can't be seen."""
    if text.isascii() and text.isprintable():  # then there is no more to see to, at a tenth of the cost
        return text.translate(_DASHES)
    kept = ("-" if c in _FORBIDDEN or unicodedata.category(c)[0] == "C" else c for c in text)
    return unicodedata.normalize("NFC", "".join(kept))


def _name(text: str, room: int = 0) -> str:
    """One name that every file system takes, ``room`` bytes left for what comes behind it."""
    text = text.lstrip(" ")
    if text.startswith((".", "-")):  # hidden; an option to every command
        text = "_" + text[1:]
    if text.partition(".")[0].rstrip(" ").upper() in _RESERVED:
        text = "_" + text
    return _shortened(text, MAX_BYTES - room).rstrip(" .") or "_"


def file_name(text: str, suffix: str) -> str:
    """One name from a text that is not ours, such as an id of the server's: it can't be a way out of its folder."""
    return _name(_clean(text), len(suffix.encode())) + suffix


def _shortened(text: str, most: int) -> str:
    return text.encode()[:most].decode(errors="ignore")


def _slug(prompt: str) -> str:
    """Lower-case words of the prompt joined by dashes; letters of all scripts stay."""
    text = unicodedata.normalize("NFKC", prompt[:_SLUG_READ]).lower()
    if text.isascii():
        words = _ASCII_WORD.findall(text)
    else:
        words = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text).split()
    slug = _shortened("-".join(words)[:_SLUG_CHARACTERS], _SLUG_BYTES)
    return slug.rstrip("-") or "image"


def _fingerprint(job: Job) -> str:
    asked: dict[str, Any] = {
        "model": job.model,
        "prompt": job.prompt,
        "seed": job.seed,
        "size": str(job.size),
        "loras": [[lora.path, lora.scale] for lora in job.loras or ()],
    }
    if isinstance(job, Edit):
        asked["images"] = [_source_text(source) for source in job.sources]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]


def _source_text(source: Any) -> str:
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    if isinstance(source, Path):
        return source.name
    return source if isinstance(source, str) and is_url(source) else type(source).__name__
