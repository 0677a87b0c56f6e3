"""The window's promise, for whatever the network does; and the pace."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavespeed_qwen_async._limits.rate import LATEST_ARRIVAL, MARGIN, SLOW, Pace, Send, SendWindow


class Nobody:
    def cancel(self, send: Send) -> None:
        raise AssertionError(send)


def send_at(now: float) -> Send:
    return Send(Nobody(), now, 0)


def answered(window: SendWindow, started: float, at: float, **how: bool) -> None:
    send = send_at(started)
    window.add(send)
    window.settle(send, at, **how)


# Each send: how long its request takes, how long its answer takes (None: it is never answered), and whether it was
# cancelled before it left.
SENDS = st.lists(
    st.tuples(
        st.floats(0, LATEST_ARRIVAL),
        st.one_of(st.none(), st.floats(0, 40)),
        st.sampled_from([False, False, False, True]),
    ),
    min_size=1,
    max_size=40,
)


class Network:
    """Sends through a window whose answers come back in whatever order they like."""

    def __init__(self) -> None:
        self.window = SendWindow(60.0)
        self.now = 0.0
        self.answers: list[tuple[float, int, Send, bool]] = []

    def wait_until_free(self, limit: int) -> None:
        while (free := self.window.free_at(limit, self.now)) > self.now:
            self.wait_until(min([free, *(at for at, *_ in self.answers[:1])]))

    def wait_until(self, when: float) -> None:
        self.now = max(self.now, when)
        while self.answers and self.answers[0][0] <= self.now:
            at, _, send, arrived = heapq.heappop(self.answers)
            self.window.settle(send, at, arrived=arrived)

    def send(self, answered: float | None, *, arrived: bool) -> None:
        send = send_at(self.now)
        self.window.add(send)
        if answered is not None:
            heapq.heappush(self.answers, (self.now + answered, id(send), send, arrived))


@settings(deadline=None)
@given(limit=st.integers(1, 5), sends=SENDS, idle=st.floats(0, 30))
def test_no_window_of_the_servers_ever_holds_more_than_the_limit(limit, sends, idle):
    network, arrivals = Network(), []
    for number, (there, back, never_left) in enumerate(sends):
        network.wait_until_free(limit)
        if never_left:
            network.send(0.0, arrived=False)
        else:
            arrivals.append(network.now + there)
            network.send(None if back is None else there + back, arrived=True)
        if number % 7 == 3:
            network.wait_until(network.now + idle)
    for first in arrivals:
        assert sum(first <= at <= first + 60 for at in arrivals) <= limit


@settings(deadline=None)
@given(limit=st.integers(1, 4), latencies=st.lists(st.floats(0, 4), min_size=2, max_size=20))
def test_a_free_time_is_never_too_late(limit, latencies):
    """It is the time at which the limit's last but so many was answered, a window and a hair before."""
    window = SendWindow(60.0)
    now, reports = 0.0, []
    for latency in latencies:
        now = max(now, window.free_at(limit, now))
        if len(reports) >= limit:
            assert now <= max(sorted(reports)[-limit] + 60 + MARGIN + 1e-6, reports[-1])
        answered(window, now, now + latency)
        now += latency
        reports.append(now)


def test_both_edges_of_a_window_may_count():
    window = SendWindow(60.0)
    answered(window, 0.0, 0.25)
    assert window.free_at(1, 0.25) == 60.25 + MARGIN
    assert window.used(60.25) == 1
    assert window.used(60.25 + MARGIN) == 0


def test_one_that_never_left_is_not_counted():
    window = SendWindow(60.0)
    answered(window, 0.0, 1.0, arrived=False, accepted=False)
    assert window.free_at(1, 1.0) == 1.0
    assert window.accepted(1.0) == 0


def test_one_without_an_answer_counts_as_arrived_after_5_s():
    window = SendWindow(60.0)
    send = send_at(0.0)
    window.add(send)
    assert window.free_at(1, 0.0) == LATEST_ARRIVAL  # look again then
    assert window.free_at(1, LATEST_ARRIVAL) == LATEST_ARRIVAL + 60 + MARGIN
    window.settle(send, 30.0)  # the late answer changes nothing
    assert window.free_at(1, 30.0) == LATEST_ARRIVAL + 60 + MARGIN
    assert window.used(66.0) == 0


def test_a_late_never_left_is_no_second_permit():
    window = SendWindow(60.0)
    send = send_at(0.0)
    window.add(send)
    assert window.used(10.0) == 1
    window.settle(send, 10.0, arrived=False)
    assert window.used(10.0) == 1
    assert window.used(66.0) == 0


def test_a_lowered_limit_waits_for_as_many_as_it_takes():
    window = SendWindow(60.0)
    for second in range(5):
        answered(window, second, second)
    assert window.free_at(2, 10.0) == 3 + 60 + MARGIN
    assert window.free_at(5, 10.0) == 0 + 60 + MARGIN


def test_seeded_sends_count_from_the_latest_that_they_may_have_arrived():
    window = SendWindow(60.0)
    answered(window, 99.0, 99.5)
    window.seed([70.0, 30.0, 2.0, -5.0], now=100.0)
    assert window.used(100.0) == 4
    assert window.free_at(4, 100.0) == 75 + 60 + MARGIN
    assert window.free_at(3, 100.0) == 99.5 + 60 + MARGIN
    assert window.free_at(2, 100.0) == 103 + 60 + MARGIN  # it may be on its way still
    assert window.free_at(1, 100.0) == 105 + 60 + MARGIN
    assert window.accepted(100.0) == 4


def test_answers_that_come_before_seeded_sends_must_have_arrived_are_counted_by_their_own_time():
    window = SendWindow(60.0)
    window.seed([0.0], now=100.0)
    answered(window, 101.0, 102.0)
    assert window.free_at(2, 102.0) == 102 + 60 + MARGIN
    assert window.free_at(1, 102.0) == 105 + 60 + MARGIN
    assert window.used(162.5) == 1
    assert window.used(165.5) == 0


def test_one_that_was_cut_off_on_its_way_may_arrive_yet():
    window = SendWindow(60.0)
    send = send_at(0.0)
    window.add(send)
    window.abandon(send, 0.1)
    assert window.free_at(1, 0.1) == LATEST_ARRIVAL + 60 + MARGIN
    assert window.used(66.0) == 0


def test_refused_ones_count_as_arrived_but_not_as_accepted():
    window = SendWindow(60.0)
    answered(window, 0.0, 0.1)
    answered(window, 1.0, 1.1, accepted=False)
    window.add(send_at(2.0))
    assert window.used(2.0) == 3
    assert window.accepted(2.0) == 2  # one without an answer is thought to be
    assert window.accepted(60.5) == 1
    assert window.accepted(62.5) == 0


def test_the_rest_of_the_window():
    window = SendWindow(60.0)
    assert window.rest(0.0) == 60
    answered(window, 0.0, 1.0)
    answered(window, 20.0, 21.0)
    assert window.rest(25.0) == pytest.approx(36 + MARGIN)


def even_sends() -> SendWindow:
    """One a second for a minute."""
    window = SendWindow(60.0)
    for second in range(60):
        answered(window, second, second)
    return window


@pytest.mark.parametrize(
    ("window", "now", "until", "wasted"),
    [
        (even_sends(), 60.0, 60.5, 0.5 / 60),  # the oldest leaves at 60: a moving window has room from then on
        (even_sends(), 60.0, 90.0, 0.5),
        (even_sends(), 60.0, 120.0, 1.0),
        (even_sends(), 60.0, 300.0, 1.0),
        (SendWindow(60.0), 60.0, 120.0, 0.0),  # nothing is known
    ],
)
def test_what_a_pause_wastes(window, now, until, wasted):
    assert window.wasted(until, now) == pytest.approx(wasted, abs=0.02)


def test_a_pause_until_those_of_a_burst_leave_wastes_nothing():
    window = SendWindow(60.0)
    for _ in range(10):
        answered(window, 0.0, 0.2)
    assert window.wasted(60.2, 0.3) < 0.01


def test_a_pause_that_the_window_outlasts_wastes_nothing():
    window = SendWindow(60.0)
    answered(window, 0.0, 0.1)
    for second in range(30, 60):
        answered(window, second, second)
    assert window.wasted(80.0, 59.0) < 0.04
    assert window.wasted(105.0, 59.0) == pytest.approx(17 / 31)  # those of 30 to 45 have left, and the first


def test_refused_ones_are_forgotten():
    window = SendWindow(60.0)
    for second in range(1000):
        answered(window, second, second, accepted=False)
    assert len(window._refused) <= 61
    assert len(window._left) <= 61


def leave(pace: Pace, count: int, allowance: float, now: float = 0.0) -> list[float]:
    times = []
    for _ in range(count):
        now = max(now, pace.due(allowance))
        pace.sent(now, allowance)
        times.append(now)
    return times


def test_the_pace_is_even_after_what_may_be_caught_up_with():
    times = leave(Pace(60.0, 0), 20, 240)  # four a second, half a second's worth at once
    assert times[:3] == [0, 0, 0]
    assert times[3:] == pytest.approx([0.25 * number for number in range(1, 18)])


def test_a_late_timer_is_made_up_for():
    pace = Pace(60.0, 0)
    leave(pace, 10, 60)
    before = pace.due(60)
    late = leave(pace, 3, 60, now=before + 0.4)
    assert late == pytest.approx([before + 0.4, before + 1, before + 2])


def test_half_a_second_and_no_more():
    pace = Pace(60.0, 0)
    leave(pace, 100, 600)
    assert leave(pace, 8, 600, now=1000.0)[5:] == pytest.approx([1000, 1000.1, 1000.2])


def test_a_burst():
    assert leave(Pace(60.0, 5), 7, 60) == pytest.approx([0, 0, 0, 0, 0, 1, 2])


def test_after_a_hold_one_at_a_time():
    pace = Pace(60.0, 50)
    pace.hold(100.0)
    assert leave(pace, 3, 60) == pytest.approx([100, 101, 102])


def test_a_hold_outlives_no_change_of_the_allowance():
    pace = Pace(60.0, 500)
    leave(pace, 500, 500)
    pace.hold(20.0)
    assert leave(pace, 1, 166) == [20]
    assert leave(pace, 3, 500, now=20.0) == pytest.approx([20.12, 20.24, 20.36])


def test_one_that_did_not_leave_gives_its_place_back():
    pace = Pace(60.0, 0)
    leave(pace, 1, 60)
    assert pace.due(60) > 0
    pace.unsent()
    assert pace.due(60) == 0


def test_no_more_than_the_ways_leave_at_once_and_slow_answers_open_more():
    window = SendWindow(60.0, ways=2)
    first, second = send_at(0.0), send_at(0.1)
    window.add(first)
    assert window.free_at(100, 0.1) == 0.1
    window.add(second)
    assert window.free_at(100, 0.1) == 0.0 + SLOW  # both ways are taken: until an answer, or one turns out to be slow
    window.settle(first, 0.3)
    assert window.free_at(100, 0.3) == 0.3
    window.settle(second, 0.1 + SLOW + 0.1)  # slow: three ways from here on
    for _ in range(3):
        assert window.free_at(100, 1.1) == 1.1
        window.add(send_at(1.1))
    assert window.free_at(100, 1.1) == 1.1 + SLOW


def test_those_that_are_written_down_first_take_no_way_of_those_that_left():
    window = SendWindow(60.0, ways=2)
    left, staying = [send_at(0.0), send_at(0.0)], [send_at(0.1), send_at(0.1)]
    for send in left:
        window.add(send)
        window.stay(send)
    assert window.free_at(100, 0.1) == 0.0 + SLOW  # no more than the ways stay, either: they will leave together
    window.leave(left[0])
    assert window.free_at(100, 0.1) == 0.1
    window.leave(left[1])
    assert window.free_at(100, 0.1) == 0.0 + SLOW
    window.settle(left[0], 0.1)
    for send in staying:
        assert window.free_at(100, 0.1) == 0.1
        window.add(send)
        window.stay(send)
    assert window.free_at(100, 0.1) == 0.1 + SLOW
    window.settle(staying[0], 0.2)  # never left, or answered: one may stay in its place
    assert window.free_at(100, 0.2) == 0.2
    assert window.used(0.2) == 4


def test_a_send_that_is_about_to_count_as_arrived_frees_nothing():
    """Between the two, a microsecond is no time: it is counted as arrived, not as about to be."""
    window = SendWindow(60.0)
    window.add(send_at(6e-8))
    assert window.free_at(1, LATEST_ARRIVAL) == pytest.approx(LATEST_ARRIVAL + 60.0 + MARGIN)


def test_answers_that_never_come_let_twice_the_ways_leave_and_then_as_many_as_are_taken_to_have_arrived():
    window = SendWindow(60.0, ways=2)
    left = []
    now = 0.0
    while len(left) < 8:
        now = window.free_at(100, now)
        left.append(now)
        window.add(send_at(now))
    assert left == [0.0, 0.0, SLOW, SLOW, *(LATEST_ARRIVAL + at for at in (0.0, 0.0, SLOW, SLOW))]
