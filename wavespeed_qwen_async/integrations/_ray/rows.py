"""Batches as Ray Data gives them, into rows and back: a dict of NumPy arrays, an Arrow table, a DataFrame, or rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from wavespeed_qwen_async.errors import ConfigurationError
from wavespeed_qwen_async.models import Edit, TextToImage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["job_in", "unpacked"]

_OF_A_JOB = frozenset(TextToImage.model_fields) | frozenset(Edit.model_fields)

Rows = list[dict[str, Any]]


def unpacked(batch: Any) -> tuple[Rows, Callable[[Rows], Any]]:
    """The rows of a batch, and what makes a batch of the same kind of rows.

    Raises:
        ConfigurationError: it is none that is known.
    """
    if isinstance(batch, list):
        return batch, list
    if isinstance(batch, dict):
        return _by_row(batch), _as_arrays
    if hasattr(batch, "to_pylist"):
        return batch.to_pylist(), type(batch).from_pylist
    if hasattr(batch, "to_dict"):
        return batch.to_dict("records"), type(batch)
    raise ConfigurationError(f"batch: a {type(batch).__name__}; give batch_format='numpy', 'pyarrow' or 'pandas'")


def job_in(row: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a job among a row's columns; what is empty is left out."""
    return {name: value for name in row if name in _OF_A_JOB and (value := _plain(row[name])) is not None}


def _by_row(batch: Mapping[str, Any]) -> Rows:
    names = list(batch)
    return [dict(zip(names, values, strict=True)) for values in zip(*batch.values(), strict=True)]


def _as_arrays(rows: Rows) -> dict[str, Any]:
    """A column for each name: Ray makes arrays of lists, but an empty one has no type to tell."""
    import numpy as np  # noqa: PLC0415 - comes with Ray Data

    columns: dict[str, Any] = {}
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows]
        column: Any = np.empty(len(values), dtype=object)
        column[:] = values
        columns[name] = column if None in values or _is_odd(values[0]) else np.array(values)
    return columns


def _is_odd(value: Any) -> bool:
    """No plain number or text: NumPy would make a matrix of lists, and cut zero bytes off the end of bytes."""
    return not isinstance(value, (str, bool, int, float))


def _plain(value: Any) -> Any:
    """As a job takes it: NumPy's numbers and arrays made Python's, NaN and nested nothings made nothing."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return int(value) if value.is_integer() else value  # a column of whole numbers with gaps
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain for name, item in value.items() if (plain := _plain(item)) is not None}
    return value
