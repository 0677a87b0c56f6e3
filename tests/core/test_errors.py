"""One tree; every error says whether it is billed and survives pickle."""

from __future__ import annotations

import pickle

import pytest

from wavespeed_qwen_async import (
    ContentModerated,
    InvalidJobError,
    InvalidParameter,
    MediaUnreachable,
    MissingParameter,
    Prediction,
    PredictionCancelled,
    PredictionFailed,
    TaskFailed,
    TaskInternalError,
    TaskTimeout,
    TaskUnavailable,
    TextToImage,
    WaveSpeedError,
    errors,
)
from wavespeed_qwen_async._answers import failure_of

ALL = sorted(
    (getattr(errors, name) for name in errors.__all__ if isinstance(getattr(errors, name), type)),
    key=lambda kind: kind.__name__,
)


def test_the_tree_in_the_docstring_names_every_error():
    for kind in ALL:
        assert kind.__name__ in errors.__doc__
        assert issubclass(kind, WaveSpeedError)


@pytest.mark.parametrize("kind", ALL)
def test_every_error_survives_pickle_whole(kind):
    error = kind(
        "what happened",
        prediction_id="p1",
        job=TextToImage(prompt="x", seed=1),
        status=418,
        code=1200,
        retry_after=2.5,
        request_id="r",
    )
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (str(again), again.__dict__) == ("what happened", error.__dict__)
    assert again.billed == error.billed in {"no", "yes", "unknown"}


def test_what_each_error_says_of_money():
    assert {kind.__name__ for kind in ALL if kind.billed == "unknown"} == {"SubmissionUnknown"}
    assert {kind.__name__ for kind in ALL if kind.billed == "yes"} == {
        kind.__name__ for kind in ALL if issubclass(kind, errors.PredictionError)
    } | {"DownloadError"}


def test_an_instance_may_know_better():
    assert errors.NotFoundError("gone", billed="yes").billed == "yes"
    assert pickle.loads(pickle.dumps(errors.NotFoundError("gone", billed="yes"))).billed == "yes"


def test_a_job_error_is_a_value_error_and_names_its_field():
    error = pickle.loads(pickle.dumps(InvalidJobError("bad", field="size.width")))
    assert isinstance(error, ValueError)
    assert error.field == "size.width"


@pytest.mark.parametrize(
    ("status", "code", "kind", "transient"),
    [
        ("failed", 1200, ContentModerated, False),
        ("failed", 1400, MissingParameter, False),
        ("failed", 1401, InvalidParameter, False),
        ("failed", 1402, MediaUnreachable, True),
        ("failed", 1403, TaskFailed, False),
        ("failed", 1405, TaskFailed, False),
        ("failed", 5000, TaskInternalError, True),
        ("failed", 5003, TaskUnavailable, True),
        ("failed", 5004, TaskTimeout, True),
        ("failed", None, PredictionFailed, False),
        ("failed", 9999, PredictionFailed, False),
        ("timeout", None, TaskTimeout, True),
        ("cancelled", None, PredictionCancelled, False),
        ("deleted", None, PredictionCancelled, False),
    ],
)
def test_a_failed_task_has_the_class_of_its_code(status, code, kind, transient):
    error = failure_of(Prediction(id="p1", status=status, code=code, error="some\nreason"))
    assert type(error) is kind
    assert (error.billed, error.prediction_id, error.code, error.transient) == ("yes", "p1", code, transient)
    assert "some reason" in str(error)


@pytest.mark.parametrize("status", ["completed", "created", "processing", "something"])
def test_what_has_not_failed_is_no_failure(status):
    assert failure_of(Prediction(id="p1", status=status)) is None
