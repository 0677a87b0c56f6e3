"""Plans, paces and trust as the plain functions that they are."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavespeed_qwen_async._completion.listing import Trust, page_request, widened
from wavespeed_qwen_async._completion.pace import LONGEST_REST, SPACING, Pace, Paces, rest
from wavespeed_qwen_async._completion.plan import (
    FEW,
    MOST_CHECKS,
    Entry,
    Outlook,
    Window,
    make_plan,
    pause_between_plans,
    sweep_interval,
)

NOW = 1000.0


def entry(name="p", **given):
    return Entry(name, **{"created": 1.8e9, "born": NOW - 8, "look": NOW - 1, "due": NOW - 0.5} | given)


def many(count, **given):
    return [entry(f"p{index}", created=1.8e9 + index, **given) for index in range(count)]


def quiet(**given):
    """An outlook in which nothing but what a test wants is due."""
    return Outlook(**{"failures": NOW + 9, "rare": NOW + 9, "audit": NOW + 9} | given)


def test_a_few_are_checked_one_by_one_when_they_are_due():
    due, young = entry("due"), entry("young", look=NOW + 3, due=NOW + 4)
    plan = make_plan([due, young], NOW, quiet())
    assert (plan.checks, plan.sweeps, plan.wake) == ([due], [], NOW + 4)


def test_many_are_left_to_the_list():
    entries = many(FEW)
    plan = make_plan(entries, NOW, quiet())
    (window,) = plan.sweeps
    assert not plan.checks
    assert (window.status, window.after, window.before) == ("completed", 1.8e9, 1.8e9 + FEW - 1)


@pytest.mark.parametrize(
    ("models", "asked"), [(["edit"] * 5, "edit"), (["edit", "edit", "edit", "image"], None), ([""] * 4, None)]
)
def test_the_list_is_asked_for_one_model_where_all_are_known_to_be_of_it(models, asked):
    plan = make_plan([entry(f"p{index}", model=model) for index, model in enumerate(models)], NOW, quiet())
    assert plan.sweeps[0].model == asked


def test_the_young_stretch_no_window():
    plan = make_plan([*many(5), entry("young", created=1.9e9, look=NOW + 1)], NOW, quiet())
    assert plan.sweeps[0].before < 1.9e9


def test_a_sweep_is_followed_by_the_next_after_a_while_and_never_by_two_at_once():
    outlook = quiet()
    assert make_plan(many(50), NOW, outlook).sweeps
    outlook.sweeping = True
    assert not make_plan(many(50), NOW + 5, outlook).sweeps
    outlook.sweeping = False
    plan = make_plan(many(50), NOW + 0.3, outlook)
    assert (plan.sweeps, plan.wake) == ([], NOW + 0.75)
    assert make_plan(many(50), NOW + 0.75, outlook).sweeps


def test_failures_are_asked_for_along_with_a_sweep_and_not_by_a_wake_up_of_their_own():
    outlook = quiet()
    make_plan(many(50), NOW, outlook)
    outlook.failures = NOW + 0.1
    plan = make_plan(many(50), NOW + 0.2, outlook)
    assert (plan.sweeps, plan.wake) == ([], NOW + 0.75)
    assert [each.status for each in make_plan(many(50), NOW + 0.75, outlook).sweeps] == ["completed", "failed"]


@pytest.mark.parametrize(("ripe", "pages", "seconds"), [(3, 1, 4 / 3), (8, 1, 0.75), (300, 2, 0.75), (300, 30, 3.0)])
def test_few_jobs_and_many_pages_are_swept_less_often(ripe, pages, seconds):
    assert sweep_interval(ripe, pages) == pytest.approx(seconds)


def test_the_audit_checks_the_one_that_has_waited_longest():
    entries = [*many(5), entry("oldest", born=NOW - 20), entry("not due", born=NOW - 30, due=NOW + 1)]
    outlook = quiet(audit=NOW)
    assert [each.id for each in make_plan(entries, NOW, outlook).checks] == ["oldest"]
    assert outlook.audit == NOW + 2
    assert make_plan(entries, NOW + 1, outlook).checks == []
    outlook.suspicious = True
    assert make_plan(entries, NOW + 1, outlook).checks == []
    assert outlook.audit == NOW + 1.5


def test_a_list_that_has_proven_itself_is_audited_less_often():
    entries = [*many(5), entry("oldest", born=NOW - 20)]
    outlook = quiet(audit=NOW)
    outlook.proven = True
    assert [each.id for each in make_plan(entries, NOW, outlook).checks] == ["oldest"]
    assert outlook.audit == NOW + 6


@pytest.mark.parametrize("asked", [NOW - 1, math.inf])
def test_none_is_checked_within_2_s_of_its_last_check_or_twice_at_once(asked):
    plan = make_plan([entry(asked=asked)], NOW, quiet())
    assert plan.checks == []
    assert plan.wake == asked + SPACING
    assert make_plan([*many(3), entry("x", born=0, asked=asked)], NOW, quiet(audit=NOW)).checks[0].id != "x"


def test_base64_and_unknown_times_are_checked_singly_beside_the_sweep():
    plan = make_plan([*many(9), entry("b", single=True, created=1.7e9), entry("c", created=None)], NOW, quiet())
    assert [each.id for each in plan.checks] == ["b", "c"]
    assert plan.sweeps[0].after == 1.8e9


def test_without_the_list_all_are_checked_singly_the_most_overdue_first_and_not_all_at_once():
    entries = [entry(f"p{index}", due=NOW - index) for index in range(500)]
    plan = make_plan(entries, NOW, quiet(listing=False, checking=8))
    assert len(plan.checks) == MOST_CHECKS - 8
    assert plan.checks[0].id == "p499"
    assert make_plan(entries, NOW, quiet(listing=False, checking=MOST_CHECKS)).checks == []


def test_a_pause_stops_everything_but_timeouts():
    over = entry("over", deadline=NOW)
    plan = make_plan([*many(9), over], NOW, quiet(paused=NOW + 3))
    assert (plan.checks, plan.sweeps, plan.expired, plan.wake) == ([], [], [over], NOW + 3)


def test_stragglers_are_told_singly_once_they_make_the_list_longer():
    late = entry("late", created=1.7e9, late=NOW - 1)
    assert make_plan([*many(50), late], NOW, quiet()).sweeps[0].after == 1.7e9
    plan = make_plan([*many(50), late], NOW, quiet(pages=2))
    assert plan.sweeps[0].after == 1.8e9
    assert (plan.checks, late.single) == ([late], True)


def test_when_all_are_late_the_list_is_still_the_cheap_way():
    entries = many(50, late=NOW - 1)
    plan = make_plan(entries, NOW, quiet(pages=4))
    assert (plan.sweeps[0].after, plan.checks) == (1.8e9, [])
    some = [*many(100), *(entry(f"late{index}", created=1.7e9, late=NOW - 1) for index in range(5))]
    assert make_plan(some, NOW, quiet(pages=4)).sweeps[0].after == 1.7e9


def test_failed_and_rare_ends_are_asked_for_in_turn_the_young_included():
    outlook = quiet(failures=NOW, rare=NOW)
    entries = [entry(f"p{index}", look=NOW + 5, due=NOW + 6) for index in range(20)]
    seen = []
    for second in range(40):
        seen += [window.status for window in make_plan(entries, NOW + second / 1, outlook).sweeps]
    assert seen.count("failed") >= 10
    assert {"cancelled", "timeout", "deleted"} <= set(seen)


@settings(deadline=None)  # the machine may be busy
@given(
    st.lists(
        st.builds(
            entry,
            st.text(),
            created=st.none() | st.floats(1e9, 2e9),
            born=st.floats(0, NOW),
            look=st.floats(0, 2 * NOW),
            due=st.floats(0, 2 * NOW),
            late=st.floats(0, 2 * NOW),
            asked=st.just(-math.inf) | st.floats(0, NOW) | st.just(math.inf),
            deadline=st.floats(0, 2 * NOW),
            single=st.booleans(),
        ),
        max_size=120,
    ),
    st.builds(
        Outlook,
        listing=st.booleans(),
        suspicious=st.booleans(),
        patient=st.booleans(),
        paused=st.floats(0, 2 * NOW),
        checking=st.integers(0, MOST_CHECKS),
        sweeping=st.booleans(),
        swept=st.floats(0, NOW),
        failures=st.floats(0, 2 * NOW),
        rare=st.floats(0, 2 * NOW),
        audit=st.floats(0, 2 * NOW),
        pages=st.integers(1, 50),
    ),
)
def test_no_plan_breaks_a_rule_or_forgets_to_wake(entries, outlook):
    plan = make_plan(entries, NOW, outlook)
    assert len({id(each) for each in plan.checks}) == len(plan.checks) <= MOST_CHECKS - outlook.checking
    assert all(each.asked + SPACING <= NOW for each in plan.checks)
    assert all(each.deadline > NOW for each in plan.checks)
    assert {id(each) for each in plan.expired} == {id(each) for each in entries if each.deadline <= NOW}
    going_on = [each for each in entries if each.deadline > NOW]
    assert plan.wake > NOW or outlook.checking or plan.checks
    if going_on:
        assert plan.wake <= min(each.deadline for each in going_on)
    if outlook.paused > NOW or not outlook.listing:
        assert not plan.sweeps


@settings(deadline=None)  # the machine may be busy
@given(st.floats(0, 1e6), st.integers(0, 1000))
def test_rests_grow_from_2_s_to_half_a_minute(age, seed):
    seconds = rest(age, random.Random(seed))
    assert SPACING <= seconds <= 1.1 * LONGEST_REST
    assert rest(4.0, random.Random(seed)) <= rest(60.0, random.Random(seed))


def test_the_seed_pages_are_where_learning_starts():
    paces = Paces(random.Random(1))
    text, edit = paces["wavespeed-ai/qwen-image/text-to-image-lora"], paces["wavespeed-ai/qwen-image/edit-lora"]
    assert text is paces["wavespeed-ai/qwen-image/text-to-image-lora"]
    assert text.schedule.look < 6 <= text.schedule.check < 10 < text.schedule.late
    assert edit.schedule.look < 6 <= edit.schedule.check < 12 < edit.schedule.late


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 1000), st.none() | st.floats(0, 1000)), max_size=300))
def test_a_schedule_stays_in_order_and_within_what_was_seen(seen):
    pace = Pace(random.Random(1))
    for missed, more, told in seen:
        pace.learn(missed + more, missed=missed, told=told)
    schedule = pace.schedule
    assert 0 <= schedule.look <= schedule.check <= schedule.late
    assert len(pace._durations) <= 64


def test_what_was_learned_long_ago_is_forgotten():
    pace = Pace(random.Random(1))
    for duration in [50.0] * 200 + [5.0] * 500:
        pace.learn(duration, missed=1.0)
    assert pace.schedule.late < 10


def test_a_wave_of_long_ones_does_not_make_the_short_ones_forgotten():
    """Jobs submitted together end in the order of their durations: the last hundred are the long ones."""
    pace = Pace(random.Random(1))
    for wave in range(3):
        for index in range(300):
            pace.learn(6.0 + index / 50, missed=1.0)
        assert pace.schedule.look < 8.0, wave


def test_a_proof_is_looked_for_a_little_later_and_not_for_ever():
    trust = Trust()
    trust.expect("p", 1.8e9, NOW)
    assert trust.due_proofs(NOW + 1) == {}
    assert list(trust.due_proofs(NOW + 2)) == ["p"]
    assert trust.due_proofs(NOW + 60) == {}


def test_two_strikes_end_the_trust_and_one_ends_it_after_that():
    trust = Trust()
    assert strike(trust, NOW) is False
    assert trust.suspicious
    assert strike(trust, NOW + 5) is True
    assert not trust.usable(NOW + 64)
    assert trust.usable(NOW + 66)
    assert strike(trust, NOW + 70) is True
    assert not trust.usable(NOW + 70 + 119)


def test_what_it_does_show_restores_trust():
    trust = Trust()
    for at in range(20):
        assert strike(trust, NOW + at) is False
        trust.expect("shown", 1.8e9, NOW + at)
        trust.judge(trust.due_proofs(NOW + at + 2), set(), NOW + at + 2)


def test_it_has_proven_itself_by_five_in_a_row_and_one_that_is_missing_ends_that():
    trust = Trust()
    for at in range(5):
        assert not trust.proven
        show(trust, NOW + at)
    assert trust.proven
    assert not trust.suspicious
    strike(trust, NOW + 5)
    assert not trust.proven
    assert trust.suspicious
    show(trust, NOW + 6)
    assert not trust.suspicious
    assert not trust.proven
    for at in range(7, 12):
        show(trust, NOW + at)
    assert trust.proven
    trust.failed(NOW + 12, final=True)
    assert not trust.proven  # it has to prove itself anew when it is tried again


def test_two_that_were_found_singly_at_once_are_no_reason_for_suspicion():
    trust = Trust()
    trust.expect("one", 1.8e9, NOW)
    trust.expect("two", 1.8e9, NOW + 1.9)
    assert not trust.suspicious


def test_after_two_good_minutes_all_is_forgiven():
    trust = Trust()
    trust.failed(NOW, final=True)
    trust.answered(NOW + 60 + 121)
    assert trust.failed(NOW + 200, final=False) is False
    assert trust.failed(NOW + 201, final=False) is True
    assert trust.off_until == NOW + 261


@pytest.mark.parametrize(("final", "failures"), [(True, 1), (False, 2)])
def test_failures_end_the_trust(final, failures):
    trust = Trust()
    assert [trust.failed(NOW, final=final) for _ in range(failures)][-1] is True


def test_one_answer_between_two_failures_makes_them_accidents():
    trust = Trust()
    for at in range(10):
        assert trust.failed(NOW + at, final=False) is False
        trust.answered(NOW + at)


def test_the_list_is_never_left_for_more_than_a_quarter_of_an_hour():
    trust, at = Trust(), NOW
    for _ in range(10):
        trust.failed(at, final=True)
        assert trust.off_until - at <= 900
        at = trust.off_until + 1


def show(trust, at):
    trust.expect("shown", 1.8e9, at - 2)
    trust.judge(trust.due_proofs(at), set(), at)


def strike(trust, at):
    trust.expect("hidden", 1.8e9, at - 2)
    return trust.judge(trust.due_proofs(at), {"hidden"}, at)


def test_a_window_reaches_over_its_proofs():
    trust = Trust()
    trust.expect("old", 1.7e9, NOW)
    trust.expect("new", 1.9e9, NOW)
    window = Window("completed", 1.8e9, 1.8e9 + 1, "m")
    wide = widened(window, trust.due_proofs(NOW + 2))
    assert (wide.after, wide.before, wide.model) == (1.7e9, 1.9e9, None)
    assert widened(window, {}) is window
    trust.expect("ours", 1.8e9, NOW + 100, model="m")
    assert widened(window, trust.due_proofs(NOW + 102)).model == "m"


def test_a_page_is_asked_for_with_a_margin_at_both_ends():
    body = page_request(Window("completed", 1_800_000_000.5, 1_800_000_001.5, "m"), 3).body
    assert body == (
        b'{"page":3,"page_size":100,"model":"m","status":"completed",'
        b'"created_after":"2027-01-15T08:00:00.450000Z","created_before":"2027-01-15T08:00:02.500000Z"}'
    )


def test_plans_are_made_less_often_the_more_there_is_to_read():
    assert pause_between_plans(1) < 0.01
    assert 0.1 < pause_between_plans(10_000) < 0.5


def test_a_pace_tells_once_that_jobs_have_come_to_take_longer():
    pace = Paces(random.Random(1))["edit"]
    assert not pace.slower()
    for _ in range(64):
        pace.learn(90.0, missed=85.0)
    assert pace.slower()
    assert not pace.slower()
    for _ in range(64):
        pace.learn(5.0, missed=4.0)
    assert not pace.slower()
