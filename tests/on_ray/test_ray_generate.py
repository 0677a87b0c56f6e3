"""A step of a Ray Data pipeline, called as Ray calls it."""

from __future__ import annotations

import asyncio
import io

import pytest
from PIL import Image

from wavespeed_qwen_async import AuthenticationError, ConfigurationError, Limits
from wavespeed_qwen_async.integrations._ray.rows import job_in, unpacked
from wavespeed_qwen_async.integrations.ray import Generate, RayBatch

pytestmark = pytest.mark.anyio
np = pytest.importorskip("numpy", reason="NumPy is not installed: pip install 'wavespeed-qwen-async[ray]'")


@pytest.fixture
def generate(emulator):
    """Make steps; their sessions are closed at the end."""
    made = []

    def make(**options):
        session = {"api_key": "k", "base_url": emulator.url} | options.pop("session", {"tier": "ultra"})
        made.append(Generate(session=session, **options))
        return made[-1]

    yield make
    for step in made:
        step.close()


fast = pytest.mark.wavespeed_emulator(inference=(0.0, 0.0), tier=None)


@fast
@pytest.mark.real_clock
async def test_rows_come_back_with_their_images(generate, emulator):
    rows = [{"prompt": f"a fox {number}", "owner": number} for number in range(5)]
    done = await generate()(rows)
    assert [row["owner"] for row in done] == list(range(5))
    assert {row["outcome"] for row in done} == {"made"}
    assert all(Image.open(io.BytesIO(row["bytes"])).size for row in done)
    assert {row["prediction_id"] for row in done} == {accepted.id for accepted in emulator.ledger.accepted}
    assert all(row["price"] == 0.025 and row["billed"] == "yes" and row["seconds"] > 0 for row in done)
    assert [row["seed"] for row in done] == [
        next(a.inputs["seed"] for a in emulator.ledger.accepted if a.inputs["prompt"] == row["prompt"]) for row in done
    ]


@fast
@pytest.mark.real_clock
async def test_arrays_come_back_as_arrays(generate):
    batch = {
        "prompt": np.array(["a", "b"]),
        "seed": np.array([1.0, np.nan]),
        "loras": np.array([None, ["o/m:0.5"]], object),
    }
    done = await generate()(batch)
    assert set(done) >= {"prompt", "bytes", "outcome", "price"}
    assert done["seed"][0] == 1
    assert [bytes(data)[:2] for data in done["bytes"]] == [b"\xff\xd8"] * 2


@fast
@pytest.mark.real_clock
async def test_an_arrow_table_comes_back_as_one(generate):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'wavespeed-qwen-async[ray]'")
    done = await generate()(pa.table({"prompt": ["a", "b"], "size": [[512, 512], None]}))
    assert isinstance(done, pa.Table)
    assert Image.open(io.BytesIO(done["bytes"][0].as_py())).size == (512, 512)


@fast
@pytest.mark.real_clock
async def test_files_go_to_a_folder(generate, tmp_path):
    (row,) = await generate(out=tmp_path)([{"prompt": "a", "output_format": "png"}])
    assert row["file"] == f"{row['prediction_id']}.png"
    assert (tmp_path / row["file"]).is_file()
    assert "bytes" not in row


@fast
@pytest.mark.real_clock
async def test_what_fails_is_a_row_with_its_money(generate, emulator):
    emulator.faults.add("submit", "status", status=400, nth=1)
    step = generate()
    (refused,) = await step([{"prompt": "a"}])
    (wrong,) = await step([{"prompt": "a", "size": "9x9"}])
    assert (refused["outcome"], refused["billed"], refused["price"], refused["bytes"]) == ("failed", "no", 0.0, None)
    assert (wrong["outcome"], wrong["billed"], wrong["seed"]) == ("failed", "no", None)
    assert "size" in wrong["error"]


@fast
@pytest.mark.real_clock
async def test_a_wrong_key_is_raised(generate, emulator):
    emulator.faults.add("submit", "status", status=401)
    with pytest.raises(AuthenticationError):
        await generate()([{"prompt": "a"}, {"prompt": "b"}])


@fast
@pytest.mark.real_clock
async def test_several_batches_share_one_session(generate, emulator):
    step = generate(session={"max_per_minute": 60_000, "max_in_flight": 2})
    await asyncio.gather(*(step([{"prompt": f"{number} {n}"} for n in range(3)]) for number in range(4)))
    assert len(emulator.ledger.accepted) == 12
    assert emulator.ledger.requests["price"] == 1


async def test_each_worker_has_its_part_of_the_limits(generate):
    step = generate(workers=4, session={"tier": "silver"})
    assert (step._session.limits.max_per_minute, step._session.limits.max_in_flight) == (125, 75)
    shared = Limits(max_per_minute=7, max_in_flight=3)
    assert generate(limits=lambda: shared, session={})._session.limits is shared
    with pytest.raises(ConfigurationError, match="too little"):
        generate(workers=3, session={"tier": "bronze"})


def test_columns_that_are_empty_are_no_parameters():
    row = {"prompt": "a", "seed": float("nan"), "size": None, "loras": np.array(["a/b:1"], object), "other": 1}
    assert job_in(row) == {"prompt": "a", "loras": ["a/b:1"]}
    assert job_in({"prompt": "a", "seed": np.float64(3.0)}) == {"prompt": "a", "seed": 3}


def test_a_batch_of_no_known_kind_is_refused():
    with pytest.raises(ConfigurationError, match="batch_format"):
        unpacked(7)


def test_a_run_whose_journal_has_no_place_is_refused():
    with pytest.raises(ConfigurationError, match="journal"):
        RayBatch("prompts.jsonl", "s3://bucket/images")
    with pytest.raises(ConfigurationError, match="a file or a list"):
        RayBatch(iter([]), "out")
    with pytest.raises(ConfigurationError, match="workers"):
        RayBatch("prompts.jsonl", "out", workers=0)
