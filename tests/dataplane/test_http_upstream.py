"""Responses of servers, and connections that are used again."""

from __future__ import annotations

import pytest

from tng.dataplane import http_upstream
from tng.dataplane.http_upstream import Upstream, UpstreamPool, read_limited
from tng.dataplane.plain import PlainEnd
from tng.errors import NetError, RemoteProtocolError

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"


async def asked(upstream: Upstream, method: bytes = b"GET") -> tuple[int, bytes]:
    await upstream.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", is_last=True)
    head = await upstream.response_head(method)
    return head.status, await read_limited(upstream, 1000)


def ask(reactor, run, sockets, octets: bytes, method: bytes = b"GET", *, ends: bool = True):
    """What a server that says `octets` is understood to have said."""
    near, far = sockets()
    far.sendall(octets)
    if ends:
        far.shutdown(1)

    async def work():
        upstream = Upstream(PlainEnd(reactor, near, "server"))
        try:
            found = await asked(upstream, method)
            return *found, upstream.trailers, upstream.is_reusable
        finally:
            upstream.end.abort()

    return run(reactor, work)


@pytest.mark.parametrize(
    ("octets", "method", "expected"),
    [
        (OK, b"GET", (200, b"ok", [], True)),
        (CHUNKED, b"GET", (200, b"ok", [(b"x-sum", b"1")], True)),
        (b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK, b"GET", (200, b"ok", [], True)),
        (OK[:-2], b"HEAD", (200, b"", [], True)),
        (b"HTTP/1.1 304 x\r\nContent-Length: 9\r\n\r\n", b"GET", (304, b"", [], True)),
        (b"HTTP/1.1 200 OK\r\n\r\nopen", b"GET", (200, b"open", [], False)),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"GET", (200, b"ok", [], False)),
        (
            OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
            b"GET",
            (200, b"ok", [], False),
        ),
        (OK + b"more", b"GET", (200, b"ok", [], False)),
        (OK[:-2] + b"unasked", b"HEAD", (200, b"", [], False)),
    ],
)
def test_a_response_is_read_to_its_end(reactor, run, sockets, octets, method, expected) -> None:
    assert ask(reactor, run, sockets, octets, method) == expected


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"HTTP/1.1 200",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 101 S\r\n\r\n",
        b"HTTP/1.1 100 C\r\n\r\n" * 33,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
        OK[:-1],
        CHUNKED[:-2],
        b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000,
    ],
)
def test_what_is_cut_short_or_none_is_an_error_of_the_server(reactor, run, sockets, octets) -> None:
    with pytest.raises(RemoteProtocolError):
        ask(reactor, run, sockets, octets)


def test_looking_takes_what_is_there_and_waits_for_nothing(reactor, run, sockets) -> None:
    near, far = sockets()

    async def work() -> None:
        upstream = Upstream(PlainEnd(reactor, near, "server"))
        assert not upstream.look()
        far.sendall(OK[:-1])
        await upstream.end.wait_readable()
        assert upstream.look()
        assert upstream.look()
        assert (await upstream.response_head(b"GET")).status == 200
        assert await upstream.read() == [b"o"]
        assert not upstream.look()
        far.shutdown(1)
        await upstream.end.wait_readable()
        assert upstream.look()
        with pytest.raises(RemoteProtocolError):
            await upstream.read()
        upstream.end.abort()

    run(reactor, work)


def test_a_request_that_cannot_be_sent_is_not_one_that_was_sent(reactor, run, sockets) -> None:
    near, _ = sockets()

    async def work() -> None:
        upstream = Upstream(PlainEnd(reactor, near, "server"))
        await upstream.send(b"x", is_last=False)
        assert not upstream.is_sent
        upstream.end.abort()
        await upstream.send(b"x", is_last=True)
        assert not upstream.is_sent
        with pytest.raises(NetError):
            await upstream.response_head(b"GET")

    run(reactor, work)


class Servers:
    """Makes connections, and keeps their far sides."""

    def __init__(self, reactor, sockets) -> None:
        self.reactor = reactor
        self.sockets = sockets
        self.far = []

    async def connect(self) -> PlainEnd:
        near, far = self.sockets()
        self.far.append(far)
        return PlainEnd(self.reactor, near, "server")


def pooled(reactor, run, sockets, work, **settings):
    servers = Servers(reactor, sockets)
    pool = UpstreamPool(reactor, **settings)

    async def go():
        try:
            await work(pool, servers)
        finally:
            pool.drain()

    run(reactor, go)
    return servers


async def use(pool: UpstreamPool, servers: Servers, *, is_last: bool = True) -> Upstream:
    upstream = await pool.take("key", servers.connect)
    number = len(servers.far) - 1
    await upstream.send(b"x", is_last=is_last)
    servers.far[number].sendall(OK)
    assert (await upstream.response_head(b"GET")).status == 200
    assert await read_limited(upstream, 10) == b"ok"
    return upstream


def test_a_connection_is_used_again(reactor, run, sockets) -> None:
    async def work(pool: UpstreamPool, servers: Servers) -> None:
        first = await use(pool, servers)
        assert not first.is_reused
        pool.put("key", first)
        second = await use(pool, servers)
        assert second is first
        assert second.is_reused
        pool.put("key", second)

    assert len(pooled(reactor, run, sockets, work).far) == 1


def test_half_a_request_is_never_followed_by_another(reactor, run, sockets) -> None:
    """The server answered early; what comes next on this connection it would take for the rest."""

    async def work(pool: UpstreamPool, servers: Servers) -> None:
        upstream = await use(pool, servers, is_last=False)
        assert not upstream.is_reusable
        pool.put("key", upstream)
        assert upstream.end.is_closed
        assert await pool.take("key", servers.connect) is not upstream

    pooled(reactor, run, sockets, work)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 408 x\r\n\r\n"])
@pytest.mark.parametrize("is_seen", [True, False])
def test_a_connection_that_ends_or_speaks_is_not_used(reactor, run, sockets, said, is_seen) -> None:
    async def work(pool: UpstreamPool, servers: Servers) -> None:
        upstream = await use(pool, servers)
        pool.put("key", upstream)
        if said:
            servers.far[0].sendall(said)
        else:
            servers.far[0].close()
        if is_seen:
            other = await servers.connect()
            reactor.call_later(0.05, other.abort)
            with pytest.raises(NetError):
                await other.receive()
            assert upstream.end.is_closed
        assert await pool.take("key", servers.connect) is not upstream

    pooled(reactor, run, sockets, work)


def test_an_unused_connection_is_closed_after_a_while(reactor, run, sockets) -> None:
    async def work(pool: UpstreamPool, servers: Servers) -> None:
        pool.put("key", await use(pool, servers))
        near, _ = sockets()
        other = PlainEnd(reactor, near, "clock")
        reactor.call_later(0.2, other.abort)
        with pytest.raises(NetError):
            await other.receive()
        servers.far[0].setblocking(False)
        assert servers.far[0].recv(2) == b"x"
        assert servers.far[0].recv(1) == b""

    pooled(reactor, run, sockets, work, idle_s=0.01)


@pytest.mark.parametrize("limit", ["MAX_IDLE", "MAX_IDLE_IN_ALL"])
def test_unused_connections_are_counted(reactor, run, sockets, monkeypatch, limit) -> None:
    monkeypatch.setattr(http_upstream, limit, 1)

    async def work(pool: UpstreamPool, servers: Servers) -> None:
        both = [await use(pool, servers) for _ in range(2)]
        for upstream in both:
            pool.put("key", upstream)
        assert [upstream.end.is_closed for upstream in both] == [False, True]

    pooled(reactor, run, sockets, work)


def test_draining_closes_what_is_unused_and_what_comes_back(reactor, run, sockets) -> None:
    async def work(pool: UpstreamPool, servers: Servers) -> None:
        unused, busy = await use(pool, servers), await use(pool, servers)
        pool.put("key", unused)
        pool.drain()
        assert unused.end.is_closed
        pool.put("key", busy)
        assert busy.end.is_closed

    pooled(reactor, run, sockets, work)


def test_a_pool_leaves_nothing_open_when_the_reactor_stops(reactor, run, sockets) -> None:
    servers = Servers(reactor, sockets)

    async def work() -> None:
        pool = UpstreamPool(reactor)
        pool.put("key", await use(pool, servers))

    run(reactor, work)
    reactor.stop(timeout_s=5)
    assert servers.far[0].recv(2) == b"x"
    assert servers.far[0].recv(1) == b""
