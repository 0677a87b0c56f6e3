"""Text in pictures: wrapped, as large as fits, English and Chinese, with fonts that the package brings along."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from io import BytesIO
from itertools import groupby
from typing import TYPE_CHECKING, Final

from PIL import ImageDraw, ImageFont

if TYPE_CHECKING:
    from PIL import Image

_MEASURE: Final = 64
_SMALLEST: Final = 11
_LINE: Final = 1.34
_LATIN: Final = (range(0x2000), range(0x2010, 0x2070), (0x20AC, 0x2122))
_BASIC_PLANE: Final = 0xFFFF
_NO_LINE_START: Final = frozenset(
    "\uff0c\u3002\u3001\uff1b\uff1a\uff1f\uff01\uff09\u300b\u300d\u300f\u201d\u2019\u2026,.;:?!)]}"
)
"""Commas, full stops, closing brackets and quotes, Chinese and Latin: these stay on the line they end."""
_LONGEST: Final = 6_000


@lru_cache(maxsize=2)
def _font_file(name: str) -> bytes:
    return (files(__package__ or "") / "fonts" / f"{name}.ttf").read_bytes()


@lru_cache(maxsize=128)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    # The basic layout, since the other one is not in every build of Pillow: the same bytes everywhere.
    return ImageFont.truetype(BytesIO(_font_file(name)), size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=16_384)
def _script(char: str) -> str:
    return "latin" if any(ord(char) in codes for codes in _LATIN) else "han"


@lru_cache(maxsize=16_384)
def _width(char: str) -> float:
    """Return a character's width at size 1; widths grow with the size, since the fonts have no hints."""
    return _font(_script(char), _MEASURE).getlength(char) / _MEASURE


def text_width(text: str) -> float:
    """Return the width of a line at size 1."""
    return sum(map(_width, text))


def clean(text: str) -> str:
    """Make any text drawable: spaces for white space, boxes for what no font here has, lines kept."""
    lines = (" ".join(line.split()) for line in text[:_LONGEST].splitlines())
    return "\n".join("".join(map(_drawable, line)) for line in lines if line)


def _drawable(char: str) -> str:
    return char if char.isprintable() and ord(char) <= _BASIC_PLANE else "□"


def _words(line: str) -> list[str]:
    """Cut a line where it may be broken: after spaces, and around each Han."""
    words: list[str] = []
    for char in line:
        joins = bool(words) and (
            char in _NO_LINE_START
            or (_script(char) == "latin" and _script(words[-1][-1]) == "latin" and words[-1][-1] != " ")
        )
        if joins:
            words[-1] += char
        else:
            words.append(char)
    return words


def wrap(text: str, width: float) -> list[str]:
    """Break text into lines of at most `width` (at size 1); a word that is too long is cut."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line, length = "", 0.0
        for word in _words(paragraph):
            wide = text_width(word)
            if line and length + text_width(word.rstrip()) > width:
                lines.append(line.rstrip())
                line, length = "", 0.0
            if wide > width:
                *full, word = _cut(word, width)  # noqa: PLW2901 - the rest of the word goes on
                lines += full
                wide = text_width(word)
            line, length = line + word, length + wide
        lines.append(line.rstrip())
    return lines


def _cut(word: str, width: float) -> list[str]:
    pieces, start, length = [], 0, 0.0
    for place, char in enumerate(word):
        length += _width(char)
        if length > width and place > start:
            pieces.append(word[start:place])
            start, length = place, _width(char)
    return [*pieces, word[start:]]


@dataclass(frozen=True, slots=True)
class Block:
    """Lines of text and the size to draw them at."""

    lines: tuple[str, ...]
    size: int

    @property
    def height(self) -> int:
        """The height in pixels."""
        return round(len(self.lines) * self.size * _LINE)


def fit(text: str, width: int, height: int, largest: int, smallest: int = _SMALLEST) -> Block:
    """Find the largest size at which the text fits a box; at the smallest one it is cut off with an ellipsis."""
    size = max(largest, smallest)
    while True:
        lines = wrap(text, width / size)
        room = max(1, int(height / (size * _LINE)))
        if len(lines) <= room or size <= smallest:
            break
        size = max(smallest, min(size - 1, int(size * 0.93)))
    if len(lines) > room:
        last = lines[room - 1]
        while last and text_width(last + "…") > width / size:
            last = last[:-1]
        lines = [*lines[: room - 1], last + "…"]
    return Block(tuple(lines), size)


def draw_block(image: Image.Image, place: tuple[int, int], block: Block, fill: tuple[int, int, int, int]) -> None:
    """Draw a block with its top left corner at `place`."""
    draw = ImageDraw.Draw(image, "RGBA")
    for number, line in enumerate(block.lines):
        x = float(place[0])
        base = place[1] + number * block.size * _LINE + block.size * 1.02
        for script, run in groupby(line, key=_script):
            text = "".join(run)
            draw.text((x, base), text, fill=fill, font=_font(script, block.size), anchor="ls")
            x += text_width(text) * block.size


def draw_caption(image: Image.Image, prompt: str, notes: str, shade: int = 184) -> None:
    """Write the prompt and a line of notes on a dark panel (as opaque as `shade`) at the bottom of a picture."""
    width, height = image.size
    span = round((width * height) ** 0.5)
    margin = max(8, min(width, height) // 28)
    pad = max(6, margin * 2 // 3)
    inner = width - 2 * (margin + pad)
    small = fit(clean(notes), inner, height // 5, max(9, span // 48), smallest=9)
    block = fit(clean(prompt), inner, int(height * 0.55) - small.height, max(13, span // 21))
    panel = block.height + small.height + pad * 2
    top = height - margin - panel
    draw = ImageDraw.Draw(image, "RGBA")
    draw.rounded_rectangle((margin, top, width - margin, height - margin), radius=margin // 2, fill=(12, 14, 22, shade))
    draw_block(image, (margin + pad, top + pad), block, (255, 255, 255, 255))
    draw_block(image, (margin + pad, top + pad + block.height), small, (214, 220, 232, 230))
