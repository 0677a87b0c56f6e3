"""When a failure is tried again: by certainty for submits, by usefulness for reads, within a budget of time."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavespeed_qwen_async import ConfigurationError, Retry, errors
from wavespeed_qwen_async._retry import next_wait

RETRY = Retry(read_budget=100, submit_budget=200, contact_budget=10, base=0.5, cap=20)


def wait(error, *, attempt=1, elapsed=0.0, submit=False, reached=True, seed=0):
    rng = random.Random(seed)
    return next_wait(RETRY, error, attempt=attempt, elapsed=elapsed, submit=submit, reached=reached, rng=rng)


@pytest.mark.parametrize(
    ("kind", "read", "submit"),
    [
        (errors.NotSentError, True, True),
        (errors.RateLimitError, True, True),
        (errors.LostAnswerError, True, True),
        (errors.ServerError, True, True),
        (errors.SubmissionUnknown, False, False),
        (errors.BadRequestError, False, False),
        (errors.AuthenticationError, False, False),
        (errors.InvalidJobError, False, False),
    ],
)
def test_what_is_tried_again(kind, read, submit):
    assert (wait(kind("x")) is not None) is read
    assert (wait(kind("x"), submit=True) is not None) is submit


@pytest.mark.parametrize("billed", ["yes", "unknown"])
def test_a_submit_that_may_be_billed_is_never_sent_again(billed):
    assert wait(errors.NotSentError("x", billed=billed), submit=True) is None
    assert wait(errors.NotSentError("x", billed=billed)) is not None


@given(attempt=st.integers(1, 10_000), seed=st.integers(0, 1000))
def test_waits_are_full_jitter_below_the_cap(attempt, seed):
    seconds = wait(errors.NotSentError("x"), attempt=attempt, seed=seed)
    assert 0 <= seconds <= min(20, 0.5 * 2 ** min(attempt - 1, 50))


def test_retry_after_is_waited_for_and_then_some():
    waits = {wait(errors.RateLimitError("x", retry_after=7.0), seed=seed) for seed in range(50)}
    assert min(waits) >= 7.0
    assert len(waits) > 10


@pytest.mark.parametrize(("submit", "reached", "budget"), [(False, True, 100), (True, True, 200), (True, False, 10)])
def test_the_budget_of_time_ends_it(submit, reached, budget):
    error = errors.NotSentError("x")
    assert wait(error, elapsed=budget - 0.6, submit=submit, reached=reached) is not None
    assert wait(error, elapsed=budget + 0.1, submit=submit, reached=reached) is None
    late = errors.RateLimitError("x", retry_after=budget + 1)
    assert wait(late, submit=submit, reached=reached) is None


@pytest.mark.parametrize("name", ["read_budget", "submit_budget", "contact_budget", "base", "cap"])
def test_bad_options_name_themselves(name):
    with pytest.raises(ConfigurationError, match=name):
        Retry(**{name: -1})
    with pytest.raises(ConfigurationError, match=name):
        Retry(**{name: float("nan")})


@pytest.mark.parametrize("name", ["read_budget", "submit_budget", "contact_budget"])
def test_no_budget_is_a_budget(name):
    assert getattr(Retry(**{name: 0}), name) == 0
