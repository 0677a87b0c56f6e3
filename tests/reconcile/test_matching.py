"""The pure rules: which listed prediction is a lost submit's, and when "not there" is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavespeed_qwen_async._matching import (
    Likeness,
    Listing,
    Rival,
    Seen,
    Verdict,
    Wanted,
    alike,
    fingerprint,
    judge,
)

MODEL = "wavespeed-ai/qwen-image/text-to-image-lora"


def inputs(seed=7, prompt="a fox", **more):
    return {"prompt": prompt, "seed": seed, **more}


def wanted(seed=7, after=100.0, before=110.0, model=MODEL, **more):
    return Wanted(model, inputs(seed, **more), after, before)


def seen(name, seed=7, created=105.0, model=MODEL, *, bare=False, **more):
    return Seen(name, model, created, None if bare else inputs(seed, **more))


def look(*listed, held=(), now=111.0, whole=True):
    return Listing(listed, frozenset(held), now, whole)


def answers(lost, listing, rivals=(), settle=60.0):
    return judge(lost, listing, rivals, settle=settle)


@pytest.mark.parametrize(
    ("listed", "likeness"),
    [
        (inputs(), Likeness.SAME),
        (inputs(size="1024x1024", output_format="jpeg"), Likeness.SAME),
        (inputs(prompt=" a  fox\n"), Likeness.SAME),
        ({"prompt": "a fox", "seed": "7"}, Likeness.SAME),
        ({"prompt": "a fox", "seed": float("inf")}, Likeness.MAYBE),
        ({"prompt": "a fox", "seed": float("nan")}, Likeness.MAYBE),
        ({"prompt": "a fox", "seed": "9" * 5000}, Likeness.MAYBE),
        ({"prompt": "a fox", "seed": [7]}, Likeness.MAYBE),
        (inputs(seed=8), Likeness.DIFFERENT),
        (inputs(prompt="a cat"), Likeness.DIFFERENT),
        (inputs(prompt="a f"), Likeness.MAYBE),
        (inputs(loras=[{"path": "a/b", "scale": 1.0}]), Likeness.MAYBE),
        ({"prompt": "a fox"}, Likeness.MAYBE),
        ({"seed": 7}, Likeness.MAYBE),
        ({}, Likeness.MAYBE),
        (None, Likeness.MAYBE),
    ],
)
def test_what_is_alike(listed, likeness):
    sent = Wanted(MODEL, inputs(size="1024*1024", loras=[{"path": "a/b", "scale": 0.5}]), 0, 1)
    assert alike(sent, Seen("x", MODEL, 0.5, listed)) is likeness
    assert alike(sent, Seen("x", "another/model", 0.5, listed)) is Likeness.DIFFERENT


def test_a_seed_left_to_the_server_is_no_contradiction():
    assert alike(Wanted(MODEL, inputs(seed=-1), 0, 1), Seen("x", MODEL, 0.5, inputs(seed=99))) is Likeness.SAME


def test_only_what_nobody_holds_and_in_the_window():
    one = [wanted()]
    assert answers(one, look(seen("a"))) == ["a"]
    assert answers(one, look(seen("a"), held=["a"])) == [Verdict.WAIT]
    assert answers(one, look(seen("a", created=99.0))) == [Verdict.WAIT]
    assert answers(one, look(seen("a", created=111.0), now=120)) == [Verdict.ABSENT]


def test_absence_needs_a_list_that_is_fresh_and_whole():
    one = [wanted()]
    newer = seen("n", 1, created=112.0)
    assert answers(one, look(now=150.0)) == [Verdict.WAIT]
    assert answers(one, look(now=171.0)) == [Verdict.ABSENT]
    assert answers(one, look(newer, now=115.0)) == [Verdict.ABSENT]
    assert answers(one, look(newer, now=115.0, whole=False)) == [Verdict.WAIT]
    assert answers(one, look(newer, now=115.0, held=["n"])) == [Verdict.ABSENT], "whoever made it"
    assert answers(one, look(now=100.0 + 7 * 86400)) == [Verdict.TOO_OLD]


def test_equal_ones_are_interchangeable_and_each_is_given_once():
    lost = [wanted(after=100), wanted(after=101), wanted(after=102)]
    found = answers(lost, look(seen("b", created=106.0), seen("a", created=105.0)))
    assert found == ["a", "b", Verdict.WAIT]


def test_an_equal_one_still_in_the_air_may_be_the_one_listed():
    rival = Rival(MODEL, fingerprint(MODEL, inputs()), 101.0)
    assert answers([wanted()], look(seen("a")), [rival]) == [Verdict.WAIT]
    assert answers([wanted()], look(now=200.0), [rival]) == [Verdict.WAIT], "absent of both, perhaps: not yet"


def test_by_time_only_when_exactly_one_fits_exactly_one():
    newer = seen("n", 1, created=160.0)
    bare = seen("a", bare=True)
    held = ["n"]
    assert answers([wanted()], look(bare)) == [Verdict.WAIT], "another may still appear"
    assert answers([wanted()], look(bare, newer, held=held)) == ["a"]
    assert answers([wanted(1), wanted(2)], look(bare, newer, held=held)) == [Verdict.WAIT] * 2
    assert answers([wanted(1), wanted(2)], look(bare, newer, held=held, now=200.0)) == [Verdict.AMBIGUOUS] * 2
    two = look(bare, seen("b", bare=True), newer, held=held, now=200.0)
    assert answers([wanted()], two) == [Verdict.AMBIGUOUS]
    near = look(bare, seen("b", bare=True, created=130.0), newer, held=held, now=200.0)
    assert answers([wanted()], near) == [Verdict.AMBIGUOUS], "somebody else is at work on the account"
    rival = Rival(MODEL, "another", 105.0)
    assert answers([wanted()], look(bare, newer, held=held, now=200.0), [rival]) == [Verdict.WAIT]


def test_by_time_only_near_its_sending():
    """Of a process that is long gone the window is wide open, and somebody else's prediction may lie in it."""
    lost = Wanted(MODEL, inputs(), 100.0, 4000.0, soon=130.0)
    near, late, timeless = (seen("a", bare=True, created=at) for at in (125.0, 3000.0, None))
    assert answers([lost], look(near, now=5000.0)) == ["a"]
    assert answers([lost], look(late, now=5000.0)) == [Verdict.AMBIGUOUS]
    assert answers([lost], look(timeless, now=5000.0)) == [Verdict.AMBIGUOUS]
    assert answers([lost], look(seen("a", created=3000.0), now=5000.0)) == ["a"], "its content tells"


@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(90, 120)), max_size=6),
    st.lists(st.tuples(st.integers(0, 3), st.floats(90, 120), st.booleans()), max_size=8),
    st.floats(110, 300),
)
def test_no_prediction_is_ever_given_to_two(lost, listed, now):
    asked = [wanted(seed, after=start, before=start + 10) for seed, start in lost]
    items = [seen(str(n), seed, created=at, bare=bare) for n, (seed, at, bare) in enumerate(listed)]
    found = answers(asked, look(*items, now=now))
    given_ids = [answer for answer in found if isinstance(answer, str)]
    assert len(given_ids) == len(set(given_ids))
    for one, answer in zip(asked, found, strict=True):
        if isinstance(answer, str):
            item = items[int(answer)]
            assert one.after <= item.created <= one.before
            assert alike(one, item) is not Likeness.DIFFERENT
        if answer is Verdict.ABSENT:
            left = [i for i in items if i.id not in given_ids and one.after <= i.created <= one.before]
            assert all(alike(one, i) is Likeness.DIFFERENT for i in left), "something that could be it is no absence"
