"""HTTP/2 for CONNECT tunnels: octets in, calls to handlers and octets out, both roles.

    machine = H2Machine("client", handler, now=0.0)
    stream = machine.open_stream(stream_handler)     # its `answered` is called later
    machine.send_data(stream, memoryview(b"hello"))  # octets taken, 0 when the peer must read
    machine.receive(octets_from_the_connection, now)
    sent = sock.send(machine.output)
    del machine.output[:sent]

Source: RFC 9113; the settings follow TNG 2.12 (`H2Limits`).  Theory of operation:

* `FrameReader` cuts the octets into frames, and passes DATA on as it arrives.
* A stream's window is granted again when its reader has taken half of it; the connection's
  window as soon as octets are taken off the wire.  So a reader that stalls holds up nobody
  else, and holds what one window holds.
* What a peer broke on one stream ends that stream; what breaks the connection queues a GOAWAY
  and raises RemoteProtocolError.  After that the machine takes nothing more.

Invariant: a peer's octets raise RemoteProtocolError or nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from tng.wire.h2_frames import (
    ACK,
    WINDOW_LIMIT,
    Frame,
    H2Code,
    H2ConnectionError,
    check_ping,
    code_name,
    make_frame,
    make_goaway,
    make_reset,
    make_window_update,
    parse_goaway,
    parse_increment,
    parse_reset,
)
from tng.wire.h2_headers import Headers, find_method, find_status
from tng.wire.h2_our_side import DRAIN_PING, H2OurSide
from tng.wire.h2_reader import FrameReader
from tng.wire.h2_settings import WIDE_WINDOW, move_windows
from tng.wire.h2_stream import ConnectionHandler, H2Limits, H2Stream

_SETTINGS_COST: Final = 20  # each walks over all streams; 100 per second remain


class H2Machine(H2OurSide):
    """One HTTP/2 connection.

    Args:
        role: which side we are.
        handler: told about streams that the peer opens, and about the connection.
        now: monotonic time, seconds, of the clock that `receive` is given.
        limits: what the peer may do.
    """

    def __init__(
        self,
        role: Literal["client", "server"],
        handler: ConnectionHandler,
        *,
        now: float,
        limits: H2Limits | None = None,
    ) -> None:
        super().__init__(role, now=now, limits=limits)
        limits = self._limits
        self._most_output = limits.queued_output + limits.queued_answers
        self._handler = handler
        self._reader = FrameReader(self, expects_preface=not self._is_client, limits=limits)
        self._refuses_streams = False
        self._readers: dict[int, Callable[[int, int, bytes], None]] = {
            Frame.PRIORITY: self._read_priority,
            Frame.RST_STREAM: self._read_reset,
            Frame.SETTINGS: self._read_settings,
            Frame.PING: self._read_ping,
            Frame.GOAWAY: self._read_goaway,
            Frame.WINDOW_UPDATE: self._read_window_update,
        }

    def receive(self, data: bytes | memoryview, now: float) -> int:
        """Take octets from the connection, and tell the handlers what they mean.

        Args:
            data: any part of the peer's octets; not kept.
            now: monotonic time, seconds.

        Returns:
            How many frames began in them, for whoever shares out time.

        Raises:
            RemoteProtocolError: the peer broke the protocol; `output` holds a GOAWAY to send.
        """
        self._chatter.now = now
        try:
            frames = self._reader.receive(memoryview(data))
            if len(self.output) > self._most_output:
                text = "does not read our answers"
                raise H2ConnectionError(H2Code.ENHANCE_YOUR_CALM, text)  # noqa: TRY301
        except H2ConnectionError as error:
            self.close(error.h2_code, error.problem)
            raise
        return frames

    def frame_read(self, kind: int, stream_id: int, flags: int, payload: bytes) -> None:
        """See `FrameSink`."""
        reader = self._readers.get(kind)
        if reader is None:
            self._chatter.charge()
        else:
            reader(stream_id, flags, payload)

    # -- DATA -----------------------------------------------------------------------------

    def data_frame(self, stream_id: int, data: memoryview, *, ends: bool) -> None:
        """See `FrameSink`."""
        length = len(data)
        stream = self.streams.get(stream_id)
        received = self._received
        if (
            stream is None
            or not length
            or not stream.can_receive
            or length > stream.receive_window
            or not (stream.is_answered or not self._is_client)
        ):
            stream = self.data_begins(stream_id, length, length, ends=ends)
        elif increment := received.take(length, stream):
            self.output += make_window_update(0, increment)
        if stream is None:
            return
        if length and (taken := stream.handler.data_received(data)):
            if increment := received.release(stream, taken):
                self.output += make_window_update(stream_id, increment)
            if received.owes and (increment := received.grant()):
                self.output += make_window_update(0, increment)
        if ends and stream.can_receive:
            self.data_ends(stream)

    def data_begins(
        self, stream_id: int, length: int, data_length: int, *, ends: bool
    ) -> H2Stream | None:
        """See `FrameSink`."""
        stream = self.streams.get(stream_id)
        if (
            stream is None
            or not stream.can_receive
            or length > stream.receive_window
            or not (stream.is_answered or not self._is_client)
        ):
            self._refuse_data(stream, stream_id, length, ends=ends)
            stream = None
        elif increment := self._received.take(length, stream):
            self.output += make_window_update(0, increment)
        if not (data_length or ends):
            self._chatter.charge()
        if stream is not None and data_length != length:
            self.consumed(stream, length - data_length)
        return stream

    def _refuse_data(
        self, stream: H2Stream | None, stream_id: int, length: int, *, ends: bool
    ) -> None:
        """Drop DATA that no stream takes; the connection's window counts it all the same."""
        if increment := self._received.take(length, None):
            self.output += make_window_update(0, increment)
        if stream is None:  # late, or a mistake (section 5.1)
            self._check_not_idle(stream_id)
            if not self._late.admits(stream_id, length, ends=ends):
                self._chatter.charge()
                self.output += make_reset(stream_id, H2Code.STREAM_CLOSED)
        elif not stream.can_receive:
            self._end_in_error(stream, H2Code.STREAM_CLOSED)
        elif self._is_client and not stream.is_answered:
            self._end_in_error(stream, H2Code.PROTOCOL_ERROR)
        else:
            self._end_in_error(stream, H2Code.FLOW_CONTROL_ERROR)

    # -- windows --------------------------------------------------------------------------

    def _read_window_update(self, stream_id: int, _flags: int, payload: bytes) -> None:
        increment = parse_increment(payload)
        self._chatter.charge_update()
        if not stream_id:
            self._send_window += increment
            if not increment:
                raise H2ConnectionError(H2Code.PROTOCOL_ERROR, "opens a window by 0 octets")
            if self._send_window > WINDOW_LIMIT:
                raise H2ConnectionError(H2Code.FLOW_CONTROL_ERROR, WIDE_WINDOW)
            self._handler.window_opened()
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            self._check_not_idle(stream_id)
            return
        stream.send_window += increment
        if not increment:
            self._end_in_error(stream, H2Code.PROTOCOL_ERROR)
        elif stream.send_window > WINDOW_LIMIT:
            self._end_in_error(stream, H2Code.FLOW_CONTROL_ERROR)
        elif stream.can_send:
            stream.handler.window_opened()

    # -- HEADERS --------------------------------------------------------------------------

    def headers_read(self, stream_id: int, headers: Headers, *, ends: bool) -> None:
        """See `FrameSink`."""
        stream = self.streams.get(stream_id)
        if stream is None:
            if self._is_client or stream_id <= self._last_peer_id or not stream_id & 1:
                self._check_not_idle(stream_id)
                self._read_late_headers(stream_id, ends=ends)
            else:
                self._last_peer_id = stream_id
                self._read_request(stream_id, headers, ends=ends)
        elif not stream.can_receive:
            self._end_in_error(stream, H2Code.STREAM_CLOSED)
        elif self._is_client and not stream.is_answered:
            self._read_answer(stream, headers, ends=ends)
        elif not ends:  # trailers end a message, section 8.1
            self._end_in_error(stream, H2Code.PROTOCOL_ERROR)
        else:
            self.data_ends(stream)

    def _read_late_headers(self, stream_id: int, *, ends: bool) -> None:
        self._chatter.charge()
        if not self._late.admits(stream_id, 0, ends=ends):
            self.output += make_reset(stream_id, H2Code.STREAM_CLOSED)

    def _read_request(self, stream_id: int, headers: Headers, *, ends: bool) -> None:
        if self._refuses_streams or len(self.streams) >= self._limits.streams:
            self._chatter.charge()
            self.output += make_reset(stream_id, H2Code.REFUSED_STREAM)
            if not ends:
                self._late.add(stream_id, self._limits.stream_window)
            return
        stream = H2Stream(stream_id, self.peer.initial_window, self._limits.stream_window)
        self.streams[stream_id] = stream
        method = find_method(headers)
        if not method:
            self._chatter.charge()
            self.reset(stream, H2Code.PROTOCOL_ERROR)
            return
        stream.handler = self._handler.stream_requested(stream, method)
        if ends and stream.can_receive:
            self.data_ends(stream)

    def _read_answer(self, stream: H2Stream, headers: Headers, *, ends: bool) -> None:
        status = find_status(headers)
        if not status or (status < 200 and ends):
            self._end_in_error(stream, H2Code.PROTOCOL_ERROR)
        elif status < 200:  # an interim answer, section 8.1; the final one follows
            self._chatter.charge()
        else:
            stream.is_answered = True
            stream.handler.answered(status, headers)
            if ends and stream.can_receive:
                self.data_ends(stream)

    # -- ends of streams ------------------------------------------------------------------

    def data_ends(self, stream: H2Stream) -> None:
        """See `FrameSink`; a header block may end a stream as well."""
        stream.can_receive = False
        if not stream.can_send:
            self.streams.pop(stream.id, None)
        stream.handler.end_received()

    def _end_in_error(self, stream: H2Stream, code: H2Code) -> None:
        """Reset a stream by the peer's fault."""
        self._chatter.charge()
        self.reset(stream, code)
        stream.handler.reset_received(code)

    def _read_reset(self, stream_id: int, _flags: int, payload: bytes) -> None:
        code = parse_reset(payload)
        self._chatter.charge()
        self._late.remove(stream_id)
        stream = self.streams.get(stream_id)
        if stream is None:
            self._check_not_idle(stream_id)
            return
        self._forget(stream)
        stream.handler.reset_received(code)

    def _check_not_idle(self, stream_id: int) -> None:
        """Refuse frames of a stream that nobody has opened, section 5.1."""
        opened = stream_id < self._next_id if self._is_client else stream_id <= self._last_peer_id
        if not opened or not stream_id & 1:
            raise H2ConnectionError(H2Code.PROTOCOL_ERROR, f"sends on idle stream {stream_id}")

    # -- the connection -------------------------------------------------------------------

    def _read_priority(self, stream_id: int, _flags: int, payload: bytes) -> None:
        if not stream_id or len(payload) != 5:
            raise H2ConnectionError(H2Code.PROTOCOL_ERROR, "sends a malformed PRIORITY")
        self._chatter.charge()

    def _read_settings(self, stream_id: int, flags: int, payload: bytes) -> None:
        if stream_id:
            raise H2ConnectionError(H2Code.PROTOCOL_ERROR, "sends SETTINGS on a stream")
        if flags & ACK:
            self._chatter.charge()
            if payload:
                raise H2ConnectionError(H2Code.FRAME_SIZE_ERROR, "acknowledges SETTINGS with some")
            return
        self._chatter.charge(_SETTINGS_COST)
        change = self.peer.update(payload)
        self.output += make_frame(Frame.SETTINGS, ACK, 0)
        if change:
            move_windows(list(self.streams.values()), change)
        self._handler.settings_received()

    def _read_ping(self, stream_id: int, flags: int, payload: bytes) -> None:
        check_ping(stream_id, payload)
        self._chatter.charge()
        if not flags & ACK:
            self.output += make_frame(Frame.PING, ACK, 0, payload)
        elif payload == DRAIN_PING and self._is_draining and not self._refuses_streams:
            self._refuses_streams = True
            self.output += make_goaway(self._last_peer_id, H2Code.NO_ERROR)
            self._handler.drain_confirmed()

    def _read_goaway(self, stream_id: int, _flags: int, payload: bytes) -> None:
        last_id, code, reason = parse_goaway(stream_id, payload)
        self._chatter.charge()
        self._peer_is_leaving = True
        if self._is_client:
            for stream in [s for s in self.streams.values() if s.id > last_id]:
                self._forget(stream)
                stream.handler.reset_received(H2Code.REFUSED_STREAM)
        self._handler.going_away(code, f"{code_name(code)} {reason!r}")
