"""The kinds of files that hold jobs, each read line by line. Blocking: for a thread."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from wavespeed_qwen_async.errors import ConfigurationError, InvalidJobError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["IMAGES", "READERS", "Raw", "Reader"]

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
IMAGES = ", ".join(suffix[1:] for suffix in _SUFFIXES)
_LISTS = frozenset({"loras", "images"})
_BOM = b"\xef\xbb\xbf"
_BLOCK = 1 << 20


class Raw(NamedTuple):
    """A line before it is understood: its number, what stands there (None: nothing but a value), how to read it."""

    line: int | None
    mark: bytes | None
    read: Callable[[], Any]


class Reader(NamedTuple):
    """One kind of file: its lines, and a quick count of them, None where only reading tells."""

    lines: Callable[[Path], Iterable[Raw]]
    size: Callable[[Path], int | None]


def _jsonl(path: Path) -> Iterator[Raw]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            text = (line.removeprefix(_BOM) if number == 1 else line).strip()
            if text:
                yield Raw(number, text, lambda text=text: _parsed(text))  # type: ignore[misc]


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


def _csv(path: Path) -> Iterator[Raw]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        names = [name.strip().lower() for name in next(rows, [])]
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
                yield Raw(number, mark, lambda cells=cells: _row(names, cells))  # type: ignore[misc]


def _row(names: list[str], cells: list[str]) -> dict[str, Any]:
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


def _text(path: Path) -> Iterator[Raw]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            text = (line.removeprefix(_BOM) if number == 1 else line).strip()
            if text:
                yield Raw(number, text, lambda text=text: {"prompt": _decoded(text)})  # type: ignore[misc]


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise InvalidJobError("the text is not UTF-8") from None


def _yaml(path: Path) -> Iterator[Raw]:
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
                yield Raw(node.start_mark.line + 1, mark, lambda value=value: value)  # type: ignore[misc]
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


def _folder(path: Path) -> Iterator[Raw]:
    for image in _images(path):
        status = image.stat()
        mark = f"{image.name}\0{status.st_size}\0{status.st_mtime_ns}".encode("utf-8", "replace")
        yield Raw(None, mark, lambda image=image: {"image": image.absolute()})  # type: ignore[misc]


def _images(path: Path) -> list[Path]:
    return sorted(item for item in path.iterdir() if item.suffix.lower() in _SUFFIXES and item.is_file())


def _unknown(_: Path) -> None:
    return None


READERS: dict[str, Reader] = {
    ".jsonl": Reader(_jsonl, _count_lines),
    ".ndjson": Reader(_jsonl, _count_lines),
    ".csv": Reader(_csv, _count_rows),
    ".txt": Reader(_text, _count_lines),
    ".yaml": Reader(_yaml, _unknown),
    ".yml": Reader(_yaml, _unknown),
    "folder": Reader(_folder, lambda path: len(_images(path))),
}
"""Each kind of source by its file's ending."""
