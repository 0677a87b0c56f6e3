"""Text in pictures, English and Chinese: measured, wrapped, cut with an ellipsis where there is no more room."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from io import BytesIO
from itertools import groupby
from typing import TYPE_CHECKING

from PIL import ImageFont

if TYPE_CHECKING:
    from PIL import ImageDraw

__all__ = ["LINE", "draw_lines", "width_of", "wrap"]

LINE = 1.32
"""From one line to the next, in sizes of the letters."""

# The fonts that the emulator renders prompts with. They are read, nothing of the emulator is imported.
_FONTS = files("wavespeed_qwen_async").joinpath("emulator", "fonts")
_LATIN = (range(0x2000), range(0x2010, 0x2070), (0x20AC, 0x2122))
_BASIC_PLANE = 0xFFFF
_MEASURE = 64
_ELLIPSIS = "\u2026"
_NO_LINE_START = frozenset(
    "\uff0c\u3002\u3001\uff1b\uff1a\uff1f\uff01\uff09\u300b\u300d\u300f\u201d\u2019\u2026,.;:?!)]}"
)
_LONGEST = 2000


@lru_cache(maxsize=2)
def _file(name: str) -> bytes:
    return (_FONTS / f"{name}.ttf").read_bytes()


@lru_cache(maxsize=32)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(BytesIO(_file(name)), size, layout_engine=ImageFont.Layout.BASIC)


def _script(char: str) -> str:
    return "latin" if any(ord(char) in codes for codes in _LATIN) else "han"


@lru_cache(maxsize=8192)
def _char_width(char: str) -> float:
    return _font(_script(char), _MEASURE).getlength(char) / _MEASURE


def width_of(text: str, size: int) -> float:
    """A line's width in pixels."""
    return sum(map(_char_width, text)) * size


def wrap(text: str, size: int, width: float, most: int) -> list[str]:
    """At most ``most`` lines of at most ``width`` pixels; what does not fit ends in an ellipsis."""
    lines = _wrapped(_clean(text), width / size)
    if len(lines) <= most:
        return lines
    last = lines[most - 1] + _ELLIPSIS
    while len(last) > 1 and width_of(last, size) > width:
        last = last[:-2] + _ELLIPSIS
    return [*lines[: most - 1], last]


def draw_lines(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    lines: list[str],
    *,
    size: int,
    fill: str,
    anchor: str = "left",
) -> None:
    """Draw lines from the top; ``place`` is the left end of the first, its middle or its right end."""
    for number, line in enumerate(lines):
        back = {"left": 0.0, "middle": 0.5, "right": 1.0}[anchor] * width_of(line, size)
        x = place[0] - back
        base = place[1] + number * size * LINE + size * 1.02
        for script, run in groupby(line, key=_script):
            part = "".join(run)
            draw.text((x, base), part, fill=fill, font=_font(script, size), anchor="ls")
            x += width_of(part, size)


def _clean(text: str) -> str:
    """In one line, and a box for each character that no font here has."""
    flat = " ".join(text[:_LONGEST].split())
    return "".join(char if char.isprintable() and ord(char) <= _BASIC_PLANE else "\u25a1" for char in flat)


def _wrapped(text: str, width: float) -> list[str]:
    lines, line, length = [], "", 0.0
    for word in _words(text, width):
        wide = sum(map(_char_width, word))
        if line and length + sum(map(_char_width, word.rstrip())) > width:
            lines.append(line.rstrip())
            line, length = "", 0.0
        line, length = line + word, length + wide
    return [*lines, line.rstrip()] if line.strip() else lines


def _words(text: str, width: float) -> list[str]:
    """Cut where a line may end: behind spaces, slashes, hyphens, around each Han, within a word wider than a line."""
    words: list[str] = []
    length = 0.0
    for char in text:
        wide = _char_width(char)
        joins = bool(words) and (char in _NO_LINE_START or not _may_break(words[-1][-1], char))
        if joins and length + wide <= width:
            words[-1] += char
            length += wide
        else:
            words.append(char)
            length = wide
    return words


def _may_break(before: str, after: str) -> bool:
    return before in " /-_" or "han" in {_script(before), _script(after)}
