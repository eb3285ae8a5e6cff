"""One request of an HTTP/2 connection, as the end of an HTTP/1.1 connection that carries only it.

What is read from it is the request in HTTP/1.1; what is written to it is a response in HTTP/1.1,
and goes out as HEADERS, DATA and trailers.  So whoever serves HTTP/1 serves HTTP/2 by the same
rules.  Source: RFC 9113 section 8.

Theory of operation.  Below lies a `MuxStream`, which has windows and turns.  Octets are taken from
it only when they are read from here, so a reader that stalls closes the client's window.  A write
counts as taken as a whole when HEADERS and DATA are queued below; until then its last octet is not
taken, so the writer waits, and nothing is queued here beyond `SHARE` octets.

Invariants: a request that was cut short never ends in order, nor does a response; once the
response is complete, the stream is read to its end.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Final, Protocol

from tng.dataplane.ends import BLOCKED, End
from tng.dataplane.mux_stream import SHARE, MuxStream
from tng.errors import LocalProtocolError, NetError, RemoteProtocolError
from tng.wire.h2_frames import H2Code, code_name
from tng.wire.h2_requests import OF_THE_CONNECTION, H2RequestMachine, RequestAsHttp1
from tng.wire.http1_body import BodyReader, dump_last_chunk, response_body
from tng.wire.http1_head import MAX_HEAD_SIZE, Fields, find_head_end, parse_response_head

if TYPE_CHECKING:
    from tng.dataplane.reactor import Reactor
    from tng.wire.h2_headers import Headers
    from tng.wire.h2_stream import H2Stream

_CHUNK_LINE: Final = b"%08x\r\n"  # of a fixed size, so that data is read into its place at once
_LINE_SIZE: Final = 10
_FRAMING: Final = _LINE_SIZE + 2
_SMALL_READ: Final = 4096  # octets of a chunk for a reader whose buffer is too small for one


class StreamOwner(Protocol):
    """What a stream needs of its connection."""

    requests: H2RequestMachine

    def touch(self) -> None:
        """Have the output flushed at the end of this turn."""
        ...


class RequestStream(End):
    """One request and its response.  Made by `Http2Connection`, which is told by the machine.

    Args:
        reactor: see `End`.
        owner: the connection.
        h2: the stream's books.
        carrier: its octets.
        request: the head that came.
        ends: whether no body follows.
        label: what logs call it.
    """

    __slots__ = (
        "_body",
        "_carrier",
        "_ends",
        "_failure",
        "_h2",
        "_head",
        "_is_fire_queued",
        "_left",
        "_method",
        "_owes",
        "_owner",
        "_pending",
        "_ready",
        "_request_done",
        "_response_done",
        "_trailers",
        "_wants_read",
        "_wants_write",
    )

    def __init__(
        self,
        reactor: Reactor,
        owner: StreamOwner,
        h2: H2Stream,
        carrier: MuxStream,
        request: RequestAsHttp1,
        *,
        ends: bool,
        label: str,
    ) -> None:
        super().__init__(reactor, label)
        self._owner = owner
        self._h2 = h2
        self._carrier = carrier
        self._method = request.method
        self._left = request.length
        self._ready = request.head
        self._request_done = ends
        self._trailers: Fields = []
        self._head = bytearray()
        self._body: BodyReader | None = None
        self._pending: collections.deque[memoryview] = collections.deque()
        self._owes = False
        self._ends = False
        self._response_done = False
        self._failure = ""
        self._wants_read = False
        self._wants_write = False
        self._is_fire_queued = False
        carrier.on_readable = self._carrier_readable
        carrier.on_writable = self._carrier_writable

    # --- reading: the request ---

    @property
    def has_octets(self) -> bool:
        """Whether there is something to read, its end or its failure included."""
        if self._unread or self._ready or self._failure or self._response_done:
            return True
        return not self._request_done and self._carrier.has_octets

    def read_into(self, buffer: memoryview) -> int:
        """Read what is there of the request; see `End.read_into`."""
        if self.is_closed:
            raise NetError(f"reading from {self.label}, which we have closed")
        if self._failure:
            raise NetError(f"{self.label} {self._failure}")
        if self._response_done:
            return 0
        if self._unread:
            return self._take_unread(buffer)
        if not self._ready and not self._request_done:
            count = self._read_body(buffer)
            if count > 0:
                self.bytes_in += count
                return count
        if not self._ready:
            return BLOCKED
        count = min(len(self._ready), len(buffer))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        self.bytes_in += count
        return count

    def _read_body(self, buffer: memoryview) -> int:
        """Octets put into `buffer`; BLOCKED where there are none, unless in `_ready`."""
        if self._left is not None:
            return self._read_sized(buffer, self._left)
        room = len(buffer) - _FRAMING
        if room > 0:
            count = self._carrier.read_into(buffer[_LINE_SIZE:-2])
            if count > 0:
                buffer[:_LINE_SIZE] = _CHUNK_LINE % count
                buffer[_LINE_SIZE + count : _FRAMING + count] = b"\r\n"
                return count + _FRAMING
        else:
            data = bytearray(_SMALL_READ)
            count = self._carrier.read_into(memoryview(data))
            if count > 0:
                self._ready = _CHUNK_LINE % count + data[:count] + b"\r\n"
        if count == 0:
            self._ready = dump_last_chunk(self._trailers)
            self._end_request()
        return BLOCKED

    def _read_sized(self, buffer: memoryview, left: int) -> int:
        count = self._carrier.read_into(buffer)
        if count == BLOCKED:
            return BLOCKED
        if count > left or (count == 0 and left):
            self._owner.requests.reset(self._h2, H2Code.PROTOCOL_ERROR)
            self._owner.touch()
            self._failure = "sent a body of another length than it announced"
            raise NetError(f"{self.label} {self._failure}")
        self._left = left - count
        if count == 0:
            self._end_request()
            return BLOCKED
        return count

    def _end_request(self) -> None:
        """Nothing of the request will come any more: the carrier's end is no news."""
        self._request_done = True
        self._carrier.watch(False, self._wants_write)

    # --- writing: the response ---

    def write(self, data: memoryview) -> int:
        """Take octets of the response; see `End.write`.

        Raises:
            LocalProtocolError: something was written after the response.
            RemoteProtocolError: it is no response.
        """
        if self.is_closed or self._failure:
            why = self._failure or "we have closed"
            raise NetError(f"writing to {self.label}, which {why}")
        if not self._flush():
            return 0
        if self._owes:  # it was translated with those before it
            self._owes = False
            count = 1
        elif self._response_done:
            raise LocalProtocolError(f"{self!r} was written to after its response")
        else:
            part = bytes(data[:SHARE])
            self._translate(part)
            self._owes = not self._flush()
            count = len(part) - self._owes
        self.bytes_out += count
        return count

    def shut(self) -> None:
        """End the response; one that is not complete breaks the stream."""
        if self.is_closed or self._response_done:
            return
        body = self._body
        if body is None or not body.ends_at_close:
            self.abort()
            return
        self._ends = True
        self._flush()

    def close(self) -> None:
        """Leave the stream, in order if the response is complete."""
        if self.is_closed:
            return
        if self._response_done:
            self.is_closed = True
            self._carrier.close()
            self._wake_all()
        else:
            self.abort()

    def abort(self) -> None:
        """Reset the stream: the client sees an error, not an end."""
        if self.is_closed:
            return
        self.is_closed = True
        self._pending.clear()
        self._carrier.abort()
        self._wake_all()

    def _translate(self, part: bytes) -> None:
        """Send heads as they are complete; put the octets of the body into `_pending`."""
        while self._body is None:
            self._head += part
            end = find_head_end(self._head)
            if end < 0:
                if len(self._head) > MAX_HEAD_SIZE:
                    raise RemoteProtocolError(
                        f"a response head of more than {MAX_HEAD_SIZE} octets"
                    )
                return
            octets, part = bytes(self._head[:end]), bytes(self._head[end:])
            self._head.clear()
            self._send_head(octets)
            if not part:
                return
        if part:
            self._pending.extend(memoryview(piece) for piece in self._body.feed(part))
            self._ends = self._body.is_done

    def _send_head(self, octets: bytes) -> None:
        head = parse_response_head(octets)
        fields = [(b":status", b"%d" % head.status)]
        fields += [field for field in head.fields if field[0] not in OF_THE_CONNECTION]
        if head.status >= 200:
            self._body = response_body(head, self._method)
            self._ends = self._response_done = self._body.is_done
            self._h2.is_answered = True
        self._owner.requests.send_headers(self._h2, fields, ends=self._response_done)
        self._owner.touch()

    def _flush(self) -> bool:
        """Queue what is pending below; whether nothing is left."""
        trailers = self._body.trailers if self._body is not None else []
        pending = self._pending
        while pending:
            piece = pending[0]
            is_last = self._ends and len(pending) == 1 and not trailers
            count = self._carrier.write(piece, ends=is_last)
            if count < len(piece):
                pending[0] = piece[count:]
                return False
            pending.popleft()
        if self._ends and not self._response_done:
            self._response_done = True
            if trailers:
                self._owner.requests.send_headers(self._h2, trailers, ends=True)
                self._owner.touch()
            self._carrier.shut()
        return True

    # --- readiness ---

    def watch(self, readable: bool, writable: bool) -> None:
        """Choose which callbacks may be called; see `End.watch`."""
        self._wants_read = readable
        self._wants_write = writable
        self._carrier.watch(readable and not self._request_done, writable)
        self._tell_news()

    def _carrier_readable(self) -> None:
        if self._wants_read and self.on_readable is not None:
            self.on_readable()
        else:
            self._wants_read = False
            self._carrier.watch(False, self._wants_write)

    def _carrier_writable(self) -> None:
        if self._wants_write and self.on_writable is not None:
            self.on_writable()
        else:
            self._wants_write = False
            self._carrier.watch(self._wants_read and not self._request_done, False)

    def _tell_news(self) -> None:
        """Have `on_readable` called soon for what the carrier does not know of."""
        if (
            self._wants_read
            and not self._is_fire_queued
            and (self._unread or self._ready or self._failure or self._response_done)
        ):
            self._is_fire_queued = True
            self.reactor.soon(self._fire)

    def _fire(self) -> None:
        self._is_fire_queued = False
        if self._wants_read and self.on_readable is not None:
            self.on_readable()
            self._tell_news()

    # --- what the connection tells ---

    def trailers_received(self, trailers: Fields) -> None:
        """Fields came after the body."""
        self._trailers = trailers

    def broken(self, failure: str) -> None:
        """The stream has ended by no will of ours.

        Args:
            failure: what happened to it, as in "was reset".
        """
        if self._failure or self.is_closed:
            return
        self._failure = failure
        if self._wants_read and self.on_readable is not None:
            self._tell_news()
        elif self.on_broken is not None:
            self.on_broken(f"{self.label} {failure}")

    def answered(self, status: int, headers: Headers) -> None:
        """See `StreamHandler`; a server is not answered."""

    def data_received(self, data: memoryview) -> int:
        """See `StreamHandler`."""
        return self._carrier.data_received(data)

    def end_received(self) -> None:
        """See `StreamHandler`."""
        self._carrier.end_received()

    def reset_received(self, code: int) -> None:
        """See `StreamHandler`."""
        self._carrier.reset_received(code)
        self.broken(f"was reset by the client ({code_name(code)})")

    def window_opened(self) -> None:
        """See `StreamHandler`."""
        self._carrier.window_opened()
