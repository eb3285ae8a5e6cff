"""Two directions at once: the first failure ends both, a client that leaves is noticed."""

from __future__ import annotations

import pytest

from tng.dataplane import http_exchange
from tng.dataplane.http_exchange import Exchange
from tng.dataplane.http_server import ClientLeftError
from tng.dataplane.plain import PlainEnd
from tng.errors import NetError, TngError


def exchanging(reactor, run, sockets, work):
    """Run `work` with an exchange, and both ends and far sides of its connections."""
    near, client_far = sockets()
    other, upstream_far = sockets()

    async def go():
        client = PlainEnd(reactor, near, "client")
        upstream = PlainEnd(reactor, other, "upstream")
        exchange = Exchange(reactor, client, upstream)
        try:
            return await work(exchange, client, upstream, client_far, upstream_far)
        finally:
            await exchange.stop()
            client.abort()
            upstream.abort()

    return run(reactor, go)


@pytest.mark.parametrize("how", ["ends", "resets"])
def test_a_client_that_leaves_ends_the_exchange(reactor, run, sockets, how) -> None:
    async def work(exchange, client, upstream, client_far, _):
        exchange.watch_client()
        if how == "resets":
            client_far.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")
        client_far.close()
        with pytest.raises(NetError):
            await upstream.receive()
        assert isinstance(exchange.failure, ClientLeftError)

    exchanging(reactor, run, sockets, work)


def test_the_next_request_of_a_client_is_left_to_who_reads_it(reactor, run, sockets) -> None:
    async def work(exchange, client, _upstream, client_far, upstream_far):
        exchange.watch_client()
        client_far.sendall(b"GET / next")
        upstream_far.sendall(b"x")
        await _upstream.receive()
        await exchange.stop()
        assert exchange.failure is None
        gathered = b""
        while len(gathered) < 10:
            gathered += await client.receive()
        assert gathered == b"GET / next"

    exchanging(reactor, run, sockets, work)


@pytest.mark.parametrize("error", [TngError("said so"), ZeroDivisionError()])
def test_what_fails_in_the_request_direction_ends_the_exchange(
    reactor, run, sockets, error, caplog
) -> None:
    async def fail() -> None:
        raise error

    async def work(exchange, _client, upstream, *_):
        exchange.start(fail())
        with pytest.raises(NetError):
            await upstream.receive()
        return exchange.failure

    failure = exchanging(reactor, run, sockets, work)
    assert isinstance(failure, TngError)
    assert ("ZeroDivisionError" in str(failure)) == (error is not failure)


def test_the_first_failure_counts(reactor, run, sockets) -> None:
    async def work(exchange, *_):
        exchange.fail(TngError("first"))
        exchange.fail(TngError("second"))
        return str(exchange.failure)

    assert exchanging(reactor, run, sockets, work) == "first"


def test_stopping_ends_the_request_direction_where_it_waits(reactor, run, sockets) -> None:
    ended = []

    async def wait(client: PlainEnd) -> None:
        try:
            await client.receive()
        finally:
            ended.append(True)

    async def work(exchange, client, *_):
        exchange.start(wait(client))
        await exchange.stop()
        await exchange.stop()
        assert ended == [True]
        assert exchange.failure is None

    exchanging(reactor, run, sockets, work)


def test_a_client_that_cannot_be_told_has_left(reactor, run, sockets) -> None:
    async def work(exchange, client, *_):
        await exchange.send_to_client(b"")
        client.abort()
        await exchange.send_to_client(b"")
        with pytest.raises(ClientLeftError):
            await exchange.send_to_client(b"x")

    exchanging(reactor, run, sockets, work)


def test_others_have_their_turn_after_a_share(reactor, run, sockets, monkeypatch) -> None:
    monkeypatch.setattr(http_exchange, "SHARE", 10)
    turns = []

    async def work(exchange, *_):
        reactor.next_turn(lambda: turns.append(1))
        await exchange.share(9)
        assert turns == []
        await exchange.share(1)
        assert turns == [1]

    exchanging(reactor, run, sockets, work)
