"""One HTTP/2 connection: its state, and all that our side says.

In: what an owner wants to say.  Out: octets, queued in `output`.  What the peer says is read by
`tng.wire.h2`, which builds on this.  Source: RFC 9113; the settings follow TNG 2.12 (`H2Limits`).

Invariant: nothing is queued that the peer's windows do not admit, and no data beyond
`H2Limits.queued_output`.
"""

from __future__ import annotations

from typing import Final, Literal

from tng.errors import LocalProtocolError
from tng.wire.h2_budgets import ChatterBudget, LateStreams, ReceiveBudget
from tng.wire.h2_frames import (
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    WINDOW_LIMIT,
    Frame,
    H2Code,
    append_data,
    make_frame,
    make_goaway,
    make_reset,
    make_window_update,
)
from tng.wire.h2_headers import CONNECT_BLOCK, make_block
from tng.wire.h2_settings import PeerSettings, make_greeting
from tng.wire.h2_stream import H2Limits, H2Stream, StreamHandler

_CANCEL: Final = H2Code.CANCEL
_HEADERS: Final = int(Frame.HEADERS)  # looking the member up costs more than the frame

DRAIN_PING: Final = b"draining"
"""A server's PING after its first GOAWAY: the answer says that the peer has read that."""


class H2OurSide:
    """What our side of a connection says, and what both sides have agreed on.

    Args:
        role: which side we are.
        now: monotonic time, seconds.
        limits: what the peer may do.

    Attributes:
        output: octets to write; the owner takes them from the front.
        streams: open streams by id.
        peer: what the peer announced.
        is_closed: nothing more is taken in; set by a fatal error, or by `close`.
    """

    def __init__(
        self, role: Literal["client", "server"], *, now: float, limits: H2Limits | None
    ) -> None:
        self.output = bytearray()
        self.streams: dict[int, H2Stream] = {}
        self.is_closed = False
        self._limits = limits = limits or H2Limits()
        self._is_client = role == "client"
        self._received = ReceiveBudget(limits)
        self._chatter = ChatterBudget(limits, now)
        self.peer = PeerSettings(peer_is_server=self._is_client)
        self._peer_is_leaving = False
        self._is_draining = False
        self._next_id = 1
        self._last_peer_id = 0
        self._late = LateStreams()
        self._send_window = DEFAULT_WINDOW
        self.output += make_greeting(limits, is_client=self._is_client)

    @property
    def can_open(self) -> bool:
        """Whether `open_stream` is possible now."""
        return (
            self._is_client
            and len(self.streams) < self.peer.max_streams
            and self._next_id <= WINDOW_LIMIT
            and not (self.is_closed or self._peer_is_leaving or self._is_draining)
        )

    @property
    def is_leaving(self) -> bool:
        """Whether either side said that it wants no new streams, or the connection is dead."""
        return self.is_closed or self._peer_is_leaving or self._is_draining

    def open_stream(self, handler: StreamHandler) -> H2Stream:
        """Ask the peer for a tunnel.

        Raises:
            LocalProtocolError: `can_open` is false.
        """
        if not self.can_open:
            raise LocalProtocolError("stream opened where the connection admits none")
        stream_id = self._next_id
        self._next_id = stream_id + 2
        stream = H2Stream(stream_id, self.peer.initial_window, self._limits.stream_window)
        stream.handler = handler
        self.streams[stream_id] = stream
        self.output += FRAME_HEADER.pack(0, len(CONNECT_BLOCK), _HEADERS, END_HEADERS, stream_id)
        self.output += CONNECT_BLOCK
        return stream

    def answer(
        self,
        stream: H2Stream,
        status: int,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        *,
        ends: bool = False,
    ) -> None:
        """Answer a request; nothing happens when the stream is gone.

        Args:
            stream: as given to `stream_requested`.
            status: 200 opens the tunnel.
            headers: names in lower case.
            ends: whether our half ends here.

        Raises:
            LocalProtocolError: it was answered before.
        """
        if stream.is_answered:
            raise LocalProtocolError(f"stream {stream.id} answered twice")
        stream.is_answered = True
        if stream.can_send:
            block = make_block(status, headers)
            flags = END_HEADERS | END_STREAM if ends else END_HEADERS
            self.output += make_frame(_HEADERS, flags, stream.id, block)
            if ends:
                self._end_sending(stream)

    def send_data(self, stream: H2Stream, data: memoryview, *, ends: bool = False) -> int:
        """Queue octets of a tunnel.

        Args:
            stream: open, and answered.
            data: 1 octet or more.
            ends: whether our half ends with the last octet, if all of them are taken.

        Returns:
            Octets taken: what both windows and the queue admit; 0 when they admit none, or
            when our half has ended.
        """
        output, limits, count = self.output, self._limits, len(data)
        for room in (stream.send_window, self._send_window, limits.queued_output - len(output)):
            if room < count:  # `min` takes twice the time
                count = room
        if count <= 0 or not stream.can_send:
            return 0
        largest = self.peer.frame
        if largest > limits.sent_frame:
            largest = limits.sent_frame
        whole = count == len(data)
        ends = ends and whole
        part = data if whole else data[:count]
        flags = END_STREAM if ends else 0
        if count <= largest:  # as nearly always; `append_data` does the same in a call
            output += FRAME_HEADER.pack(count >> 8, count & 255, DATA, flags, stream.id)
            output += part
        else:
            append_data(output, stream.id, part, largest, flags)
        stream.send_window -= count
        self._send_window -= count
        self._chatter.updates += 2 * (count // largest + 1)
        if ends:
            self._end_sending(stream)
        return count

    @property
    def connection_room(self) -> int:
        """Octets that the connection's window and the queue admit, for any stream."""
        return min(self._send_window, self._limits.queued_output - len(self.output))

    def send_end(self, stream: H2Stream) -> None:
        """End our half of a tunnel; nothing happens when it has ended."""
        if stream.can_send:
            self.output += FRAME_HEADER.pack(0, 0, DATA, END_STREAM, stream.id)
            self._end_sending(stream)

    def reset(self, stream: H2Stream, code: H2Code = _CANCEL) -> None:
        """Drop a tunnel at once; nothing happens when it is gone.  Its handler is not told."""
        if stream.id not in self.streams:
            return
        self.output += make_reset(stream.id, code)
        if stream.can_receive:
            self._late.add(stream.id, stream.receive_window)
        self._forget(stream)

    def consumed(self, stream: H2Stream, count: int) -> None:
        """Octets of `data_received` were taken by their reader, so that more may come."""
        if increment := self._received.release(stream, count):
            self.output += make_window_update(stream.id, increment)
        if self._received.owes and (increment := self._received.grant()):
            self.output += make_window_update(0, increment)

    def drain(self) -> None:
        """Say that no more streams are wanted; those that are open go on.

        A server still takes the requests that are under way, until `drain_confirmed`.
        """
        if self.is_closed or self._is_draining:
            return
        self._is_draining = True
        if self._is_client:
            self.output += make_goaway(0, H2Code.NO_ERROR)
        else:
            self.output += make_goaway(WINDOW_LIMIT, H2Code.NO_ERROR, "shutting down")
            self.output += make_frame(Frame.PING, 0, 0, DRAIN_PING)

    def close(self, code: H2Code = H2Code.NO_ERROR, reason: str = "") -> None:
        """Queue a last GOAWAY and drop all streams; nothing is taken in any more.

        Handlers are not told.
        """
        if not self.is_closed:
            self.is_closed = True
            self.output += make_goaway(self._last_peer_id, code, reason)
            for stream in list(self.streams.values()):
                self._forget(stream)

    def _end_sending(self, stream: H2Stream) -> None:
        stream.can_send = False
        if not stream.can_receive:
            self.streams.pop(stream.id, None)

    def _forget(self, stream: H2Stream) -> None:
        """Take a stream that was reset out of all books."""
        stream.can_send = stream.can_receive = False
        self.streams.pop(stream.id, None)
        self._received.drop(stream)
