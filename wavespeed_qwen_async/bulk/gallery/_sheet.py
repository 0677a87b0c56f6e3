"""Contact sheets: the images of a sweep as a table, its axes on the edges, drawn to PNG files."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, ImageDraw, ImageOps

from ._lettering import LINE, draw_lines, width_of, wrap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["Sheet", "SheetAxis", "SheetCell", "draw_sheets"]

_GROUND, _SUNK, _TEXT, _SOFT, _ACCENT, _BAD = "#faf9f6", "#eceae5", "#1d1f21", "#62666c", "#0b6b62", "#a3341f"
_MARGIN, _GAP = 40, 14
_TITLE, _HEAD, _LABEL, _SMALL = 30, 26, 21, 17
_LONGEST_LABEL = 4  # lines of a column's label
_MOST_ON_A_SIDE = 12  # rows, or columns, of a page: more go on another
_PART = ".part"


class SheetAxis(NamedTuple):
    """One axis: what varies, and its values as they are to be read."""

    name: str
    labels: tuple[str, ...]


class SheetCell(NamedTuple):
    """What a cell shows: an image, or why there is none."""

    image: Path | None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """What is to be drawn.

    Attributes:
        title: What all images have in common, such as the prompt.
        notes: The rest of it, in small letters.
        rows: The axis on the left edge.
        columns: The axis on the upper edge.
        pages: Further axes: a page for each of their combinations.
        cell: Gives a cell by its places on ``(*pages, rows, columns)``; on axes that are None the place is 0.
        shape: Width by height of a cell.
        side: Pixels of a cell's longer side.
    """

    title: str
    notes: str = ""
    rows: SheetAxis | None = None
    columns: SheetAxis | None = None
    pages: tuple[SheetAxis, ...] = ()
    cell: Callable[[tuple[int, ...]], SheetCell] = field(repr=False)
    shape: float = 1.0
    side: int = 340

    @property
    def box(self) -> tuple[int, int]:
        """A cell's width and height."""
        shape = min(2.5, max(0.4, self.shape))
        return round(self.side * min(1.0, shape)), round(self.side * min(1.0, 1 / shape))


class _Band(NamedTuple):
    """Rows under one line of column labels."""

    rows: range
    columns: range


class _Page(NamedTuple):
    at: tuple[int, ...]
    bands: list[_Band]


def draw_sheets(folder: Path, sheet: Sheet, name: str = "contact-sheet") -> list[Path]:
    """Draw the pages into a folder, and remove those of an earlier, longer sheet. Blocking; needs Pillow."""
    pages = list(_pages(sheet))
    paths = []
    for number, page in enumerate(pages, 1):
        image = _draw(sheet, page, f"{number} of {len(pages)}" if len(pages) > 1 else "")
        path = folder / (f"{name}-{number}.png" if len(pages) > 1 else f"{name}.png")
        part = path.with_name(path.name + _PART)
        image.save(part, "PNG")
        part.replace(path)
        paths.append(path)
    for old in folder.glob(f"{name}*.png"):
        rest = old.stem.removeprefix(name)
        if old not in paths and (not rest or (rest[0] == "-" and rest[1:].isdigit())):
            old.unlink()
    return paths


def _pages(sheet: Sheet) -> Iterator[_Page]:
    rows = range(len(sheet.rows.labels) if sheet.rows else 1)
    columns = range(len(sheet.columns.labels) if sheet.columns else 1)
    for at in product(*(range(len(axis.labels)) for axis in sheet.pages)):
        if sheet.rows is None and len(columns) > _MOST_ON_A_SIDE // 2:  # one axis alone: line under line
            yield from (_Page(at, bands) for bands in _lines(columns))
        else:
            for some, others in product(_parts(rows, _MOST_ON_A_SIDE), _parts(columns, _MOST_ON_A_SIDE)):
                yield _Page(at, [_Band(some, others)])


def _lines(columns: range) -> Iterator[list[_Band]]:
    width = min(_MOST_ON_A_SIDE // 2, math.ceil(math.sqrt(len(columns))))
    for page in _parts(columns, width * _MOST_ON_A_SIDE):
        yield [_Band(range(1), part) for part in _parts(page, width)]


def _parts(places: range, size: int) -> list[range]:
    return [places[start : start + size] for start in range(0, len(places), size)]


def _draw(sheet: Sheet, page: _Page, number: str) -> Image.Image:
    """Twice: once to see how high it gets, once for good."""
    left = _label_width(sheet)
    columns = max(len(band.columns) for band in page.bands)
    width = _MARGIN * 2 + left + columns * (sheet.box[0] + _GAP) - _GAP
    width = max(width, 760)
    probe = _Pen(sheet, Image.new("RGB", (1, 1)), width, left, draws=False)
    probe.page(page, number)
    pen = _Pen(sheet, Image.new("RGB", (width, round(probe.y) + _MARGIN), _GROUND), width, left, draws=True)
    pen.page(page, number)
    return pen.image


def _label_width(sheet: Sheet) -> int:
    if sheet.rows is None:
        return 0
    widest = max(width_of(label, _LABEL) for label in (*sheet.rows.labels, sheet.rows.name))
    return min(math.ceil(widest) + 2, max(240, sheet.box[0])) + 2 * _GAP


class _Pen:
    """Draws one page from top to bottom; ``y`` is how far it has come."""

    def __init__(self, sheet: Sheet, image: Image.Image, width: int, left: int, *, draws: bool) -> None:
        self.image = image
        self.y = float(_MARGIN)
        self._sheet = sheet
        self._draw = ImageDraw.Draw(image)
        self._width = width
        self._left = _MARGIN + left
        self._draws = draws

    def page(self, page: _Page, number: str) -> None:
        if number:
            self._lines([number], (self._width - _MARGIN, self.y), _SMALL, _SOFT, "right")
        self._heading(page.at, self._width - 2 * _MARGIN - (140 if number else 0))
        for place, band in enumerate(page.bands):
            self._band(page.at, band, first=place == 0)
        self.y -= _GAP

    def _heading(self, at: tuple[int, ...], room: int) -> None:
        sheet = self._sheet
        self._put(wrap(sheet.title, _TITLE, room, 3), _TITLE, _TEXT)
        self._put(wrap(sheet.notes, _SMALL, room, 2), _SMALL, _SOFT, 6)
        for axis, place in zip(sheet.pages, at, strict=True):
            self._put(wrap(f"{axis.name}  {axis.labels[place]}", _HEAD, room, 3), _HEAD, _ACCENT, 14)
        self.y += 26

    def _put(self, lines: list[str], size: int, fill: str, space: int = 0) -> None:
        if lines:
            self.y += space
            self._lines(lines, (_MARGIN, self.y), size, fill)
            self.y += len(lines) * size * LINE

    def _band(self, at: tuple[int, ...], band: _Band, *, first: bool) -> None:
        width, height = self._sheet.box
        self._edge(band, first=first)
        for row in band.rows:
            if self._sheet.rows is not None:
                room = self._left - _MARGIN - 2 * _GAP
                lines = wrap(self._sheet.rows.labels[row], _LABEL, room, max(1, int(height / (_LABEL * LINE))))
                middle = self.y + (height - len(lines) * _LABEL * LINE) / 2
                self._lines(lines, (_MARGIN, middle), _LABEL, _TEXT)
            for place, column in enumerate(band.columns):
                x = self._left + place * (width + _GAP)
                self._cell(self._sheet.cell((*at, row, column)), round(x), round(self.y))
            self.y += height + _GAP

    def _edge(self, band: _Band, *, first: bool) -> None:
        """The names of the axes, once, and the labels of the columns."""
        rows, columns, width = self._sheet.rows, self._sheet.columns, self._sheet.box[0]
        if columns is None:
            self._names(rows, None)
            return
        if first and rows is None:
            self._names(None, columns)
        elif first:
            self._lines([columns.name], (self._left, self.y), _SMALL, _SOFT)
            self.y += _SMALL * LINE + 2
        labels = [wrap(columns.labels[column], _LABEL, width, _LONGEST_LABEL) for column in band.columns]
        deepest = max(map(len, labels)) * _LABEL * LINE
        for place, lines in enumerate(labels):
            x = self._left + place * (width + _GAP) + width / 2
            self._lines(lines, (x, self.y + deepest - len(lines) * _LABEL * LINE), _LABEL, _TEXT, "middle")
        if rows is not None:
            self._lines([rows.name], (_MARGIN, self.y + deepest - _SMALL * LINE), _SMALL, _SOFT)
        self.y += deepest + 10

    def _names(self, rows: SheetAxis | None, columns: SheetAxis | None) -> None:
        axis = rows or columns
        if axis is not None:
            self._lines([axis.name], (_MARGIN if rows else self._left, self.y), _SMALL, _SOFT)
            self.y += _SMALL * LINE + 6

    def _cell(self, cell: SheetCell, x: int, y: int) -> None:
        if not self._draws:
            return
        width, height = self._sheet.box
        picture = None if cell.image is None else _opened(cell.image, (width, height))
        if picture is not None:
            self.image.paste(picture, (x + (width - picture.width) // 2, y + (height - picture.height) // 2))
            return
        self._draw.rounded_rectangle((x, y, x + width - 1, y + height - 1), radius=8, fill=_SUNK)
        lines = wrap(
            cell.note or "the file can't be read", _SMALL, width - 32, max(1, int((height - 32) / (_SMALL * LINE)))
        )
        top = y + (height - len(lines) * _SMALL * LINE) / 2
        self._lines(lines, (x + width / 2, top), _SMALL, _BAD, "middle")

    def _lines(self, lines: list[str], place: tuple[float, float], size: int, fill: str, anchor: str = "left") -> None:
        if self._draws:
            draw_lines(self._draw, place, lines, size=size, fill=fill, anchor=anchor)


def _opened(path: Path, box: tuple[int, int]) -> Image.Image | None:
    """An image as large as fits into the box."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", box)
            upright = ImageOps.exif_transpose(image).convert("RGB")
            return ImageOps.contain(upright, box, Image.Resampling.LANCZOS)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
