"""A RATS-TLS port that lets some plain requests pass."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import AsyncIterator

import trio

from stage.conversation import Line, calling, eventually, service
from stage.encapsulation import answering, hear
from stage.gateways import free_port, mapping, serving
from tng.dataplane.reactor import Reactor
from tng.endpoint import Endpoint
from tng.gateway.app import Gateway
from tng.gateway.egress import plain_or_tunnel
from tng.gateway.egress.direct_forward import DirectForward
from tng.gateway.egress.plain_or_tunnel import PlainOrTunnel
from tng.observe.metrics import EntryMeter

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextlib.asynccontextmanager
async def port_before(target: int) -> AsyncIterator[tuple[Gateway, int]]:
    port = free_port()
    entry = {**mapping(port, target), "direct_forward": [{"http_path": "^/health$"}]}
    async with serving({"add_egress": [{**entry, "no_ra": True}]}) as gateway:
        yield gateway, port


def get(path: bytes) -> bytes:
    return b"GET %s HTTP/1.1\r\nHost: h\r\n\r\n" % path


async def test_each_request_of_a_connection_is_decided_upon_by_itself(caplog) -> None:
    caplog.set_level(logging.INFO, logger="tng.access")
    seen: list[bytes] = []
    async with (
        service(answering(OK, seen)) as web,
        port_before(web.port) as (gateway, port),
        calling(port) as line,
    ):
        for _ in range(2):
            await line.say(get(b"/health"))
            assert (await hear(line))[::2] == (200, b"ok")
        await line.say(get(b"/secret"))
        assert (await hear(line))[0] == 403
        assert await line.rest() == b""
        assert gateway.entries[0].meter.cx_failed == 1
    assert len(seen) == 2
    [text] = [each.getMessage() for each in caplog.records if each.name == "tng.access"]
    assert f"downstream_local=127.0.0.1:{port}(direct_forward)" in text
    assert text.endswith("encrypted=false attested=false")


async def test_a_tunnel_to_the_same_port_is_a_tunnel() -> None:
    entrance = free_port()
    async with (
        service(answering(OK)) as web,
        port_before(web.port) as (_, port),
        serving({"add_ingress": [{**mapping(entrance, port), "no_ra": True}]}),
        calling(entrance) as line,
    ):
        await line.say(get(b"/secret"))
        assert (await hear(line))[0] == 200


async def test_who_says_nothing_or_leaves_is_let_go(monkeypatch) -> None:
    monkeypatch.setattr(plain_or_tunnel, "FIRST_OCTET_S", 0.02)
    async with port_before(1) as (gateway, port):
        async with calling(port) as line:
            assert await line.rest() == b""
        async with calling(port) as line:
            await line.stream.send_eof()
            assert await line.rest() == b""
        assert gateway.entries[0].meter.cx_failed == 0


async def test_draining_ends_a_plain_connection_that_asks_nothing() -> None:
    async with (
        service(answering(OK)) as web,
        port_before(web.port) as (gateway, port),
        calling(port) as line,
    ):
        await line.say(get(b"/health"))
        assert (await hear(line))[0] == 200
        with trio.fail_after(5):
            await gateway.drain()
        assert await line.rest() == b""


async def test_a_client_that_leaves_before_its_answer_is_counted_as_one_failure() -> None:
    async def silent(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await trio.sleep_forever()

    async with service(silent) as web, port_before(web.port) as (gateway, port):
        async with calling(port) as line:
            await line.say(get(b"/health"))
            await eventually(lambda: web.connections == 1)
        await eventually(lambda: gateway.entries[0].meter.cx_failed == 1)


async def test_a_plain_connection_that_was_not_captured_is_closed_unheard() -> None:
    reactor, asked = Reactor(), trio.Event()
    reactor.start()

    async def tunnel(_accepted: socket.socket, _client: Endpoint) -> None:
        asked.set()

    door = PlainOrTunnel(
        reactor,
        tunnel,
        DirectForward([""]),
        None,  # type: ignore[arg-type]
        lambda _accepted: None,
        EntryMeter(),
    )
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(get(b"/"))
        ours.setblocking(False)
        future = reactor.spawn_threadsafe(door.serve(ours, Endpoint("127.0.0.1", 1)), "test")
        with trio.fail_after(5):
            while not future.done():
                await trio.sleep(0.002)
        future.result()
        theirs.settimeout(2)
        with contextlib.suppress(ConnectionResetError):
            assert theirs.recv(100) == b""
    reactor.stop(2)
    assert not asked.is_set()
