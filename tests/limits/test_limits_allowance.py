from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from wavespeed_qwen_async._limits.learning import Allowance


def climb(allowance: Allowance, start: float, until: float) -> dict[float, int]:
    """Step every second; the times at which it changed, and to what."""
    steps, now, last = {}, start, allowance.whole
    while now <= until:
        allowance.step(now)
        if allowance.whole != last:
            last = steps[now] = allowance.whole
        now += 1
    return steps


def test_a_refusal_shows_what_is_allowed():
    allowance = Allowance(500, window=60.0)
    assert (allowance.whole, allowance.learned) == (500, None)
    allowance.refused(166, 60.0)
    assert (allowance.whole, allowance.learned) == (166, 166)


def test_refusals_of_those_under_way_were_counted_as_accepted():
    allowance = Allowance(500, window=60.0)
    allowance.refused_too()
    assert allowance.whole == 500
    allowance.refused(170, 60.0)
    for _ in range(4):
        allowance.refused_too()
    assert allowance.whole == 166


def test_it_falls_a_little_at_least_and_to_an_eighth_at_most():
    allowance = Allowance(800, window=60.0)
    allowance.refused(900, 0.0)
    assert allowance.whole == 776
    allowance.refused(0, 0.0)
    assert allowance.whole == 97


def test_the_floor_is_one():
    allowance = Allowance(2, window=60.0)
    for _ in range(5):
        allowance.refused(0, 0.0)
        allowance.refused_too()
    assert allowance.whole == 1


def test_it_holds_for_a_window_then_tries_a_tenth_then_grows_by_half():
    allowance = Allowance(500, window=60.0)
    allowance.refused(166, 100.0)
    assert climb(allowance, 100, 300) == {160: 182, 170: 273, 180: 410, 190: 500}
    assert allowance.learned is None


def test_a_slow_rate_is_tried_more_rarely():
    allowance = Allowance(500, window=60.0)
    allowance.refused(0, 0.0)
    allowance.value = 1.0
    allowance.refused(1, 0.0)
    steps = climb(allowance, 0, 1200)
    assert list(steps.items())[:2] == [(900, 2), (990, 3)]  # fifteen windows; then three sends' time


def test_a_pause_that_wastes_what_is_allowed_makes_probes_rarer():
    for wasted, first_probe in ((0.0, 160), (0.05, 160), (0.5, 550), (1.0, 1000)):
        allowance = Allowance(500, window=60.0)
        allowance.refused(166, 100.0, wasted)
        assert min(climb(allowance, 100, 1100)) == first_probe


def test_refused_again_it_remembers_the_new_ceiling():
    allowance = Allowance(500, window=60.0)
    allowance.refused(166, 0.0)
    climb(allowance, 0, 65)
    allowance.refused(200, 80.0)
    assert allowance.whole == 177  # 182.6 less 3 %
    assert climb(allowance, 80, 139) == {}
    assert climb(allowance, 140, 141) == {140: 194}


def test_the_configured_rate_can_change():
    allowance = Allowance(500, window=60.0)
    allowance.most = 800
    assert allowance.whole == 800
    allowance.refused(166, 0.0)
    allowance.most = 1000
    assert (allowance.whole, allowance.most) == (166, 1000)
    allowance.most = 100
    assert allowance.whole == 100


def test_lowered_to_below_what_was_learned_it_is_the_configured_rate_again():
    allowance = Allowance(500, window=60.0)
    allowance.refused(166, 0.0)
    allowance.most = 100
    assert allowance.learned is None
    allowance.most = 300
    assert allowance.whole == 300


def test_without_learning_nothing_changes():
    allowance = Allowance(500, window=60.0, learn=False)
    allowance.refused(1, 0.0)
    allowance.refused_too()
    assert climb(allowance, 0, 100) == {}
    assert allowance.whole == 500


@settings(deadline=None)
@given(
    most=st.integers(1, 5000),
    events=st.lists(st.one_of(st.integers(0, 6000), st.just("too"), st.floats(0, 100))),
)
def test_it_stays_between_one_and_the_configured_rate(most, events):
    allowance, now = Allowance(most, window=60.0), 0.0
    for event in events:
        if event == "too":
            allowance.refused_too()
        elif isinstance(event, float):
            now += event
            allowance.step(now)
        else:
            before = allowance.value
            allowance.refused(event, now)
            assert allowance.value <= max(1, before * 0.97)
        assert 1 <= allowance.value <= most
        assert allowance.learned in {None, allowance.value}
