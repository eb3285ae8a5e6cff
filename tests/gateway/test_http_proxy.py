"""CONNECT, the limits on a request head, and what happens to idle connections."""

from __future__ import annotations

import json

import pytest
import trio

from stage.conversation import Line, calling, eventually, is_cut_at_once, service
from stage.gateways import free_port, mapping, serving
from tng.gateway.ingress import http_proxy

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def echo(line: Line) -> None:
    while data := await line.stream.receive_some():
        await line.say(data)


def connect(port: int, version: bytes = b"1.1", fields: bytes = b"Host: x\r\n") -> bytes:
    return b"CONNECT 127.0.0.1:%d HTTP/%s\r\n%s\r\n" % (port, version, fields)


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_connect_carries_octets_early_ones_too(through, version: bytes) -> None:
    async with (
        service(echo) as web,
        through(web.port) as (_, proxy, port),
        calling(proxy) as client,
    ):
        await client.say(connect(port, version) + b"early")
        assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        await client.until(b"early")
        await client.say(b"later")
        await client.until(b"later")
        await client.stream.send_eof()
        assert await client.rest() == b""


async def test_a_head_may_come_octet_by_octet(direct) -> None:
    async with (
        service(echo) as web,
        direct(web.port) as (_, proxy, port),
        calling(proxy) as client,
    ):
        for octet in connect(port):
            await client.say(bytes([octet]))
        await client.until(b"\r\n\r\n")


async def test_connect_may_follow_a_plain_request(direct) -> None:
    async def script(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.say(OK)
        await echo(line)

    async with (
        service(script) as web,
        direct(web.port) as (_, proxy, port),
        calling(proxy) as client,
    ):
        await client.say(b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % port)
        await client.until(b"ok")
        await client.say(connect(port) + b"GET / HTTP/1.1\r\n\r\n")
        assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        await client.until(OK)


async def test_a_refused_connect_is_answered_in_json(direct) -> None:
    async with direct(1) as (gateway, proxy, port), calling(proxy) as client:
        await client.say(connect(port) + b"GET / HTTP/1.1\r\nAuthorization: Bearer k\r\n\r\n")
        answer = await client.rest()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 502 ")
        assert json.loads(body)["error"]["code"] == "upstream_unreachable"
        assert b"Bearer" not in answer
        assert gateway.entries[0].meter.cx_failed == 1


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /x HTTP/1.0\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", b"400"),
        (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", b"501"),
        (b"CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"CONNECT a:99999 HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"431"),
    ],
)
async def test_bad_requests_are_refused_with_their_status(direct, said, status) -> None:
    async with direct(1) as (gateway, proxy, _), calling(proxy) as client:
        await client.say(said)
        answer = await client.rest()
        assert answer.split(b" ")[1] == status
        assert b"X-Tng-Error: request_rejected" in answer
        assert b"Connection: close" in answer
        assert gateway.entries[0].meter.cx_failed == 1


async def test_a_head_that_does_not_end_is_a_408(direct, monkeypatch) -> None:
    """The limit is on the whole head: single octets do not buy more time."""
    monkeypatch.setattr(http_proxy, "HEAD_TIMEOUT_S", 0.15)
    async with direct(1) as (_, proxy, _), calling(proxy) as client:
        with trio.fail_after(3):
            async with trio.open_nursery() as nursery:

                async def trickle() -> None:
                    for octet in b"GET / HTTP/1.1\r\nX: " + b"x" * 1000:
                        await client.say(bytes([octet]))
                        await trio.sleep(0.02)

                nursery.start_soon(trickle)
                assert b" 408 " in await client.until(b"\r\n")
                nursery.cancel_scope.cancel()


async def test_a_client_that_asks_nothing_is_let_go(direct, monkeypatch) -> None:
    monkeypatch.setattr(http_proxy, "IDLE_TIMEOUT_S", 0.02)
    async with direct(1) as (_, proxy, _), calling(proxy) as client:
        assert await client.rest() == b""


@pytest.mark.parametrize("said", [b"", b"GET / HT"])
async def test_a_client_that_leaves_before_it_has_asked_is_no_failure(direct, said) -> None:
    async with direct(1) as (gateway, proxy, _):
        async with calling(proxy) as client:
            if said:
                await client.say(said)
            await client.stream.send_eof()
            assert await client.rest() == b""
        meter = gateway.entries[0].meter
        await eventually(lambda: meter.cx_active == 0)
        assert (meter.cx_total, meter.cx_failed) == (1, 0)


async def test_a_client_that_resets_before_it_has_asked_is_let_go(direct) -> None:
    async with direct(1) as (gateway, proxy, _):
        async with calling(proxy) as client:
            await eventually(lambda: gateway.entries[0].meter.cx_active == 1)
            client.reset()
        await eventually(lambda: gateway.entries[0].meter.cx_active == 0)


async def test_draining_lets_idle_clients_go_and_finishes_answers(direct) -> None:
    asked, go_on = trio.Event(), trio.Event()

    async def script(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        asked.set()
        await go_on.wait()
        await line.say(OK)

    async with (
        service(script) as web,
        direct(web.port) as (gateway, proxy, port),
        calling(proxy) as busy,
        calling(proxy) as idle,
    ):
        await eventually(lambda: gateway.entries[0].meter.cx_active == 2)
        await busy.say(b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % port)
        await asked.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gateway.drain)
            assert await idle.rest() == b""
            await idle.stream.aclose()
            assert gateway.not_ready() == ["stopping"]
            with pytest.raises(OSError):
                await trio.open_tcp_stream("127.0.0.1", proxy)
            go_on.set()
            answer = await busy.rest()
            await busy.stream.aclose()
            assert answer.lower().startswith(b"http/1.1 200 ok\r\n")
            assert b"connection: close" in answer.lower()
            assert answer.endswith(b"ok")


async def test_what_is_cut_at_the_end_never_looks_complete(direct) -> None:
    async def script(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.say(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await line.rest()

    async with service(script) as web:
        async with direct(web.port) as (_, proxy, port):
            stream = await trio.open_tcp_stream("127.0.0.1", proxy)
            client = Line(stream)
            await client.say(b"GET http://127.0.0.1:%d/ HTTP/1.0\r\nHost: x\r\n\r\n" % port)
            await client.until(b"half")
        async with stream:
            assert await client.is_cut()


async def test_a_mapping_refuses_with_a_reset_not_with_an_empty_answer() -> None:
    port = free_port()
    config = {"add_ingress": [{**mapping(port, 1), "no_ra": True}]}
    async with serving(config) as gateway:
        assert await is_cut_at_once(port)
        assert gateway.entries[0].meter.cx_failed == 1


@pytest.mark.parametrize("multiplex", [False, True])
async def test_an_egress_counts_and_refuses_what_its_service_does_not_take(multiplex) -> None:
    way_in, tunnel = free_port(), free_port()
    way = {"rats_tls": {"multiplex": multiplex}, "no_ra": True}
    async with (
        serving({"add_egress": [{**mapping(tunnel, 1), **way}]}) as egress,
        serving({"add_ingress": [{**mapping(way_in, tunnel), **way}]}),
        calling(way_in) as client,
    ):
        assert await client.is_cut()
        meter = egress.entries[0].meter
        assert (meter.cx_total, meter.cx_failed) == (1, 1)
        await eventually(lambda: meter.cx_active == 0)


async def test_a_client_that_resets_while_the_tunnel_opens_leaves_nothing_behind() -> None:
    """Its address can no longer be asked for; the stream that was opened for it must not stay."""
    silent = trio.Event()

    async def slow(line: Line) -> None:
        await silent.wait()

    way_in = free_port()
    async with service(slow) as peer:
        config = {"add_ingress": [{**mapping(way_in, peer.port), "no_ra": True}]}
        async with serving(config) as gateway:
            async with calling(way_in) as client:
                await eventually(lambda: peer.connections == 1)
                client.reset()
            silent.set()
            await eventually(lambda: gateway.entries[0].meter.cx_active == 0)
