"""examples/notebook.ipynb, executed by Jupyter in a kernel of its own."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from examples_loading import EXAMPLES, user_environment


def test_it_is_kept_without_outputs():
    cells = json.loads((EXAMPLES / "notebook.ipynb").read_text())["cells"]
    assert not [cell for cell in cells if cell.get("outputs")]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_every_cell_runs_and_shows_its_pictures(tmp_path):
    shutil.copy(EXAMPLES / "notebook.ipynb", tmp_path)
    jupyter = Path(sys.executable).with_name("jupyter-execute")
    subprocess.run(
        [jupyter, "--inplace", "notebook.ipynb"], cwd=tmp_path, env=user_environment(), check=True, timeout=150
    )
    cells = json.loads((tmp_path / "notebook.ipynb").read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    assert {output["output_type"] for output in outputs} == {"execute_result", "display_data"}  # no error, no stderr
    shown = [output["data"] for output in outputs]
    fox = base64.b64decode(next(data["image/jpeg"] for data in shown if "image/jpeg" in data))
    assert (tmp_path / "fox.jpg").stat().st_size > len(fox) > 1000  # saved with its making written into it
    linked = [data["text/html"] for data in shown if "text/html" in data]
    assert len(linked) == 5  # an edit, and four scales
    assert all("".join(markup).startswith('<img src="http://127.0.0.1:') for markup in linked)
