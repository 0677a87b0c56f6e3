"""The plugin's fixtures, in test runs of their own: under anyio's pytest plugin, under pytest-asyncio, and plain.

The code of `docs/testing.md` is run as it stands there.
"""

from __future__ import annotations

import re
import runpy
import textwrap
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest

from wavespeed_qwen_async.testing import plugin

pytest_plugins = ["pytester"]

# Not by importing it: the test runs are of this process, and pytest loads its plugins before anybody else does.
needs_pytest_asyncio = pytest.mark.skipif(find_spec("pytest_asyncio") is None, reason="needs pytest-asyncio")

CONFTEST = """
import json, os, time, urllib.request
import aiohttp, pytest
import wavespeed_qwen_async.testing.plugin as plugin

def pytest_configure(config):
    if not config.pluginmanager.is_registered(plugin):  # it is, where this library is installed
        config.pluginmanager.register(plugin)
"""

SETTINGS = """
[pytest]
addopts = --strict-markers -p no:cacheprovider
filterwarnings = error
"""
if find_spec("pytest_asyncio"):
    SETTINGS += "asyncio_default_fixture_loop_scope = function"

COMMON = """
import asyncio, json, os, time, urllib.request
import aiohttp, pytest
from wavespeed_qwen_async.testing import VirtualClockLoop, assert_sent, next_outcomes, sent

HEADERS = {"Authorization": "Bearer test-key"}
MODEL = "/api/v3/wavespeed-ai/qwen-image/text-to-image-lora"

async def post(url, prompt="a fox"):
    async with aiohttp.ClientSession(base_url=url, headers=HEADERS) as client:
        async with client.post(MODEL, json={"prompt": prompt}) as response:
            body = await response.json()
        while response.status == 200 and body["data"]["status"] in ("created", "processing"):
            await asyncio.sleep(0.01 if not isinstance(asyncio.get_running_loop(), VirtualClockLoop) else 1)
            async with client.get(body["data"]["urls"]["get"]) as result:
                body = await result.json()
        return response.status, body

"""


def run(pytester: pytest.Pytester, tests: str, *arguments: str) -> pytest.RunResult:
    pytester.makeconftest(CONFTEST)
    pytester.makeini(SETTINGS)
    pytester.makepyfile(COMMON + textwrap.dedent(tests))
    return quickly(pytester, *arguments)


def quickly(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run in this process, with the plugins that matter here: all else would take five times as long."""
    if find_spec("pytest_asyncio"):
        arguments = ("-p", "pytest_asyncio.plugin", *arguments)
    return pytester.runpytest_inprocess("-q", "-p", "anyio", *arguments)


@pytest.fixture(autouse=True)
def no_other_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


ASYNC_TESTS = """
    @MARK
    async def test_in_real_time_the_answer_to_a_submit_has_the_image(wavespeed_emulator):
        assert not isinstance(asyncio.get_running_loop(), VirtualClockLoop)
        async with aiohttp.ClientSession(base_url=os.environ["WAVESPEED_BASE_URL"], headers=HEADERS) as client:
            async with client.post(MODEL, json={"prompt": "a fox"}) as response:
                assert response.status == 200
                assert (await response.json())["data"]["status"] == "completed"

    @MARK
    async def test_virtual_time(wavespeed_emulator, virtual_clock):
        assert virtual_clock is asyncio.get_running_loop()
        status, body = await post(wavespeed_emulator.url)
        assert body["data"]["status"] == "completed"
        assert 6 <= virtual_clock.elapsed <= 13

    @MARK
    @pytest.mark.wavespeed_emulator(inference=(60, 60))
    async def test_options(virtual_clock, wavespeed_emulator):
        await post(wavespeed_emulator.url)
        assert virtual_clock.elapsed == 60

    @MARK
    async def test_outcomes(wavespeed_emulator, virtual_clock):
        next_outcomes(wavespeed_emulator, "ok", 1200, 429, to="generate")
        next_outcomes(wavespeed_emulator, 5000, to="edit")
        url = wavespeed_emulator.url
        answers = [await post(url, prompt) for prompt in "abcd"]
        assert [status for status, _ in answers] == [200, 200, 429, 200]
        ends = [body["data"]["status"] for status, body in answers if status == 200]
        assert ends == ["completed", "failed", "completed"]
        assert [each.inputs["prompt"] for each in sent(wavespeed_emulator)] == ["a", "b", "d"]
        assert assert_sent(wavespeed_emulator, prompt="b")[0].status == "failed"
        assert_sent(wavespeed_emulator, to="edit", times=0)
        with pytest.raises(AssertionError, match="expected 1 with {'prompt': 'c'}, found 0 among"):
            assert_sent(wavespeed_emulator, prompt="c")
"""


def test_under_anyio(pytester: pytest.Pytester) -> None:
    run(pytester, ASYNC_TESTS.replace("MARK", "pytest.mark.anyio")).assert_outcomes(passed=4)


def test_a_clock_of_ones_own_under_anyio(pytester: pytest.Pytester) -> None:
    tests = """
        @pytest.fixture(params=[("asyncio", {"loop_factory": VirtualClockLoop})])
        def anyio_backend(request): return request.param

        @pytest.mark.anyio
        async def test_without(wavespeed_emulator):
            assert isinstance(asyncio.get_running_loop(), VirtualClockLoop)

        @pytest.mark.anyio
        async def test_with(virtual_clock): pass
    """
    run(pytester, tests).assert_outcomes(passed=2)


PYTEST_ASYNCIO_CLOCK = """
    def pytest_asyncio_loop_factories(config, item):
        if "virtual_clock" in item.fixturenames:
            return {"virtual": VirtualClockLoop}
        return {"real": asyncio.new_event_loop}
"""


@needs_pytest_asyncio
@pytest.mark.parametrize("scope", ["function", pytest.param("module", marks=pytest.mark.slow)])
def test_under_pytest_asyncio(pytester: pytest.Pytester, scope: str) -> None:
    pytester.syspathinsert()
    pytester.makepyfile(virtual=COMMON + textwrap.dedent(PYTEST_ASYNCIO_CLOCK))
    tests = ASYNC_TESTS.replace("MARK", f"pytest.mark.asyncio(loop_scope={scope!r})")
    if scope == "module":  # one loop, one clock for all
        tests = tests.replace("elapsed == 60", "elapsed >= 60").replace("<= virtual_clock.elapsed <= 13", "<= 13")
    run(pytester, tests, "-p", "virtual").assert_outcomes(passed=4)


@needs_pytest_asyncio
def test_pytest_asyncio_without_the_clock_says_how(pytester: pytest.Pytester) -> None:
    result = run(pytester, "@pytest.mark.asyncio\nasync def test_it(virtual_clock): pass")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines("*is no VirtualClockLoop: docs/testing.md tells*")


def test_a_plain_test_has_the_emulator_on_a_thread(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WAVESPEED_BASE_URL", "WAVESPEED_API_KEY"):  # of whoever runs the tests
        monkeypatch.delenv(name, raising=False)
    tests = """
        def submit():
            url = os.environ["WAVESPEED_BASE_URL"] + MODEL
            headers = HEADERS | {"Content-Type": "application/json"}
            request = urllib.request.Request(url, b'{"prompt": "a fox"}', headers)
            with urllib.request.urlopen(request) as response:
                return json.load(response)

        def test_it(wavespeed_emulator):
            next_outcomes(wavespeed_emulator, 1200)
            data = submit()["data"]
            time.sleep(0.2)
            assert assert_sent(wavespeed_emulator, prompt="a fox")[0].status == "failed"

        def test_with_a_loop_inside(wavespeed_emulator):
            status, body = asyncio.run(post(wavespeed_emulator.url))
            assert body["data"]["status"] == "completed"

        def test_environment_is_put_back():
            assert "WAVESPEED_BASE_URL" not in os.environ

        def test_session(wavespeed_session): pass

        def test_clock(virtual_clock): pass

        @pytest.mark.wavespeed_emulator(teir="bronze")
        def test_misspelt_option(wavespeed_emulator): pass

        def test_what_was_sent(wavespeed_emulator):
            assert_sent(wavespeed_emulator, prompt="a fox")

        def test_no_such_outcome(wavespeed_emulator):
            next_outcomes(wavespeed_emulator, 42)
    """
    result = run(pytester, tests)
    result.assert_outcomes(passed=3, errors=3, failed=2)
    result.stdout.fnmatch_lines("*wavespeed_session needs an async test: mark it*")
    result.stdout.fnmatch_lines("*wavespeed_emulator has no option 'teir'; there are*tier*")
    result.stdout.fnmatch_lines("*42 is neither an HTTP error*")
    result.stdout.no_fnmatch_line("*outcomes.py:*")  # the errors stand at the test's own line
    result.stdout.no_fnmatch_line("*plugin.py:*")


def test_pytest_finds_the_plugin_by_itself() -> None:
    (found,) = entry_points(group="pytest11", name="wavespeed_qwen_async")
    assert found.load() is plugin


def test_names_of_the_kit() -> None:
    from wavespeed_qwen_async import testing

    assert {name: getattr(testing, name).__name__ for name in testing.__all__} == {
        name: name for name in testing.__all__
    }
    with pytest.raises(AttributeError, match="no attribute 'virtual_cluck'"):
        _ = testing.virtual_cluck


GUIDE = Path(__file__).parents[2] / "docs" / "testing.md"
FILES = {
    name: code
    for code in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    for name in re.findall(r"^# (.*)$", code, re.MULTILINE)[:1]
}


def run_guide(
    pytester: pytest.Pytester, *names: str, marker: str = "anyio", settings: str = SETTINGS
) -> pytest.RunResult:
    codes = {name: FILES[name].replace("mark.anyio", f"mark.{marker}") for name in names}
    conftests = [codes.pop(name) for name in names if name.startswith("conftest.py")]
    pytester.makeini(settings + "\npythonpath = .\n")
    pytester.makeconftest("\n".join([*conftests, CONFTEST]))
    for name, code in codes.items():
        pytester.makefile(".py", **{name.removesuffix(".py"): code})
    return quickly(pytester)


@pytest.mark.slow  # a pytest of its own
def test_the_guides_examples(pytester: pytest.Pytester) -> None:
    assert len(FILES["test_fox.py"].splitlines()) <= 16
    run_guide(pytester, "test_fox.py", "test_slow.py", "test_time.py").assert_outcomes(passed=3)


@pytest.mark.slow  # a pytest of its own
def test_the_guides_virtual_time_for_all(pytester: pytest.Pytester) -> None:
    run_guide(pytester, "conftest.py", "test_fox.py", "test_time.py").assert_outcomes(passed=2)


@needs_pytest_asyncio
@pytest.mark.slow  # a pytest of its own
def test_the_guides_pytest_asyncio(pytester: pytest.Pytester) -> None:
    names = ("conftest.py, with pytest-asyncio", "test_fox.py", "test_time.py")
    run_guide(pytester, *names, marker="asyncio").assert_outcomes(passed=2)


@pytest.mark.slow  # a pytest of its own
def test_the_guides_fastapi_application(pytester: pytest.Pytester) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx")
    settings = SETTINGS.replace("= error", "= default")  # its test client's deprecations are not ours
    run_guide(pytester, "app.py", "test_app.py", settings=settings).assert_outcomes(passed=2)


def test_the_guides_program_without_pytest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "without_pytest.py").write_text(FILES["without_pytest.py"])
    runpy.run_path(str(tmp_path / "without_pytest.py"))
    assert re.fullmatch(r"http://\S+\.jpeg \{'prompt': 'a red fox', 'seed': \d+\}\n", capsys.readouterr().out)
