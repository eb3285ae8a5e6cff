"""One HTTP/2 stream as the machine counts it, and whom the machine tells about it.

`H2Machine` calls handlers instead of returning event objects: a tunnel's octets are told as
one slice of the buffer that was received into, without anything made per frame beyond it.
Source: RFC 9113 section 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from tng.wire.h2_headers import Headers


@dataclass(frozen=True, slots=True)
class H2Limits:
    """What one connection lets its peer do, and what it queues itself."""

    stream_window: int = 256 << 10
    """Octets a new stream may send before anything was taken: the memory that a reader who
    never reads costs."""
    largest_stream_window: int = 2 << 20
    """A stream whose reader keeps up is granted more and more, up to this: 40 MB/s over a
    round trip of 50 ms."""
    connection_window: int = 32 << 20
    """Octets under way over all streams; the value of TNG 2.12."""
    held_octets: int = 128 << 20
    """Octets that readers of this connection have not taken yet.  Beyond it the connection's
    window shrinks by the excess, so that the sum never exceeds this plus
    `connection_window`; below it one reader never holds up another."""
    streams: int = 10_000
    """Streams the peer may have open.  A client may keep all its tunnels on one connection, so
    this must admit all of its users; an idle stream costs about 1 KiB."""
    frame: int = 256 << 10
    """Largest payload of a frame the peer may send.  Payloads are passed on as they arrive, so
    this costs no memory; it is what one read of a connection takes at most."""
    sent_frame: int = 64 << 10
    """Largest DATA payload we send, so that streams take turns within the queue."""
    queued_output: int = 256 << 10
    """Octets waiting to be written above which no stream may queue more data."""
    queued_answers: int = 1 << 20
    """Octets above `queued_output` at which a peer that asks but does not read is dropped."""
    header_block: int = 16 << 10
    """Octets of one header block as it is sent, CONTINUATION frames included, and of every
    other frame that is read as a whole."""
    continuations: int = 8
    """CONTINUATION frames of one header block."""
    chatter_burst: int = 10_000
    """Frames without use for a tunnel (PING, SETTINGS, RST_STREAM, empty DATA, unknown types,
    WINDOW_UPDATE beyond two for each DATA frame of ours) that may come at once; all streams may
    be reset at once."""
    chatter_per_second: float = 2000.0
    """The lasting rate of such frames; it costs less than 1 % of a core."""


class StreamHandler(Protocol):
    """Whoever owns one stream.  No method may raise; every method may call the machine."""

    def answered(self, status: int, headers: Headers) -> None:
        """The peer answered our request; 200 opens the tunnel.  Client only, once."""
        ...

    def data_received(self, data: memoryview) -> int:
        """Octets of the tunnel came, 1 or more.

        `data` is valid until this returns.

        Returns:
            How many of them were taken.  Of the rest, `H2Machine.consumed` has to be told later.
        """
        ...

    def end_received(self) -> None:
        """The peer ended its half; it may still read."""
        ...

    def reset_received(self, code: int) -> None:
        """The stream is gone: reset by the peer, or by us because the peer broke its rules."""
        ...

    def window_opened(self) -> None:
        """The peer takes more octets of this stream."""
        ...


class ConnectionHandler(Protocol):
    """Whoever owns the connection.  No method may raise; every method may call the machine."""

    def stream_requested(self, stream: H2Stream, method: bytes) -> StreamHandler:
        """The peer asks for a tunnel; answer with `H2Machine.answer`.  Server only.

        Whatever authority it names is ignored: where a tunnel leads is not the peer's choice.
        """
        ...

    def window_opened(self) -> None:
        """The peer takes more octets on the connection as a whole."""
        ...

    def settings_received(self) -> None:
        """The peer's settings changed: `peer_max_streams` among them."""
        ...

    def going_away(self, code: int, reason: str) -> None:
        """The peer wants no more streams.  Those it will not serve are told so beforehand."""
        ...

    def drain_confirmed(self) -> None:
        """The peer knows that we are draining: no request of it is under way any more."""
        ...


class H2Stream:
    """The books of one stream.  Only the machine writes here.

    Attributes:
        id: odd, 1 to 2**31-1.
        handler: its owner.
        can_send: we have not ended our half, and the stream is not reset.
        can_receive: the peer has not ended its half, and the stream is not reset.
        is_answered: the final status was sent or received.
        send_window: octets the peer still takes; negative after it shrank its window.
        receive_window: octets the peer may still send.
        window: what `receive_window` is filled up to.
        held: octets received and not yet consumed.
        ungranted: octets consumed and not yet granted again.
    """

    __slots__ = (
        "can_receive",
        "can_send",
        "handler",
        "held",
        "id",
        "is_answered",
        "receive_window",
        "send_window",
        "ungranted",
        "window",
    )

    def __init__(self, stream_id: int, send_window: int, receive_window: int) -> None:
        self.id = stream_id
        self.handler: StreamHandler = NOBODY
        self.can_send = True
        self.can_receive = True
        self.is_answered = False
        self.send_window = send_window
        self.receive_window = receive_window
        self.window = receive_window
        self.held = 0
        self.ungranted = 0


class Nobody:
    """The handler of a stream whose owner has left: it is told nothing."""

    def answered(self, status: int, headers: Headers) -> None:
        """Ignore an answer."""

    def data_received(self, data: memoryview) -> int:
        """Ignore octets."""
        return len(data)

    def end_received(self) -> None:
        """Ignore the end."""

    def reset_received(self, code: int) -> None:
        """Ignore a reset."""

    def window_opened(self) -> None:
        """Ignore a window."""


NOBODY: Final = Nobody()
"""Set as `H2Stream.handler` by an owner who leaves, so that it is freed at once."""
