from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "limits.md"


def test_the_pages_code_runs(capsys):
    scope: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for block in blocks:
        exec(block, scope)
    assert len(blocks) == 2
    assert capsys.readouterr().out == "0/20 in flight, 0/40 a minute, 0 waiting\n"
