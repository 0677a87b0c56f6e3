"""What a batch's folder tells of its images: ``results.jsonl`` line by line, whatever is in it.

The file may end in the middle of a line, hold lines of an older release or of another hand, and name images that are
gone. Each line is taken for what it says; what can't be read is counted, and never ends the reading.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, get_args

from wavespeed_qwen_async.models import MODEL_PREFIX
from wavespeed_qwen_async.provenance import extract

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["RESULTS", "THUMBS", "Entry", "Reading", "Status", "read_entries"]

RESULTS = "results.jsonl"
THUMBS = "thumbs"
_IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp"})

Status = Literal["saved", "failed", "unknown", "missing"]
"""``missing``: it was saved, and its file is no longer there. ``unknown``: perhaps accepted and paid."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One job of a batch, as its last line in ``results.jsonl`` tells it.

    Attributes:
        index: Its place in the batch's source.
        status: How it ended.
        file: The image, relative to the folder, with forward slashes; None where there is none.
        prompt: What was asked for.
        model: The model's short name.
        loras: Pairs of path and scale.
        seed: The seed; None where it is not told.
        size: ``"1024*1024"``, or ``""``.
        output_format: ``"jpeg"``, ``"png"``, ``"webp"``, or ``""``.
        sources: The source images of an edit: URLs, paths or bare file names.
        price: USD; None where it is not told.
        seconds: How long it took.
        created: When the server made it, in Unix seconds.
        prediction_id: Its prediction, or ``""``.
        error: Why there is no image, or ``""``.
        kind: The error's class.
        billed: ``"no"``, ``"yes"`` or ``"unknown"`` for a failed one.
    """

    index: int
    status: Status = "failed"
    file: str | None = None
    prompt: str = ""
    model: str = ""
    loras: tuple[tuple[str, float], ...] = ()
    seed: int | None = None
    size: str = ""
    output_format: str = ""
    sources: tuple[str, ...] = ()
    price: float | None = None
    seconds: float | None = None
    created: float | None = None
    prediction_id: str = ""
    error: str = ""
    kind: str = ""
    billed: str = ""


class Reading(NamedTuple):
    """What was read: entries in the order of the source, and how many lines could not be."""

    entries: list[Entry]
    unread: int


@dataclass(slots=True)
class _Found:
    by_job: dict[Any, Entry] = field(default_factory=dict)
    unread: int = 0


def read_entries(out: Path) -> Reading:
    """Read a batch's folder; one without ``results.jsonl`` by what its images say of themselves. Blocking."""
    path = out / RESULTS
    if not path.exists():
        return Reading(list(_of_images(out)), 0)
    with path.open("rb") as file:
        found = _of_lines(file)
    files = _Files(out)
    entries = [_looked_for(files, entry) for entry in found.by_job.values()]
    return Reading(sorted(entries, key=lambda entry: entry.index), found.unread)


def _of_lines(lines: Iterable[bytes]) -> _Found:
    found = _Found()
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            told = json.loads(line)
        except (ValueError, RecursionError):
            told = None
        if not isinstance(told, dict):
            found.unread += 1
            continue
        entry = _entry(told, number)
        key = _hashable(told.get("job"), ("index", entry.index))
        found.by_job[key] = entry  # the last line of a job counts: failed first, say, and saved when tried again
    return found


def _hashable(value: Any, otherwise: Any) -> Any:
    return ("job", value) if isinstance(value, int | str) else otherwise


def _entry(told: dict[str, Any], number: int) -> Entry:
    inputs, error = _mapping(told.get("inputs")), _mapping(told.get("error"))
    index, prediction_id = told.get("index"), _text(told.get("prediction_id"))
    return Entry(
        index=index if isinstance(index, int) else number,
        status=_status(told),
        file=_inside(told.get("file")),
        model=_text(told.get("model")).removeprefix(MODEL_PREFIX),
        price=_number(told.get("price")),
        seconds=_number(told.get("seconds")),
        created=_moment(told.get("created_at")),
        prediction_id=prediction_id,
        error=_text(error.get("message")).removeprefix(f"prediction {prediction_id} failed, "),
        kind=_text(error.get("kind")),
        billed=_text(error.get("billed")),
        **_asked(inputs),
    )


def _status(told: dict[str, Any]) -> Status:
    for known in get_args(Status):
        if told.get("status") == known:
            return cast("Status", known)
    return "saved" if told.get("ok") else "failed"


def _asked(inputs: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a job, as far as they are what they should be."""
    seed = inputs.get("seed")
    return {
        "prompt": _text(inputs.get("prompt")),
        "loras": tuple(_loras(inputs.get("loras"))),
        "seed": seed if isinstance(seed, int) and not isinstance(seed, bool) else None,
        "size": _text(inputs.get("size")),
        "output_format": _text(inputs.get("output_format")),
        "sources": tuple(
            text
            for name in ("image", "images", "local_images")
            for text in _texts(inputs.get(name))
            if not text.startswith("data:")
        ),
    }


class _Files:
    """The images of a folder. A name template may put them into folders below, of which their lines need not tell."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._below: dict[str, str | None] | None = None

    def find(self, file: str) -> str | None:
        """The file, or the only one below that is called so."""
        return file if (self._out / file).is_file() else self._listed().get(file)

    def _listed(self) -> dict[str, str | None]:
        if self._below is None:
            self._below = {}
            for path in sorted(self._out.glob("*/**/*")):
                if path.suffix.lower() in _IMAGES and path.parent.name != THUMBS:
                    several = path.name in self._below
                    self._below[path.name] = None if several else path.relative_to(self._out).as_posix()
        return self._below


def _looked_for(files: _Files, entry: Entry) -> Entry:
    if entry.status != "saved":
        return entry
    file = None if entry.file is None else files.find(entry.file)
    return replace(entry, status="missing") if file is None else replace(entry, file=file)


def _of_images(out: Path) -> Iterator[Entry]:
    files = sorted(path for path in out.iterdir() if path.suffix.lower() in _IMAGES and path.is_file())
    for index, path in enumerate(files):
        try:
            _, record = extract(path.read_bytes())
        except (OSError, ValueError):
            continue
        if record:
            yield Entry(
                index=index,
                status="saved",
                file=path.name,
                model=_text(record.get("model")).removeprefix(MODEL_PREFIX),
                price=_number(record.get("price")),
                created=_moment(record.get("created_at")),
                prediction_id=_text(record.get("prediction_id")),
                **_asked(record),
            )


def _inside(value: Any) -> str | None:
    """A file's path within the folder; None for a way out of it."""
    text = _text(value)
    path = PurePosixPath(text)
    outside = path.is_absolute() or PureWindowsPath(text).drive or ".." in path.parts or "\\" in text or "\0" in text
    return None if not text or outside else path.as_posix()


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> list[str]:
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, str) and item]


def _number(value: Any) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if good else None


def _moment(value: Any) -> float | None:
    try:
        return datetime.fromisoformat(value).timestamp()
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _loras(value: Any) -> Iterator[tuple[str, float]]:
    for item in value if isinstance(value, list) else []:
        path, scale = _text(_mapping(item).get("path")), _number(_mapping(item).get("scale"))
        if path:
            yield path, 1.0 if scale is None else scale
