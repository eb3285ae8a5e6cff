"""Whatever a peer sends, however it is cut: the same events, or RemoteProtocolError."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tng.errors import RemoteProtocolError
from tng.wire.h2 import H2Machine
from tng.wire.h2_frames import H2Code, code_name
from tng.wire.h2_headers import HeaderDecoder, find_status, make_block
from tng.wire.h2_stream import NOBODY, H2Limits, H2Stream, StreamHandler

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
REQUEST = b"\x02\x07CONNECT\x01\x0ctng.internal"


class Log:
    """Owner of a connection and of all its streams: one list of what it was told."""

    def __init__(self, role: str) -> None:
        self.lines: list[list[object]] = []
        self.machine = H2Machine(role, self, now=0.0, limits=H2Limits(stream_window=70_000))
        if role == "client":
            for _ in range(3):
                self.machine.open_stream(OneLog(self, 2 * _ + 1))

    def stream_requested(self, stream: H2Stream, method: bytes) -> StreamHandler:
        self.lines.append(["requested", stream.id, method])
        self.machine.answer(stream, 200)
        return OneLog(self, stream.id, stream)

    def window_opened(self) -> None:
        self.lines.append(["window"])

    def settings_received(self) -> None:
        self.lines.append(["settings"])

    def going_away(self, code, reason) -> None:
        self.lines.append(["going away", code, reason])

    def drain_confirmed(self) -> None:
        self.lines.append(["drained"])


class OneLog:
    def __init__(self, log: Log, number: int, stream: H2Stream | None = None) -> None:
        self.log = log
        self.number = number
        self.stream = stream

    def answered(self, status, headers) -> None:
        self.log.lines.append(["answered", self.number, status, headers])

    def data_received(self, data) -> int:
        assert len(data)
        lines = self.log.lines
        if lines and lines[-1][:2] == ["data", self.number]:
            lines[-1][2] += bytes(data)
        else:
            lines.append(["data", self.number, bytes(data)])
        return 0

    def end_received(self) -> None:
        self.log.lines.append(["end", self.number])

    def reset_received(self, code) -> None:
        self.log.lines.append(["reset", self.number, code])

    def window_opened(self) -> None:
        self.log.lines.append(["window", self.number])


def feed(role: str, pieces: list[bytes]) -> tuple[list[object], bytes, str]:
    log = Log(role)
    error = ""
    try:
        for piece in pieces:
            log.machine.receive(piece, 0.0)
    except RemoteProtocolError as caught:
        error = str(caught)
    return log.lines, bytes(log.machine.output), error


def build(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big")
    return head + payload


frames = st.builds(
    build,
    st.sampled_from([0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 77]),
    st.sampled_from([0, 1, 4, 5, 8, 9, 12, 13, 0x24, 0x25, 255]),
    st.sampled_from([0, 1, 1, 1, 3, 3, 5, 2, 2**31 + 1, 2**31 - 1]),
    st.one_of(
        st.sampled_from([REQUEST, b"\x88", b"", bytes(4), bytes(8), b"\0\0\0\x09", b"\x03abcdef"]),
        st.binary(max_size=40),
    ),
)
streams_of_frames = st.lists(frames, max_size=12).map(
    lambda many: build(4, 0, 0, b"") + build(1, 4, 1, REQUEST) + b"".join(many)
)
roles = st.sampled_from(["client", "server"])


def start(role: str, octets: bytes) -> bytes:
    return PREFACE + octets if role == "server" else octets


@given(roles, streams_of_frames, st.lists(st.integers(0, 400), max_size=6))
def test_any_split_gives_the_same_events(role, octets, cuts) -> None:
    octets = start(role, octets)
    edges = [0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]
    pieces = [octets[a:b] for a, b in itertools.pairwise(edges)]
    whole = feed(role, [octets])
    assert feed(role, pieces) == whole
    assert feed(role, [octets[at : at + 1] for at in range(len(octets))]) == whole


@given(roles, st.binary(max_size=200))
def test_garbage_gives_events_or_remote_protocol_error(role, octets) -> None:
    feed(role, [octets])
    feed(role, [start(role, octets)])
    feed(role, [start(role, build(4, 0, 0, b"") + octets)])


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_header_blocks_give_fields_or_remote_protocol_error(blocks) -> None:
    decoder = HeaderDecoder()
    try:
        for block in blocks:
            for name, value in decoder.decode(block):
                assert isinstance(name, bytes)
                assert isinstance(value, bytes)
    except RemoteProtocolError:
        pass


@given(
    st.integers(100, 599),
    st.lists(st.tuples(st.binary(min_size=1, max_size=9), st.binary(max_size=400)), max_size=4),
)
def test_our_blocks_mean_what_they_say(status, fields) -> None:
    decoder = HeaderDecoder()
    for _ in range(2):
        headers = decoder.decode(make_block(status, tuple(fields)))
        assert find_status(headers[:1]) == status
        assert list(headers[1:]) == fields


def test_a_block_means_the_same_until_the_dynamic_table_changes() -> None:
    decoder = HeaderDecoder()
    assert decoder.decode(REQUEST) is decoder.decode(REQUEST)
    decoder.decode(b"\x40\x01a\x01b")
    assert decoder.decode(b"\xbe") == ((b"a", b"b"),)
    decoder.decode(b"\x40\x01c\x01d")
    assert decoder.decode(b"\xbe") == ((b"c", b"d"),)
    assert decoder.decode(b"\x20\x88") == ((b":status", b"200"),)  # the table shrinks to nothing
    for number in range(40):
        assert decoder.decode(make_block(200 + number))


def test_codes_have_names_and_unknown_ones_stay_numbers() -> None:
    assert code_name(H2Code.CANCEL) == "CANCEL"
    assert code_name(0x77) == "0x77"


def test_nobody_listens() -> None:
    NOBODY.answered(200, ())
    NOBODY.data_received(memoryview(b"x"))
    NOBODY.end_received()
    NOBODY.reset_received(0)
    NOBODY.window_opened()
