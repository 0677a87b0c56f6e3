"""What makes two jobs the same: their content, however it is written down and wherever the pictures lie."""

from __future__ import annotations

import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wavespeed_qwen_async._inputs import is_url
from wavespeed_qwen_async._wire import inputs_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wavespeed_qwen_async.models import Job

__all__ = ["digest_of", "mark_of", "marks_of"]

_SIZE = 16


def marks_of(texts: Iterable[bytes], salt: bytes) -> list[bytes]:
    """Lines as they stand there, and the defaults that they are read with, as a few bytes each. Quick: for millions."""
    key, hashed = _key(salt), hashlib.blake2b
    return [hashed(text, digest_size=_SIZE, key=key).digest() for text in texts]


def mark_of(text: bytes, salt: bytes) -> bytes:
    """The same of one line."""
    return marks_of([text], salt)[0]


def _key(salt: bytes) -> bytes:
    return hashlib.blake2b(salt, digest_size=_SIZE).digest() if salt else b""


def digest_of(job: Job) -> bytes:
    """The same for the same job: model, parameters, and the content of local images. Blocking where there are such."""
    content = {"model": job.model, **inputs_of(job), "sources": [_source(source) for source in job.sources]}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=_SIZE).digest()


def _source(source: Any) -> str:
    if isinstance(source, str) and is_url(source):
        return source
    if isinstance(source, bytes):
        return "sha256:" + hashlib.sha256(source).hexdigest()
    if isinstance(source, (str, os.PathLike)):
        return _file(os.fspath(source))
    try:
        pixels = hashlib.sha256(source.tobytes()).hexdigest()  # a PIL image
    except (OSError, ValueError):  # cut off, or closed: its upload says so, as that job's failure
        pixels = "unreadable"
    return f"pixels:{source.mode}:{source.size}:{pixels}"


def _file(path: str) -> str:
    try:
        status = Path(path).stat()
        return _content(path, status.st_size, status.st_mtime_ns)
    except OSError:
        return f"path:{path}"


@lru_cache(maxsize=4096)
def _content(path: str, _size: int, _changed: int) -> str:
    with Path(path).open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
