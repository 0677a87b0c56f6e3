from __future__ import annotations

from wavespeed_qwen_async._limits.pause import Breaker, Pause
from wavespeed_qwen_async._limits.rate import Send


class Nobody:
    def cancel(self, send: Send) -> None:
        raise AssertionError(send)


def leave(pause: Pause, now: float) -> Send:
    send = Send(Nobody(), now, pause.episode)
    pause.sent(send)
    return send


def refuse(pause: Pause, now: float, retry_after: float | None = None, *, rest: float = 0.0) -> bool:
    send = leave(pause, now)
    pause.settled(send)
    return pause.refused(send, now, retry_after, rest)


def fail(pause: Pause, now: float) -> bool:
    send = leave(pause, now)
    pause.settled(send)
    return pause.failed(send, now)


def test_no_pause_at_first():
    assert Pause(60.0, Breaker()).free_at(0.0) < 0


def test_as_long_as_the_server_asks():
    pause = Pause(60.0, Breaker())
    assert refuse(pause, 10.0, 7.5, rest=60.0)
    assert pause.free_at(10.0) == 17.5
    assert pause.reason == "rate limit"


def test_the_rest_of_the_window_where_it_does_not_ask():
    pause = Pause(60.0, Breaker())
    refuse(pause, 10.0, rest=33.0)
    assert pause.free_at(10.0) == 43
    pause = Pause(60.0, Breaker())
    refuse(pause, 10.0, rest=0.01)
    assert pause.free_at(10.0) == 12


def test_those_that_left_before_it_only_make_it_longer():
    pause = Pause(60.0, Breaker())
    first, second, third = (leave(pause, 0.0) for _ in range(3))
    assert pause.refused(first, 1.0, 5.0, 0.0)
    assert not pause.refused(second, 2.0, 6.0, 0.0)
    assert pause.until == 8
    assert not pause.refused(third, 3.0, 1.0, 0.0)
    assert pause.until == 8
    assert pause.episode == 1


def test_one_trial_then_all():
    pause = Pause(60.0, Breaker())
    refuse(pause, 0.0, 5.0)
    trial = leave(pause, 5.0)
    assert pause.free_at(5.0) > 5
    pause.settled(trial)
    pause.accepted(trial)
    leave(pause, 5.3)
    assert pause.free_at(5.3) <= 5.3


def test_a_trial_that_ends_without_word_is_followed_by_another():
    pause = Pause(60.0, Breaker())
    refuse(pause, 0.0, 5.0)
    pause.settled(leave(pause, 5.0))
    assert pause.free_at(5.0) <= 5
    leave(pause, 5.0)
    assert pause.free_at(5.0) > 5


def test_a_trial_that_takes_long_was_not_refused():
    pause = Pause(60.0, Breaker())
    refuse(pause, 0.0, 5.0)
    leave(pause, 5.0)
    assert pause.free_at(9.9) == 10
    assert pause.free_at(10.0) <= 10
    leave(pause, 10.0)
    assert pause.free_at(10.0) <= 10


def test_a_server_in_trouble_gets_one_trial_a_window():
    pause = Pause(60.0, Breaker())
    for _ in range(5):
        fail(pause, 0.0)
    leave(pause, 2.0)
    assert pause.free_at(50.0) == 62
    assert pause.free_at(62.0) <= 62
    leave(pause, 62.0)
    assert pause.free_at(62.0) > 62


def test_each_pause_in_a_row_is_longer_up_to_a_window():
    pause, now, pauses = Pause(60.0, Breaker(seconds=1e6)), 0.0, []
    for _ in range(7):
        refuse(pause, now, 0.5)
        pauses.append(pause.until - now)
        now = pause.until
    assert pauses == [0.5, 4, 8, 16, 32, 60, 60]


def test_accepted_they_are_short_again():
    pause = Pause(60.0, Breaker())
    for _ in range(3):
        refuse(pause, pause.until if pause.episode else 0.0, 0.5)
    trial = leave(pause, pause.until)
    pause.settled(trial)
    pause.accepted(trial)
    refuse(pause, 100.0, 0.5)
    assert pause.until == 100.5


def test_a_late_acceptance_from_before_the_pause_says_nothing():
    pause = Pause(60.0, Breaker())
    early = leave(pause, 0.0)
    refuse(pause, 0.0, 5.0)
    pause.accepted(early)
    leave(pause, 5.0)
    assert pause.free_at(5.0) > 5


def test_five_failures_in_a_row_pause_too():
    pause = Pause(60.0, Breaker())
    assert [fail(pause, 0.0) for _ in range(5)] == [False] * 4 + [True]
    assert (pause.until, pause.reason) == (2, "server errors")
    assert fail(pause, 2.0)  # the trial
    assert pause.until == 6


def test_four_failures_and_an_acceptance_do_not():
    pause = Pause(60.0, Breaker())
    for _ in range(3):
        assert not any(fail(pause, 0.0) for _ in range(4))
        pause.accepted(leave(pause, 0.0))


def test_failures_of_those_under_way_are_no_news():
    pause = Pause(60.0, Breaker())
    early = [leave(pause, 0.0) for _ in range(20)]
    assert sum(pause.failed(send, 1.0) for send in early) == 1
    assert pause.until == 3


def test_the_breaker_opens_after_enough_time_and_enough_answers():
    pause, now = Pause(60.0, Breaker(seconds=100.0, answers=3)), 0.0
    refuse(pause, now, 60.0)
    refuse(pause, 60.0, 60.0)
    assert not pause.broken
    refuse(pause, 120.0, 60.0)
    assert pause.broken
    assert pause.until == 180

    pause = Pause(60.0, Breaker(seconds=100.0, answers=3))
    for at in (0.0, 10.0, 30.0):
        refuse(pause, at, 1.0)
    assert not pause.broken  # enough answers, not enough time


def test_it_is_open_for_a_window_and_closed_by_an_acceptance():
    pause = Pause(60.0, Breaker(seconds=10.0, answers=2))
    refuse(pause, 0.0, 1.0)
    refuse(pause, 20.0, 1.0)
    assert (pause.broken, pause.until) == (True, 80)
    refuse(pause, 80.0, 1.0)
    assert (pause.broken, pause.until) == (True, 140)
    pause.accepted(leave(pause, 140.0))
    assert not pause.broken
    refuse(pause, 150.0, 1.0)
    assert not pause.broken


def test_a_pause_longer_than_its_patience_opens_it_at_once():
    pause = Pause(60.0, Breaker(seconds=300.0))
    refuse(pause, 0.0, 3600.0)
    assert (pause.broken, pause.until) == (True, 3600)
