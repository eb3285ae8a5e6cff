"""An HTTP/2 peer's octets, cut into frames.

Goes in: any part of what the peer sends.  Comes out: calls to a `FrameSink`.
Source: RFC 9113 sections 3.4, 4, 6.1, 6.2, 6.10.

DATA is passed on as it arrives, a part of a frame as much as a whole one.  Every other frame is
read as a whole, and kept in `_partial` until it is complete.
Invariant: `_partial` never exceeds one frame of `H2Limits.header_block` octets.
"""

from __future__ import annotations

from typing import Protocol

from tng.wire.h2_frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    HEADER_SIZE,
    PADDED,
    PREFACE,
    PRIORITY_FLAG,
    WINDOW_LIMIT,
    Frame,
    H2Code,
    H2ConnectionError,
)
from tng.wire.h2_headers import HeaderDecoder, Headers
from tng.wire.h2_stream import H2Limits, H2Stream

_READ_AS_A_WHOLE = frozenset(Frame) - {DATA}
# See `DATA`.
_HEADERS, _CONTINUATION, _PUSH_PROMISE = Frame.HEADERS, Frame.CONTINUATION, Frame.PUSH_PROMISE


class FrameSink(Protocol):
    """What frames mean; each method raises H2ConnectionError when a frame is not legal."""

    is_closed: bool

    def data_frame(self, stream_id: int, data: memoryview, *, ends: bool) -> None:
        """A DATA frame without padding, whole.

        Args:
            stream_id: as sent.
            data: its payload; not kept.
            ends: END_STREAM is set.
        """
        ...

    def data_begins(
        self, stream_id: int, length: int, data_length: int, *, ends: bool
    ) -> H2Stream | None:
        """A DATA frame begins, which has padding or does not come at once.

        Args:
            stream_id: as sent.
            length: octets for flow control, padding included.
            data_length: octets of data among them.
            ends: END_STREAM is set.

        Returns:
            The stream that takes it; None to skip its octets.
        """
        ...

    def consumed(self, stream: H2Stream, count: int) -> None:
        """So many of the octets that a stream's owner was given were taken at once."""
        ...

    def data_ends(self, stream: H2Stream) -> None:
        """A DATA frame with END_STREAM was passed on as a whole."""
        ...

    def headers_read(self, stream_id: int, headers: Headers, *, ends: bool) -> None:
        """A header block is complete."""
        ...

    def frame_read(self, kind: int, stream_id: int, flags: int, payload: bytes) -> None:
        """A frame that is neither DATA nor part of a header block.

        Of unknown types only the head is told; their payload is skipped.
        """
        ...


class FrameReader:
    """Reads the frames of one peer.

    Args:
        sink: told about them.
        expects_preface: whether the peer is the client, which sends `PREFACE` first.
        limits: sizes and counts.
    """

    __slots__ = (
        "_block",
        "_block_ends",
        "_block_frames",
        "_block_stream",
        "_decoder",
        "_ends",
        "_is_settled",
        "_limits",
        "_padding_left",
        "_partial",
        "_payload_left",
        "_preface",
        "_sink",
        "_stream",
        "_wanted",
    )

    def __init__(self, sink: FrameSink, *, expects_preface: bool, limits: H2Limits) -> None:
        self._sink = sink
        self._limits = limits
        self._decoder = HeaderDecoder()
        self._preface = PREFACE if expects_preface else b""
        self._is_settled = False
        self._partial = bytearray()
        self._wanted = HEADER_SIZE
        # The DATA (or skipped) frame whose payload is arriving.
        self._payload_left = 0
        self._padding_left = 0
        self._stream: H2Stream | None = None
        self._ends = False
        # The header block that CONTINUATION frames go on with; stream 0 when there is none.
        self._block = bytearray()
        self._block_stream = 0
        self._block_ends = False
        self._block_frames = 0

    def receive(self, view: memoryview) -> int:
        """Take octets; `view` is not kept.

        Returns:
            How many frames began in them.

        Raises:
            H2ConnectionError: the peer broke the protocol; receive nothing more.
        """
        at = 0
        end = len(view)
        frames = 0
        sink = self._sink
        while at < end and not sink.is_closed:
            if self._payload_left:
                at = self._pass_payload(view, at, end)
            elif self._padding_left:
                size = min(self._padding_left, end - at)
                self._padding_left -= size
                at += size
                self._finish_payload()
            elif self._partial:
                at = self._complete_partial(view, at, end)
            elif self._preface:
                at = self._read_preface(view, at, end)
            else:
                passed, at = self._pass_frames(view, at, end)
                frames += passed
                if at < end and not sink.is_closed:
                    frames += 1
                    used = self._read_frame(view, at, end)
                    if not used:
                        self._partial += view[at:end]
                        break
                    at += used
        return frames

    def _pass_frames(self, view: memoryview, at: int, end: int) -> tuple[int, int]:
        """Pass on the whole DATA frames without padding that come next, as nearly all do.

        Returns:
            How many there were, and where what follows begins.
        """
        if not self._is_settled or self._block_stream:
            return 0, at
        sink = self._sink
        pass_on, read_header = sink.data_frame, FRAME_HEADER.unpack_from
        largest = self._limits.frame
        frames = 0
        while end - at >= HEADER_SIZE:
            high, low, kind, flags, stream_id = read_header(view, at)
            start = at + HEADER_SIZE
            after = start + (high << 8 | low)
            if kind != DATA or flags & PADDED or after > end or after - start > largest:
                break
            frames += 1
            at = after
            ends = flags & END_STREAM != 0
            pass_on(stream_id & WINDOW_LIMIT, view[start:after], ends=ends)
            if sink.is_closed:
                break
        return frames, at

    def _read_preface(self, view: memoryview, at: int, end: int) -> int:
        size = min(len(self._preface), end - at)
        if view[at : at + size] != self._preface[:size]:
            raise H2ConnectionError(
                H2Code.PROTOCOL_ERROR, "does not begin with the connection preface"
            )
        self._preface = self._preface[size:]
        return at + size

    def _complete_partial(self, view: memoryview, at: int, end: int) -> int:
        partial = self._partial
        size = min(self._wanted - len(partial), end - at)
        partial += view[at : at + size]
        if len(partial) == self._wanted:
            whole = bytes(partial)
            if self._read_frame(memoryview(whole), 0, len(whole)):
                partial.clear()
        return at + size

    def _read_frame(self, view: memoryview, at: int, end: int) -> int:
        """Read the frame that begins at `at`; of DATA only the head.

        Returns:
            Octets used; 0 when it needs `_wanted` octets to go on.
        """
        if end - at < HEADER_SIZE:
            self._wanted = HEADER_SIZE
            return 0
        fields: tuple[int, int, int, int, int] = FRAME_HEADER.unpack_from(view, at)
        high, low, kind, flags, stream_id = fields
        length = high << 8 | low
        stream_id &= WINDOW_LIMIT
        if not self._is_settled or self._block_stream or length > self._limits.frame:
            self._check_place(kind, length, stream_id, flags)
        if kind == DATA:
            if flags & PADDED:
                return self._read_padded(view, at, end, length, stream_id, flags)
            self._begin_payload(stream_id, length, length, flags)
            return HEADER_SIZE
        if kind not in _READ_AS_A_WHOLE:  # section 4.1: unknown types are ignored
            self._sink.frame_read(kind, stream_id, flags, b"")
            self._payload_left = length
            return HEADER_SIZE
        if kind == _PUSH_PROMISE:
            raise H2ConnectionError(H2Code.PROTOCOL_ERROR, "pushes, which nobody allowed")
        if length > self._limits.header_block:
            raise H2ConnectionError(
                H2Code.ENHANCE_YOUR_CALM, f"sends a {Frame(kind).name} of {length} octets"
            )
        total = HEADER_SIZE + length
        if end - at < total:
            self._wanted = total
            return 0
        payload = bytes(view[at + HEADER_SIZE : at + total])
        if kind == _HEADERS:
            self._read_headers(stream_id, flags, payload)
        elif kind == _CONTINUATION:
            self._read_continuation(stream_id, flags, payload)
        else:
            self._is_settled = True  # `_check_place` admits nothing else as the first frame
            self._sink.frame_read(kind, stream_id, flags, payload)
        return total

    def _check_place(self, kind: int, length: int, stream_id: int, flags: int) -> None:
        """Refuse a frame by its head where it must not stand."""
        if length > self._limits.frame:
            raise H2ConnectionError(H2Code.FRAME_SIZE_ERROR, f"sends a frame of {length} octets")
        if self._block_stream:
            if kind != Frame.CONTINUATION or stream_id != self._block_stream:
                raise H2ConnectionError(H2Code.PROTOCOL_ERROR, "interrupts a header block")
        elif not self._is_settled and (kind != Frame.SETTINGS or flags & ACK):
            raise H2ConnectionError(H2Code.PROTOCOL_ERROR, "does not begin with SETTINGS")

    # -- DATA ---------------------------------------------------------------------------------

    def _read_padded(
        self, view: memoryview, at: int, end: int, length: int, stream_id: int, flags: int
    ) -> int:
        if not length:
            raise H2ConnectionError(H2Code.FRAME_SIZE_ERROR, "sends DATA without its pad length")
        if end - at == HEADER_SIZE:
            self._wanted = HEADER_SIZE + 1
            return 0
        padding = view[at + HEADER_SIZE]
        if padding >= length:
            raise H2ConnectionError(H2Code.PROTOCOL_ERROR, "sends more padding than payload")
        self._padding_left = padding
        self._begin_payload(stream_id, length, length - 1 - padding, flags)
        return HEADER_SIZE + 1

    def _begin_payload(self, stream_id: int, length: int, data_length: int, flags: int) -> None:
        ends = flags & END_STREAM != 0
        self._stream = self._sink.data_begins(stream_id, length, data_length, ends=ends)
        self._payload_left = data_length
        self._ends = ends
        if not data_length:
            self._finish_payload()

    def _pass_payload(self, view: memoryview, at: int, end: int) -> int:
        size = min(self._payload_left, end - at)
        self._payload_left -= size
        stream = self._stream
        if stream is not None and stream.can_receive:
            taken = stream.handler.data_received(view[at : at + size])
            if taken:
                self._sink.consumed(stream, taken)
        if not self._payload_left:
            self._finish_payload()
        return at + size

    def _finish_payload(self) -> None:
        if self._padding_left:
            return
        stream, self._stream = self._stream, None
        if self._ends and stream is not None and stream.can_receive:
            self._sink.data_ends(stream)

    # -- header blocks ------------------------------------------------------------------------

    def _read_headers(self, stream_id: int, flags: int, payload: bytes) -> None:
        start, end = 0, len(payload)
        if flags & PADDED:
            start = 1
            end -= payload[0] if payload else 0
        if flags & PRIORITY_FLAG:
            start += 5
        if start > end:
            raise H2ConnectionError(H2Code.PROTOCOL_ERROR, "sends more padding than payload")
        ends = flags & END_STREAM != 0
        if flags & END_HEADERS:
            self._sink.headers_read(stream_id, self._decoder.decode(payload[start:end]), ends=ends)
        elif not stream_id:
            raise H2ConnectionError(H2Code.PROTOCOL_ERROR, "sends HEADERS on stream 0")
        else:
            self._block_stream, self._block_ends, self._block_frames = stream_id, ends, 0
            self._block += payload[start:end]

    def _read_continuation(self, stream_id: int, flags: int, payload: bytes) -> None:
        if not self._block_stream:
            raise H2ConnectionError(H2Code.PROTOCOL_ERROR, "continues no header block")
        self._block_frames += 1
        self._block += payload
        limits = self._limits
        if self._block_frames > limits.continuations or len(self._block) > limits.header_block:
            raise H2ConnectionError(
                H2Code.ENHANCE_YOUR_CALM, "sends a header block in too many pieces"
            )
        if flags & END_HEADERS:
            block = bytes(self._block)
            self._block.clear()
            self._block_stream = 0
            headers = self._decoder.decode(block)
            self._sink.headers_read(stream_id, headers, ends=self._block_ends)
