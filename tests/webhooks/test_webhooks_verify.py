"""Whose delivery it is: signatures exactly as the documentation has them."""

from __future__ import annotations

import hashlib
import hmac
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavespeed_qwen_async.webhooks import WebhookError, sign, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = json.dumps({"id": "p", "status": "completed"}).encode()
NOW = 1_800_000_000


def headers(body=BODY, secret=SECRET, at=NOW, webhook_id="msg_1", **changed):
    given = {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(at),
        "webhook-signature": sign(webhook_id, str(at), body, secret),
    }
    return {name: value for name, value in (given | changed).items() if value is not None}


def test_the_signature_is_the_documented_one():
    """HMAC-SHA256 over `<id>.<timestamp>.<raw body>`, keyed by the secret's own text without `whsec_`."""
    expected = hmac.new(SECRET[6:].encode(), b"msg_1.1800000000." + BODY, hashlib.sha256).hexdigest()
    assert sign("msg_1", "1800000000", BODY, SECRET) == f"v3,{expected}"
    assert verify({"webhook-id": "msg_1", "webhook-timestamp": "1800000000", "webhook-signature": f"v3,{expected}"},
                  BODY, [SECRET], now=NOW) == "msg_1"  # fmt: skip


def test_header_names_may_be_in_any_case():
    assert verify({name.title(): value for name, value in headers().items()}, BODY, [SECRET], now=NOW) == "msg_1"


def test_any_of_several_secrets_and_signatures_will_do_while_one_is_rotated():
    assert verify(headers(), BODY, ["whsec_old", SECRET], now=NOW)
    both = headers(**{"webhook-signature": f"v3,{'0' * 64} {headers()['webhook-signature']}"})
    assert verify(both, BODY, [SECRET], now=NOW)


@pytest.mark.parametrize("age", [-300, 0, 300])
def test_a_timestamp_within_the_window_is_taken(age):
    assert verify(headers(at=NOW - age), BODY, [SECRET], now=NOW)


@pytest.mark.parametrize("age", [-301, 301, 86_400])
def test_a_timestamp_outside_the_window_is_not(age):
    with pytest.raises(WebhookError, match="300 s away"):
        verify(headers(at=NOW - age), BODY, [SECRET], now=NOW)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"webhook-signature": None}, "not signed"),
        ({"webhook-id": None}, "not signed"),
        ({"webhook-timestamp": None}, "not signed"),
        ({"webhook-id": "msg_2"}, "wrong"),
        ({"webhook-timestamp": str(NOW - 1)}, "wrong"),
        ({"webhook-timestamp": "soon"}, "no number"),
        ({"webhook-timestamp": "1" * 400}, "no number"),
        ({"webhook-timestamp": "-5"}, "no number"),
        ({"webhook-timestamp": "²"}, "no number"),
        ({"webhook-signature": "v3," + "0" * 64}, "wrong"),
        ({"webhook-signature": "v3,"}, "wrong"),
        ({"webhook-signature": "nonsense"}, "wrong"),
        ({"webhook-signature": sign("msg_1", str(NOW), BODY, SECRET)[3:]}, "wrong"),
        ({"webhook-signature": "v1," + sign("msg_1", str(NOW), BODY, SECRET)[3:]}, "wrong"),
        ({"webhook-signature": sign("msg_1", str(NOW), BODY, "whsec_other")}, "wrong"),
        ({"webhook-signature": "v3,\udcff"}, "wrong"),
    ],
)
def test_everything_else_is_not_believed(changed, why):
    with pytest.raises(WebhookError, match=why) as caught:
        verify(headers(**changed), BODY, [SECRET], now=NOW)
    assert SECRET[6:] not in str(caught.value)


def test_without_a_secret_nothing_is_believed():
    with pytest.raises(WebhookError):
        verify(headers(), BODY, [], now=NOW)


def test_the_key_is_not_base64_decoded():
    """What Standard Webhooks libraries do; the vendor's signatures differ."""
    import base64

    key = base64.b64decode(SECRET[6:])
    theirs = hmac.new(key, b"msg_1.1800000000." + BODY, hashlib.sha256).hexdigest()
    with pytest.raises(WebhookError):
        verify(headers(**{"webhook-signature": f"v3,{theirs}"}), BODY, [SECRET], now=NOW)


@settings(deadline=None)  # the machine may be busy
@given(body=st.binary(), at=st.integers(0, 200), flip=st.integers(0, 7))
def test_any_change_of_the_body_is_noticed(body, at, flip):
    signed = headers(body)
    assert verify(signed, body, [SECRET], now=NOW)
    changed = bytearray(body + b"!")
    changed[at % len(changed)] ^= 1 << flip
    with pytest.raises(WebhookError):
        verify(signed, bytes(changed), [SECRET], now=NOW)


@settings(deadline=None)  # the machine may be busy
@given(st.dictionaries(st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]), st.text()))
def test_whatever_a_stranger_sends_is_refused_not_stumbled_over(given_headers):
    with pytest.raises(WebhookError):
        verify(given_headers, b"{}", [SECRET], now=NOW)
