"""Timers: never early, in order, and cancelled without a trace."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from tng.dataplane.timers import TICKS_PER_SECOND, TimerWheel


@given(st.lists(st.floats(0, 100), max_size=30), st.floats(0, 1e6))
def test_nothing_fires_early_and_everything_within_its_tick(
    delays: list[float], start: float
) -> None:
    wheel = TimerWheel()
    for delay in delays:
        wheel.add(start, delay, lambda: None)
    fired = 0
    now = start
    while (wait := wheel.next_in(now)) is not None:
        now += wait + 1e-6
        fired += len(wheel.take_due(now))
        assert fired >= sum(start + delay <= now - 0.51 for delay in delays)
        assert fired <= sum(start + delay <= now + 1e-6 for delay in delays)
    assert fired == len(delays)


def test_a_near_timer_is_at_most_a_tick_late() -> None:
    wheel = TimerWheel()
    wheel.add(100.0, 1.0, lambda: None)
    assert wheel.take_due(100.999) == []
    assert len(wheel.take_due(101.0 + 1.001 / TICKS_PER_SECOND)) == 1


def test_a_cancelled_timer_does_not_fire_even_if_it_is_due_already() -> None:
    wheel = TimerWheel()
    calls: list[str] = []
    first = wheel.add(0, 1, lambda: calls.append("first"))
    second = wheel.add(0, 1, lambda: calls.append("second"))
    due = wheel.take_due(2)
    assert due == [first, second]
    wheel.fire(first)
    second.cancel()
    wheel.fire(second)
    second.cancel()
    assert calls == ["first"]


def test_without_timers_there_is_nothing_to_wait_for() -> None:
    wheel = TimerWheel()
    assert wheel.next_in(0) is None
    wheel.add(0, 5, lambda: None).cancel()
    assert wheel.next_in(0) is None
    assert len(wheel) == 0


def test_cancelled_deadlines_leave_no_memory_behind() -> None:
    wheel = TimerWheel()
    tracemalloc.start()
    try:
        for number in range(20_000):
            wheel.add(number / 20_000, 10, lambda: None).cancel()
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 50_000
