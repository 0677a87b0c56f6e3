"""The site builds without a warning, fetches nothing from elsewhere, and has every public name in its reference."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import zlib
from typing import TYPE_CHECKING

import pytest
from pages import DOCS, ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("mkdocs", reason="needs the extra [docs]; `nox -s docs` has it")

pytestmark = pytest.mark.timeout(300)  # a busy machine takes its time to build it
of_the_site = pytest.mark.commands  # `nox -s docs` builds it anyway; a run by default has no need to

PUBLIC = ["", ".bulk", ".bulk.sweep", ".bulk.gallery", ".errors", ".webhooks", ".testing", ".emulator", ".names"]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site: what `nox -s docs` made, else made now."""
    made = os.environ.get("DOCS_SITE")
    if made:
        return ROOT / made
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_in_the_navigation_once():
    nav = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1]
    pages = re.findall(r"([\w/-]+\.md)$", nav, re.MULTILINE)
    assert sorted(set(pages)) == sorted(pages)


@of_the_site
def test_every_page_is_there(site):
    pages = [path for path in DOCS.rglob("*.md") if "_site" not in path.parts]
    assert len(pages) > 25
    assert [page for page in pages if not (site / page.relative_to(DOCS).with_suffix(".html")).exists()] == []


def known_to(site: Path) -> set[str]:
    """What the reference holds: the names in its inventory, which other projects' sites link by."""
    raw = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    return {line.split(" ", 1)[0] for line in zlib.decompress(raw).decode().splitlines()}


@of_the_site
def test_every_integration_is_in_the_reference(site):
    """Read, not imported: each needs something that may not be installed."""
    known = known_to(site)
    for path in (ROOT / "wavespeed_qwen_async" / "integrations").glob("[!_]*.py"):
        names = re.search(r"^__all__ = (\[.*?\])", path.read_text(), re.DOTALL | re.MULTILINE)
        assert names, path
        for name in ast.literal_eval(names[1]):
            assert f"wavespeed_qwen_async.integrations.{path.stem}.{name}" in known


@of_the_site
@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_in_the_reference(site, module):
    name, known = f"wavespeed_qwen_async{module}", known_to(site)
    names = {each for each in importlib.import_module(name).__all__ if not each.isupper()}  # constants: in the text
    names -= {"__version__", "Billed", "create_app", "run"}
    assert {each for each in names if f"{name}.{each}" not in known} == set()


@of_the_site
def test_no_page_loads_anything_from_elsewhere(site):
    loads = re.compile(
        r"""<(?:script|img|iframe|source|video)[^>]*\bsrc=["']?(?:https?:)?//[^>]*>"""
        r"""|<link(?![^>]*rel=["']?(?:canonical|next|prev))[^>]*\bhref=["']?(?:https?:)?//[^>]*>"""
    )
    for page in site.rglob("*.html"):
        assert not loads.findall(page.read_text()), page
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"""(?:url\(|@import )["']?(?:https?:)?//""", sheet.read_text()), sheet


@of_the_site
def test_no_docstring_shows_its_raw_markup(site):
    for page in (site / "reference").glob("*.html"):
        assert not re.findall(r":(?:class|meth|func|mod):|``", page.read_text()), page
