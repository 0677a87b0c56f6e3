"""Renders one output: a picture for a prompt, or a source picture changed by one. Runs in a worker thread."""

from __future__ import annotations

import random
from hashlib import sha256
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from PIL import Image, ImageDraw, ImageOps

from .captions import draw_caption
from .scenes import Loras, paint, weave
from .schema import MAX_SIDE, MIN_SIDE

if TYPE_CHECKING:
    from collections.abc import Sequence

Source = bytes | str
"""A source picture: its bytes, or the URL that a stand-in is painted for."""

_STAND_IN: Final = (768, 768)
_SAVE: Final[dict[str, dict[str, Any]]] = {
    "jpeg": {"quality": 88},
    "png": {"compress_level": 1},
    "webp": {"quality": 82, "method": 1},
}


def render(  # noqa: PLR0917 - called through an executor, which passes no names
    prompt: str,
    seed: int,
    loras: Loras,
    size: tuple[int, int] | None,
    output_format: str,
    sources: Sequence[Source] = (),
) -> bytes:
    """Render one image to bytes; the same arguments give the same bytes.

    Args:
        prompt: written into the picture.
        seed: the concrete seed.
        loras: pairs of path and scale.
        size: width and height; None takes those of the first source.
        output_format: jpeg, png or webp.
        sources: the pictures to change; none for text to image.
    """
    if sources:
        pictures = [_open(source) for source in sources]
        image = _edit(pictures, prompt, seed, loras, size or _allowed(pictures[0].size))
    else:
        image = paint(prompt, seed, loras, size or (1024, 1024))
    # A source may be one of our own pictures: its caption must not shine through.
    draw_caption(image, prompt, _notes(seed, loras, edited=bool(sources)), 252 if sources else 184)
    file = BytesIO()
    image.save(file, output_format.upper(), **_SAVE[output_format])
    return file.getvalue()


def _notes(seed: int, loras: Loras, *, edited: bool) -> str:
    parts = ["edited"] if edited else []
    parts += [f"seed {seed}"]
    parts += [f"{path.rpartition('/')[2] if '://' in path else path} \u00d7{scale:g}" for path, scale in loras]
    return "  ·  ".join(parts)


def _open(source: Source) -> Image.Image:
    """Read a source picture; one that cannot be read gets a stand-in, as a URL does."""
    if isinstance(source, str):
        return paint(source, 0, (), _STAND_IN)
    try:
        with Image.open(BytesIO(source)) as image:
            image.draft("RGB", (MAX_SIDE, MAX_SIDE))
            return ImageOps.exif_transpose(image).convert("RGB")
    except Exception:  # noqa: BLE001 - whatever somebody uploaded, the picture must come out
        return paint(sha256(source).hexdigest(), 0, (), _STAND_IN)


def _allowed(size: tuple[int, int]) -> tuple[int, int]:
    """Bring a size into the range that the models give, keeping its shape where that goes."""
    shrink = min(1.0, MAX_SIDE / max(size))
    width, height = (min(MAX_SIDE, max(MIN_SIDE, round(side * shrink))) for side in size)
    return width, height


def _edit(pictures: Sequence[Image.Image], prompt: str, seed: int, loras: Loras, size: tuple[int, int]) -> Image.Image:
    """Show the sources side by side, toned and framed by prompt and seed."""
    rng = random.Random(sha256(f"{prompt}/{seed}".encode("utf-8", "replace")).digest())  # noqa: S311
    image = Image.new("RGB", size)
    width = -(-size[0] // len(pictures))
    for column, picture in enumerate(pictures):
        image.paste(ImageOps.fit(picture, (width, size[1])), (column * width, 0))
    art = paint(prompt, seed, loras, size)
    tone = f"hsl({rng.randrange(360)}, 60%, {{}}%)"
    toned = ImageOps.colorize(ImageOps.grayscale(image), tone.format(12), tone.format(84), tone.format(55))
    image = Image.blend(image, toned, rng.uniform(0.4, 0.55))
    for path, scale in loras:
        weave(image, path, scale)
    mask = Image.new("L", size, 255)
    edge = max(8, min(size) // rng.randint(20, 28))
    box = (edge, edge, size[0] - edge, size[1] - edge)
    ImageDraw.Draw(mask).rounded_rectangle(box, radius=edge, fill=0)
    image.paste(art, (0, 0), mask)
    ImageDraw.Draw(image, "RGBA").rounded_rectangle(
        box, radius=edge, outline=(255, 255, 255, 190), width=max(1, edge // 8)
    )
    return image
