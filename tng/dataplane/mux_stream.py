"""One tunnel of a multiplexed connection, as an `End`.

In and out: bytes, in DATA frames of one HTTP/2 stream.  The peer's end is END_STREAM; a reset, or
the loss of the connection, is a NetError.  Source: RFC 9113 sections 5 and 8.5.

Octets that arrive while somebody watches are read straight out of the connection's buffer; those
that arrive otherwise wait in `_queue`, which the stream's window bounds.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Final, Protocol

from tng.dataplane.ends import BLOCKED, End
from tng.errors import ErrorCode, LocalProtocolError, NetError
from tng.wire.h2_frames import H2Code, code_name
from tng.wire.h2_stream import NOBODY, H2Stream

if TYPE_CHECKING:
    from tng.dataplane.mux_openings import Asker, Openings
    from tng.dataplane.reactor import Reactor
    from tng.wire.h2 import H2Machine
    from tng.wire.h2_headers import Headers

ERROR_HEADER = b"x-tng-error"
"""Names the `ErrorCode` of a refused tunnel."""


_NO_ERROR: Final = H2Code.NO_ERROR
_CANCEL: Final = H2Code.CANCEL
_REFUSED_STREAM: Final = H2Code.REFUSED_STREAM
# As constants: looking an enum's member up costs as much as the rest of closing a stream.

SHARE: Final = 64 * 1024
"""Octets that one write takes while other streams of the connection wait for their turn."""


class MuxFull(NetError):  # noqa: N818 - it names a state, and nobody is at fault
    """The connection takes no further stream; another connection will."""


class MuxSilent(NetError):  # noqa: N818 - as above
    """The peer did not answer a request for a stream in time."""


class MuxOwner(Protocol):
    """What a stream needs of its connection."""

    machine: H2Machine
    openings: Openings
    waiting: collections.deque[MuxStream]
    is_flush_queued: bool

    def touch(self) -> None:
        """Have the output flushed at the end of this turn."""
        ...

    def wait_for_room(self, stream: MuxStream) -> None:
        """Call `stream.room_opened` when the connection takes octets again, in turns."""
        ...

    def make_date(self) -> bytes:
        """The `date` header's value."""
        ...

    def stream_closed(self, stream: MuxStream) -> None:
        """The stream's owner is done with it."""
        ...


class MuxStream(End):
    """A tunnel that shares its connection with others.  Made by `MuxConnection`.

    A server's owner calls `accept` or `refuse` first.

    Args:
        reactor: see `End`.
        connection: what carries it.
        h2: the peer's request, at a server; None to make a request.
        asker: who is told the peer's answer to our request.
    """

    __slots__ = (
        "_asker",
        "_connection",
        "_direct",
        "_failure",
        "_h2",
        "_has_ended",
        "_is_read_queued",
        "_is_waiting",
        "_is_write_queued",
        "_queue",
        "_wants_read",
        "_wants_write",
        "is_closed",
        "was_passed_over",
    )

    def __init__(
        self,
        reactor: Reactor,
        connection: MuxOwner,
        h2: H2Stream | None,
        asker: Asker | None = None,
    ) -> None:
        self._connection = connection
        self._asker = asker
        if h2 is None:
            h2 = connection.machine.open_stream(self)
        self._h2 = h2
        self._queue: bytes | bytearray = b""
        self._direct: memoryview | None = None
        self._failure = ""
        self._has_ended = False
        self._wants_read = False
        self._wants_write = False
        self._is_read_queued = False
        self._is_write_queued = False
        self._is_waiting = False
        self.is_closed = False
        """Whether `close`, `abort` or `refuse` was called."""
        self.was_passed_over = False
        """Whether others took the room since this stream was told of it."""
        super().__init__(reactor, f"stream {h2.id}")

    # --- opening ---

    def time_is_over(self) -> None:
        """The peer has not answered in time.  For `Openings` only."""
        late = f"the peer did not answer the request for {self.label} in time"
        self._fail_asker(MuxSilent(late))
        self.abort()

    def accept(self) -> None:
        """Open the tunnel for the peer.  Server only, once."""
        connection = self._connection
        connection.machine.answer(self._h2, 200, ((b"date", connection.make_date()),))
        if not connection.is_flush_queued:
            connection.touch()

    def refuse(self, status: int, word: str) -> None:
        """Say no to the peer's request, and close.  Server only, instead of `accept`.

        Args:
            status: 400-599.
            word: an `ErrorCode` for the header `x-tng-error`.
        """
        connection = self._connection
        headers = ((b"date", connection.make_date()), (ERROR_HEADER, word.encode()))
        connection.machine.answer(self._h2, status, headers, ends=True)
        self.close()

    # --- End ---

    @property
    def has_octets(self) -> bool:
        """Whether there is something to read, its end or its failure included."""
        return bool(self._queue or self._unread or self._has_ended or self._failure)

    def read_into(self, buffer: memoryview) -> int:
        """Read what is there; see `End.read_into`."""
        if self._unread:
            return self._take_unread(buffer)
        source = self._direct or self._queue
        if source:
            count = len(source)
            if count > len(buffer):
                count = len(buffer)
            buffer[:count] = source[:count]
            if self._direct is not None:
                self._direct = self._direct[count:]
            elif count == len(self._queue):
                self._queue = b""
            else:
                del self._queue[:count]  # type: ignore[union-attr]  # b"" is not truthy
            connection = self._connection
            machine = connection.machine
            machine.consumed(self._h2, count)
            if machine.output and not connection.is_flush_queued:
                connection.touch()
            self.bytes_in += count
            return count
        if self.is_closed:
            raise NetError(f"reading from {self.label}, which we have closed")
        if self._has_ended:
            return 0
        if self._failure:
            raise NetError(f"{self.label} {self._failure}")
        return BLOCKED

    def write(self, data: memoryview, *, ends: bool = False) -> int:
        """Take octets; see `End.write`.

        Args:
            data: 1 octet or more.
            ends: send END_STREAM in the frame of the last octet, if all are taken.
        """
        h2 = self._h2
        if not h2.can_send:
            raise NetError(f"writing to {self.label}, which {self._failure or 'we have ended'}")
        if not h2.is_answered:
            raise LocalProtocolError(f"{self!r} is not open yet")
        connection = self._connection
        if connection.waiting and len(data) > SHARE:
            data = data[:SHARE]
            ends = False
        count = connection.machine.send_data(h2, data, ends=ends)
        if count:
            self.was_passed_over = False
            if not connection.is_flush_queued:  # it is, but for the first chunk of a turn
                connection.touch()
            self.bytes_out += count
        return count

    def write_last(self, data: memoryview) -> int:
        """Take octets and the end; see `End.write_last`."""
        return self.write(data, ends=True)

    def shut(self) -> None:
        """Send END_STREAM after what was written; reading goes on."""
        if self._h2.can_send:
            connection = self._connection
            connection.machine.send_end(self._h2)
            if not connection.is_flush_queued:
                connection.touch()

    def close(self) -> None:
        """End both directions; what was written before is still delivered."""
        if self.is_closed:
            return
        if self._h2.is_answered:
            self.shut()
        self._leave(_NO_ERROR if self._h2.is_answered else _CANCEL)

    def abort(self) -> None:
        """Reset the stream: the peer sees an error, not an end."""
        if not self.is_closed:
            self._leave(_CANCEL)

    def watch(self, readable: bool, writable: bool) -> None:
        """Choose which callbacks may be called; see `End.watch`."""
        self._wants_read = readable
        if readable:
            self._tell_news()
        self._wants_write = writable
        if writable:
            self.window_opened()

    # --- what the machine tells ---

    def answered(self, status: int, headers: Headers) -> None:
        """See `StreamHandler`."""
        if 200 <= status < 300:  # RFC 9110 section 9.3.6
            asker, self._asker = self._asker, None
            if asker is not None:
                self._connection.openings.remove(self)
                asker.stream_opened(self)
            return
        word = next((value for name, value in headers if name == ERROR_HEADER), b"")
        said = f" ({word[:64].decode('ascii', 'replace')!r})" if word else ""
        try:
            code = ErrorCode(word.decode("ascii", "replace"))
        except ValueError:
            code = ErrorCode.UPSTREAM_UNREACHABLE
        refusal = f"the peer refused the tunnel with status {status}{said}"
        self._fail_asker(NetError(refusal, code=code))
        self.abort()

    def data_received(self, data: memoryview) -> int:
        """See `StreamHandler`."""
        taken = 0
        if self._wants_read and not (self._queue or self._unread):
            if self.on_octets is not None:
                taken = self.on_octets(data)
                self.bytes_in += taken
                if taken == len(data):
                    return taken
                data = data[taken:]
            elif self.on_readable is not None:
                self._direct = data
                self.on_readable()
                data, self._direct = self._direct, None
                if not data:
                    return 0  # `read_into` has said so itself
        if self.is_closed:
            return taken
        if self._queue:
            self._queue += data
        else:
            self._queue = bytearray(data)
        self._tell_news()
        return taken

    def end_received(self) -> None:
        """See `StreamHandler`."""
        self._has_ended = True
        if self._asker is not None:
            self._fail_asker(self._too_early("ended"))
            self.abort()
        elif self._wants_read and self.on_readable is not None and not self._is_read_queued:
            self.on_readable()
        self._tell_news()

    def reset_received(self, code: int) -> None:
        """See `StreamHandler`."""
        if code == _REFUSED_STREAM:
            self._fail_asker(MuxFull(f"{self.label} was not looked at by the peer"))
        self.break_off(f"was reset by the peer ({code_name(code)})", keeps_data=code == _NO_ERROR)

    def window_opened(self) -> None:
        """See `StreamHandler`; also whenever somebody begins to wait for room."""
        if self._wants_write and not self._is_write_queued:
            self._await_room()

    # --- what the connection tells ---

    def room_opened(self) -> None:
        """The connection takes octets again."""
        self._is_waiting = False
        self.was_passed_over = True
        if self._wants_write and not self._is_write_queued:
            self._fire_writable()

    def break_off(self, failure: str, *, keeps_data: bool) -> None:
        """End both directions by no will of ours.

        Args:
            failure: what happened to the stream, as in "was reset".
            keeps_data: whether octets that came before the peer's END_STREAM stay readable.
        """
        if self.is_closed or self._failure:
            return
        self._failure = failure
        is_cut = not (self._has_ended and keeps_data)
        if is_cut:
            self._has_ended = False
            self._queue = self._unread = b""
        if self._asker is not None:
            self._fail_asker(self._too_early(failure))
        if is_cut and self.on_broken is not None and not self._wants_read:
            self.on_broken(f"{self.label} {failure}")
        self._tell_news()
        if self._wants_write and not self._is_write_queued:
            self._queue_write()

    # --- private ---

    def _fail_asker(self, error: NetError) -> None:
        """Tell whoever asked for this stream, unless it was told before."""
        asker, self._asker = self._asker, None
        if asker is not None:
            self._connection.openings.remove(self)
            asker.stream_failed(error)

    def _too_early(self, what: str) -> NetError:
        return NetError(f"{self.label} {what} before the tunnel was open")

    def _leave(self, code: H2Code) -> None:
        self.is_closed = True
        if self._asker is not None:
            self._asker = None
            self._connection.openings.remove(self)
        h2 = self._h2
        connection = self._connection
        machine = connection.machine
        machine.reset(h2, code)
        if h2.held:
            machine.consumed(h2, h2.held)
        h2.handler = NOBODY
        if machine.output and not connection.is_flush_queued:
            connection.touch()
        self._queue = self._unread = b""
        self._direct = None
        self._wants_read = self._wants_write = False
        self.on_readable = self.on_writable = self.on_broken = self.on_octets = None
        connection.stream_closed(self)

    def _tell_news(self) -> None:
        """Have `on_readable` called soon, when it is wanted and there is something to read."""
        if (
            self._wants_read
            and not self._is_read_queued
            and (self._queue or self._has_ended or self._failure or self._unread or self._direct)
        ):
            self._is_read_queued = True
            self.reactor.soon(self._fire_readable)

    def _fire_readable(self) -> None:
        self._is_read_queued = False
        if not self._wants_read:
            return
        if self.on_readable is None:
            self._wants_read = False
            return
        self.on_readable()
        self._tell_news()

    def _await_room(self) -> None:
        """Be called back when the stream's window and the connection take octets."""
        h2 = self._h2
        if not h2.can_send or min(h2.send_window, self._connection.machine.connection_room) > 0:
            self._queue_write()
        elif h2.send_window > 0 and not self._is_waiting:
            self._is_waiting = True
            self._connection.wait_for_room(self)

    def _queue_write(self) -> None:
        self._is_write_queued = True
        self.reactor.soon(self._fire_writable)

    def _fire_writable(self) -> None:
        self._is_write_queued = False
        if not self._wants_write:
            return
        if self.on_writable is None:
            self._wants_write = False
            return
        self.on_writable()
        self.window_opened()
