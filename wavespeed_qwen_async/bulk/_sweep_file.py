"""A sweep that stands in a YAML or JSON file. Blocking."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from wavespeed_qwen_async._inputs import is_url
from wavespeed_qwen_async.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_sweep"]


def read_sweep(path: Path) -> dict[str, Any]:
    """The arguments of a sweep; source images are looked for beside the file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: can't be read: {getattr(error, 'strerror', '') or error}") from None
    value = _json(path, text) if path.suffix.lower() == ".json" else _yaml(path, text)
    if not isinstance(value, dict):
        raise ConfigurationError(f"{path}: give a mapping of prompt, lora, scale, seed, size, model, image")
    return {**value, "image": _beside(path.parent, value["image"])} if "image" in value else value


def _json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} is no JSON: {error}") from None


def _yaml(path: Path, text: str) -> Any:
    try:
        import yaml  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise ConfigurationError("YAML files need pyyaml: pip install 'wavespeed-qwen-async[yaml]'") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is no YAML: {' '.join(str(error).split())}") from None


def _beside(folder: Path, value: Any) -> Any:
    if isinstance(value, list):
        return [_beside(folder, item) for item in value]
    if not isinstance(value, str) or is_url(value):
        return value
    return folder / value if (folder / value).exists() else value
