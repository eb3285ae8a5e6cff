"""Many tunnels over one connection: HTTP/2 CONNECT streams over one `End`.

In: an established end (TLS, with its peer judged).  Out: `MuxStream` ends, opened by a client,
handed to `on_stream` at a server.  Source: RFC 9113; what flows is in `tng.wire.h2`.

    connection = MuxConnection(reactor, tls_end, role="client")
    connection.start()
    stream = await connection.open(timeout_s=10)

Everything that is written within one turn of the reactor leaves in one write at its end.
Invariants: a stream whose reader stalls holds up no other; streams that wait to write take turns;
when the connection is lost, every stream breaks, and none ends as if the peer had ended it.
"""

from __future__ import annotations

import collections
import email.utils
import logging
import weakref
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Final, Literal

from tng.clock import Clock, SystemClock
from tng.dataplane.ends import BLOCKED, End
from tng.dataplane.mux_openings import Asker, AskingTask, Openings
from tng.dataplane.mux_stream import SHARE, MuxFull, MuxSilent, MuxStream
from tng.errors import ErrorCode, LocalProtocolError, TngError
from tng.wire.h2 import H2Machine
from tng.wire.h2_frames import H2Code
from tng.wire.h2_stream import NOBODY, H2Limits, H2Stream, StreamHandler

if TYPE_CHECKING:
    from tng.dataplane.reactor import Reactor
    from tng.dataplane.timers import Timer

__all__ = ["Asker", "MuxConnection", "MuxFull", "MuxSilent", "MuxStream"]

log = logging.getLogger(__name__)

READ_SIZE: Final = 256 * 1024
"""Octets read at once: sixteen TLS records, as the reactor's scratch buffer."""

READS_PER_EVENT: Final = 4
"""Reads before other connections have their turn."""

FRAMES_PER_READ: Final = 256
"""Frames of one read above which the next one is smaller: each may cost a system call, so this
is a few milliseconds, and others have their turn."""

SMALLEST_READ: Final = 4096
"""Octets; also the first read's, before anything is known of the peer."""

TASKS_PER_STREAM: Final = 2
"""Tasks per stream that a server admits: those of streams that were reset run on until they
notice, so a peer that resets and opens at once needs more than one, but must not pile them up."""

CLOSE_TIMEOUT_S: Final = 5.0
"""What a peer gets to read our last octets, or to confirm that it stops asking for streams."""

# One buffer per reactor: streams are read out of it into the reactor's own scratch buffer, so it
# cannot be that one; between two reads it holds nothing.
_buffers: weakref.WeakKeyDictionary[Reactor, memoryview] = weakref.WeakKeyDictionary()

OnStream = Callable[[MuxStream], Coroutine[object, None, object]]
"""Serves one stream; unless a relay owns it by then, the stream is closed when this returns, and
reset when this raises."""


class MuxConnection:
    """One HTTP/2 connection, in the reactor's thread.

    Args:
        reactor: whose thread everything happens in.
        end: an established connection; owned from now on.
        role: "client" opens streams, "server" serves them.
        on_stream: what serves a stream, at a server.
        on_closed: told the reason once, when no more streams can be opened or served because
            the connection has ended.
        clock: for the `date` header of answers.
        limits: see `H2Limits`.

    Attributes:
        machine: the protocol's state.  For `MuxStream` only.
        openings: what the peer has not answered yet.  For `MuxStream` only.
        waiting: streams that wait for room, in their order.  For `MuxStream` only.
        is_flush_queued: whether `touch` has nothing to do.  For `MuxStream` only.
        idle_since: the reactor's time at which the last stream was closed; None while there
            are streams.
    """

    __slots__ = (
        "__weakref__",
        "_buffer",
        "_clock",
        "_date",
        "_date_second",
        "_end",
        "_has_ended",
        "_is_confirmed",
        "_is_draining",
        "_is_released",
        "_limits",
        "_on_closed",
        "_on_stream",
        "_reactor",
        "_read_size",
        "_serving",
        "_streams",
        "_timer",
        "_watches_room",
        "idle_since",
        "is_flush_queued",
        "machine",
        "openings",
        "waiting",
    )

    def __init__(
        self,
        reactor: Reactor,
        end: End,
        *,
        role: Literal["client", "server"],
        on_stream: OnStream | None = None,
        on_closed: Callable[[str], object] | None = None,
        clock: Clock | None = None,
        limits: H2Limits | None = None,
    ) -> None:
        self._reactor = reactor
        self._end = end
        self._on_stream = on_stream
        self._on_closed = on_closed
        self._clock = clock or SystemClock()
        self._limits = limits or H2Limits()
        self.machine = H2Machine(role, self, now=reactor.now, limits=self._limits)
        self.openings = Openings(reactor)
        self.idle_since: float | None = reactor.now
        buffer = _buffers.get(reactor)
        if buffer is None:
            buffer = _buffers[reactor] = memoryview(bytearray(READ_SIZE))
        self._buffer = buffer
        self._read_size = SMALLEST_READ
        self._streams: set[MuxStream] = set()
        self.waiting: collections.deque[MuxStream] = collections.deque()
        self._serving = 0
        self._has_ended = False
        self._is_draining = False
        self._is_confirmed = role == "client"
        self.is_flush_queued = False
        self._is_released = False
        self._watches_room = False
        self._timer: Timer | None = None
        self._date = b""
        self._date_second = -1

    def __repr__(self) -> str:
        return f"<MuxConnection over {self._end.label}, {len(self._streams)} streams>"

    @property
    def active_streams(self) -> int:
        """Streams whose owners are not done with them."""
        return len(self._streams)

    @property
    def max_streams(self) -> int:
        """Streams that the peer admits at the same time; 100 until it has said so."""
        return self.machine.peer.max_streams

    def has_room(self, most: int) -> bool:
        """Whether `ask` will ask, with fewer than `most` streams whose owners are not done."""
        return len(self._streams) < most and not self._has_ended and self.machine.can_open

    @property
    def is_open(self) -> bool:
        """Whether the connection lives and neither side has said that it will not for long."""
        return not (self._has_ended or self.machine.is_leaving)

    def start(self) -> None:
        """Greet the peer, and begin to read."""
        self._end.on_readable = self._read
        self._end.on_writable = self._flush
        self._end.watch(True, False)
        self._reactor.at_stop.add(self._stop)
        self.touch()

    async def open(self, timeout_s: float) -> MuxStream:
        """Open a tunnel; it is usable at once.

        Args:
            timeout_s: what the peer gets to accept it.

        Raises:
            MuxFull: this connection takes no further stream, now or ever: see `is_open`.
            NetError: the peer refused, or was silent, or the connection was lost.
        """
        asked = AskingTask()
        stream = self.ask(timeout_s, asked)
        try:
            return await asked
        except BaseException:
            stream.abort()
            raise

    def ask(self, timeout_s: float, asker: Asker) -> MuxStream:
        """Ask the peer for a tunnel without waiting.

        Args:
            timeout_s: what the peer gets to accept it.
            asker: told once what became of it, never from within this call.

        Returns:
            The stream, which can do nothing but be aborted until `asker` has been told of it.

        Raises:
            MuxFull: see `open`.
        """
        try:
            stream = MuxStream(self._reactor, self, None, asker)
        except LocalProtocolError as error:
            raise self._full() from error
        self._streams.add(stream)
        self.idle_since = None
        self.openings.add(stream, timeout_s)
        if not self.is_flush_queued:
            self.touch()
        return stream

    def drain(self) -> None:
        """Take no more streams, and close when the last one is closed.  Idempotent."""
        if self._has_ended or self._is_draining:
            return
        self._is_draining = True
        self.machine.drain()
        if not self._is_confirmed:
            self._timer = self._reactor.call_later(CLOSE_TIMEOUT_S, self.drain_confirmed)
        self.touch()
        self._close_if_drained()

    def close(self, reason: str) -> None:
        """Break every stream and end the connection in order.  Idempotent.

        Args:
            reason: for the streams' errors, the peer's log and `on_closed`; no secret.
        """
        if self._has_ended:
            return
        self._finish(reason)

    # --- what streams ask for ---

    def touch(self) -> None:
        """Have the output flushed at the end of this turn."""
        if not self.is_flush_queued:
            self.is_flush_queued = True
            self._reactor.at_turn_end(self._flush)

    def wait_for_room(self, stream: MuxStream) -> None:
        """Call `stream.room_opened` when the connection takes octets again, in turns."""
        if stream.was_passed_over:
            self.waiting.appendleft(stream)
        else:
            self.waiting.append(stream)

    def make_date(self) -> bytes:
        """The `date` header's value, RFC 9110 section 5.6.7."""
        second = int(self._clock.now())
        if second != self._date_second:
            self._date_second = second
            self._date = email.utils.formatdate(second, usegmt=True).encode()
        return self._date

    def stream_closed(self, stream: MuxStream) -> None:
        """The stream's owner is done with it."""
        self._streams.discard(stream)
        if not self._streams:
            self.idle_since = self._reactor.now
            if self._is_draining:
                self._close_if_drained()

    # --- what the machine tells ---

    def stream_requested(self, stream: H2Stream, method: bytes) -> StreamHandler:
        """See `ConnectionHandler`."""
        if self._on_stream is None or self._serving >= TASKS_PER_STREAM * self._limits.streams:
            self.machine.reset(stream, H2Code.REFUSED_STREAM)
            return NOBODY
        end = MuxStream(self._reactor, self, stream)
        self._streams.add(end)
        self.idle_since = None
        if method != b"CONNECT":
            end.refuse(400, ErrorCode.REQUEST_REJECTED)
            return NOBODY
        self._serving += 1
        # Nobody else knows this stream yet, and its frames are read after this one.
        self._reactor.spawn_now(self._serve(end, self._on_stream), end.label)
        return NOBODY if end.is_closed else end

    def window_opened(self) -> None:
        """See `ConnectionHandler`."""
        self._resume_waiting()

    def settings_received(self) -> None:
        """See `ConnectionHandler`."""

    def going_away(self, code: int, reason: str) -> None:
        """See `ConnectionHandler`."""
        log.debug("peer wants no more streams peer=%s said=%s", self._end.label, reason)
        self._is_draining = self._is_confirmed = True
        self._close_if_drained()

    def drain_confirmed(self) -> None:
        """See `ConnectionHandler`."""
        self._is_confirmed = True
        self._close_if_drained()

    # --- private ---

    def _full(self) -> MuxFull:
        if self._has_ended or self.machine.is_leaving:
            return MuxFull(f"the connection to {self._end.label} is closing")
        return MuxFull(
            f"the connection to {self._end.label} has the {self.max_streams}"
            " streams that its peer admits"
        )

    async def _serve(self, stream: MuxStream, on_stream: OnStream) -> None:
        try:
            await on_stream(stream)
            if not stream.is_relayed:
                stream.close()
        except BaseException:
            stream.abort()
            raise
        finally:
            self._serving -= 1

    def _read(self) -> None:
        end = self._end
        machine = self.machine
        for _ in range(READS_PER_EVENT):
            buffer = self._buffer[: self._read_size]
            try:
                count = end.read_into(buffer)
                if count == BLOCKED:
                    break
                if not count:
                    self._finish("the peer closed the connection")
                    return
                frames = machine.receive(buffer[:count], self._reactor.now)
            except TngError as error:
                self._finish(str(error))
                return
            except Exception:
                self._finish("an error of ours, which the log shows")
                raise
            if frames > FRAMES_PER_READ:
                self._read_size = max(self._read_size // 2, SMALLEST_READ)
                break
            if count < len(buffer) or self._has_ended:
                break
            self._read_size = min(self._read_size * 2, READ_SIZE)
        if machine.output:
            self.touch()

    def _flush(self) -> None:
        self.is_flush_queued = False
        output = self.machine.output
        if self._is_released:
            output.clear()
            return
        if output and not self._write_out(output):
            self._release(self._end.abort)
            return
        if bool(output) != self._watches_room:
            self._watches_room = bool(output)
            self._end.watch(not self._has_ended, self._watches_room)
        if self._has_ended:
            if not output:
                self._release(self._end.close)
        elif self.waiting and len(output) * 2 <= self._limits.queued_output:
            self._resume_waiting()

    def _write_out(self, output: bytearray) -> bool:
        """Write what the end takes; False when the connection broke."""
        failure = ""
        sent = 0
        size = len(output)
        with memoryview(output) as view:
            try:
                while sent < size and (count := self._end.write(view[sent:])):
                    sent += count
            except TngError as error:
                failure = str(error)  # the error itself would keep `output` from changing
        if failure:
            self._finish(failure)
            return False
        if sent == size:
            output.clear()
        else:
            del output[:sent]
        return True

    def _resume_waiting(self) -> None:
        """Let those who wait longest write, no more of them than there is room for."""
        waiting = self.waiting
        room = self.machine.connection_room
        while waiting and room > 0:
            stream = waiting.popleft()
            if not stream.is_closed:
                stream.room_opened()
                room = min(room - SHARE, self.machine.connection_room)
        if waiting and self.machine.connection_room > 0:
            self.touch()  # in case those who were called have nothing to write any more

    def _close_if_drained(self) -> None:
        if self._is_draining and self._is_confirmed and not self._streams:
            self.close("drained")

    def _finish(self, reason: str) -> None:
        """Break what is left, and let the peer read our last octets."""
        if self._has_ended:
            return
        self._has_ended = True
        self.machine.close(H2Code.NO_ERROR, reason)
        for stream in list(self._streams):
            stream.break_off(f"is lost: {reason}", keeps_data=True)
        self.openings.close()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._reactor.call_later(CLOSE_TIMEOUT_S, self._release, self._end.abort)
        self._end.watch(False, self._watches_room)
        self.touch()
        if self._on_closed is not None:
            self._on_closed(reason)

    def _release(self, end_it: Callable[[], None]) -> None:
        if not self._is_released:
            self._is_released = True
            if self._timer is not None:
                self._timer.cancel()
            self._reactor.at_stop.discard(self._stop)
            self.waiting.clear()
            end_it()

    def _stop(self) -> None:
        """The reactor ends: there is no later turn to flush in."""
        self._finish("shutting down")
        self._flush()
        self._release(self._end.abort)
