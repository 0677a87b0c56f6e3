"""What is sent, byte for byte, and the errors and predictions that answers become."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from wavespeed_qwen_async import (
    AuthenticationError,
    BadRequestError,
    Edit,
    InsufficientCreditsError,
    InvalidResponseError,
    NotFoundError,
    PayloadTooLargeError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    SubmissionUnknown,
    TextToImage,
)
from wavespeed_qwen_async import _answers as answers
from wavespeed_qwen_async import _wire as wire
from wavespeed_qwen_async._answers import Answer


def sent(job, *sources):
    return json.loads(wire.submit_request(job, sources).body)


def answer(status=200, body=None, **headers):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def good(data):
    return answer(200, {"code": 200, "message": "success", "data": data})


# --- requests ---------------------------------------------------------------------------------------------------------


def test_the_example_of_the_text_to_image_page():
    job = TextToImage(
        prompt="x",
        size="1024*1024",
        loras=[],
        seed=-1,
        output_format="jpeg",
        enable_sync_mode=False,
        enable_base64_output=False,
    )
    request = wire.submit_request(job)
    assert (request.method, request.kind) == ("POST", "submit")
    assert request.path == "/api/v3/wavespeed-ai/qwen-image/text-to-image-lora"
    assert json.loads(request.body) == {
        "prompt": "x",
        "size": "1024*1024",
        "loras": [],
        "seed": -1,
        "output_format": "jpeg",
        "enable_sync_mode": False,
        "enable_base64_output": False,
    }


def test_the_example_of_the_edit_page():
    job = Edit(
        prompt="x",
        image="https://h/a.png",
        loras=[],
        seed=-1,
        output_format="jpeg",
        enable_base64_output=False,
        enable_sync_mode=False,
    )
    request = wire.submit_request(job, ["https://h/a.png"])
    assert request.path == "/api/v3/wavespeed-ai/qwen-image/edit-lora"
    assert json.loads(request.body) == {
        "prompt": "x",
        "image": "https://h/a.png",
        "loras": [],
        "seed": -1,
        "output_format": "jpeg",
        "enable_base64_output": False,
        "enable_sync_mode": False,
    }


def test_what_was_left_out_is_left_out():
    assert wire.submit_request(TextToImage(prompt="x")).body == b'{"prompt":"x"}'


def test_loras_sizes_and_chinese():
    job = TextToImage(prompt="红狐", loras=["o/n:0.8", "https://h/x.safetensors"], size=(512, 768))
    assert sent(job) == {
        "prompt": "红狐",
        "size": "512*768",
        "loras": [{"path": "o/n", "scale": 0.8}, {"path": "https://h/x.safetensors", "scale": 1.0}],
    }
    assert "红狐".encode() in wire.submit_request(job).body


def test_siblings_of_several_images_send_images():
    job = Edit(prompt="x", images=["https://h/a.png", "https://h/b.png"], model="edit-plus-lora")
    request = wire.submit_request(job, job.images)
    assert request.path.endswith("/edit-plus-lora")
    assert json.loads(request.body)["images"] == ["https://h/a.png", "https://h/b.png"]


def test_a_webhook_goes_into_the_query():
    request = wire.submit_request(TextToImage(prompt="x"), webhook="https://me/hook?a=1")
    assert request.query == (("webhook", "https://me/hook?a=1"),)


def test_an_id_can_not_leave_its_place_in_the_path():
    assert wire.result_request("../x?y").path == "/api/v3/predictions/..%2Fx%3Fy/result"


def test_list_filters_are_iso_in_utc():
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=1)))
    request = wire.list_request(page=2, page_size=50, model="m", status="completed", created_after=moment)
    assert json.loads(request.body) == {
        "page": 2,
        "page_size": 50,
        "model": "m",
        "status": "completed",
        "created_after": "2026-01-02T02:04:05.678901Z",
    }
    assert json.loads(wire.list_request(created_before=moment).body)["created_before"] == "2026-01-02T02:04:05.678901Z"


def test_the_small_requests():
    assert wire.balance_request() == ("GET", "/api/v3/balance", None, (), "read")
    assert json.loads(wire.delete_request(["a", "b"]).body) == {"ids": ["a", "b"]}
    assert json.loads(wire.price_request("m", {"prompt": "x"}).body) == {"model_id": "m", "inputs": {"prompt": "x"}}
    assert wire.unit_price_request("m", {}).path == "/api/v3/model/pricing"
    ticket = json.loads(wire.ticket_request("a.png", 7, "image/png").body)
    assert ticket == {"filename": "a.png", "size": 7, "content_type": "image/png"}
    assert wire.webhook_secret_request().path == "/api/v3/webhook/secret"


# --- submits ----------------------------------------------------------------------------------------------------------


def test_an_accepted_submit():
    prediction = answers.read_submit(good({"id": "p1", "model": "m", "status": "created", "outputs": []}))
    assert (prediction.id, prediction.status, prediction.finished) == ("p1", "created", False)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequestError),
        (401, AuthenticationError),
        (402, InsufficientCreditsError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (408, BadRequestError),
        (413, PayloadTooLargeError),
        (422, BadRequestError),
        (429, RateLimitError),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_refused_submits_are_unbilled(status, kind, inside):
    body = {"code": status, "message": "no"}
    job = TextToImage(prompt="x")
    with pytest.raises(BadRequestError) as caught:
        answers.read_submit(answer(200 if inside else status, body), job)
    assert type(caught.value) is kind
    assert caught.value.billed == "no"
    assert caught.value.job is job
    assert caught.value.transient is (status == 429)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520])
def test_any_5xx_to_a_submit_is_unknown(status):
    with pytest.raises(SubmissionUnknown) as caught:
        answers.read_submit(answer(status, b"<html>Bad gateway</html>"))
    assert (caught.value.billed, caught.value.status, caught.value.transient) == ("unknown", status, False)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b'{"code":200,"data":{"id":"p1","st',
        b"[]",
        b"null",
        b'{"code":200,"data":{}}',
        b'{"code":200,"data":{"id":""}}',
        b'{"code":200,"data":"p1"}',
        b'{"code":500,"message":"oops"}',
        b'{"code":5004,"message":"oops"}',
        b"[" * 100_000,
    ],
)
def test_a_200_without_an_id_is_unknown(body):
    with pytest.raises(SubmissionUnknown):
        answers.read_submit(answer(200, body))


def test_a_redirect_of_a_submit_is_unknown():
    with pytest.raises(SubmissionUnknown):
        answers.read_submit(answer(307, b"", Location="https://elsewhere/"))


@pytest.mark.parametrize("status", [200, 500, 504])
def test_an_id_is_proof_of_acceptance(status):
    data = {"id": "p1", "status": "processing", "code": 5004, "error": "Sync mode timed out"}
    assert answers.read_submit(answer(status, {"code": status, "data": data})).id == "p1"


def test_an_insufficient_balance_told_by_words_only():
    with pytest.raises(InsufficientCreditsError) as caught:
        answers.read_submit(answer(400, {"code": 400, "message": "Insufficient credits. Please top up."}))
    assert caught.value.billed == "no"
    assert "top up" in str(caught.value)


# --- reads ------------------------------------------------------------------------------------------------------------


def test_a_result_reads_all_that_is_documented():
    prediction = answers.read_prediction(
        good(
            {
                "id": "p1",
                "model": "m",
                "status": "completed",
                "outputs": ["https://cdn/a.png", "data:image/png;base64,QUJD", "QUJD"],
                "has_nsfw_contents": [True, False],
                "urls": {"get": "https://api/x"},
                "created_at": "2023-04-01T12:34:56.789123456Z",
                "error": "",
                "code": 0,
                "timings": {"inference": 7000},
                "executionTime": 7001,
                "input": {"prompt": "x"},
                "something_new": 1,
            }
        ),
        "p1",
    )
    assert prediction.ok
    assert prediction.created_at == datetime(2023, 4, 1, 12, 34, 56, 789123, tzinfo=UTC)
    assert (prediction.execution_time, prediction.timings, prediction.inputs) == (
        7001,
        {"inference": 7000},
        {"prompt": "x"},
    )
    first, second, third = prediction.outputs
    assert (first.url, first.base64, first.nsfw) == ("https://cdn/a.png", None, True)
    assert (second.url, second.decoded(), second.nsfw) == (None, b"ABC", False)
    assert (third.decoded(), third.nsfw, third.index) == (b"ABC", None, 2)
    assert prediction.model_extra == {"something_new": 1}


def test_a_result_tolerates_what_is_odd():
    odd = {
        "id": "p1",
        "status": "paused",
        "outputs": None,
        "has_nsfw_contents": None,
        "urls": None,
        "created_at": "yesterday",
        "error": None,
        "code": "x",
        "timings": None,
        "executionTime": "fast",
        "inputs": "none",
    }
    prediction = answers.read_prediction(good(odd), "p1")
    assert not prediction.finished
    assert (prediction.outputs, prediction.created_at, prediction.code, prediction.error) == ((), None, None, "")


@pytest.mark.parametrize(
    ("status", "kind", "transient"),
    [
        (301, InvalidResponseError, True),
        (400, BadRequestError, False),
        (401, AuthenticationError, False),
        (404, NotFoundError, False),
        (429, RateLimitError, True),
        (500, ServerError, True),
        (502, ServerError, True),
    ],
)
def test_reads_that_fail(status, kind, transient):
    with pytest.raises(kind) as caught:
        answers.read_prediction(answer(status, b"<html>"), "p1")
    assert type(caught.value) is kind
    assert (caught.value.transient, caught.value.billed, caught.value.prediction_id) == (transient, "yes", "p1")


@pytest.mark.parametrize("body", [b"", b"<html>", b"{", b'{"code":200}', b'{"code":200,"data":{"id":"other"}}'])
def test_reads_that_can_not_be_understood(body):
    with pytest.raises(InvalidResponseError) as caught:
        answers.read_prediction(answer(200, body), "p1")
    assert caught.value.transient


def test_a_page_leaves_out_what_it_can_not_read():
    page = good({"items": [{"id": "a", "status": "completed"}, {"no": "id"}, None, {"id": 7}], "total": 4})
    assert [prediction.id for prediction in answers.read_page(page)] == ["a"]
    assert [p.id for p in answers.read_page(good([{"id": "b"}]))] == ["b"]
    with pytest.raises(InvalidResponseError):
        answers.read_page(good({"items": "none"}))


def test_the_small_answers():
    assert answers.read_balance(good({"balance": 12.5})) == 12.5
    assert answers.read_deleted_count(good({"deleted_count": 2})) == 2
    price = answers.read_price(good({"model_id": "m", "price": 0.03, "discounted_price": 0.025, "currency": "USD"}))
    assert (price.amount, price.full_amount, price.source) == (0.025, 0.03, "api")
    assert answers.read_price(good({"model_id": "m", "unit_price": 0.02})).amount == 0.02
    ticket = answers.read_upload_ticket(
        good({"download_url": "https://cdn/a", "upload": {"method": "PUT", "url": "https://up/a", "headers": {"X": 1}}})
    )
    assert (ticket.download_url, ticket.url, ticket.headers) == ("https://cdn/a", "https://up/a", {"X": "1"})
    assert answers.read_uploaded(good({"download_url": "https://cdn/a"})) == "https://cdn/a"
    assert answers.read_webhook_secret(good({"secret": "whsec_x"})) == "whsec_x"
    assert answers.read_webhook_secret(good("whsec_y")) == "whsec_y"


@pytest.mark.parametrize(
    ("read", "data"),
    [
        (answers.read_balance, {"balance": "much"}),
        (answers.read_balance, []),
        (answers.read_price, {"price": None}),
        (answers.read_upload_ticket, {"download_url": "https://cdn/a"}),
        (answers.read_upload_ticket, {"download_url": "file:///etc", "upload": {"url": "https://up/a"}}),
        (answers.read_uploaded, {"download_url": "javascript:x"}),
        (answers.read_webhook_secret, {"secret": ""}),
    ],
)
def test_small_answers_that_can_not_be_understood(read, data):
    with pytest.raises(InvalidResponseError):
        read(good(data))


def test_what_an_error_carries():
    refusal = answer(
        429,
        {"code": 429, "error_code": 1234, "message": "slow\n down"},
        Retry_After="7",
        X_Request_Id="r-1",
    )
    with pytest.raises(RateLimitError, match="HTTP 429: slow down .set tier=") as caught:
        answers.read_submit(refusal)
    assert (caught.value.status, caught.value.code) == (429, 1234)
    assert (caught.value.retry_after, caught.value.request_id) == (7.0, "r-1")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("Wed, 21 Oct 2026 07:28:10 GMT", 10.0),
        ("Wed, 21 Oct 2026 07:27:00 GMT", 0.0),
        ("soon", None),
        ("-3", None),
        ("", None),
    ],
)
def test_retry_after_in_seconds_or_as_a_date_of_the_servers_clock(header, seconds):
    headers = {"Retry-After": header, "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}
    assert answers.retry_after(headers) == seconds
