"""Every Python block of the README and of docs/ that is not marked otherwise runs, as it stands, on the emulator."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"testing.md", "limits.md"}  # their code runs in tests/testing and tests/limits
BLOCK = re.compile(r"(?P<mark><!-- not run: [^>]+ -->\n)?^```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks():
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        if path.name in ELSEWHERE:
            continue
        for number, found in enumerate(BLOCK.finditer(path.read_text())):
            if not found["mark"]:
                yield pytest.param(found["code"], id=f"{path.name}-{number}")


@pytest.mark.parametrize("code", list(blocks()))
def test_code_in_the_documentation_runs(code, wavespeed_emulator, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64), "orange").save("fox.jpg")
    Image.new("RGB", (64, 64), "orange").save("photo.jpg")
    # A block may await at its top level, as in a notebook; `session` is open there.
    if re.search(r"^(async with |async for |[^\s#].*\bawait |await )", code, re.MULTILINE):
        body = "".join(f"    {line}\n" for line in code.splitlines())
        code = f"import asyncio\nfrom wavespeed_qwen_async import *\nasync def main(session):\n{body}\n"
        scope: dict[str, object] = {}
        exec(compile(code, "documentation", "exec"), scope)

        async def run():
            from wavespeed_qwen_async import QwenImageSession

            async with QwenImageSession() as session:
                await scope["main"](session)

        asyncio.run(run())
    else:
        exec(compile(code, "documentation", "exec"), {"__name__": "__main__"})
