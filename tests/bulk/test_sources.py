"""Each kind of source gives the jobs that stand in it, and tells bad lines by their number."""

from __future__ import annotations

import os

import pytest
from durable import images, prompts

from wavespeed_qwen_async import ConfigurationError, Edit, InvalidJobError
from wavespeed_qwen_async.bulk import Batch, read_source
from wavespeed_qwen_async.bulk._digests import digest_of
from wavespeed_qwen_async.emulator.blank import blank_image

pytestmark = pytest.mark.anyio


async def jobs_of(source):
    found = []
    async for chunk in source.chunks():
        for line in chunk:
            try:
                found.append((line.line, line.job()))
            except InvalidJobError as error:
                found.append((line.line, str(error)))
    await source.close()
    return found


async def test_jsonl_blank_lines_and_bom(tmp_path):
    path = tmp_path / "jobs.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"prompt": "a"}\r\n\r\n{"prompt": "\xe7\x8b\x90", "loras": ["a/b:0.5"]}\n[1]\n{"prompt'
    )
    found = await jobs_of(read_source(path))
    assert [line for line, _ in found] == [1, 3, 4, 5]
    assert found[1][1].prompt == "\u72d0"
    assert found[1][1].loras[0].scale == 0.5
    assert "line 4: a job is a mapping" in found[2][1]
    assert "line 5: no JSON" in found[3][1]


async def test_csv(tmp_path):
    path = tmp_path / "jobs.csv"
    path.write_text(
        "prompt,size,seed,loras,image,enable_base64_output\n"
        '"a, b\nsecond line",512x512,7,a/b:0.5; c/d,,\n'
        "x,,,,https://example.com/a.png,true\n"
        ",,,,,\n"
        "y,1*1,,,,\n"
        "z,,,,,,,too many\n"
        'w,,,"[""a/b:0.5""]",,\n'
    )
    found = await jobs_of(read_source(path))
    assert [line for line, _ in found] == [2, 4, 6, 7, 8]
    first, second, small, long, listed = (job for _, job in found)
    assert (first.prompt, str(first.size), first.seed) == ("a, b\nsecond line", "512*512", 7)
    assert [lora.scale for lora in first.loras] == [0.5, 1.0]
    assert isinstance(second, Edit)
    assert second.enable_base64_output is True
    assert "line 6: size" in small
    assert "line 7: 8 cells for 6 columns" in long
    assert listed.loras[0].path == "a/b"


@pytest.mark.parametrize(("mark", "name"), [(";", "semicolons"), ("\t", "tabs")])
async def test_csv_of_another_country(tmp_path, mark, name):
    path = tmp_path / "jobs.csv"
    path.write_text(f"prompt{mark}seed\na fox{mark}7\n", encoding="utf-8-sig")
    with pytest.raises(ConfigurationError, match=f"jobs.csv: its columns are separated by {name}"):
        await jobs_of(read_source(path))


async def test_yaml(tmp_path):
    pytest.importorskip("yaml")
    path = tmp_path / "jobs.yaml"
    path.write_text(
        "defaults: {size: 512*512, loras: [a/b]}\njobs:\n- a prompt\n- prompt: another\n  size: 300*300\n- 7\n"
    )
    found = await jobs_of(read_source(path))
    assert [line for line, _ in found] == [3, 4, 6]
    assert [str(job.size) for _, job in found[:2]] == ["512*512", "300*300"]
    assert "line 6" in found[2][1]
    path.write_text("jobs: [")
    with pytest.raises(ConfigurationError, match="no YAML"):
        await jobs_of(read_source(path))
    path.write_text("prompt: alone")
    with pytest.raises(ConfigurationError, match="give a list of jobs"):
        await jobs_of(read_source(path))


async def test_yaml_without_the_extra_names_it(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "yaml", None)
    path = tmp_path / "jobs.yml"
    path.write_text("- a")
    with pytest.raises(ConfigurationError, match=r"wavespeed-qwen-async\[yaml\]"):
        await jobs_of(read_source(path))


async def test_plain_text_with_defaults(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("one\n\n  zwei \n\u4e09\n".encode() + b"\xff\n")
    found = await jobs_of(read_source(path, defaults={"size": "512*512", "seed": 3}))
    assert [job.prompt for _, job in found[:3]] == ["one", "zwei", "\u4e09"]
    assert all(job.seed == 3 for _, job in found[:3])
    assert "line 5: the text is not UTF-8" in found[3][1]


async def test_a_folder_of_images_with_one_prompt(tmp_path, run, emulator, folder):
    source = tmp_path / "in"
    source.mkdir()
    for name in ("b.png", "a.jpg"):
        (source / name).write_bytes(blank_image(300, 300, name[-3:].replace("jpg", "jpeg")))
    (source / "notes.md").write_text("no image")
    with pytest.raises(ConfigurationError, match="say what to do"):
        await run(source)
    _batch, outcomes = await run(source, prompt="make it snow")
    assert [outcome.ok for outcome in outcomes] == [True, True]
    assert all(record.inputs["prompt"] == "make it snow" for record in emulator.ledger.accepted)
    (source / "c.png").write_bytes(blank_image(301, 301, "png"))
    (source / "b.png").rename(source / "0.png")
    _, outcomes = await run(source, prompt="make it snow")
    assert len(outcomes) == 1, "what was renamed is the same picture"
    _, outcomes = await run(source, prompt="make it rain")
    assert len(outcomes) == 3
    assert len(images(folder)) == 6


async def test_a_folder_of_images_is_no_place_for_what_is_made_of_them(tmp_path, run, opened, emulator):
    """The next run would take the edits for sources, and pay for edits of them."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_bytes(blank_image(300, 300, "png"))
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for source in (tmp_path / "out", tmp_path / "link"):
        with pytest.raises(ConfigurationError, match="among their sources"):
            await run(source, prompt="make it snow")
        async with opened() as session:
            with pytest.raises(ConfigurationError, match="among their sources"):
                await Batch(source, tmp_path / "out", session, prompt="make it snow").plan()
    assert not emulator.ledger.accepted
    assert images(tmp_path / "out") == ["a.png"]


async def test_a_source_whose_name_is_no_utf_8_is_as_good_as_any(tmp_path, run, emulator, folder):
    """As archives from elsewhere unpack them: one picture that is fine and one that is none."""
    (tmp_path / "in").mkdir()
    for name, data in ((b"caf\xe9.png", blank_image(300, 300, "png")), (b"\xfc.png", b"none")):
        path = tmp_path / "in" / os.fsdecode(name)
        try:
            path.write_bytes(data)
        except OSError:
            pytest.skip("this file system takes no such names")
    batch, outcomes = await run(tmp_path / "in", prompt="make it snow", defaults={"output_format": "png"})
    assert sorted(outcome.ok for outcome in outcomes) == [False, True]
    assert batch.summary().errors[0][0] == "InvalidJobError"
    assert len(images(folder)) == len(emulator.ledger.accepted) == 1


async def test_half_a_character_in_a_url_is_that_lines_failure(run, write, emulator):
    half = "https://h.io/\\ud83d.safetensors"
    lines = (f'{{"prompt": "a", "image": "{half}"}}', f'{{"prompt": "b", "loras": ["{half}"]}}', '{"prompt": "c"}')
    _, outcomes = await run(write(*lines))
    assert sorted(outcome.ok for outcome in outcomes) == [False, False, True]
    assert len(emulator.ledger.accepted) == 1


async def test_the_same_job_from_another_kind_of_file_is_the_same(tmp_path, run, write, emulator):
    await run(write(*prompts(3)))
    text = tmp_path / "prompts.txt"
    text.write_text("picture 0\npicture 1\npicture 2\npicture 3\n")
    batch, outcomes = await run(text)
    assert len(outcomes) == 1
    assert batch.summary().skipped == 3


@pytest.mark.parametrize("name", ["missing.jsonl", "jobs.xml"])
async def test_what_is_no_source(tmp_path, run, name, emulator):
    if name == "jobs.xml":
        (tmp_path / name).write_text("<a/>")
    with pytest.raises(ConfigurationError, match=name):
        await run(tmp_path / name)
    assert emulator.ledger.requests["submit"] == 0


async def test_prompt_belongs_to_read_source(opened, folder, write):
    async with opened() as session:
        with pytest.raises(ConfigurationError, match="read_source"):
            Batch(read_source(write(*prompts(1))), folder, session, prompt="x")


def test_a_digest_is_the_jobs_content(tmp_path):
    (tmp_path / "a.png").write_bytes(blank_image(300, 300, "png"))
    (tmp_path / "b.png").write_bytes(blank_image(300, 300, "png"))
    (tmp_path / "c.png").write_bytes(blank_image(301, 300, "png"))
    a, b, c = (digest_of(Edit(prompt="x", image=tmp_path / f"{name}.png")) for name in "abc")
    assert a == b != c
    assert digest_of(Edit(prompt="x", image="https://a/b.png")) != digest_of(Edit(prompt="y", image="https://a/b.png"))
