"""The machine against an independent HTTP/2 implementation (the `h2` package), both roles."""

from __future__ import annotations

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest

from tng.errors import LocalProtocolError, RemoteProtocolError
from tng.wire.h2 import H2Machine
from tng.wire.h2_frames import H2Code
from tng.wire.h2_stream import NOBODY, H2Limits, H2Stream, StreamHandler

CONNECT = [(":method", "CONNECT"), (":authority", "tng.internal")]


class Recorder:
    """A stream's owner that notes what it is told, and takes octets at once unless it stalls."""

    def __init__(self, machine: H2Machine | None = None) -> None:
        self.machine = machine
        self.stream: H2Stream | None = None
        self.stalls = False
        self.share = 1
        self.taken = 0
        self.status = 0
        self.headers: tuple[tuple[bytes, bytes], ...] = ()
        self.data = bytearray()
        self.has_ended = False
        self.reset: int | None = None
        self.windows = 0

    def answered(self, status, headers) -> None:
        self.status, self.headers = status, headers

    def data_received(self, data) -> int:
        self.data += data
        taken = 0 if self.stalls else len(data) // self.share
        self.taken += taken
        return taken

    def end_received(self) -> None:
        self.has_ended = True

    def reset_received(self, code) -> None:
        self.reset = code

    def window_opened(self) -> None:
        self.windows += 1


class Connection:
    """A connection's owner that answers every request with `status`."""

    def __init__(self, status: int | None = 200, *, stalls: bool = False) -> None:
        self.machine: H2Machine
        self.status = status
        self.stalls = stalls
        self.requests: list[tuple[H2Stream, bytes, Recorder]] = []
        self.said: list[str] = []
        self.windows = 0

    def stream_requested(self, stream: H2Stream, method: bytes) -> StreamHandler:
        recorder = Recorder(self.machine)
        recorder.stream = stream
        recorder.stalls = self.stalls
        self.requests.append((stream, method, recorder))
        if self.status is not None:
            self.machine.answer(stream, self.status)
        return recorder

    def window_opened(self) -> None:
        self.windows += 1

    def settings_received(self) -> None:
        self.said.append("settings")

    def going_away(self, code, reason) -> None:
        self.said.append(f"going away {code} {reason}")

    def drain_confirmed(self) -> None:
        self.said.append("drained")


class Pair:
    """Our machine, and an `h2` connection in the other role."""

    def __init__(self, role, *, size: int = 1 << 20, limits: H2Limits | None = None, **options):
        self.connection = Connection(**options)
        self.machine = H2Machine(role, self.connection, now=0.0, limits=limits)
        self.connection.machine = self.machine
        config = h2.config.H2Configuration(
            client_side=role == "server", validate_outbound_headers=False, header_encoding="utf-8"
        )
        self.peer = h2.connection.H2Connection(config)
        self.size = size
        self.events: list[h2.events.Event] = []
        self.peer.initiate_connection()
        self.exchange()

    def exchange(self) -> None:
        """Carry octets both ways, in pieces, until nobody has anything to say."""
        while True:
            ours = bytes(self.machine.output)
            self.machine.output.clear()
            for at in range(0, len(ours), self.size):
                self.events += self.peer.receive_data(ours[at : at + self.size])
            theirs = self.peer.data_to_send()
            for at in range(0, len(theirs), self.size):
                self.machine.receive(theirs[at : at + self.size], 0.0)
            if not (ours or theirs):
                return

    def seen(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]

    def open(self) -> tuple[H2Stream, Recorder]:
        recorder = Recorder(self.machine)
        stream = recorder.stream = self.machine.open_stream(recorder)
        return stream, recorder

    def open_answered(self) -> tuple[H2Stream, Recorder]:
        stream, recorder = self.open()
        self.exchange()
        self.peer.send_headers(stream.id, [(":status", "200"), ("date", "today")])
        self.exchange()
        return stream, recorder


@pytest.fixture(params=[1, 7, 1 << 20], ids=["octet by octet", "by sevens", "whole"])
def size(request) -> int:
    return request.param


def test_a_client_opens_a_tunnel_with_nothing_but_connect(size) -> None:
    pair = Pair("client", size=size)
    stream, recorder = pair.open_answered()
    (request,) = pair.seen(h2.events.RequestReceived)
    assert list(map(tuple, request.headers)) == CONNECT
    assert request.stream_ended is None
    assert (stream.id, recorder.status) == (1, 200)
    assert (b"date", b"today") in recorder.headers


def test_a_client_sends_and_receives_octets_and_both_ends(size) -> None:
    pair = Pair("client", size=size)
    stream, recorder = pair.open_answered()
    assert pair.machine.send_data(stream, memoryview(b"question")) == 8
    pair.machine.send_end(stream)
    pair.exchange()
    assert b"".join(e.data for e in pair.seen(h2.events.DataReceived)) == b"question"
    assert pair.seen(h2.events.StreamEnded)
    pair.peer.send_data(stream.id, b"answer", pad_length=5)
    pair.peer.send_data(stream.id, b"", end_stream=True, pad_length=3)
    pair.exchange()
    assert (bytes(recorder.data), recorder.has_ended) == (b"answer", True)
    assert not pair.machine.streams


def test_a_server_serves_a_tunnel_and_reads_huffman_headers(size) -> None:
    pair = Pair("server", size=size)
    for stream_id in (1, 3, 5):  # the later ones come from the dynamic table
        pair.peer.send_headers(stream_id, [*CONNECT, ("x-note", "Huffman coded, and indexed")])
        pair.exchange()
    assert [(s.id, m) for s, m, _ in pair.connection.requests] == [
        (1, b"CONNECT"),
        (3, b"CONNECT"),
        (5, b"CONNECT"),
    ]
    assert len(pair.seen(h2.events.ResponseReceived)) == 3
    stream, _, recorder = pair.connection.requests[0]
    pair.peer.send_data(1, b"up", end_stream=True)
    pair.machine.send_data(stream, memoryview(b"down"))
    pair.exchange()
    assert (bytes(recorder.data), recorder.has_ended) == (b"up", True)
    assert pair.seen(h2.events.DataReceived)[0].data == b"down"
    pair.machine.send_end(stream)
    pair.exchange()
    assert 1 not in pair.machine.streams


def test_a_header_block_in_continuation_frames_is_one_block(size) -> None:
    pair = Pair("server", size=size)
    encoder = pair.peer.encoder
    block = encoder.encode([*CONNECT, ("x-long", "v" * 300)], huffman=False)
    pieces = [block[:1], block[1:100], block[100:]]
    octets = b"\0\0\x01\x01\0\0\0\0\x01" + pieces[0]
    octets += b"\0\0\x63\x09\0\0\0\0\x01" + pieces[1]
    octets += len(pieces[2]).to_bytes(3, "big") + b"\x09\x04\0\0\0\x01" + pieces[2]
    for at in range(0, len(octets), size):
        pair.machine.receive(octets[at : at + size], 0.0)
    assert pair.connection.requests[0][1] == b"CONNECT"


@pytest.mark.parametrize(("status", "word"), [(503, b"upstream_unreachable"), (400, b"x" * 300)])
def test_a_refusal_carries_status_and_word(status, word) -> None:
    pair = Pair("server", status=None)
    pair.peer.send_headers(1, CONNECT)
    pair.exchange()
    stream = pair.connection.requests[0][0]
    pair.machine.answer(stream, status, ((b"x-tng-error", word),), ends=True)
    pair.exchange()
    (response,) = pair.seen(h2.events.ResponseReceived)
    headers = {str(n): str(v) for n, v in response.headers}
    assert (headers[":status"], headers["x-tng-error"]) == (str(status), word.decode())
    with pytest.raises(LocalProtocolError, match="answered twice"):
        pair.machine.answer(stream, 200)


def test_interim_answers_and_trailers_are_understood() -> None:
    pair = Pair("client")
    stream, recorder = pair.open()
    pair.exchange()
    pair.peer.send_headers(stream.id, [(":status", "103")])
    pair.exchange()
    assert recorder.status == 0
    pair.peer.send_headers(stream.id, [(":status", "200")])
    pair.peer.send_headers(stream.id, [("x-trailer", "1")], end_stream=True)
    pair.exchange()
    assert (recorder.status, recorder.has_ended) == (200, True)


def test_bulk_is_byte_exact_both_ways_within_small_windows() -> None:
    pair = Pair("client")
    stream, recorder = pair.open_answered()
    data = bytes(range(256)) * 4096  # 1 MiB through windows of 64 KiB
    sent, received, down = 0, bytearray(), 0
    while sent < len(data) or down < len(data):
        sent += pair.machine.send_data(stream, memoryview(data)[sent:])
        room = min(pair.peer.local_flow_control_window(stream.id), 16_384, len(data) - down)
        if room:
            pair.peer.send_data(stream.id, data[down : down + room])
            down += room
        pair.exchange()
        for event in pair.seen(h2.events.DataReceived):
            received += event.data
            pair.peer.acknowledge_received_data(event.flow_controlled_length, stream.id)
        pair.events.clear()
    assert bytes(received) == data
    assert bytes(recorder.data) == data


@pytest.mark.parametrize("size", [1, 65_535])
def test_the_last_octets_and_the_end_go_together(size: int) -> None:
    pair = Pair("client")
    stream, _ = pair.open_answered()
    assert pair.machine.send_data(stream, memoryview(bytes(size)), ends=True) == size
    assert not stream.can_send
    pair.exchange()
    data = pair.seen(h2.events.DataReceived)
    assert sum(len(event.data) for event in data) == size
    assert [event.stream_ended is not None for event in data] == [False] * (len(data) - 1) + [True]
    assert pair.machine.send_data(stream, memoryview(b"x")) == 0


def test_a_half_does_not_end_while_its_last_octets_wait() -> None:
    pair = Pair("client")
    stream, _ = pair.open_answered()
    assert pair.machine.send_data(stream, memoryview(bytes(65_536)), ends=True) == 65_535
    assert stream.can_send
    pair.exchange()
    assert not [event for event in pair.seen(h2.events.DataReceived) if event.stream_ended]


def test_a_stream_waits_for_its_window_and_for_the_queue() -> None:
    pair = Pair("client")
    stream, recorder = pair.open_answered()
    assert pair.machine.send_data(stream, memoryview(bytes(1 << 20))) == 65_535
    assert min(stream.send_window, pair.machine.connection_room) == 0
    pair.exchange()
    pair.peer.increment_flow_control_window(1000, stream.id)
    pair.exchange()
    assert recorder.windows == 1
    assert pair.machine.send_data(stream, memoryview(bytes(5000))) == 0  # the connection's is shut
    pair.peer.increment_flow_control_window(5_000_000)
    pair.exchange()
    assert pair.connection.windows == 1
    assert pair.machine.send_data(stream, memoryview(bytes(5000))) == 1000
    pair.peer.increment_flow_control_window(4_000_000, stream.id)
    pair.exchange()
    taken = pair.machine.send_data(stream, memoryview(bytes(4_000_000)))
    assert taken == 256 << 10  # what the queue admits


def test_settings_move_windows_and_limits_of_open_streams() -> None:
    pair = Pair("client")
    stream, recorder = pair.open_answered()
    code = h2.settings.SettingCodes
    pair.peer.update_settings(
        {code.INITIAL_WINDOW_SIZE: 100, code.MAX_CONCURRENT_STREAMS: 1, code.MAX_FRAME_SIZE: 20_000}
    )
    pair.exchange()
    assert pair.machine.peer.max_streams == 1
    assert not pair.machine.can_open
    with pytest.raises(LocalProtocolError):
        pair.machine.open_stream(NOBODY)
    assert pair.machine.send_data(stream, memoryview(bytes(500))) == 100
    pair.peer.update_settings({code.INITIAL_WINDOW_SIZE: 50})
    pair.exchange()
    assert stream.send_window == -50
    assert pair.machine.send_data(stream, memoryview(b"x")) == 0
    pair.peer.update_settings({code.INITIAL_WINDOW_SIZE: 60_000})
    pair.exchange()
    assert recorder.windows == 1
    assert pair.machine.send_data(stream, memoryview(bytes(59_900))) == 59_900
    pair.exchange()
    assert max(len(e.data) for e in pair.seen(h2.events.DataReceived)) == 20_000


def test_a_reader_that_stalls_bounds_its_own_stream_only() -> None:
    pair = Pair("server")
    for stream_id in (1, 3):
        pair.peer.send_headers(stream_id, CONNECT)
    pair.exchange()
    stalled, flowing = (recorder for _, _, recorder in pair.connection.requests)
    stalled.stalls = True
    while room := min(pair.peer.local_flow_control_window(1), 16_384):
        pair.peer.send_data(1, bytes(room))
        pair.exchange()
    assert len(stalled.data) == H2Limits().stream_window
    for _ in range(3000):
        pair.peer.send_data(3, bytes(16_384))
        if pair.peer.local_flow_control_window(3) < 16_384:
            pair.exchange()
    pair.exchange()
    assert len(flowing.data) == 3000 * 16_384
    assert flowing.stream.window == H2Limits().largest_stream_window
    pair.machine.consumed(stalled.stream, len(stalled.data))
    pair.exchange()
    assert pair.peer.local_flow_control_window(1) == 2 * H2Limits().stream_window


@pytest.mark.parametrize("share", [1, 2, 3])
def test_what_a_reader_takes_at_once_and_what_it_takes_later_open_the_same_window(
    share, size
) -> None:
    pair = Pair("server", size=size)
    pair.peer.send_headers(1, CONNECT)
    pair.exchange()
    ((stream, _, recorder),) = pair.connection.requests
    recorder.share = share
    for _ in range(8):
        pair.peer.send_data(1, bytes(16_384))
        pair.exchange()
    assert stream.held == len(recorder.data) - recorder.taken
    pair.machine.consumed(stream, stream.held)
    pair.exchange()
    assert stream.held == 0
    assert pair.peer.local_flow_control_window(1) == 2 * H2Limits().stream_window


def test_what_nobody_reads_bounds_the_connection() -> None:
    limits = H2Limits(connection_window=200_000, held_octets=300_000, stream_window=100_000)
    pair = Pair("server", limits=limits)
    for number in range(20):
        pair.peer.send_headers(2 * number + 1, CONNECT)
        pair.exchange()
        pair.connection.requests[-1][2].stalls = True
        while room := min(pair.peer.local_flow_control_window(2 * number + 1), 10_000):
            pair.peer.send_data(2 * number + 1, bytes(room))
            pair.exchange()
    held = sum(len(recorder.data) for _, _, recorder in pair.connection.requests)
    assert 300_000 < held <= 500_000
    for stream, _, recorder in pair.connection.requests:
        pair.machine.consumed(stream, len(recorder.data))
    pair.exchange()
    assert pair.peer.outbound_flow_control_window >= 100_000


def test_resets_pass_both_ways_and_late_octets_are_ignored() -> None:
    pair = Pair("server")
    for stream_id in (1, 3):
        pair.peer.send_headers(stream_id, CONNECT)
    pair.exchange()
    pair.peer.reset_stream(1, error_code=h2.errors.ErrorCodes.CANCEL)
    pair.exchange()
    assert pair.connection.requests[0][2].reset == H2Code.CANCEL
    other, _, recorder = pair.connection.requests[1]
    pair.peer.send_data(3, b"under way")
    late = pair.peer.data_to_send()
    pair.machine.reset(other)
    pair.machine.reset(other)  # once is enough
    pair.machine.receive(late, 0.0)
    pair.exchange()
    assert len(pair.seen(h2.events.StreamReset)) == 1
    assert not recorder.data
    assert pair.machine.send_data(other, memoryview(b"x")) == 0


def test_more_streams_than_admitted_are_refused() -> None:
    pair = Pair("server", limits=H2Limits(streams=2))
    pair.peer.remote_settings.acknowledge()
    pair.peer.remote_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = 100
    pair.peer.remote_settings.acknowledge()
    for stream_id in (1, 3, 5):
        pair.peer.send_headers(stream_id, CONNECT)
    pair.exchange()
    (reset,) = pair.seen(h2.events.StreamReset)
    assert (reset.stream_id, reset.error_code) == (5, H2Code.REFUSED_STREAM)


def test_a_server_drains_in_two_steps() -> None:
    pair = Pair("server")
    pair.peer.send_headers(1, CONNECT)
    pair.exchange()
    pair.peer.send_headers(3, CONNECT)  # under way when we begin to drain
    under_way = pair.peer.data_to_send()
    pair.machine.drain()
    pair.machine.drain()
    first = bytes(pair.machine.output)
    pair.machine.output.clear()
    pair.machine.receive(under_way, 0.0)
    assert len(pair.connection.requests) == 2
    assert first[3] == 7
    pair.machine.receive(b"\0\0\x08\x06\x01\0\0\0\0draining", 0.0)
    assert pair.connection.said[-1] == "drained"
    pair.machine.output.clear()
    pair.machine.receive(frame(1, 4, 5, REQUEST), 0.0)
    assert len(pair.connection.requests) == 2
    assert bytes(pair.machine.output) == frame(3, 0, 5, b"\0\0\0\x07")  # REFUSED_STREAM
    assert pair.machine.is_leaving


def test_a_client_hears_that_the_peer_leaves() -> None:
    pair = Pair("client")
    pair.open_answered()
    _, second = pair.open()
    pair.machine.receive(b"\0\0\x0b\x07\0\0\0\0\0\0\0\0\x01\0\0\0\x00bye", 0.0)
    assert pair.connection.said[-1] == "going away 0 NO_ERROR 'bye'"
    assert second.reset == H2Code.REFUSED_STREAM
    assert not pair.machine.can_open
    assert len(pair.machine.streams) == 1
    pair.machine.drain()
    pair.machine.close(H2Code.NO_ERROR, "done")
    assert pair.machine.is_closed
    assert not pair.machine.streams


def test_pings_are_answered() -> None:
    pair = Pair("server")
    pair.peer.ping(b"12345678")
    pair.exchange()
    assert pair.seen(h2.events.PingAckReceived)[0].ping_data == b"12345678"


# --- hostile peers ---------------------------------------------------------------------------


def frame(kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"") -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big")
    return head + payload


REQUEST = b"\x02\x07CONNECT\x01\x0ctng.internal"
OPEN = frame(1, 4, 1, REQUEST)

BROKEN: dict[str, tuple[bytes, H2Code]] = {
    "data on an idle stream": (frame(0, 0, 1, b"x"), H2Code.PROTOCOL_ERROR),
    "data on stream 0": (frame(0, 0, 0, b"x"), H2Code.PROTOCOL_ERROR),
    "data on an even stream": (OPEN + frame(0, 0, 2, b"x"), H2Code.PROTOCOL_ERROR),
    "padding beyond the payload": (OPEN + frame(0, 8, 1, b"\x05abc"), H2Code.PROTOCOL_ERROR),
    "no pad length": (OPEN + frame(0, 8, 1), H2Code.FRAME_SIZE_ERROR),
    "headers on an even stream": (frame(1, 4, 2, REQUEST), H2Code.PROTOCOL_ERROR),
    "headers on stream 0": (frame(1, 4, 0, REQUEST), H2Code.PROTOCOL_ERROR),
    "open headers on stream 0": (frame(1, 0, 0, REQUEST), H2Code.PROTOCOL_ERROR),
    "padded headers without length": (frame(1, 12, 1), H2Code.PROTOCOL_ERROR),
    "headers with priority cut short": (frame(1, 0x24, 1, b"\0\0"), H2Code.PROTOCOL_ERROR),
    "headers that are not HPACK": (frame(1, 4, 1, b"\xff\xff\xff\xff"), H2Code.COMPRESSION_ERROR),
    "a bomb of headers": (
        frame(1, 4, 1, b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4000) + frame(1, 4, 3, b"\xbe" * 1000),
        H2Code.ENHANCE_YOUR_CALM,
    ),
    "a block interrupted": (
        frame(1, 0, 1, REQUEST) + frame(6, 0, 0, bytes(8)),
        H2Code.PROTOCOL_ERROR,
    ),
    "a block continued elsewhere": (
        frame(1, 0, 1, REQUEST) + frame(9, 4, 3),
        H2Code.PROTOCOL_ERROR,
    ),
    "nothing to continue": (frame(9, 4, 1), H2Code.PROTOCOL_ERROR),
    "endless continuation": (frame(1, 0, 1) + frame(9, 0, 1) * 9, H2Code.ENHANCE_YOUR_CALM),
    "a large block in pieces": (
        frame(1, 0, 1, bytes(16_000)) + frame(9, 0, 1, bytes(16_000)),
        H2Code.ENHANCE_YOUR_CALM,
    ),
    "a large header frame": (frame(1, 4, 1, bytes(17_000)), H2Code.ENHANCE_YOUR_CALM),
    "a frame beyond the limit": (b"\x04\0\x01\0\0\0\0\0\x01", H2Code.FRAME_SIZE_ERROR),
    "a push": (frame(5, 4, 1, bytes(4)), H2Code.PROTOCOL_ERROR),
    "a short reset": (OPEN + frame(3, 0, 1, b"abc"), H2Code.FRAME_SIZE_ERROR),
    "a reset of an idle stream": (frame(3, 0, 1, bytes(4)), H2Code.PROTOCOL_ERROR),
    "settings on a stream": (frame(4, 0, 1), H2Code.PROTOCOL_ERROR),
    "settings of 5 octets": (frame(4, 0, 0, bytes(5)), H2Code.FRAME_SIZE_ERROR),
    "an acknowledgement with settings": (frame(4, 1, 0, bytes(6)), H2Code.FRAME_SIZE_ERROR),
    "push of 2": (frame(4, 0, 0, b"\0\x02\0\0\0\x02"), H2Code.PROTOCOL_ERROR),
    "frames of 1 octet": (frame(4, 0, 0, b"\0\x05\0\0\0\x01"), H2Code.PROTOCOL_ERROR),
    "a window of 2**31": (frame(4, 0, 0, b"\0\x04\x80\0\0\0"), H2Code.FLOW_CONTROL_ERROR),
    "a stream's window beyond all": (
        OPEN + frame(8, 0, 1, b"\x7f\0\0\0") + frame(4, 0, 0, b"\0\x04\x7f\xff\xff\xff"),
        H2Code.FLOW_CONTROL_ERROR,
    ),
    "no increment": (frame(8, 0, 0, bytes(4)), H2Code.PROTOCOL_ERROR),
    "an increment of 3 octets": (frame(8, 0, 0, bytes(3)), H2Code.FRAME_SIZE_ERROR),
    "a window beyond all": (frame(8, 0, 0, b"\x7f\xff\xff\xff"), H2Code.FLOW_CONTROL_ERROR),
    "an increment for an idle stream": (frame(8, 0, 7, b"\0\0\0\1"), H2Code.PROTOCOL_ERROR),
    "a ping on a stream": (frame(6, 0, 1, bytes(8)), H2Code.PROTOCOL_ERROR),
    "a ping of 7 octets": (frame(6, 0, 0, bytes(7)), H2Code.FRAME_SIZE_ERROR),
    "a farewell on a stream": (frame(7, 0, 1, bytes(8)), H2Code.PROTOCOL_ERROR),
    "a short farewell": (frame(7, 0, 0, bytes(7)), H2Code.PROTOCOL_ERROR),
    "a priority of stream 0": (frame(2, 0, 0, bytes(5)), H2Code.PROTOCOL_ERROR),
    "a flood of pings": (frame(6, 0, 0, bytes(8)) * 10_001, H2Code.ENHANCE_YOUR_CALM),
    "a flood of settings": (frame(4) * 501, H2Code.ENHANCE_YOUR_CALM),
    "a flood of empty data": (OPEN + frame(0, 0, 1) * 10_001, H2Code.ENHANCE_YOUR_CALM),
    "a flood of unknown frames": (frame(99, 0, 0, b"?") * 10_001, H2Code.ENHANCE_YOUR_CALM),
    "a flood of opened and reset streams": (
        b"".join(frame(1, 4, n, REQUEST) + frame(3, 0, n, bytes(4)) for n in range(1, 20_005, 2)),
        H2Code.ENHANCE_YOUR_CALM,
    ),
}

GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4)


def make_server(**options) -> tuple[H2Machine, Connection]:
    connection = Connection(**options)
    machine = connection.machine = H2Machine("server", connection, now=0.0)
    machine.output.clear()
    return machine, connection


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_the_connection_is_refused_with_its_code(name) -> None:
    octets, code = BROKEN[name]
    machine, _ = make_server()
    machine.receive(GREETING, 0.0)
    with pytest.raises(RemoteProtocolError, match="HTTP/2 peer "):
        machine.receive(octets, 0.0)
    assert machine.is_closed
    goaway = machine.output[machine.output.rindex(b"\x07\0\0\0\0\0") :]
    assert int.from_bytes(goaway[10:14], "big") == code
    said = len(machine.output)
    machine.receive(GREETING, 0.0)  # nothing is taken in any more
    assert len(machine.output) == said


@pytest.mark.parametrize(
    "octets", [b"GET / HTTP/1.1\r\n", GREETING[:24] + OPEN, GREETING[:24] + frame(4, 1)]
)
def test_another_beginning_is_refused(octets) -> None:
    machine, _ = make_server()
    with pytest.raises(RemoteProtocolError, match="does not begin with"):
        machine.receive(octets, 0.0)


BROKEN_STREAMS: dict[str, tuple[bytes, H2Code]] = {
    "no method": (frame(1, 4, 1, b"\x01\x01x"), H2Code.PROTOCOL_ERROR),
    "two methods": (frame(1, 4, 1, REQUEST + b"\x82"), H2Code.PROTOCOL_ERROR),
    "a second request": (OPEN + OPEN, H2Code.PROTOCOL_ERROR),
    "data after the end": (OPEN + frame(0, 1, 1) + frame(0, 0, 1, b"x"), H2Code.STREAM_CLOSED),
    "headers after the end": (OPEN + frame(0, 1, 1) + OPEN, H2Code.STREAM_CLOSED),
    "no increment": (OPEN + frame(8, 0, 1, bytes(4)), H2Code.PROTOCOL_ERROR),
    "a window beyond all": (OPEN + frame(8, 0, 1, b"\x7f\xff\xff\xff"), H2Code.FLOW_CONTROL_ERROR),
    "more data than the window admits": (
        OPEN + frame(0, 0, 1, bytes(200_000)) + frame(0, 0, 1, bytes(200_000)),
        H2Code.FLOW_CONTROL_ERROR,
    ),
    "data of a stream that was skipped": (
        frame(1, 4, 5, REQUEST) + frame(0, 0, 3, b"x"),
        H2Code.STREAM_CLOSED,
    ),
    "headers of a stream that was skipped": (
        frame(1, 4, 5, REQUEST) + frame(1, 4, 3, REQUEST),
        H2Code.STREAM_CLOSED,
    ),
}


@pytest.mark.parametrize("name", BROKEN_STREAMS)
def test_what_breaks_a_stream_ends_that_stream_alone(name) -> None:
    octets, code = BROKEN_STREAMS[name]
    machine, _ = make_server(stalls=True)
    machine.receive(GREETING, 0.0)
    machine.receive(octets, 0.0)
    assert b"\x04\x03\0\0\0\0" in machine.output
    reset = machine.output[machine.output.index(b"\x04\x03\0\0\0\0") :]
    assert int.from_bytes(reset[7:11], "big") == code
    assert not machine.is_closed
    machine.receive(frame(1, 4, 99, REQUEST), 0.0)
    assert 99 in machine.streams


def make_client() -> tuple[H2Machine, Recorder]:
    connection = Connection()
    machine = connection.machine = H2Machine("client", connection, now=0.0)
    machine.receive(frame(4), 0.0)
    recorder = Recorder(machine)
    recorder.stream = machine.open_stream(recorder)
    machine.output.clear()
    return machine, recorder


@pytest.mark.parametrize(
    "octets",
    [
        frame(0, 0, 1, b"x"),  # data before the answer
        frame(1, 4, 1, b"\x01\x01x"),  # no status
        frame(1, 4, 1, b"\x88\x88"),  # two
        frame(1, 4, 1, b"\x08\x03abc"),  # no number
        frame(1, 5, 1, b"\x08\x03100"),  # an interim answer that ends
        frame(1, 4, 1, b"\x88") + frame(1, 4, 1, b"\x00\x01a\x01b"),  # trailers that do not end
    ],
)
def test_a_server_that_answers_wrongly_loses_the_stream(octets) -> None:
    machine, recorder = make_client()
    machine.receive(octets, 0.0)
    assert recorder.reset == H2Code.PROTOCOL_ERROR
    assert not machine.streams
    machine.receive(frame(1, 4, 1, b"\x88") + frame(0, 1, 1, b"late"), 0.0)
    machine.receive(frame(3, 0, 1, bytes(4)) + frame(8, 0, 1, b"\0\0\0\1"), 0.0)


@pytest.mark.parametrize(
    "octets",
    [
        frame(1, 4, 3, b"\x88"),  # an answer nobody asked for
        frame(1, 4, 2, b"\x88"),
        frame(4, 0, 0, b"\0\x02\0\0\0\x01"),  # a server that allows pushes
    ],
)
def test_a_server_that_breaks_the_protocol_loses_the_connection(octets) -> None:
    machine, _ = make_client()
    with pytest.raises(RemoteProtocolError):
        machine.receive(octets, 0.0)


def test_a_peer_that_asks_but_does_not_read_is_dropped() -> None:
    machine, _ = make_server()
    machine.receive(GREETING, 0.0)

    def ask() -> None:
        for second in range(100):
            machine.receive(frame(6, 0, 0, bytes(8)) * 2000, float(second))

    with pytest.raises(RemoteProtocolError, match="does not read"):
        ask()


def test_a_peer_that_is_moderate_stays() -> None:
    machine, _ = make_server()
    machine.receive(GREETING, 0.0)
    for second in range(20):
        machine.receive(frame(6, 0, 0, bytes(8)) * 1500, float(second))
        machine.receive(frame(99, 0, 0, b"") + frame(2, 0, 3, bytes(5)), float(second))
        machine.output.clear()
    assert not machine.is_closed


def test_streams_that_were_reset_long_ago_are_told_again() -> None:
    machine, connection = make_server()
    machine.receive(GREETING, 0.0)
    for number in range(1, 2005, 2):
        machine.receive(frame(1, 4, number, REQUEST), 0.0)
        machine.reset(connection.requests[-1][0])
    machine.output.clear()
    machine.receive(frame(0, 1, 2003, b"late"), 0.0)
    assert not machine.output
    machine.receive(frame(0, 0, 1, b"much too late"), 0.0)
    assert bytes(machine.output) == frame(3, 0, 1, b"\0\0\0\x05")
