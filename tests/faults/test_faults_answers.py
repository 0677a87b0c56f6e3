"""Single answers, written by hand, each of which once raised an error that was not ours, or called money unspent."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from wavespeed_qwen_async import InvalidResponseError, RateLimitError, SubmissionUnknown, TextToImage, _answers
from wavespeed_qwen_async._completion import listing

JOB = TextToImage(prompt="a fox", seed=7)


def answer(body: str, status: int = 200, **headers: str) -> _answers.Answer:
    return _answers.Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body.encode())


@pytest.mark.parametrize(
    "data",
    [
        '{"id":"p1","status":"created","urls":{"\\ud800":1}}',
        '{"id":"p1","status":"\\udfff","timings":{"\\ud800":1}}',
        '{"id":"p1","outputs":["\\ud800"]}',
        '{"id":"p1","\\ud800":1}',
        '{"id":"p1","error":' + "[" * 100 + "]" * 100 + "}",
        '{"id":"p1","error":' + "[" * 400 + "]" * 400 + "}",  # deeper than pydantic's parser reads
    ],
)
@pytest.mark.parametrize("code", [200, 400, 429, 5004])
def test_an_id_is_read_whatever_else_stands_around_it(data, code):
    assert _answers.read_submit(answer(f'{{"code":{code},"data":{data}}}'), JOB).id == "p1"


@pytest.mark.parametrize("prediction_id", ["12", '["p1"]', "true"])
@pytest.mark.parametrize("code", [200, 400, 401, 429])
def test_an_id_that_cannot_be_read_is_no_refusal(prediction_id, code):
    body = f'{{"code":{code},"message":"no","data":{{"id":{prediction_id},"status":"created"}}}}'
    with pytest.raises(SubmissionUnknown):
        _answers.read_submit(answer(body), JOB)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1" + "0" * 400, "1e999", "true", '"1"', "[1]"])
def test_numbers_that_are_none(number):
    with pytest.raises(InvalidResponseError):
        _answers.read_balance(answer(f'{{"code":200,"data":{{"balance":{number}}}}}'))
    with pytest.raises(InvalidResponseError):
        _answers.read_deleted_count(answer(f'{{"code":200,"data":{{"deleted_count":{number}}}}}'))
    with pytest.raises(InvalidResponseError):
        _answers.read_price(answer(f'{{"code":200,"data":{{"price":{number}}}}}'))


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("7", 7.0),
        ("9" * 400, 7 * 24 * 3600.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 7 * 24 * 3600.0),
        ("Sat, 21 Nov 2026 08:00:30", 30.0),
        ("Sat, 21 Nov 2026 08:00:30 -0000", 30.0),
        ("Fri, 31 Dec 9999 23:59:59 -1400", None),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        ("Sat, 21 Nov 2026 08:00:00 +99999999999999", None),
        ("nan", None),
        ("\u00b2", None),
        (".", None),
    ],
)
def test_whatever_retry_after_says_it_is_a_time_to_wait_or_none(told, seconds):
    with pytest.raises(RateLimitError) as caught:
        _answers.read_submit(answer("{}", 429, Retry_After=told, Date="Sat, 21 Nov 2026 08:00:00 GMT"), JOB)
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ("2026-11-21T08:00:00", datetime(2026, 11, 21, 8, tzinfo=UTC)),
        ("2026-11-21T08:00:00Z", datetime(2026, 11, 21, 8, tzinfo=UTC)),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59.999999Z", None),
    ],
)
def test_times_can_be_reckoned_with(told, meant):
    body = f'{{"code":200,"data":{{"id":"p1","created_at":"{told}"}}}}'
    assert _answers.read_prediction(answer(body)).created_at == meant


@pytest.mark.parametrize(
    "upload",
    [
        '{"url":"http://["}',
        '{"url":"http://a.co:99999999/x"}',
        '{"url":"https://a.co/\\r\\nX: y"}',
        '{"url":"https://a.co/x","method":"PUT x"}',
        '{"url":"https://a.co/x","headers":{"A\\r\\n":"b"}}',
        '{"url":"https://a.co/x","headers":{"A":"b\\r\\nC: d"}}',
        '{"url":"https://a.co/x","headers":{"A":{}}}',
    ],
)
def test_a_ticket_that_cannot_be_used_is_none(upload):
    body = f'{{"code":200,"data":{{"download_url":"https://a.co/x","upload":{upload}}}}}'
    with pytest.raises(InvalidResponseError):
        _answers.read_upload_ticket(answer(body))


@pytest.mark.parametrize("code", ["[]", "{}", "[200]"])
def test_a_list_whose_code_is_no_number(code):
    body = f'{{"code":{code},"data":{{"items":[{{"id":"p1","status":"completed"}}]}}}}'
    assert [item["id"] for item in listing.read_listing(answer(body)).items] == ["p1"]


@pytest.mark.parametrize("status", [[], {}, None, 1])
def test_a_list_item_whose_status_is_no_text_has_not_ended(status):
    assert not listing.ended({"id": "p1", "status": status})
    assert listing.whole({"id": "p1", "status": status}) is None
