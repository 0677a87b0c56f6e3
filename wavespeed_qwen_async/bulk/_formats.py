"""The kinds of files that hold jobs, each read line by line. Blocking: for a thread."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from itertools import compress, islice
from typing import TYPE_CHECKING, Any, NamedTuple

from wavespeed_qwen_async.errors import ConfigurationError, InvalidJobError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["IMAGES", "READERS", "Block", "Raw", "Reader", "value_of"]

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
IMAGES = ", ".join(suffix[1:] for suffix in _SUFFIXES)
_LISTS = frozenset({"loras", "images"})
_BOM = b"\xef\xbb\xbf"
_BLOCK = 1 << 20


class Raw(NamedTuple):
    """A line before it is understood.

    Attributes:
        line: Its number, from 1; None where there are none.
        text: What stands there; None where there is nothing but a value.
        value: What the reader made of it already.
    """

    line: int | None
    text: bytes | None
    value: Any = None


class Block(NamedTuple):
    """Some lines, one column for each part of ``Raw``: a million of them are read, and few are looked at.

    Attributes:
        lines: Their numbers.
        texts: What stands there; None where there are only values.
        values: What the reader made of them; None where it made nothing.
    """

    lines: Sequence[int | None]
    texts: Sequence[bytes] | None = None
    values: Sequence[Any] | None = None

    def raw(self, place: int) -> Raw:
        """One of them."""
        text = None if self.texts is None else self.texts[place]
        return Raw(self.lines[place], text, None if self.values is None else self.values[place])

    def first(self, count: int) -> Block:
        """The first so many of them."""
        texts, values = self.texts, self.values
        return Block(self.lines[:count], texts and texts[:count], values and values[:count])


class Reader(NamedTuple):
    """One kind of source: its lines so many at a time, what one of them says, and a quick count if there is one."""

    blocks: Callable[[Path, int], Generator[Block, None, None]]
    parse: Callable[[Raw], Any]
    size: Callable[[Path], int | None]


def _lines(path: Path, size: int) -> Generator[Block, None, None]:
    """Each line without what is blank around it. The loops run in C: this is most of what a resume costs."""
    with path.open("rb") as file:
        number = 1
        while lines := list(islice(file, size)):
            if number == 1:
                lines[0] = lines[0].removeprefix(_BOM)
            texts = list(map(bytes.strip, lines))
            numbers: Sequence[int] = range(number, number + len(lines))
            number += len(lines)
            if b"" in texts:
                numbers, texts = list(compress(numbers, texts)), list(filter(None, texts))
            if texts:
                yield Block(numbers, texts)


def _in_blocks(
    rows: Callable[[Path], Generator[Raw, None, None]],
) -> Callable[[Path, int], Generator[Block, None, None]]:
    def blocks(path: Path, size: int) -> Generator[Block, None, None]:
        with closing(rows(path)) as lines:
            while some := list(islice(lines, size)):
                numbers, texts, values = zip(*some, strict=True)
                yield Block(numbers, texts, values)

    return blocks


def _json_of(raw: Raw) -> Any:
    return _parsed(raw.text or b"")


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidJobError(f"no JSON: {error}") from None


def _count_lines(path: Path) -> int:
    """Line ends; lines that are blank, or hold one within quotes, make it a little too many."""
    lines, last = 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            lines += block.count(b"\n")
            last = block[-1:]
    return lines + (last != b"\n")


def _csv(path: Path) -> Generator[Raw, None, None]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        names = [name.strip().lower() for name in next(rows, [])]
        _check_head(path, names)
        head = "\0".join(names)
        while True:
            number = rows.line_num + 1
            try:
                cells = next(rows, None)
            except csv.Error as error:
                raise ConfigurationError(f"{path}, line {rows.line_num}: {error}") from None
            if cells is None:
                return
            if any(cells):
                mark = "\0".join([head, *cells]).encode("utf-8", "replace")
                yield Raw(number, mark, (names, cells))


def _check_head(path: Path, names: list[str]) -> None:
    """Spreadsheets of many countries write semicolons, or tabs: then all columns look like one."""
    mark = next((mark for mark in ";\t" if len(names) == 1 and mark in names[0]), "")
    if mark:
        name = "semicolons" if mark == ";" else "tabs"
        raise ConfigurationError(f"{path}: its columns are separated by {name}: write it with commas between them")


def _row(raw: Raw) -> dict[str, Any]:
    names, cells = raw.value
    if len(cells) > len(names) and any(cells[len(names) :]):
        raise InvalidJobError(f"{len(cells)} cells for {len(names)} columns: put text with commas into quotes")
    return {name: _cell(name, cell) for name, cell in zip(names, cells, strict=False) if name and cell.strip()}


def _cell(name: str, text: str) -> Any:
    """A cell's text; lists are JSON, or separated by semicolons. A job reads numbers from text by itself."""
    if name not in _LISTS:
        return text if name == "prompt" else text.strip()
    if text.lstrip().startswith("["):
        return _parsed(text.encode())
    return [item.strip() for item in text.split(";") if item.strip()]


def _count_rows(path: Path) -> int:
    return max(0, _count_lines(path) - 1)


def _prompt(raw: Raw) -> dict[str, Any]:
    try:
        return {"prompt": (raw.text or b"").decode()}
    except UnicodeDecodeError:
        raise InvalidJobError("the text is not UTF-8") from None


def _yaml(path: Path) -> Generator[Raw, None, None]:
    """A list of jobs, or of prompts; or a mapping of ``defaults`` and such a list, ``jobs``. Read as a whole."""
    try:
        import yaml  # type: ignore[import-untyped,unused-ignore]  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise ConfigurationError("YAML files need pyyaml: pip install 'wavespeed-qwen-async[yaml]'") from None
    with path.open(encoding="utf-8-sig") as file:
        loader = yaml.SafeLoader(file)
        try:
            defaults, nodes = _yaml_jobs(loader.get_single_node(), loader, path)
            for node in nodes:
                value = loader.construct_object(node, deep=True)
                value = {"prompt": value} if isinstance(value, str) else value
                value = {**defaults, **value} if isinstance(value, Mapping) else value
                mark = json.dumps(value, sort_keys=True, default=repr).encode()
                yield Raw(node.start_mark.line + 1, mark, value)
        except yaml.YAMLError as error:
            raise ConfigurationError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
        finally:
            loader.dispose()


def _yaml_jobs(root: Any, loader: Any, path: Path) -> tuple[dict[str, Any], list[Any]]:
    defaults: dict[str, Any] = {}
    if root is not None and root.id == "mapping":
        parts = {key.value: value for key, value in root.value}
        if "defaults" in parts:
            defaults = loader.construct_object(parts["defaults"], deep=True)
        root = parts.get("jobs")
    if root is None or root.id != "sequence" or not isinstance(defaults, dict):
        raise ConfigurationError(f"{path}: give a list of jobs, or a mapping with 'jobs' and perhaps 'defaults'")
    return defaults, root.value


def _folder(path: Path) -> Generator[Raw, None, None]:
    for image in _images(path):
        status = image.stat()
        mark = f"{image.name}\0{status.st_size}\0{status.st_mtime_ns}".encode("utf-8", "replace")
        yield Raw(None, mark, {"image": image.absolute()})


def _images(path: Path) -> list[Path]:
    return sorted(item for item in path.iterdir() if item.suffix.lower() in _SUFFIXES and item.is_file())


def value_of(raw: Raw) -> Any:
    """What the reader made of the line already."""
    return raw.value


def _unknown(_: Path) -> None:
    return None


READERS: dict[str, Reader] = {
    ".jsonl": Reader(_lines, _json_of, _count_lines),
    ".ndjson": Reader(_lines, _json_of, _count_lines),
    ".csv": Reader(_in_blocks(_csv), _row, _count_rows),
    ".txt": Reader(_lines, _prompt, _count_lines),
    ".yaml": Reader(_in_blocks(_yaml), value_of, _unknown),
    ".yml": Reader(_in_blocks(_yaml), value_of, _unknown),
    "folder": Reader(_in_blocks(_folder), value_of, lambda path: len(_images(path))),
}
"""Each kind of source by its file's ending."""
