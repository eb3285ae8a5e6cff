"""Requests of one HTTP/1 connection, however they arrive, and the framing of their responses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.dataplane import http_server
from tng.dataplane.http_server import (
    ClientLeftError,
    IncomingBody,
    Request,
    ResponseWriter,
    ServerConnection,
)
from tng.dataplane.plain import PlainEnd
from tng.errors import NetError, RemoteProtocolError, RequestRejectedError
from tng.wire.http1_body import request_body
from tng.wire.http1_head import Fields, RequestHead, parse_request_head

GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
SIZED = b"POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n"
)


async def served(connection: ServerConnection) -> list[tuple[bytes, bytes, Fields]]:
    """Target, body and trailers of every request until the connection ends."""
    found = []
    while (request := await connection.next_request()) is not None:
        body = b""
        while pieces := await request.body.read():
            body += b"".join(pieces)
        found.append((request.head.target, body, request.body.trailers))
    return found


def serving(reactor, run, near, **limits):
    async def work():
        end = PlainEnd(reactor, near, "client")
        try:
            return await served(ServerConnection(reactor, end, **limits))
        finally:
            end.abort()

    return lambda: run(reactor, work)


@pytest.mark.parametrize("size", [1, 2, 7, 64, 10_000])
def test_requests_are_the_same_however_they_are_cut(reactor, run, sockets, size: int) -> None:
    near, far = sockets()
    octets = GET + SIZED + CHUNKED + GET

    def say() -> None:
        for at in range(0, len(octets), size):
            far.sendall(octets[at : at + size])
        far.shutdown(1)

    import threading

    thread = threading.Thread(target=say)
    thread.start()
    found = serving(reactor, run, near)()
    thread.join()
    assert found == [
        (b"/a", b"", []),
        (b"/b", b"hello", []),
        (b"/c", b"abcde", [(b"x-sum", b"1")]),
        (b"/a", b"", []),
    ]


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000, 431),
        (CHUNKED.replace(b"3\r\n", b"x\r\n"), 400),
    ],
)
def test_what_is_no_request_is_refused_with_its_status(
    reactor, run, sockets, octets: bytes, status: int
) -> None:
    near, far = sockets()
    far.sendall(octets)
    with pytest.raises(RequestRejectedError) as error:
        serving(reactor, run, near)()
    assert error.value.http_status == status


@pytest.mark.parametrize("octets", [SIZED[:-1], CHUNKED[:-3]])
def test_a_client_that_ends_in_its_body_has_left(reactor, run, sockets, octets: bytes) -> None:
    near, far = sockets()
    far.sendall(octets)
    far.shutdown(1)
    with pytest.raises(ClientLeftError):
        serving(reactor, run, near)()


def test_a_client_that_ends_in_its_head_is_an_error_of_the_network(reactor, run, sockets) -> None:
    near, far = sockets()
    far.sendall(GET[:-4])
    far.shutdown(1)
    with pytest.raises(NetError):
        serving(reactor, run, near)()


def test_a_head_has_its_time_and_a_silent_client_its_own(reactor, run, sockets) -> None:
    near, far = sockets()
    far.sendall(GET[:10])
    with pytest.raises(RequestRejectedError) as error:
        serving(reactor, run, near, head_timeout_s=0.02)()
    assert error.value.http_status == 408
    near, far = sockets()
    assert serving(reactor, run, near, idle_timeout_s=0.02)() == []


def test_a_body_that_is_waited_for_is_asked_for_once(reactor, run, sockets) -> None:
    near, far = sockets()
    head, body = SIZED.split(b"\r\n\r\n")
    far.sendall(head + b"\r\nExpect: 100-Continue\r\n\r\n")

    async def work() -> bytes:
        end = PlainEnd(reactor, near, "client")
        request = await ServerConnection(reactor, end).next_request()
        assert request is not None
        assert request.body.read_nowait() == []
        reactor.soon(lambda: far.sendall(body[:2]))
        first = await request.body.read()
        reactor.soon(lambda: far.sendall(body[2:]))
        rest = await request.body.read()
        end.close()
        return b"".join(first + rest)

    assert run(reactor, work) == b"hello"
    answer = b""
    far.shutdown(1)
    while data := far.recv(100):
        answer += data
    assert answer == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_pieces_handed_back_are_the_next_ones() -> None:
    head = parse_request_head(SIZED.split(b"hello")[0])
    body = IncomingBody(None, request_body(head), [b"a", b"b"], expects_continue=False)
    pieces = body.read_nowait()
    body.hand_back(pieces[1:])
    assert body.has_unread
    assert not body.is_complete
    assert body.read_nowait() == [b"b"]
    assert not body.has_unread


def test_draining_ends_a_waiting_connection_in_order(reactor, run, sockets) -> None:
    near, far = sockets()
    made: list[ServerConnection] = []

    async def wait() -> object:
        end = PlainEnd(reactor, near, "client")
        made.append(ServerConnection(reactor, end))
        return await made[0].next_request()

    reactor.spawn_threadsafe(wait(), "idle")
    while not made or made[0]._idle is None:
        pass
    reactor.call(made[0].let_idle_go)
    assert far.recv(1) == b""
    assert made[0].is_draining

    async def again() -> object:
        near, _ = sockets()
        connection = ServerConnection(reactor, PlainEnd(reactor, near, "client"))
        connection.let_idle_go()
        return await connection.next_request()

    assert run(reactor, again) is None


# -- responses -----------------------------------------------------------------------------


def request(
    method: bytes = b"GET", version: bytes = b"1.1", *, keeps_alive: bool = True
) -> Request:
    head = RequestHead(method, b"/", version, [], None, is_chunked=False)
    body = IncomingBody(None, request_body(head), [], expects_continue=False)
    return Request(head, body, keeps_alive=keeps_alive)


def written(writer: ResponseWriter, status: int, fields: Fields, *pieces: bytes) -> bytes:
    out = writer.start(status, fields)
    for piece in pieces:
        out += writer.data(piece)
    return out + writer.end([])


def test_a_body_without_length_comes_in_chunks() -> None:
    writer = ResponseWriter(request(), closes=False, more=[(b"x", b"1")])
    assert not writer.is_started
    assert written(writer, 200, [], b"ab", b"", b"c") == (
        b"HTTP/1.1 200 OK\r\nx: 1\r\ntransfer-encoding: chunked\r\n\r\n"
        b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    )
    assert writer.is_started
    assert not writer.closes


def test_trailers_go_with_chunks() -> None:
    writer = ResponseWriter(request(), closes=True)
    writer.start(200, [])
    assert writer.end([(b"x-sum", b"1")]) == b"0\r\nx-sum: 1\r\n\r\n"


def test_a_known_length_is_kept_to() -> None:
    length = [(b"content-length", b"3")]
    out = written(ResponseWriter(request(), closes=False), 200, length, b"ab", b"c")
    assert out.endswith(b"\r\n\r\nabc")
    for pieces in ([b"ab"], [b"abcd"]):
        with pytest.raises(RemoteProtocolError):
            written(ResponseWriter(request(), closes=False), 200, length, *pieces)
    with pytest.raises(RemoteProtocolError):
        ResponseWriter(request(), closes=False).start(200, [(b"content-length", b"x")])


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
def test_some_responses_have_no_body_whatever_they_say(method: bytes, status: int) -> None:
    writer = ResponseWriter(request(method), closes=False)
    out = written(writer, status, [(b"content-length", b"9")], b"ignored")
    assert out.endswith(b"content-length: 9\r\n\r\n")


def test_an_old_client_is_told_by_the_end_of_the_connection() -> None:
    writer = ResponseWriter(request(version=b"1.0"), closes=False)
    out = written(writer, 200, [], b"ab")
    assert out.endswith(b"connection: close\r\n\r\nab")
    assert writer.closes
    kept = ResponseWriter(request(version=b"1.0"), closes=False)
    out = written(kept, 200, [(b"content-length", b"2")], b"ab")
    assert b"connection: keep-alive\r\n" in out
    assert not kept.closes


@pytest.mark.parametrize(("closes", "keeps_alive"), [(True, True), (False, False)])
def test_a_last_response_says_so(closes: bool, keeps_alive: bool) -> None:
    writer = ResponseWriter(request(keeps_alive=keeps_alive), closes=closes)
    assert b"connection: close\r\n" in written(writer, 200, [])
    assert writer.closes


@given(st.binary(max_size=200))
def test_garbage_is_refused_in_words(garbage: bytes) -> None:
    end = http_server.find_head_end(garbage)
    if end >= 0:
        with pytest.raises(RequestRejectedError):
            parse_request_head(garbage[:end])


def test_a_head_that_came_before_is_known_only_when_it_is_whole_and_the_same(
    reactor, run, sockets
) -> None:
    """Heads that share a beginning, and bodies that look like the end of one."""
    near, far = sockets()
    other = GET[:-2] + b"X-More: 1\r\n\r\n"
    longer = b"GET /a HTTP/1.1\r\nHost: hh\r\n\r\n"
    big = GET[:-2] + b"X-Big: " + b"b" * http_server.REMEMBERED_HEAD + b"\r\n\r\n"
    connection: list[ServerConnection] = []

    async def work():
        end = PlainEnd(reactor, near, "client")
        connection.append(ServerConnection(reactor, end))
        found = []
        for octets in (GET, GET, other, GET, longer, longer, big, big, SIZED, SIZED, GET):
            far.sendall(octets)
            request = await connection[0].next_request()
            body = b"".join(await request.body.read())
            found.append((request.head.target, len(request.head.fields), body))
        end.abort()
        return found

    get, sized = (b"/a", 1, b""), (b"/b", 2, b"hello")
    more = (b"/a", 2, b"")
    assert run(reactor, work) == [
        get, get, more, get, get, get, more, more, sized, sized, get
    ]  # fmt: skip
