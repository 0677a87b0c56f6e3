"""The page for those who come from the vendor's SDK: its code runs on the SDK, and its tables leave nothing out."""

from __future__ import annotations

import inspect
import re

import pytest
from pages import DOCS, blocks_of
from PIL import Image

from wavespeed_qwen_async import QwenImageSession, Retry, Timeout

wavespeed = pytest.importorskip("wavespeed", reason="needs wavespeed==2.0.5")
PAGE = DOCS / "migrate.md"
TABLES = "\n".join(row.split("|")[1] for row in PAGE.read_text().splitlines() if row.startswith("| "))


def test_it_is_the_version_that_the_page_is_about():
    assert f"`wavespeed` {wavespeed.__version__}" in PAGE.read_text()


@pytest.mark.parametrize("block", [block for block in blocks_of(PAGE) if block.mark], ids=lambda block: str(block.line))
def test_the_code_before_runs_on_the_sdk(block, wavespeed_emulator, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for option, value in {"base_url": wavespeed_emulator.url, "api_key": "any-key"}.items():
        monkeypatch.setitem(wavespeed.config._config, f"api.{option}", value)
    monkeypatch.setattr(wavespeed.api, "_default_client", None)
    Image.new("RGB", (64, 64), "orange").save("fox.jpg")
    assert "import wavespeed\n" in block.code
    exec(compile(block.code, "migrate.md", "exec"), {})
    made = wavespeed_emulator.ledger.accepted
    assert made
    assert capsys.readouterr().out.count("http") == len(made)


def test_every_call_and_option_of_the_sdk_is_in_the_tables():
    for name in set(wavespeed.__all__) - {"__version__"}:
        assert re.search(rf"\b{name}\(", TABLES), name
    calls = [wavespeed.Client.__init__, wavespeed.run, wavespeed.run_no_throw, wavespeed.get_result, wavespeed.upload]
    options = {name for call in calls for name in inspect.signature(call).parameters} - {"self"}
    options |= {name.removeprefix("api.") for name in wavespeed.config._config if name.startswith("api.")}
    assert len(options) > 15
    for name in options - {"request_id"}:  # `id` there
        assert re.search(rf"\b{name}\b", TABLES), name


def test_what_the_tables_name_of_ours_exists():
    ours = "\n".join("|".join(row.split("|")[2:]) for row in PAGE.read_text().splitlines() if row.startswith("| "))
    for kind in (Timeout, Retry, QwenImageSession):
        found = re.findall(rf"{kind.__name__}\(([\w=, \"]+)\)", ours)
        assert found
        for name in re.findall(r"(\w+)=", " ".join(found)):
            assert name in inspect.signature(kind).parameters, name
    for name in re.findall(r"session\.(\w+)\(", ours):
        assert hasattr(QwenImageSession, name), name
