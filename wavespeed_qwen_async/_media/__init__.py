"""The parts of `media` and `provenance`: files, image formats, uploads and downloads."""
