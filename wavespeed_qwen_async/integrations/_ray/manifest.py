"""The Parquet manifest: a row for each job that came to its end, made of ``results.jsonl``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from wavespeed_qwen_async.errors import ConfigurationError

from .landing import opened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["row_of", "write_manifest"]

_IN_ONE_GROUP = 10_000  # rows


def row_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """A flat row of one line of ``results.jsonl``."""
    inputs, error = result.get("inputs") or {}, result.get("error") or {}
    return {
        "index": result["index"],
        "line": result.get("line"),
        "status": result["status"],
        "file": result.get("file"),
        "model": result.get("model"),
        "prompt": inputs.get("prompt"),
        "seed": inputs.get("seed"),
        "size": inputs.get("size"),
        "inputs": json.dumps(inputs, ensure_ascii=False),
        "prediction_id": result.get("prediction_id"),
        "created_at": result.get("created_at"),
        "price": result.get("price"),
        "seconds": result.get("seconds"),
        "error": error.get("message"),
        "error_kind": error.get("kind"),
        "billed": error.get("billed", "yes"),
    }


def write_manifest(results: Path, place: str, storage: Mapping[str, Any] | None = None) -> int:
    """Write it to a path or a URL; gives the number of rows. Blocking.

    Raises:
        ConfigurationError: pyarrow is missing, or there is no such place.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an optional extra
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError("a manifest needs pyarrow: pip install 'wavespeed-qwen-async[ray]'") from None
    text, number = pa.string(), pa.int64()
    kinds = {"index": number, "line": number, "seed": number, "price": pa.float64(), "seconds": pa.float64()}
    filesystem, path = opened(place, storage or {})
    rows = 0
    names = list(row_of({"index": 0, "status": ""}))
    schema = pa.schema([(name, kinds.get(name, text)) for name in names])
    with filesystem.open(path, "wb") as file, parquet.ParquetWriter(file, schema) as writer:
        for group in _groups(results):
            rows += len(group)
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
    return rows


def _groups(results: Path) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    with results.open("rb") as file:
        for line in file:
            group.append(row_of(json.loads(line)))
            if len(group) == _IN_ONE_GROUP:
                yield group
                group = []
    if group:
        yield group
