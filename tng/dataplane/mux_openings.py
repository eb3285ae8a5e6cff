"""Requests for streams that the peer has not answered yet, and the time that it has for them.

In: what asked for a stream.  Out: the call that tells it.  All requests of one connection share one
timer, since nearly all are answered long before: a request costs an entry in a dictionary.

Invariant: every asker is told exactly once, of the stream or of an error, unless it leaves before.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

from tng.dataplane.task import Wait
from tng.errors import NetError

if TYPE_CHECKING:
    from tng.dataplane.mux_stream import MuxStream
    from tng.dataplane.reactor import Reactor
    from tng.dataplane.timers import Timer


class Asker(Protocol):
    """Whoever asked for a stream.  Called within the connection's reading; must not raise."""

    def stream_opened(self, stream: MuxStream) -> None:
        """The peer has accepted; the stream is the asker's."""
        ...

    def stream_failed(self, error: NetError) -> None:
        """The peer has refused, was silent, or is gone; the stream is being closed."""
        ...


class AskingTask(Wait["MuxStream"]):
    """The asker of a coroutine, which awaits it."""

    __slots__ = ()

    def stream_opened(self, stream: MuxStream) -> None:
        """See `Asker`."""
        self.set(stream)

    def stream_failed(self, error: NetError) -> None:
        """See `Asker`."""
        self.fail(error)


class Openings:
    """The unanswered requests of one connection.

    Args:
        reactor: keeps the time.
    """

    __slots__ = ("_ends_at", "_fires_at", "_reactor", "_timer")

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._ends_at: dict[MuxStream, float] = {}
        self._fires_at = math.inf
        self._timer: Timer | None = None

    def add(self, stream: MuxStream, timeout_s: float) -> None:
        """Give the peer `timeout_s` seconds; then `stream.time_is_over` is called."""
        self._ends_at[stream] = ends_at = self._reactor.now + timeout_s
        if ends_at < self._fires_at:
            self._arm(timeout_s, ends_at)

    def remove(self, stream: MuxStream) -> None:
        """The stream was answered, or is gone.  Harmless when it was removed before."""
        self._ends_at.pop(stream, None)

    def close(self) -> None:
        """Stop the timer, for a connection whose streams are all gone."""
        self._ends_at.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, delay_s: float, fires_at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._fires_at = fires_at
        self._timer = self._reactor.call_later(delay_s, self._check)

    def _check(self) -> None:
        """Tell those whose time is over; look again when that of the next one is."""
        self._timer, self._fires_at = None, math.inf
        now = self._reactor.now
        for stream in [stream for stream, ends_at in self._ends_at.items() if ends_at <= now]:
            del self._ends_at[stream]
            stream.time_is_over()
        if self._ends_at:
            ends_at = min(self._ends_at.values())
            self._arm(max(0.0, ends_at - now), ends_at)
