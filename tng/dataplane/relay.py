"""Moving bytes between two ends until both directions have ended.

In: two established ends, both owned by the relay from now on.  Out: how many octets went each way
and why it ended.  No task is parked meanwhile: the bytes are moved by callbacks, and one call says
that it is over.

Theory of operation.  Each direction reads into the reactor's scratch buffer and writes from there,
or is handed octets in the buffer that they arrived in; only what the sink does not take is copied,
and while such a rest exists the source is not read: that is the back-pressure, and the bound on
memory.  A direction may use `BUDGET` buffers per event, then others have their turn.

Invariants: every octet read is written once and in order before the sink is shut; the end of one
direction is passed on and leaves the other open; a failure is passed on as a reset, never as an
end; both ends are closed when the end is told, which happens once, in no handler of an end; the
reactor counts a relay among its tasks.  Nothing that has ended refers to itself in a circle, so
that no collector has to come for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from tng.dataplane.reactor import SCRATCH_SIZE
from tng.dataplane.task import Wait
from tng.errors import TngError

if TYPE_CHECKING:
    from tng.dataplane.ends import End
    from tng.dataplane.reactor import Reactor
    from tng.dataplane.timers import Timer

log = logging.getLogger("tng.dataplane")

BUDGET: Final = 4
"""Buffers of SCRATCH_SIZE per event and direction: 1 MiB, under a millisecond of work."""

DONE: Final = "done"
"""The reason of a relay where both sides ended in order."""

CANCELLED: Final = "cancelled"
"""The reason of a relay that was ended because its reactor or its task was."""


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
    ended: Wait[RelayResult] = Wait()
    session = Relay(reactor, left, right, ended.set, on_bug=ended.fail)
    try:
        session.start(idle_timeout_s, total_timeout_s)
        return await ended
    except BaseException:
        session.abandon()
        raise


class _Direction:
    """Bytes from one end to the other."""

    # Tunnels are mostly idle: methods are looked up when there is something to do, since keeping
    # them would take 64 octets each for as long as the tunnel lasts.
    __slots__ = ("count", "is_ended", "rest", "session", "sink", "source")

    def __init__(self, session: Relay, source: End, sink: End) -> None:
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
                    session.finish(f"{self.source.label} was closed on our side")
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
                if self.source.is_ending and got < SCRATCH_SIZE:
                    more = read(scratch[got:])
                    if more == 0:
                        self._write_last(scratch[:got])
                        return
                    got += max(more, 0)
                taken = write(scratch[:got])
                self.count += taken
                if taken < got:
                    self.rest = memoryview(bytes(scratch[taken:got]))
                    session.watch()
                    return
                if got < SCRATCH_SIZE:
                    return
        except TngError as error:
            session.finish(str(error))
        except Exception as error:  # noqa: BLE001 - told to whoever owns the relay
            session.fail(error)

    def _write_last(self, data: memoryview) -> None:
        """Move the source's last octets and its end together."""
        session = self.session
        taken = self.sink.write_last(data)
        self.count += taken
        if taken < len(data):
            self.rest = memoryview(bytes(data[taken:]))
            session.watch()
        else:
            self._has_ended()

    def pour(self, data: memoryview) -> int:
        """Move octets as they arrive; `on_octets` of the source.  Takes all or none."""
        session = self.session
        if self.rest is not None or self.is_ended:
            return 0
        session.active_at = session.reactor.now
        size = len(data)
        try:
            taken = self.sink.write(data)
            self.count += taken
            if taken < size:
                self.rest = memoryview(bytes(data[taken:]))
                session.watch()
        except TngError as error:
            session.finish(str(error))
        except Exception as error:  # noqa: BLE001 - told to whoever owns the relay
            session.fail(error)
        return size

    def flush(self) -> None:
        """Write the rest; `on_writable` of the sink."""
        rest = self.rest
        if rest is None:
            return
        try:
            taken = self.sink.write(rest)
        except TngError as error:
            self.session.finish(str(error))
            return
        self.count += taken
        if taken < len(rest):
            self.rest = rest[taken:]
            return
        self.rest = None
        self.pump()
        self.session.watch()

    def _end(self) -> None:
        session = self.session
        # Where the other direction has ended, both ends are closed next, which says it as well.
        if not (session.forward.is_ended or session.backward.is_ended):
            self.sink.shut()
        self._has_ended()

    def _has_ended(self) -> None:
        self.is_ended = True
        session = self.session
        backward = session.backward if self is session.forward else session.forward
        if backward.is_ended:
            session.finish(DONE)
        elif not session.reason:
            self.source.watch(False, backward.rest is not None)  # nothing changes for the sink


class Relay:
    """The two directions of one relay, and what ends them.

    Args:
        reactor: whose thread this runs in, and whose end it does not outlive.
        left: one end; nobody else may use it any more.
        right: the other.
        on_ended: told once, later in the turn in which it ended, with both ends closed.
        on_bug: told instead if an error of ours ended it; by default that is logged and
            `on_ended` told.

    Attributes:
        name: for logs.
        reason: what has ended it, "" while it goes on.
    """

    __slots__ = (
        "_idle_timer",
        "_is_released",
        "_left",
        "_on_bug",
        "_on_ended",
        "_right",
        "_total_timer",
        "active_at",
        "backward",
        "forward",
        "reactor",
        "reason",
    )

    def __init__(
        self,
        reactor: Reactor,
        left: End,
        right: End,
        on_ended: Callable[[RelayResult], object],
        on_bug: Callable[[BaseException], object] | None = None,
    ) -> None:
        self.reactor = reactor
        self._left = left
        self._right = right
        self._on_ended = on_ended
        self._on_bug = on_bug
        self.forward = _Direction(self, left, right)
        self.backward = _Direction(self, right, left)
        self.active_at = reactor.now
        self.reason = ""
        self._is_released = False
        self._idle_timer: Timer | None = None
        self._total_timer: Timer | None = None

    @property
    def name(self) -> str:
        """Both ends, for logs."""
        return f"relay between {self._left.label} and {self._right.label}"

    def start(
        self,
        idle_timeout_s: float | None = None,
        total_timeout_s: float | None = None,
        *,
        unsent: memoryview | None = None,
    ) -> None:
        """Begin; what fails already ends the relay like anything later.

        Args:
            idle_timeout_s: abort after so many seconds without an octet in either direction.
            total_timeout_s: abort after so many seconds whatever happens.
            unsent: octets that the left end has to take before any of the right end's.
        """
        self.reactor.adopt(self)
        if idle_timeout_s is not None:
            self._idle_timer = self.reactor.call_later(
                idle_timeout_s, self._check_idle, idle_timeout_s
            )
        if total_timeout_s is not None:
            self._total_timer = self.reactor.call_later(
                total_timeout_s, self.finish, f"over the time limit of {total_timeout_s:g} s"
            )
        left, right, forward, backward = self._left, self._right, self.forward, self.backward
        left.is_relayed = right.is_relayed = True
        left.on_readable, right.on_readable = forward.pump, backward.pump
        left.on_octets, right.on_octets = forward.pour, backward.pour
        left.on_broken = right.on_broken = self._broken
        backward.rest = unsent
        for end in (left, right):
            if end.is_closed:  # nothing would ever be told of it
                self.finish(f"{end.label} was closed on our side")
        try:
            # What is there already, in the ends or handed back to them, needs no event.
            if left.has_octets:
                forward.pump()
            if right.has_octets:
                backward.pump()
            self.watch()
        except OSError as error:
            self.finish(f"cannot watch {left.label} and {right.label}: {error.strerror}")

    def watch(self) -> None:
        """Ask both ends for what the directions wait for."""
        if self.reason:
            return  # nothing may be asked for again: see `_broken`
        left, right, forward, backward = self._left, self._right, self.forward, self.backward
        is_held_up, holds_up = forward.rest is not None, backward.rest is not None
        left.on_writable = backward.flush if holds_up else None
        right.on_writable = forward.flush if is_held_up else None
        left.watch(not (forward.is_ended or is_held_up), holds_up)
        right.watch(not (backward.is_ended or holds_up), is_held_up)

    def finish(self, reason: str) -> None:
        """End it; the first reason counts."""
        if not self.reason:
            self.reason = reason
            # Later: whoever called may be in the middle of an end's handler.
            self.reactor.soon(self._release)

    def fail(self, error: BaseException) -> None:
        """End it by an error of ours."""
        if not self.reason and self._on_bug is None:
            log.error("relay failed relay=%s", self.name, exc_info=error)
        elif not self.reason and self._on_bug is not None:
            self._on_bug(error)
        self.finish(str(error) or type(error).__name__)

    def cancel(self) -> None:
        """End it because the reactor ends."""
        self.finish(CANCELLED)

    def abandon(self) -> None:
        """End it at once, without telling anybody."""
        self.reason = self.reason or CANCELLED
        self._let_go(is_clean=False)

    def _release(self) -> None:
        if not self._is_released:
            result = RelayResult(self.forward.count, self.backward.count, self.reason)
            self._let_go(is_clean=self.reason == DONE)
            self._on_ended(result)

    def _let_go(self, *, is_clean: bool) -> None:
        """Let go of both ends, closed or aborted, and of what leads back here."""
        if self._is_released:
            return
        self._is_released = True
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self._total_timer is not None:
            self._total_timer.cancel()
        for end in (self._left, self._right):
            end.on_readable = end.on_writable = end.on_broken = end.on_octets = None
            if is_clean:
                end.close()
            else:
                end.abort()
        self.forward.is_ended = self.backward.is_ended = True  # an event may be under way
        del self.forward, self.backward
        self.reactor.discard(self)

    def _broken(self, reason: str) -> None:
        """One side is gone while the other holds up the relay."""
        # The failure was told once: whoever read now could take it for the orderly end.
        for end in (self._left, self._right):
            end.on_readable = end.on_writable = end.on_octets = None
        self.finish(reason)

    def _check_idle(self, timeout_s: float) -> None:
        idle_s = self.reactor.now - self.active_at
        if idle_s >= timeout_s:
            self.finish(f"no octet for {timeout_s:g} s")
        else:
            self._idle_timer = self.reactor.call_later(
                timeout_s - idle_s, self._check_idle, timeout_s
            )
