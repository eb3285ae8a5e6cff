"""Moving bytes between two ends until both directions have ended.

In: two established ends, both owned by the relay from now on.  Out: how many octets went each way
and why it ended.  One task is parked meanwhile and woken once; the bytes are moved by callbacks.

Theory of operation.  Each direction reads into the reactor's scratch buffer and writes from there;
only what the sink does not take is copied, and while such a rest exists the source is not read:
that is the back-pressure, and the bound on memory.  A direction may use `BUDGET` buffers per event,
then others have their turn.

Invariants: every octet read is written once and in order before the sink is shut; the end of one
direction is passed on and leaves the other open; a failure is passed on as a reset, never as an
end; both ends are closed when `relay` returns or raises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from tng.dataplane.reactor import SCRATCH_SIZE
from tng.dataplane.task import Wait
from tng.errors import TngError

if TYPE_CHECKING:
    from tng.dataplane.ends import End
    from tng.dataplane.reactor import Reactor
    from tng.dataplane.timers import Timer

BUDGET: Final = 4
"""Buffers of SCRATCH_SIZE per event and direction: 1 MiB, under a millisecond of work."""

DONE: Final = "done"
"""The reason of a relay where both sides ended in order."""


class RelayResult(NamedTuple):
    """What became of a relay.

    Attributes:
        left_to_right: octets that the right end took.
        right_to_left: octets that the left end took.
        reason: DONE, or what ended it early.
    """

    left_to_right: int
    right_to_left: int
    reason: str


async def relay(
    reactor: Reactor,
    left: End,
    right: End,
    *,
    idle_timeout_s: float | None = None,
    total_timeout_s: float | None = None,
) -> RelayResult:
    """Move bytes both ways until both sides have ended, one breaks, or the time is over.

    Args:
        reactor: whose thread this runs in.
        left: one end; nobody else may use it any more.
        right: the other.
        idle_timeout_s: abort after so many seconds without an octet in either direction.
        total_timeout_s: abort after so many seconds whatever happens.
    """
    session = _Session(reactor, left, right)
    try:
        session.start(idle_timeout_s, total_timeout_s)
        reason = await session.ended
    except BaseException:
        session.release(is_clean=False)
        raise
    session.release(is_clean=reason == DONE)
    return RelayResult(session.forward.count, session.backward.count, reason)


class _Direction:
    """Bytes from one end to the other."""

    # Tunnels are mostly idle: methods are looked up when there is something to do, since keeping
    # them would take 64 octets each for as long as the tunnel lasts.
    __slots__ = ("count", "is_ended", "rest", "session", "sink", "source")

    def __init__(self, session: _Session, source: End, sink: End) -> None:
        self.session = session
        self.source = source
        self.sink = sink
        self.rest: memoryview | None = None
        self.is_ended = False
        self.count = 0

    def pump(self) -> None:
        """Move what the source has; `on_readable` of the source."""
        session = self.session
        try:
            if self.rest is not None or self.is_ended:
                if self.source.is_closed:
                    session.ended.set(f"{self.source.label} was closed on our side")
                return
            reactor = session.reactor
            session.active_at = reactor.now
            scratch = reactor.scratch
            read, write = self.source.read_into, self.sink.write
            for _ in range(BUDGET):
                got = read(scratch)
                if got <= 0:
                    if got == 0:
                        self._end()
                    return
                taken = write(scratch[:got])
                self.count += taken
                if taken < got:
                    self.rest = memoryview(bytes(scratch[taken:got]))
                    session.watch()
                    return
                if got < SCRATCH_SIZE:
                    return
        except TngError as error:
            session.ended.set(str(error))
        except Exception as error:  # noqa: BLE001 - raised again in the task that owns the relay
            session.ended.fail(error)

    def flush(self) -> None:
        """Write the rest; `on_writable` of the sink."""
        rest = self.rest
        if rest is None:
            return
        try:
            taken = self.sink.write(rest)
        except TngError as error:
            self.session.ended.set(str(error))
            return
        self.count += taken
        if taken < len(rest):
            self.rest = rest[taken:]
            return
        self.rest = None
        self.pump()
        self.session.watch()

    def _end(self) -> None:
        self.is_ended = True
        self.sink.shut()
        session = self.session
        if session.forward.is_ended and session.backward.is_ended:
            session.ended.set(DONE)
        else:
            session.watch()


class _Session:
    """The two directions of one relay, and what ends them."""

    __slots__ = (
        "_idle_timer",
        "_left",
        "_right",
        "_total_timer",
        "active_at",
        "backward",
        "ended",
        "forward",
        "reactor",
    )

    def __init__(self, reactor: Reactor, left: End, right: End) -> None:
        self.reactor = reactor
        self._left = left
        self._right = right
        self.forward = _Direction(self, left, right)
        self.backward = _Direction(self, right, left)
        self.ended: Wait[str] = Wait()
        self.active_at = reactor.now
        self._idle_timer: Timer | None = None
        self._total_timer: Timer | None = None

    def start(self, idle_timeout_s: float | None, total_timeout_s: float | None) -> None:
        left, right, forward, backward = self._left, self._right, self.forward, self.backward
        left.on_readable, right.on_readable = forward.pump, backward.pump
        left.on_broken = right.on_broken = self._broken
        if idle_timeout_s is not None:
            self._idle_timer = self.reactor.call_later(
                idle_timeout_s, self._check_idle, idle_timeout_s
            )
        if total_timeout_s is not None:
            self._total_timer = self.reactor.call_later(
                total_timeout_s, self.ended.set, f"over the time limit of {total_timeout_s:g} s"
            )
        # What is there already, in the ends or handed back to them, needs no event.
        forward.pump()
        backward.pump()
        self.watch()

    def watch(self) -> None:
        """Ask both ends for what the directions wait for."""
        if self.ended.is_set:
            return  # nothing may be asked for again: see `_broken`
        left, right, forward, backward = self._left, self._right, self.forward, self.backward
        left.on_writable = None if backward.rest is None else backward.flush
        right.on_writable = None if forward.rest is None else forward.flush
        left.watch(not forward.is_ended and forward.rest is None, backward.rest is not None)
        right.watch(not backward.is_ended and backward.rest is None, forward.rest is not None)

    def release(self, *, is_clean: bool) -> None:
        """Let go of both ends, closed or aborted."""
        for timer in (self._idle_timer, self._total_timer):
            if timer is not None:
                timer.cancel()
        for end in (self._left, self._right):
            end.on_readable = end.on_writable = end.on_broken = None
            if is_clean:
                end.close()
            else:
                end.abort()

    def _broken(self, reason: str) -> None:
        """One side is gone while the other holds up the relay."""
        # The failure was told once: whoever read now could take it for the orderly end.
        for end in (self._left, self._right):
            end.on_readable = end.on_writable = None
        self.ended.set(reason)

    def _check_idle(self, timeout_s: float) -> None:
        idle_s = self.reactor.now - self.active_at
        if idle_s >= timeout_s:
            self.ended.set(f"no octet for {timeout_s:g} s")
        else:
            self._idle_timer = self.reactor.call_later(
                timeout_s - idle_s, self._check_idle, timeout_s
            )
