"""Imports point one way; a forbidden one is named. Importing the package does no work."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import wavespeed_qwen_async

PACKAGE = Path(wavespeed_qwen_async.__file__).parent

# From the bottom to the top: a module may import from its own layer and from those below it.
LAYERS = [
    {"_version"},
    {"errors"},
    {"_headers", "_inputs", "_origin", "models", "predictions"},
    {"_wire", "_answers", "_retry", "_tasks", "_deadlines", "names", "observer"},
    {"_transport", "_limits", "limits"},
    {"_api"},
    {"_media", "provenance"},
    {"_account", "_completion", "_matching", "_reconcile", "media", "webhooks"},
    {"_engine", "_stream", "_options"},
    {"session"},
    {"bulk"},
    {"integrations"},
    {"cli"},
]
# Leaves beside the tower: the emulator is an independent reading of the API and shares nothing with the client.
APART = {"emulator": {"emulator"}, "testing": None, "__init__": None}


def home_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """Top-level names of our own package that a file imports when it runs; type-checking blocks don't count."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    depth = len(path.relative_to(PACKAGE).parts) - 1
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            above = node.level - 1
            if node.level and above < depth:
                continue  # inside its own subpackage
            if node.level:
                found |= {node.module.partition(".")[0]} if node.module else {alias.name for alias in node.names}
            elif node.module and node.module.startswith("wavespeed_qwen_async."):
                found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            ours = [alias.name for alias in node.names if alias.name.startswith("wavespeed_qwen_async.")]
            found |= {name.split(".")[1] for name in ours}
    return found


FILES = sorted(path for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    home = home_of(path)
    if home in APART:
        allowed = APART[home]
        forbidden = imports_of(path) - allowed if allowed is not None else set()
    else:
        level = next((i for i, layer in enumerate(LAYERS) if home in layer), None)
        assert level is not None, f"{path.name}: say in LAYERS where it belongs"
        below = set().union(*LAYERS[: level + 1])
        below |= {"emulator"} if home == "cli" else set()
        forbidden = imports_of(path) - below - {home}
    assert not forbidden, f"{path.relative_to(PACKAGE)} must not import {sorted(forbidden)}"


def test_the_check_sees_imports(tmp_path):
    assert imports_of(PACKAGE / "session.py") >= {"_engine", "_account", "errors"}
    assert "limits" in imports_of(PACKAGE / "_options.py")


def test_importing_the_package_does_no_work():
    code = (
        "import sys, wavespeed_qwen_async as w; assert not {'aiohttp', 'pydantic', 'PIL', 'typer'} & set(sys.modules);"
        "assert w.TextToImage and 'aiohttp' not in sys.modules; print('ok')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout == "ok\n", result.stderr


def test_every_public_name_is_there():
    assert wavespeed_qwen_async.__all__ == sorted(wavespeed_qwen_async.__all__)
    for name in wavespeed_qwen_async.__all__:
        assert getattr(wavespeed_qwen_async, name) is not None
    assert set(wavespeed_qwen_async.__all__) <= set(dir(wavespeed_qwen_async))
    with pytest.raises(AttributeError, match="no_such_name"):
        wavespeed_qwen_async.no_such_name  # noqa: B018 - the access is the test
