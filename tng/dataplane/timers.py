"""Timers that are cheap to set and cheaper to cancel: nearly every deadline is cancelled.

In: a moment on the monotonic clock and what to call then; out: the calls, never early and at most
one tick late.  Timers of the same tick share a bucket, a dictionary, so that both setting and
cancelling are one dictionary operation and a cancelled timer leaves nothing behind.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

TICKS_PER_SECOND: Final = 128
"""Resolution: a timer fires up to 8 ms late, which no protocol timeout notices."""

COARSE_TICKS: Final = 64
"""Timers further than `COARSE_FROM_S` away are rounded up to half seconds: fewer buckets."""

COARSE_FROM_S: Final = 8.0


class Timer:
    """One call to be made later.  Cancelled timers and those that fired hold no references."""

    __slots__ = ("_bucket", "_call")

    def __init__(self, bucket: dict[Timer, None], call: Callable[[], object]) -> None:
        self._bucket: dict[Timer, None] | None = bucket
        self._call: Callable[[], object] | None = call

    def cancel(self) -> None:
        """Make sure that it does not fire any more; harmless when it has."""
        bucket = self._bucket
        if bucket is not None:
            del bucket[self]
            self._bucket = self._call = None

    def _take(self) -> Callable[[], object] | None:
        call = self._call
        self._bucket = self._call = None
        return call


class TimerWheel:
    """All timers of one reactor, in buckets by tick.

    Attributes:
        ticks: heap of the ticks that have a bucket, for a look without a call; empty without
            timers.
    """

    __slots__ = ("_buckets", "ticks")

    def __init__(self) -> None:
        self._buckets: dict[int, dict[Timer, None]] = {}
        self.ticks: list[int] = []

    def add(self, now: float, delay_s: float, call: Callable[[], object]) -> Timer:
        """Arrange for `call` to be made `delay_s` seconds after `now`, or up to a tick later."""
        tick = int((now + delay_s) * TICKS_PER_SECOND) + 1
        if delay_s > COARSE_FROM_S:
            tick += -tick % COARSE_TICKS
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = {}
            heapq.heappush(self.ticks, tick)
        timer = Timer(bucket, call)
        bucket[timer] = None
        return timer

    def next_in(self, now: float) -> float | None:
        """Seconds until something may be due, 0 or more; None without timers."""
        ticks = self.ticks
        while ticks and not self._buckets[ticks[0]]:
            del self._buckets[heapq.heappop(ticks)]
        return max(0.0, ticks[0] / TICKS_PER_SECOND - now) if ticks else None

    def take_due(self, now: float) -> list[Timer]:
        """Timers whose moment has come, earliest first; still cancellable until `fire`."""
        due: list[Timer] = []
        while self.ticks and self.ticks[0] <= now * TICKS_PER_SECOND:
            due.extend(self._buckets.pop(heapq.heappop(self.ticks)))
        return due

    @staticmethod
    def fire(timer: Timer) -> None:
        """Make the timer's call, unless it was cancelled meanwhile."""
        call = timer._take()  # noqa: SLF001 - the two classes are one mechanism
        if call is not None:
            call()

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))
