"""Placeholder until the real renderer is in: plain images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .blank import blank_image

if TYPE_CHECKING:
    from collections.abc import Sequence

Source = bytes | str


def render(  # noqa: PLR0917
    prompt: str,  # noqa: ARG001
    seed: int,  # noqa: ARG001
    loras: Sequence[tuple[str, float]],  # noqa: ARG001
    size: tuple[int, int] | None,
    output_format: str,
    sources: Sequence[Source] = (),  # noqa: ARG001
) -> bytes:
    """Render one image."""
    width, height = size or (1024, 1024)
    return blank_image(width, height, output_format)
