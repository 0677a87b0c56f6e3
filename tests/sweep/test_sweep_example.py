"""examples/sweep.py runs as it stands."""

from __future__ import annotations

import asyncio
import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "sweep.py"


@pytest.mark.usefixtures("wavespeed_emulator")
def test_the_example_runs(tmp_path, capsys):
    main = runpy.run_path(str(EXAMPLE))["main"]
    asyncio.run(main("a red fox", "owner/ink", out=str(tmp_path / "out")))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "5 images, $0.12"  # four scales, and one without
    assert lines[-2:] == [str(tmp_path / "out" / "contact-sheet.png"), str(tmp_path / "out" / "index.html")]
    assert len(list((tmp_path / "out").glob("*-a-red-fox-*.jpg"))) == 5
