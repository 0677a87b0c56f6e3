"""The pages and what stands in them: blocks of code, in order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(path for path in DOCS.rglob("*.md") if "_site" not in path.parts)]

# A mark above a block says why it is not run, or which test runs it:
#   <!-- not run: needs a cluster -->     <!-- run by tests/docs/test_migrate.py -->
BLOCK = re.compile(
    r"^(?:(?P<mark><!-- (?:not run: |run by )[^>]+ -->)\n)?"
    r"^(?P<indent> *)```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<code>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
LANGUAGES = {"python", "sh", "bash", "text", "yaml", "toml", "json", "csv", "ini"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    mark: str
    language: str
    title: str
    code: str


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(
            page=name_of(page),
            line=text.count("\n", 0, found.start("code")),
            mark=found["mark"] or "",
            language=found["language"],
            title=found["title"] or "",
            code=re.sub(rf"^{found['indent']}", "", found["code"], flags=re.MULTILINE),
        )
        for found in BLOCK.finditer(text)
    ]
