"""Requests of HTTP/2 connections, and clients that mean no good."""

from __future__ import annotations

import concurrent.futures
import contextlib
import socket
import struct
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stage.h2_client import Answer, Http2Client
from tng.dataplane.http2_server import LIMITS, Http2Connection
from tng.dataplane.http2_stream import RequestStream
from tng.dataplane.http_server import Request, ResponseWriter, ServerConnection
from tng.dataplane.plain import PlainEnd
from tng.dataplane.task import Wait
from tng.errors import LocalProtocolError, NetError, RemoteProtocolError, TngError
from tng.wire.http1_head import Fields

CALM = 11
PROTOCOL_ERROR = 1
CANCEL = 8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return (
        struct.pack(">HBBBL", len(payload) >> 8, len(payload) & 255, kind, flags, stream) + payload
    )


class Served:
    """A connection, the octets of its client, and what was asked."""

    def __init__(self, far: socket.socket, **options) -> None:
        self.far = far
        self.client = Http2Client(**options)
        self.asked: list[tuple[bytes, bytes, Fields]] = []
        self.errors: list[TngError] = []
        self.connection: Http2Connection | None = None
        self.streams: list[RequestStream] = []
        self.has_ended = False

    def flush(self) -> None:
        self.far.sendall(self.client.h2.data_to_send())

    def until(self, condition: Callable[[], bool]) -> None:
        self.flush()
        while not condition() and not self.has_ended:
            try:
                data = self.far.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            self.has_ended = not data
            self.client.heard(data)
            if not self.has_ended:
                self.flush()

    def greeted(self) -> None:
        """Wait for the server's settings."""
        self.until(lambda: self.client.h2.remote_settings.max_concurrent_streams == 100)

    def answer(self, stream: int) -> Answer:
        self.until(lambda: self.client.is_over(stream))
        return self.client.answers[stream]

    def goaway(self) -> int | None:
        self.until(lambda: self.client.goaway is not None)
        return self.client.goaway


@pytest.fixture
def served(reactor, run, sockets) -> Iterator[Callable[..., Served]]:
    """Called with what answers a request: a connection that is served."""
    futures = []

    def make(
        answer=None, *, first_timeout_s=5.0, idle_timeout_s=5.0, limits=LIMITS, **options
    ) -> Served:
        near, far = sockets()
        found = Served(far, **options)

        async def serve(stream: RequestStream) -> None:
            found.streams.append(stream)
            connection = ServerConnection(reactor, stream)
            try:
                while (request := await connection.next_request()) is not None:
                    await (answer or echo)(found, stream, request)
            except TngError as error:
                found.errors.append(error)
                raise

        async def work() -> None:
            end = PlainEnd(reactor, near, "client")
            near_connection = Http2Connection(
                reactor,
                end,
                serve,
                first_timeout_s=first_timeout_s,
                idle_timeout_s=idle_timeout_s,
                limits=limits,
            )
            found.connection = near_connection
            await near_connection.run()

        futures.append((far, reactor.spawn_threadsafe(work(), "served")))
        return found

    yield make
    for far, future in futures:
        far.close()
        with contextlib.suppress(concurrent.futures.CancelledError):
            future.result(10)


async def echo(found: Served, stream: RequestStream, request: Request) -> None:
    body = b""
    while pieces := await request.body.read():
        body += b"".join(pieces)
    found.asked.append((request.head.target, body, request.body.trailers))
    writer = ResponseWriter(request, closes=False)
    octets = writer.start(200, [(b"x-a", b"b")]) + writer.data(body)
    await stream.send(octets + writer.end(request.body.trailers))


def test_requests_and_answers_have_their_bodies_and_trailers(served) -> None:
    line = served()
    stream = line.client.ask(b"POST", b"/a", ends=False)
    line.client.h2.send_data(stream, b"abc")
    line.client.h2.send_data(stream, b"")
    line.client.h2.send_data(stream, b"de")
    line.client.h2.send_headers(stream, [(b"x-sum", b"1")], end_stream=True)
    got = line.answer(stream)
    assert (got.status, bytes(got.body), got.trailers) == (200, b"abcde", [(b"x-sum", b"1")])
    assert line.asked == [(b"/a", b"abcde", [(b"x-sum", b"1")])]
    assert line.answer(line.client.ask()).fields == [(b"x-a", b"b")]


def test_a_client_that_waits_to_be_asked_for_the_body_is_asked(served) -> None:
    line = served()
    stream = line.client.ask(b"POST", more=[(b"expect", b"100-continue")], ends=False)
    line.until(lambda: line.client.answers[stream].interim == [100])
    line.client.h2.send_data(stream, b"abc", end_stream=True)
    assert line.answer(stream).body == b"abc"


@pytest.mark.parametrize("window", [1, 7, 1000])
def test_an_answer_waits_for_the_clients_window(served, window: int) -> None:
    line = served(window=window)
    line.until(lambda: line.client.h2.local_settings.initial_window_size == window)
    stream = line.client.ask(b"POST", ends=False)
    body = bytes(range(256)) * (4 if window < 1000 else 400)
    line.client.h2.send_data(stream, body[:16384])
    line.greeted()
    for at in range(16384, len(body), 16384):
        line.client.h2.send_data(stream, body[at : at + 16384])
    line.client.h2.end_stream(stream)
    got = line.answer(stream)
    assert bytes(got.body) == body
    assert got.has_ended


def test_an_answer_to_head_has_no_body(served) -> None:
    line = served()
    got = line.answer(line.client.ask(b"HEAD"))
    assert (got.status, got.has_ended, got.body) == (200, True, b"")


def test_long_heads_are_continued(served) -> None:
    async def answer(found, stream, request) -> None:
        await stream.send(
            b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 40_000 + b"\r\nContent-Length: 0\r\n\r\n"
        )

    line = served(answer)
    line.client.h2.decoder.max_header_list_size = 1 << 20
    got = line.answer(line.client.ask())
    assert got.fields[0] == (b"x-a", b"a" * 40_000)
    assert got.has_ended


def test_a_stalled_reader_holds_what_its_window_holds_and_stops_nobody(
    served, reactor, run
) -> None:
    stalled: Wait[None] = Wait()

    async def answer(found, stream, request) -> None:
        if request.head.target == b"/stall":
            await stalled
        await echo(found, stream, request)

    line = served(answer)
    stream = line.client.ask(b"POST", b"/stall", ends=False)
    line.greeted()
    sent = 0
    while (room := line.client.h2.local_flow_control_window(stream)) > 0:
        size = min(room, 16384)
        line.client.h2.send_data(stream, bytes(size))
        sent += size
        line.flush()
    assert sent <= LIMITS.stream_window
    other = line.client.ask(b"POST", ends=False)
    line.client.h2.send_data(other, b"abc", end_stream=True)
    assert line.answer(other).body == b"abc"
    assert line.client.h2.local_flow_control_window(stream) == 0

    async def go() -> None:
        stalled.set(None)

    run(reactor, go)
    line.client.h2.end_stream(stream)
    assert len(line.answer(stream).body) == sent


def test_a_client_that_reads_nothing_makes_us_keep_no_more_than_its_window(served) -> None:
    taken: list[int] = []

    async def answer(found, stream, request) -> None:
        writer = ResponseWriter(request, closes=False)
        await stream.send(writer.start(200, []))
        while True:
            await stream.send(writer.data(bytes(65536)))
            taken.append(65536)

    line = served(answer, reads=False)
    stream = line.client.ask()
    line.until(lambda: len(line.client.answers[stream].body) == 65535)
    line.client.h2.reset_stream(stream)
    line.flush()
    assert sum(taken) <= 65536


@pytest.mark.parametrize(
    ("body", "length"), [(b"abc", b"2"), (b"abc", b"4"), (b"", b"1"), (b"a" * 70_000, b"69999")]
)
def test_a_body_of_another_length_than_announced_is_not_served(served, body, length) -> None:
    line = served()
    stream = line.client.ask(b"POST", more=[(b"content-length", length)], ends=False)
    line.flush()
    rest = body
    while rest:
        line.far.sendall(frame(0, 0, stream, rest[:16384]))
        rest = rest[16384:]
    line.far.sendall(frame(0, 1, stream))
    got = line.answer(stream)
    assert got.reset in (PROTOCOL_ERROR, 0, CANCEL)
    if len(body) < int(length):
        assert got.reset == PROTOCOL_ERROR
        assert not line.asked


@pytest.mark.parametrize("field", [(b":path", b"/"), (b"host", b"h"), (b"X-A", b"b")])
def test_malformed_trailers_end_the_request(served, field) -> None:
    line = served()
    stream = line.client.ask(b"POST", ends=False)
    line.client.h2.send_data(stream, b"abc")
    line.flush()
    block = line.client.h2.encoder.encode([field], huffman=False)
    line.far.sendall(frame(1, 5, stream, block))
    assert line.answer(stream).reset == PROTOCOL_ERROR
    assert not line.asked
    assert line.answer(line.client.ask()).status == 200


def test_an_answer_before_the_end_of_the_request_ends_it_without_blame(served) -> None:
    async def answer(found, stream, request) -> None:
        await stream.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")

    line = served(answer)
    stream = line.client.ask(b"POST", ends=False)
    got = line.answer(stream)
    assert (got.status, got.body, got.has_ended) == (413, b"no", True)
    line.until(lambda: got.reset is not None)
    assert got.reset == 0


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"nonsense\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"a" * 70_000,
    ],
)
@pytest.mark.parametrize("shuts", [False, True])
def test_an_answer_that_is_cut_short_breaks_the_stream(served, octets: bytes, shuts: bool) -> None:
    async def answer(found, stream, request) -> None:
        if octets:
            await stream.send(octets)
        if shuts:
            stream.shut()
            stream.shut()
        stream.close()
        stream.abort()
        stream.close()

    line = served(answer)
    got = line.answer(line.client.ask())
    assert got.reset == CANCEL
    assert not got.has_ended


def test_an_answer_without_a_length_ends_when_it_is_shut(served) -> None:
    async def answer(found, stream, request) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\n\r\nabc")
        stream.shut()
        stream.shut()

    got = (line := served(answer)).answer(line.client.ask())
    assert (bytes(got.body), got.has_ended, got.reset) == (b"abc", True, None)


def test_a_closed_stream_and_a_complete_answer_take_nothing_more(served) -> None:
    found_errors: list[type[BaseException]] = []

    async def answer(found, stream, request) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        for act in (lambda: stream.write(memoryview(b"a")), stream.close):
            try:
                act()
            except LocalProtocolError as error:
                found_errors.append(type(error))
        for act in (
            lambda: stream.write(memoryview(b"a")),
            lambda: stream.read_into(memoryview(bytearray(1))),
        ):
            try:
                act()
            except NetError as error:
                found_errors.append(type(error))
        stream.shut()
        stream.broken("is not heard of any more")

    line = served(answer)
    assert line.answer(line.client.ask()).status == 200
    assert found_errors == [LocalProtocolError, NetError, NetError]


@pytest.mark.parametrize("size", [1, 5, 12, 13, 100])
def test_a_body_in_chunks_is_the_same_for_readers_of_any_size(served, size: int) -> None:
    read = bytearray()

    async def by_hand(stream: RequestStream) -> None:
        while not read.endswith(b"0\r\n\r\n"):
            read.extend(await stream.receive(size))
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert await stream.receive(size) == b""

    line = served()
    line.greeted()
    line.connection._on_request = by_hand  # the reactor is idle: no request has come
    stream = line.client.ask(b"POST", ends=False)
    line.client.h2.send_data(stream, b"hello")
    line.client.h2.end_stream(stream)
    assert line.answer(stream).status == 200
    head, _, body = bytes(read).partition(b"\r\n\r\n")
    assert head.startswith(b"POST / HTTP/1.1\r\n")
    content = b"".join(body.split(b"\r\n")[1:-2:2])
    assert content == b"hello"


# --- clients that mean no good ---


def test_requests_beyond_the_limit_are_refused_until_others_have_ended(served) -> None:
    line = served()
    line.greeted()
    streams = [line.client.ask(b"POST", ends=False) for _ in range(100)]
    line.flush()
    block = line.client.h2.encoder.encode(
        [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"h")]
    )
    line.client.answers[201] = Answer()
    line.client.h2.get_next_available_stream_id()
    line.far.sendall(frame(1, 5, 201, block))
    line.far.sendall(frame(6, 0, 0, b"12345678"))
    for stream in streams:
        line.client.h2.end_stream(stream)
    for stream in streams:
        assert line.answer(stream).status == 200
    assert not [asked for asked in line.asked if asked[0] != b"/"]
    assert len(line.asked) == 100


def rapid_reset() -> Iterator[bytes]:
    block = b"\x82\x86\x84\x01\x01h"  # GET, http, /, authority h
    for stream in range(1, 10_001, 2):
        yield frame(1, 5, stream, block) + frame(3, 0, stream, struct.pack(">L", CANCEL))


def malformed() -> Iterator[bytes]:
    for stream in range(1, 10_001, 2):
        yield frame(1, 5, stream, b"\x82\x86")


FLOODS = {
    "resets": rapid_reset,
    "malformed": malformed,
    "pings": lambda: (frame(6, 0, 0, b"12345678") for _ in range(5000)),
    "settings": lambda: (frame(4, 0, 0) for _ in range(5000)),
    "empty data": lambda: iter(
        [frame(1, 4, 1, b"\x83\x86\x84\x01\x01h"), *[frame(0, 0, 1)] * 5000]
    ),
    "continuations": lambda: iter([frame(1, 0, 1, b"\x82"), *[frame(9, 0, 1, b"")] * 100]),
    "windows": lambda: (frame(8, 0, 0, b"\0\0\0\1") for _ in range(5000)),
    "priorities": lambda: (frame(2, 0, 1, b"\0\0\0\0\1") for _ in range(5000)),
    "large head": lambda: iter(
        [frame(1, 4, 1, b"\x00\x01a\x7f\xe9\x7e" + b"a" * 16_360)]  # one field of HPACK
    ),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_is_ended(served, flood: str) -> None:
    line = served()
    line.client.h2.data_to_send()
    line.client.h2.config.validate_inbound_headers = False
    answers = bytearray()
    line.far.sendall(PREFACE)
    try:
        for octets in FLOODS[flood]():
            line.far.sendall(octets)
    except OSError:
        pass
    try:
        while data := line.far.recv(1 << 16):
            answers += data
    except OSError:
        pass
    assert frame_codes(bytes(answers)) in ([CALM], [])
    assert line.connection is not None
    assert not line.connection.is_open


def frame_codes(octets: bytes) -> list[int]:
    """Codes of the GOAWAY frames among whole frames."""
    found, at = [], 0
    while at + 9 <= len(octets):
        length = int.from_bytes(octets[at : at + 3], "big")
        if octets[at + 3] == 7:
            found.append(int.from_bytes(octets[at + 13 : at + 17], "big"))
        at += 9 + length
    return found


def test_a_client_that_asks_nothing_is_let_go(served) -> None:
    line = served(first_timeout_s=0.02)
    assert line.goaway() == 0
    line.until(lambda: False)
    assert line.has_ended


def test_a_client_that_asks_nothing_more_is_let_go_and_one_that_waits_is_not(served) -> None:
    waits: Wait[None] = Wait()

    async def answer(found, stream, request) -> None:
        stream.reactor.call_later(0.1, waits.set, None)
        await waits
        await echo(found, stream, request)

    line = served(answer, first_timeout_s=0.05, idle_timeout_s=0.02)
    assert line.answer(line.client.ask()).status == 200
    assert line.goaway() == 0


def test_a_drained_connection_answers_what_was_asked(served, reactor, run) -> None:
    waits: Wait[None] = Wait()

    async def answer(found, stream, request) -> None:
        await waits
        await echo(found, stream, request)

    line = served(answer)
    stream = line.client.ask()
    line.greeted()

    async def drain() -> None:
        line.connection.let_idle_go()

    run(reactor, drain)
    assert line.answer(line.client.ask()).reset == 7  # REFUSED_STREAM
    assert line.client.goaway is None
    reactor.call(waits.set, None)
    assert line.answer(stream).status == 200
    assert line.goaway() == 0


def test_a_cancelled_connection_says_goodbye(served, reactor, run) -> None:
    line = served()
    line.greeted()

    async def cancel() -> None:
        for task in list(reactor.tasks):
            if task.name == "served":
                task.cancel()

    run(reactor, cancel)
    line.until(lambda: False)
    assert line.has_ended


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.integers(0, 10), st.integers(0, 255), st.integers(0, 5), st.binary(max_size=40)
        ),
        max_size=12,
    )
)
def test_garbage_ends_the_connection_or_is_answered(served, frames) -> None:
    line = served()
    line.far.sendall(PREFACE + b"".join(frame(*parts) for parts in frames))
    line.far.shutdown(socket.SHUT_WR)
    try:
        while line.far.recv(1 << 16):
            pass
    except OSError:
        pass
    assert all(isinstance(error, (NetError, RemoteProtocolError)) for error in line.errors)
