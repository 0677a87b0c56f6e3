"""A folder of images to look at: ``index.html`` with all of a batch, and labelled contact sheets of a sweep."""

from __future__ import annotations

from ._make import GalleryReport, make_gallery
from ._sweeps import make_contact_sheets

__all__ = ["GalleryReport", "make_contact_sheets", "make_gallery"]
