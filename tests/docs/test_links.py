"""Links between our own pages lead somewhere, and the table of CONTRIBUTING names what exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
LINK = re.compile(r"\[[^\]]*\]\((?!https?://|#|mailto:)([^)#\s]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    dead = [target for target in LINK.findall(page.read_text()) if not (page.parent / target).exists()]
    assert not dead


def test_every_module_and_test_folder_that_contributing_names_exists():
    table = (ROOT / "CONTRIBUTING.md").read_text().split("its test is Z")[1].split("Data flows")[0]
    rows = [row.strip("|").split("|") for row in table.splitlines() if row.startswith("| ") and "---" not in row][1:]
    assert len(rows) > 15
    for _, edit, test in rows:
        for name in re.findall(r"`([\w./]+)`", edit):
            assert name == "LAYERS" or any((base / name).exists() for base in (ROOT, ROOT / "wavespeed_qwen_async")), (
                name
            )
        folder = ROOT
        for name in re.findall(r"`(?:python )?([\w./]+\.py|tests/[\w/.]+)`?", test):
            path = ROOT / name if name.startswith("tests/") else folder / name
            assert path.exists(), name
            folder = path.parent if path.suffix else path
