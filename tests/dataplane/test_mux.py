"""Multiplexed tunnels over loopback sockets, both ends ours unless a test says otherwise."""

from __future__ import annotations

import hashlib
import logging
import socket
from collections.abc import Callable, Iterator

import pytest

from tng.clock import FixedClock
from tng.dataplane.ends import BLOCKED
from tng.dataplane.mux import CLOSE_TIMEOUT_S, MuxConnection, MuxFull
from tng.dataplane.plain import PlainEnd
from tng.dataplane.relay import relay
from tng.dataplane.task import Wait
from tng.dataplane.tls import TlsEnd
from tng.dataplane.tls_context import client_context, server_context
from tng.errors import ErrorCode, LocalProtocolError, NetError
from tng.wire.h2_stream import H2Limits

GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


class Link:
    """A client's and a server's connection to each other, in one reactor."""

    def __init__(self, reactor, pair, on_stream, *, client_limits=None, server_limits=None) -> None:
        self.reactor = reactor
        self.reasons: list[str] = []
        self.ends = [PlainEnd(reactor, sock) for sock in pair]
        self.client = MuxConnection(
            reactor,
            self.ends[0],
            role="client",
            on_closed=self.reasons.append,
            limits=client_limits,
        )
        self.server = MuxConnection(
            reactor,
            self.ends[1],
            role="server",
            on_stream=on_stream,
            on_closed=self.reasons.append,
            clock=FixedClock(1_700_000_000.5),
            limits=server_limits,
        )
        self.client.start()
        self.server.start()


@pytest.fixture
def link(reactor, sockets, run) -> Iterator[Callable[..., Link]]:
    """Makes a `Link` within the reactor's thread; its server serves with `on_stream`."""
    links: list[Link] = []

    def make(on_stream, **options) -> Link:
        async def go() -> Link:
            return Link(reactor, sockets(), on_stream, **options)

        links.append(run(reactor, go))
        return links[-1]

    yield make

    async def close() -> None:
        for made in links:
            for connection in (made.client, made.server):
                connection.close("the test is over")
        await pause(reactor)
        for made in links:
            for end in made.ends:
                end.abort()

    run(reactor, close)


async def echo(stream) -> None:
    stream.accept()
    while data := await stream.receive():
        await stream.send(data)
    stream.shut()


async def read_all(stream) -> bytes:
    received = bytearray()
    while data := await stream.receive():
        received += data
    return bytes(received)


async def pause(reactor, turns: int = 3) -> None:
    """Let both sides of a link have some turns."""
    for _ in range(turns):
        wait: Wait[None] = Wait()
        reactor.call_later(0.01, wait.set, None)
        await wait


def test_a_tunnel_carries_octets_and_both_ends(reactor, run, link) -> None:
    made = link(echo)

    async def go() -> None:
        stream = await made.client.open(5)
        assert (made.client.active_streams, made.client.idle_since) == (1, None)
        await stream.send(b"hello")
        assert await stream.receive() == b"hello"
        await stream.send(b"and more")
        stream.shut()
        stream.shut()
        with pytest.raises(NetError, match="we have ended"):
            await stream.send(b"too late")
        assert await read_all(stream) == b"and more"
        assert (stream.bytes_in, stream.bytes_out) == (13, 13)
        stream.close()
        stream.close()
        with pytest.raises(NetError, match="closed"):
            await stream.receive()
        assert made.client.idle_since == reactor.now
        await pause(reactor)
        assert made.server.active_streams == 0
        assert not made.server.machine.streams
        assert not made.client.machine.streams
        assert "0 streams" in repr(made.client)

    run(reactor, go)


def test_the_answering_side_may_end_first(reactor, run, link) -> None:
    heard: list[bytes] = []

    async def serve(stream) -> None:
        stream.accept()
        await stream.send(b"all I have")
        stream.shut()
        heard.append(await read_all(stream))

    made = link(serve)

    async def go() -> None:
        stream = await made.client.open(5)
        assert await read_all(stream) == b"all I have"
        await stream.send(b"a late reply")
        stream.close()
        await pause(reactor)
        assert heard == [b"a late reply"]

    run(reactor, go)


def test_three_hundred_tunnels_at_once(reactor, run, link) -> None:
    async def hold(stream) -> None:
        stream.accept()
        await stream.receive()
        await stream.send(b"done")

    made = link(hold)

    async def go() -> None:
        await pause(reactor)
        streams = [await made.client.open(5) for _ in range(300)]
        assert made.server.active_streams == made.client.active_streams == 300
        for stream in streams:
            await stream.send(b"go")
        for stream in streams:
            assert await read_all(stream) == b"done"
            stream.close()

    run(reactor, go)


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("upstream_unreachable", ErrorCode.UPSTREAM_UNREACHABLE),
        ("shutting_down", ErrorCode.SHUTTING_DOWN),
        ("no_word_of_ours", ErrorCode.UPSTREAM_UNREACHABLE),
    ],
)
def test_a_refusal_names_status_and_word(reactor, run, link, word, code) -> None:
    async def refuse(stream) -> None:
        stream.refuse(503, word)

    made = link(refuse)

    async def go() -> None:
        with pytest.raises(NetError, match=f"status 503 \\('{word}'\\)") as caught:
            await made.client.open(5)
        assert caught.value.code == code
        assert made.client.active_streams == 0

    run(reactor, go)


def test_a_stream_closed_without_an_answer_is_a_net_error(reactor, run, link) -> None:
    async def leave(stream) -> None:
        stream.close()

    made = link(leave)

    async def go() -> None:
        with pytest.raises(
            NetError, match=r"reset by the peer \(CANCEL\) before the tunnel was open"
        ):
            await made.client.open(5)

    run(reactor, go)


def test_a_peer_that_does_not_answer_is_given_up(reactor, run, link) -> None:
    ended: list[str] = []

    async def silent(stream) -> None:
        with pytest.raises(LocalProtocolError):
            stream.write(memoryview(b"x"))
        try:
            await stream.receive()
        except NetError as error:
            ended.append(str(error))

    made = link(silent)

    async def go() -> None:
        with pytest.raises(NetError, match="did not answer"):
            await made.client.open(0.05)
        await pause(reactor)
        assert "reset by the peer (CANCEL)" in ended[0]
        assert made.client.active_streams == made.server.active_streams == 0

    run(reactor, go)


def test_a_cancelled_open_leaves_nothing_behind(reactor, run, link) -> None:
    async def silent(stream) -> None:
        await stream.receive()

    made = link(silent)

    async def go() -> None:
        task = reactor.spawn(made.client.open(5), "opener")
        await pause(reactor)
        task.cancel()
        await pause(reactor)
        assert made.client.active_streams == made.server.active_streams == 0

    run(reactor, go)


def test_a_full_connection_says_so_at_once(reactor, run, link) -> None:
    made = link(echo, server_limits=H2Limits(streams=2))

    async def go() -> None:
        await pause(reactor)
        assert made.client.max_streams == 2
        first = await made.client.open(5)
        await made.client.open(5)
        with pytest.raises(MuxFull, match="2 streams"):
            await made.client.open(5)
        assert made.client.is_open
        first.close()
        await made.client.open(5)

    run(reactor, go)


def test_a_request_that_was_not_looked_at_is_a_full_connection(reactor, run, link) -> None:
    made = link(None)  # a server that serves nothing refuses every stream

    async def go() -> None:
        with pytest.raises(MuxFull):
            await made.client.open(5)

    run(reactor, go)


def test_bulk_is_byte_exact_both_ways_over_many_streams(reactor, run, link) -> None:
    made = link(echo)
    block = bytes(range(251)) * 4000

    async def one(number: int, done: Wait[bool]) -> None:
        stream = await made.client.open(5)
        digest, size = hashlib.sha256(), 0

        async def send() -> None:
            for _ in range(3):
                await stream.send(block[number:])
            stream.shut()

        reactor.spawn(send(), "sender")
        while data := await stream.receive():
            digest.update(data)
            size += len(data)
        stream.close()
        done.set(digest.digest() == hashlib.sha256(block[number:] * 3).digest())

    async def go() -> None:
        waits = [Wait() for _ in range(8)]
        for number, wait in enumerate(waits):
            reactor.spawn(one(number, wait), f"stream {number}")
        for wait in waits:
            assert await wait

    run(reactor, go, timeout=30)


def test_a_stream_that_nobody_reads_stalls_itself_alone(reactor, run, link) -> None:
    taken: list[int] = []

    async def serve(stream) -> None:
        stream.accept()
        if await stream.receive(1) == b"e":
            await echo_rest(stream)
        else:
            taken.append(stream.bytes_in)
            hold: Wait[None] = Wait()
            await hold

    async def echo_rest(stream) -> None:
        while data := await stream.receive():
            await stream.send(data)

    made = link(serve)

    async def go() -> None:
        stalled = await made.client.open(5)
        flowing = await made.client.open(5)
        await stalled.send(b"s")
        offered = memoryview(bytes(8 << 20))
        while offered:
            count = stalled.write(offered)
            offered = offered[count:]
            if not count:
                await pause(reactor)
                if not stalled.write(offered[:1]):
                    break
                offered = offered[1:]
        assert stalled.bytes_out <= (256 << 10) + 1
        await flowing.send(b"e")
        for _ in range(40):
            await flowing.send(bytes(100_000))
            got = 0
            while got < 100_000:
                got += len(await flowing.receive())
        stalled.abort()
        flowing.abort()

    run(reactor, go, timeout=30)


def test_writers_of_a_slow_connection_take_turns(reactor, run, link) -> None:
    async def swallow(stream) -> None:
        stream.accept()
        while await stream.receive():
            pass

    made = link(swallow, server_limits=H2Limits(stream_window=8 << 20, connection_window=64 << 20))

    async def go() -> None:
        await pause(reactor)
        streams = [await made.client.open(5) for _ in range(6)]

        async def pour(stream) -> None:
            await stream.send(bytes(6 << 20))

        for stream in streams:
            reactor.spawn(pour(stream), "pour")
        while sum(stream.bytes_out for stream in streams) < 12 << 20:
            await pause(reactor, 1)
        assert min(stream.bytes_out for stream in streams) > 256 << 10
        made.client.close("enough")

    run(reactor, go, timeout=30)


def test_an_abort_is_an_error_and_never_an_end(reactor, run, link) -> None:
    heard: list[str] = []

    async def serve(stream) -> None:
        stream.accept()
        try:
            await read_all(stream)
        except NetError as error:
            heard.append(str(error))
            with pytest.raises(NetError, match="was reset by the peer"):
                stream.write(memoryview(b"x"))
            raise

    made = link(serve)

    async def go() -> None:
        stream = await made.client.open(5)
        await stream.send(b"half a")
        stream.abort()
        stream.abort()
        await pause(reactor)
        assert heard == ["stream 1 was reset by the peer (CANCEL)"]

    run(reactor, go)


def test_what_came_before_a_close_is_still_read(reactor, run, link) -> None:
    async def serve(stream) -> None:
        stream.accept()
        await stream.send(b"goodbye")

    made = link(serve)

    async def go() -> None:
        stream = await made.client.open(5)
        await pause(reactor)
        with pytest.raises(NetError, match="NO_ERROR"):
            stream.write(memoryview(b"x"))
        assert await read_all(stream) == b"goodbye"
        stream.close()

    run(reactor, go)


def test_a_failing_service_resets_its_stream_alone(reactor, run, link, caplog) -> None:
    async def serve(stream) -> None:
        stream.accept()
        if await stream.receive() == b"fail":
            raise NetError("no such backend")
        await stream.send(b"fine")

    made = link(serve)

    async def go() -> None:
        bad, good = await made.client.open(5), await made.client.open(5)
        await bad.send(b"fail")
        with pytest.raises(NetError):
            await read_all(bad)
        await good.send(b"work")
        assert await read_all(good) == b"fine"
        bad.close()
        good.close()

    run(reactor, go)
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


@pytest.mark.parametrize("side", [0, 1])
def test_a_lost_connection_breaks_every_stream_at_both_ends(reactor, run, link, side) -> None:
    errors: list[str] = []

    async def serve(stream) -> None:
        stream.accept()
        try:
            await read_all(stream)
        except NetError as error:
            errors.append(str(error))

    made = link(serve)

    async def go() -> None:
        streams = [await made.client.open(5) for _ in range(3)]
        made.ends[side].abort()
        (made.client, made.server)[side]._finish("test")
        await pause(reactor)
        for stream in streams:
            with pytest.raises(NetError, match="is lost"):
                await stream.receive()
            with pytest.raises(NetError, match="is lost"):
                stream.write(memoryview(b"x"))
            stream.close()
        assert len(errors) == 3
        assert len(made.reasons) == 2
        assert not made.client.is_open
        with pytest.raises(MuxFull, match="closing"):
            await made.client.open(5)

    run(reactor, go)


def test_open_fails_when_the_connection_is_lost_meanwhile(reactor, run, link) -> None:
    async def silent(stream) -> None:
        made.server.close("no more")
        made.server.close("no more")

    made = link(silent)

    async def go() -> None:
        with pytest.raises(NetError, match=r"is lost: .* before the tunnel was open"):
            await made.client.open(5)

    run(reactor, go)


def test_a_draining_server_finishes_what_it_has(reactor, run, link) -> None:
    made = link(echo)

    async def go() -> None:
        stream = await made.client.open(5)
        made.server.drain()
        made.server.drain()
        await pause(reactor)
        assert not made.client.is_open
        with pytest.raises(MuxFull):
            await made.client.open(5)
        await stream.send(b"still")
        assert await stream.receive() == b"still"
        assert not made.reasons
        stream.close()
        await pause(reactor)
        assert min(made.reasons) == "drained"
        assert len(made.reasons) == 2

    run(reactor, go)


def test_a_draining_client_closes_when_it_is_idle(reactor, run, link) -> None:
    made = link(echo)

    async def go() -> None:
        stream = await made.client.open(5)
        made.client.drain()
        assert not made.client.is_open
        stream.close()
        await pause(reactor)
        assert len(made.reasons) == 2
        made.client.drain()

    run(reactor, go)


def test_a_drain_that_is_never_confirmed_ends_all_the_same(reactor, run, sockets) -> None:
    near, far = sockets()
    far.sendall(GREETING)
    reasons: list[str] = []

    async def go() -> None:
        server = MuxConnection(
            reactor, PlainEnd(reactor, near), role="server", on_closed=reasons.append
        )
        server.start()
        server.drain()
        await pause(reactor)
        assert not reasons
        server.drain_confirmed()  # what the timer does after CLOSE_TIMEOUT_S
        assert reasons == ["drained"]

    assert CLOSE_TIMEOUT_S > 1
    run(reactor, go)


def test_a_peer_that_speaks_something_else_is_told_and_dropped(reactor, run, sockets) -> None:
    near, far = sockets()
    reasons: list[str] = []

    async def go() -> None:
        server = MuxConnection(
            reactor, PlainEnd(reactor, near), role="server", on_closed=reasons.append
        )
        server.start()
        far.sendall(b"GET / HTTP/1.1\r\n\r\n")
        await pause(reactor)

    run(reactor, go)
    assert reasons == ["HTTP/2 peer does not begin with the connection preface"]
    said = read_socket(far)
    assert b"does not begin with the connection preface" in said


def read_socket(sock: socket.socket) -> bytes:
    sock.settimeout(5)
    said = bytearray()
    while data := sock.recv(65536):
        said += data
    return bytes(said)


def test_a_request_that_is_not_connect_gets_400(reactor, run, sockets) -> None:
    near, far = sockets()
    served: list[object] = []

    async def serve(stream) -> None:
        served.append(stream)

    async def go() -> None:
        server = MuxConnection(
            reactor,
            PlainEnd(reactor, near),
            role="server",
            on_stream=serve,
            clock=FixedClock(1_700_000_000.0),
        )
        server.start()
        far.sendall(GREETING + bytes((0, 0, 1, 1, 5, 0, 0, 0, 1, 0x82)))  # GET, END_STREAM
        await pause(reactor)
        server.close("done")

    run(reactor, go)
    said = read_socket(far)
    assert b"\x08\x03400" in said
    assert b"x-tng-error\x10request_rejected" in said
    assert b"Tue, 14 Nov 2023 22:13:20 GMT" in said
    assert not served


def test_streams_reset_at_once_count_until_their_service_has_ended(reactor, run, link) -> None:
    started: list[object] = []
    holds: list[Wait[None]] = [Wait(), Wait(), Wait()]

    async def busy(stream) -> None:
        started.append(stream)
        await holds[len(started) - 1]

    made = link(busy, server_limits=H2Limits(streams=1))

    async def go() -> None:
        await pause(reactor)
        for _ in range(2):
            with pytest.raises(NetError, match="did not answer"):
                await made.client.open(0.05)
        with pytest.raises(MuxFull):
            await made.client.open(1)
        assert len(started) == 2
        for hold in holds:
            hold.set(None)
        await pause(reactor)
        with pytest.raises(NetError, match="reset by the peer"):
            await made.client.open(0.05)
        assert len(started) == 3

    run(reactor, go)


def test_an_unread_goaway_is_sent_before_the_end(reactor, run, sockets) -> None:
    near, far = sockets()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

    async def serve(stream) -> None:
        stream.accept()
        await stream.send(bytes(60_000))
        server.close("enough")

    async def start() -> None:
        nonlocal server
        server = MuxConnection(reactor, PlainEnd(reactor, near), role="server", on_stream=serve)
        server.start()

    server: MuxConnection
    server = None  # type: ignore[assignment]
    run(reactor, start)
    request = b"\x02\x07CONNECT\x01\x0ctng.internal"
    far.sendall(GREETING + bytes((0, 0, len(request), 1, 4, 0, 0, 0, 1)) + request)
    assert read_socket(far).endswith(b"enough")


def test_callbacks_are_level_triggered_and_may_close(reactor, run, link) -> None:
    async def serve(stream) -> None:
        stream.accept()
        await stream.send(b"0123456789")
        await stream.receive()

    made = link(serve)

    async def go() -> None:
        stream = await made.client.open(5)
        buffer = memoryview(bytearray(3))
        seen: list[bytes] = []
        done: Wait[None] = Wait()

        def readable() -> None:
            count = stream.read_into(buffer)
            seen.append(bytes(buffer[:count]))
            if len(seen) == 3:
                stream.unread(b"ab")
            if len(seen) == 5:
                assert stream.read_into(buffer) == BLOCKED
                stream.abort()
                done.set(None)

        stream.on_readable = readable
        stream.watch(True, False)
        await done
        assert seen == [b"012", b"345", b"678", b"ab", b"9"]

    run(reactor, go)


def test_interest_without_a_callback_is_dropped(reactor, run, link) -> None:
    made = link(echo)

    async def go() -> None:
        stream = await made.client.open(5)
        stream.watch(True, True)
        await stream.send(b"x")
        await pause(reactor)
        assert not stream._wants_read
        assert not stream._wants_write
        assert await stream.receive() == b"x"
        stream.watch(True, True)
        stream.close()
        await pause(reactor)

    run(reactor, go)


def test_relays_carry_tunnels_to_sockets_and_back(reactor, run, link, sockets) -> None:
    pairs = [sockets() for _ in range(2)]

    async def serve(stream) -> None:
        stream.accept()
        await relay(reactor, stream, PlainEnd(reactor, pairs[1][0]))

    made = link(serve)

    async def start() -> None:
        stream = await made.client.open(5)
        reactor.spawn(relay(reactor, PlainEnd(reactor, pairs[0][0]), stream), "relay")

    run(reactor, start)
    near, far = pairs[0][1], pairs[1][1]
    data = bytes(range(256)) * 2000
    for source, sink in ((near, far), (far, near)):
        source.setblocking(True)
        received = bytearray()
        view = memoryview(data)
        while len(received) < len(data):
            view = view[source.send(view[:30_000]) :] if view else view
            received += sink.recv(65536)
            if view:
                continue
        assert bytes(received) == data
        source.shutdown(socket.SHUT_WR)
        assert sink.recv(1) == b""


def test_tunnels_run_over_tls(reactor, run, sockets, credential) -> None:
    near, far = sockets()

    async def go() -> bytes:
        ends = (
            TlsEnd(
                reactor, near, client_context([b"h2"], None), server_side=False, server_name=None
            ),
            TlsEnd(
                reactor,
                far,
                server_context([b"h2"], credential, False),
                server_side=True,
                server_name=None,
            ),
        )
        shaken: Wait[None] = Wait()

        async def accept() -> None:
            await ends[1].handshake(5)
            shaken.set(None)

        reactor.spawn(accept(), "accept")
        await ends[0].handshake(5)
        await shaken
        client = MuxConnection(reactor, ends[0], role="client")
        server = MuxConnection(reactor, ends[1], role="server", on_stream=echo)
        client.start()
        server.start()
        stream = await client.open(5)

        async def send() -> None:
            await stream.send(bytes(range(256)) * 8000)
            stream.shut()

        reactor.spawn(send(), "send")
        received = await read_all(stream)
        stream.close()
        client.close("done")
        await pause(reactor)
        assert not server.is_open
        return received

    assert run(reactor, go) == bytes(range(256)) * 8000


def test_a_write_that_fails_breaks_the_streams(reactor, run, link) -> None:
    made = link(echo)

    async def go() -> None:
        stream = await made.client.open(5)
        made.ends[0].abort()
        await stream.send(b"into the void")
        with pytest.raises(NetError, match="is lost"):
            await stream.receive()
        assert made.reasons
        made.client.touch()
        await pause(reactor)
        assert not made.client.machine.output

    run(reactor, go)


def test_a_reactor_that_stops_says_goodbye(reactor, run, sockets) -> None:
    near, far = sockets()
    reasons: list[str] = []

    async def go() -> None:
        connection = MuxConnection(
            reactor, PlainEnd(reactor, near), role="client", on_closed=reasons.append
        )
        connection.start()

    run(reactor, go)
    reactor.stop(timeout_s=5)
    assert reasons == ["shutting down"]
    assert read_socket(far).endswith(b"shutting down")
