"""How an image came to be, written into the image itself."""

from __future__ import annotations

__all__ = ["Provenance"]


class Provenance:
    """What is known about an image's making."""
