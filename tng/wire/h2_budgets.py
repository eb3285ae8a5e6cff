"""What an HTTP/2 peer may still send: octets by the windows, useless frames by a budget.

Goes in: what the peer sent, what readers took, monotonic time.  Comes out: increments to grant,
or an H2ConnectionError.  Source: RFC 9113 sections 5.2 and 10.5.

Invariant: octets that were received and not taken never exceed
`H2Limits.held_octets + H2Limits.connection_window`.
"""

from __future__ import annotations

from typing import Final

from tng.wire.h2_frames import H2Code, H2ConnectionError
from tng.wire.h2_stream import H2Limits, H2Stream

_LATE_STREAMS: Final = 1000  # as many resets as can be under way; older ones cost one RST_STREAM


class ReceiveBudget:
    """The books of received octets, for a connection and for its streams.

    The connection's window is granted again as soon as octets are taken off the wire; a
    stream's when its reader has taken half of it.  Increments that are due are returned,
    0 where none is: the caller sends them.
    """

    __slots__ = ("_half_window", "_held", "_limits", "_ungranted", "_window", "owes")

    def __init__(self, limits: H2Limits) -> None:
        self._limits = limits
        self._window = limits.connection_window
        self._half_window = limits.connection_window // 2
        self._ungranted = 0
        self._held = 0
        self.owes = False
        """Whether the connection is owed a grant that `grant` has put off."""

    def take(self, length: int, stream: H2Stream | None) -> int:
        """Account for a DATA frame of `length` octets.

        Args:
            length: octets for flow control.
            stream: whose reader holds them from now on, and whose window admits them; None where
                they are dropped.

        Returns:
            What to grant to the connection.

        Raises:
            H2ConnectionError: the connection's window does not admit it.
        """
        if length > self._window:
            raise H2ConnectionError(H2Code.FLOW_CONTROL_ERROR, "exceeds the connection's window")
        self._window -= length
        self._ungranted += length
        # Granted by what was held before this frame, which may be taken at once.
        increment = self.grant() if self._ungranted >= self._half_window else 0
        if stream is not None:
            stream.receive_window -= length
            stream.held += length
            self._held += length
        return increment

    def release(self, stream: H2Stream, count: int) -> int:
        """Account for octets that the reader took; `grant` may be due as well.

        Returns:
            What to grant to the stream.
        """
        if count > stream.held:
            count = stream.held
        stream.held -= count
        self._held -= count
        if not stream.can_receive:
            return 0
        stream.ungranted += count
        if stream.ungranted * 2 < stream.window:
            return 0
        # A reader that keeps up gets a wider window.
        wider = min(stream.window * 2, self._limits.largest_stream_window)
        increment = stream.ungranted + max(0, wider - stream.window)
        stream.window = max(wider, stream.window)
        stream.ungranted = 0
        stream.receive_window += increment
        return increment

    def drop(self, stream: H2Stream) -> None:
        """Forget what a stream that was reset still held."""
        self._held -= stream.held
        stream.held = 0

    def grant(self) -> int:
        """What to grant to the connection now: half its window or more, or 0."""
        limits = self._limits
        if self._ungranted * 2 < limits.connection_window:
            return 0
        increment = self._ungranted - max(0, self._held - limits.held_octets)
        self.owes = increment * 2 < limits.connection_window
        if self.owes:
            return 0
        self._ungranted -= increment
        self._window += increment
        return increment


class ChatterBudget:
    """A bucket for frames that move nothing, so that nobody keeps us busy for free.

    Args:
        limits: size and refill of the bucket.
        now: monotonic time, seconds.
    """

    __slots__ = ("_left", "_limits", "_time", "now", "updates")

    def __init__(self, limits: H2Limits, now: float) -> None:
        self._limits = limits
        self._left = float(limits.chatter_burst)
        self._time = now
        self.updates = 0
        """WINDOW_UPDATE frames that are free: two for each DATA frame that we send."""
        self.now = now
        """Monotonic time, seconds; the owner moves it."""

    def charge(self, cost: int = 1) -> None:
        """Pay for one frame.

        Raises:
            H2ConnectionError: the bucket is empty.
        """
        limits = self._limits
        refill = (self.now - self._time) * limits.chatter_per_second
        self._time = self.now
        self._left = min(self._left + refill, limits.chatter_burst) - cost
        if self._left < 0:
            raise H2ConnectionError(
                H2Code.ENHANCE_YOUR_CALM, "sends too many frames that move nothing"
            )

    def charge_update(self) -> None:
        """Pay for one WINDOW_UPDATE, which is free as an answer to DATA.

        Raises:
            H2ConnectionError: the bucket is empty.
        """
        if self.updates:
            self.updates -= 1
        else:
            self.charge()


class LateStreams:
    """Streams that we reset, of which frames may still be under way (section 5.1)."""

    __slots__ = ("_windows",)

    def __init__(self) -> None:
        self._windows: dict[int, int] = {}

    def add(self, stream_id: int, window: int) -> None:
        """Tolerate up to `window` octets more; the oldest stream is forgotten at the limit."""
        if len(self._windows) >= _LATE_STREAMS:
            del self._windows[next(iter(self._windows))]
        self._windows[stream_id] = window

    def remove(self, stream_id: int) -> None:
        """Nothing more of this stream is under way."""
        self._windows.pop(stream_id, None)

    def admits(self, stream_id: int, length: int, *, ends: bool) -> bool:
        """Whether a frame with `length` octets of payload may just be late."""
        left = self._windows.get(stream_id, -1) - length
        if left < 0:
            return False
        if ends:
            del self._windows[stream_id]
        else:
            self._windows[stream_id] = left
        return True
