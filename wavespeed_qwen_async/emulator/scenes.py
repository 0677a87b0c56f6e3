"""Soft generative pictures: the scene comes from the prompt, its details from the seed, its grain from the LoRAs."""

from __future__ import annotations

import colorsys
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Loras = Sequence[tuple[str, float]]

MOODS: Final[tuple[tuple[tuple[str, ...], float, str], ...]] = (
    (("night", "moon", "star", "夜", "月", "星"), 0.64, "night"),
    (("snow", "ice", "winter", "frost", "雪", "冰", "冬"), 0.56, "hills"),
    (("sea", "ocean", "wave", "river", "lake", "海", "浪", "江", "河", "湖", "水"), 0.54, "waves"),
    (("forest", "tree", "leaf", "garden", "bamboo", "林", "树", "竹", "花园"), 0.36, "hills"),
    (("sunset", "fire", "autumn", "fox", "red", "红", "秋", "火", "夕阳", "狐"), 0.04, "hills"),
    (("desert", "gold", "sun", "yellow", "沙", "金", "阳", "黄"), 0.11, "hills"),
    (("mountain", "hill", "valley", "landscape", "山", "谷", "景"), 0.60, "hills"),
    (("neon", "city", "cyber", "robot", "霓虹", "城", "机器"), 0.83, "orbs"),
    (("flower", "pink", "cherry", "rose", "portrait", "花", "粉", "樱", "人像"), 0.93, "aurora"),
)
"""Words, and the hue and scene that go with them, so that a picture has something of its prompt."""


@dataclass(frozen=True, slots=True)
class Palette:
    """Five colours that go together, from the light ones behind to the dark ones in front."""

    hue: float
    night: bool

    def shade(self, depth: float, turn: float = 0.0) -> Colour:
        """Return the colour at a depth: 0.0 is far and light, 1.0 near and dark."""
        value = (0.42 - 0.30 * depth) if self.night else (0.98 - 0.66 * depth)
        saturation = 0.28 + 0.42 * depth if not self.night else 0.55 + 0.2 * depth
        return _rgb(self.hue + turn, saturation, value)

    @property
    def accent(self) -> Colour:
        """A warm, light colour that stands out."""
        return _rgb(0.12 if self.night else 0.09, 0.14 if self.night else 0.34, 1.0)


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _hash(text: str) -> int:
    return int.from_bytes(sha256(text.encode("utf-8", "replace")).digest()[:8], "big")


def paint(prompt: str, seed: int, loras: Loras, size: tuple[int, int]) -> Image.Image:
    """Paint a picture; the same arguments give the same pixels."""
    rng = random.Random(f"{_hash(prompt)}/{seed}")  # noqa: S311 - repeatable, not secret
    lowered = prompt.lower()
    mood = next((mood for mood in MOODS if any(word in lowered for word in mood[0])), None)
    names = sorted(SCENES)
    hue, name = (mood[1], mood[2]) if mood is not None else (_hash(prompt) % 997 / 997, "")
    name = name or names[_hash(prompt + "?") % len(names)]
    hue += rng.uniform(-0.05, 0.05)
    hue += sum(scale * (_hash(path) % 100 / 100 - 0.5) * 0.08 for path, scale in loras)
    image = SCENES[name](size, rng, Palette(hue, night=name in {"night", "orbs"}))
    for path, scale in loras:
        weave(image, path, scale)
    return image


def gradient(size: tuple[int, int], colours: Sequence[Colour], lean: float = 0.0) -> Image.Image:
    """Return a smooth gradient from top to bottom, leaning to one side."""
    small = Image.new("RGB", (2, len(colours)))
    for row, colour in enumerate(colours):
        small.putpixel((0, row), colour)
        small.putpixel((1, row), _mix(colour, colours[(row + 1) % len(colours)], abs(lean)))
    return small.resize(size, Image.Resampling.BICUBIC)


def _mix(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def glow(image: Image.Image, centre: tuple[float, float], radius: float, colour: Colour, strength: float) -> None:
    """Light a round spot that fades outwards."""
    side = max(2, int(radius * 2))
    mask = Image.radial_gradient("L").point([round(max(0, 255 - v * 1.42) * strength) for v in range(256)])
    mask = mask.resize((side, side), Image.Resampling.BILINEAR)
    image.paste(colour, (int(centre[0] - radius), int(centre[1] - radius)), mask)


def _ridge(width: int, base: float, swing: float, rng: random.Random) -> list[tuple[float, float]]:
    """Return the points of a soft line across the picture."""
    tones = [(rng.uniform(0.6, 1.6) * 2**n, rng.uniform(0, math.tau), swing / 1.9**n) for n in range(4)]
    step = max(4, width // 160)
    return [
        (x, base + sum(high * math.sin(math.tau * tone * x / width + turn) for tone, turn, high in tones))
        for x in range(0, width + step, step)
    ]


def _stars(image: Image.Image, rng: random.Random, colour: Colour) -> None:
    draw = ImageDraw.Draw(image, "RGBA")
    width, height = image.size
    for _ in range(140):
        x, y, r = rng.uniform(0, width), rng.uniform(0, height * 0.7), rng.choice((1, 1, 1, 2, 3)) * width / 1400
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(*colour, rng.randint(70, 230)))


def hills(size: tuple[int, int], rng: random.Random, palette: Palette) -> Image.Image:
    """A sky, a sun or moon, and ridges one behind the other."""
    width, height = size[0] * 2, size[1] * 2
    sky = [palette.shade(0.55, -0.03), palette.shade(0.18, 0.02), palette.shade(0.0, 0.1)]
    image = gradient((width, height), sky, lean=0.25)
    if palette.night:
        _stars(image, rng, palette.accent)
    sun = (rng.uniform(0.2, 0.8) * width, rng.uniform(0.16, 0.38) * height)
    radius = rng.uniform(0.055, 0.09) * min(width, height)
    glow(image, sun, radius * 5, palette.accent, 0.75)
    draw = ImageDraw.Draw(image, "RGBA")
    draw.ellipse((sun[0] - radius, sun[1] - radius, sun[0] + radius, sun[1] + radius), fill=(*palette.accent, 245))
    layers = 5
    for layer in range(layers):
        depth = (layer + 1) / layers
        base = height * (0.40 + 0.11 * layer + rng.uniform(-0.02, 0.02))
        line = _ridge(width, base, height * (0.075 - 0.008 * layer), rng)
        colour = palette.shade(0.2 + 0.75 * depth, 0.06 * (1 - depth))
        draw.polygon([(0, height), *line, (width, height)], fill=colour)
    return image.reduce(2)


def night(size: tuple[int, int], rng: random.Random, palette: Palette) -> Image.Image:
    """Hills under stars."""
    return hills(size, rng, palette)


def waves(size: tuple[int, int], rng: random.Random, palette: Palette) -> Image.Image:
    """Ribbons of water under a light sky."""
    width, height = size[0] * 2, size[1] * 2
    image = gradient((width, height), [palette.shade(0.05, 0.5), palette.shade(0.1), palette.shade(0.5)], 0.3)
    glow(image, (rng.uniform(0.2, 0.8) * width, height * 0.2), 0.5 * min(width, height), palette.accent, 0.8)
    draw = ImageDraw.Draw(image, "RGBA")
    bands = 9
    for band in range(bands):
        base = height * (0.3 + 0.075 * band)
        line = _ridge(width, base, height * 0.028, rng)
        colour = palette.shade(0.15 + 0.85 * band / bands, rng.uniform(-0.03, 0.05))
        draw.polygon([(0, height), *line, (width, height)], fill=(*colour, 190))
        draw.line(line, fill=(255, 255, 255, 70), width=max(2, width // 600))
    return image.reduce(2)


def aurora(size: tuple[int, int], rng: random.Random, palette: Palette) -> Image.Image:
    """Clouds of colour that run into each other, with a few thin rings."""
    small = gradient((320, 320), [palette.shade(0.1), palette.shade(0.35, 0.08), palette.shade(0.6, -0.06)], 0.5)
    for _ in range(11):
        colour = palette.shade(rng.uniform(0.0, 0.75), rng.uniform(-0.16, 0.16))
        glow(small, (rng.uniform(0, 320), rng.uniform(0, 320)), rng.uniform(60, 190), colour, rng.uniform(0.5, 0.95))
    image = small.resize((size[0] * 2, size[1] * 2), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image, "RGBA")
    span = min(image.size)
    for _ in range(7):
        x, y = rng.uniform(0, image.width), rng.uniform(0, image.height * 0.8)
        r = rng.uniform(0.03, 0.3) * span
        draw.ellipse((x - r, y - r, x + r, y + r), outline=(255, 255, 255, 110), width=max(2, span // 500))
    return image.reduce(2)


def orbs(size: tuple[int, int], rng: random.Random, palette: Palette) -> Image.Image:
    """Glowing discs over each other in the dark."""
    width, height = size[0] * 2, size[1] * 2
    image = gradient((width, height), [palette.shade(0.5), palette.shade(0.9, 0.12), palette.shade(0.7, -0.1)], 0.4)
    span = min(width, height)
    for _ in range(4):
        spot = (rng.uniform(0, width), rng.uniform(0, height * 0.8))
        glow(image, spot, rng.uniform(0.25, 0.5) * span, _rgb(palette.hue + rng.uniform(-0.2, 0.2), 0.7, 0.95), 0.6)
    draw = ImageDraw.Draw(image, "RGBA")
    for _ in range(15):
        x, y = rng.uniform(0, width), rng.uniform(0, height * 0.75)
        r = rng.uniform(0.02, 0.14) * span
        colour = _rgb(palette.hue + rng.uniform(-0.22, 0.22), rng.uniform(0.35, 0.75), 1.0)
        draw.ellipse(
            (x - r, y - r, x + r, y + r), fill=(*colour, 70), outline=(*colour, 210), width=max(2, span // 400)
        )
    return image.reduce(2)


def weave(image: Image.Image, path: str, scale: float) -> None:
    """Lay a LoRA's own pattern over a picture; the scale is how strongly it shows."""
    alpha = round(min(120, 30 * scale))
    if alpha == 0:
        return
    rng = random.Random(_hash(path))  # noqa: S311 - repeatable, not secret
    draw = ImageDraw.Draw(image, "RGBA")
    width, height = image.size
    step = max(14, min(width, height) // rng.randint(16, 34))
    colour = (*_rgb(rng.random(), 0.25, 1.0), alpha)
    if rng.random() < 0.5:  # noqa: PLR2004 - one pattern or the other
        slope = rng.uniform(-1.2, 1.2)
        for x in range(-height * 2, width + height * 2, step):
            draw.line((x, 0, x + slope * height, height), fill=colour, width=max(1, step // 9))
    else:
        r = step / rng.uniform(5, 9)
        for row, y in enumerate(range(0, height + step, step)):
            for x in range(step // 2 * (row % 2), width + step, step):
                draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)


SCENES: Final[dict[str, Callable[[tuple[int, int], random.Random, Palette], Image.Image]]] = {
    "aurora": aurora,
    "hills": hills,
    "night": night,
    "orbs": orbs,
    "waves": waves,
}
