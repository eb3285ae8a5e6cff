"""Both ends of the mode `hook`, with the test in the place of the preloaded library."""

from __future__ import annotations

import dataclasses
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from stage.certificates import self_signed, write_pem
from stage.conversation import Line, calling, eventually, service
from stage.encapsulation import answering, hear
from stage.gateways import free_port, mapping, ohttp_ingress, serving
from stage.identities import Ordinary
from stage.judges import Judge, Refusing
from stage.recorder import Recorder
from tng.cli.exec import prepare_exec_config
from tng.clock import SystemClock
from tng.config.capture import HookListen
from tng.gateway.app import Gateway
from tng.gateway.egress.hook import HookEgress, moved_port
from tng.gateway.egress.own_addresses import interface_addresses, is_own_address
from tng.gateway.entries import Trust
from tng.gateway.ingress import hook
from tng.observe.metrics import render_prometheus

NO_RA = {"no_ra": True}
SILENT = b"Tng-Answer: none\r\n"


def connect(port: int, fields: bytes = b"", host: bytes = b"127.0.0.1") -> bytes:
    return b"CONNECT %s:%d HTTP/1.1\r\nHost:%s\r\n%s\r\n" % (host, port, host, fields)


async def echo(line: Line) -> None:
    with suppress(trio.BrokenResourceError):
        while data := await line.stream.receive_some():
            await line.say(data)


@asynccontextmanager
async def running(config: dict[str, object], trust: Trust | None = None) -> AsyncIterator[Gateway]:
    """A gateway as `tng exec` runs it."""
    gateway = Gateway(prepare_exec_config(json.dumps(config)), SystemClock(), trust)
    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.serve)
        try:
            yield gateway
        finally:
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def private_proxy(
    captured: int, judge: Judge | None = None
) -> AsyncIterator[tuple[Gateway, int]]:
    """A gateway that captures one port of loopback, and the port of its proxy."""
    mode = {"hook": {"capture_dst": [{"host": "127.0.0.0/8", "port": captured}]}}
    trust = None
    if judge is not None:
        trust = dataclasses.replace(Trust(), make_verifier=lambda _verify, _clock: judge)
        mode["verify"] = {"as_addr": "http://127.0.0.1:1", "policy_ids": ["default"]}
    else:
        mode |= NO_RA
    async with running({"add_ingress": [mode]}, trust) as gateway:
        yield gateway, gateway.entries[0].listeners[0][0].port


# -- ingress -----------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [b"", SILENT, SILENT.lower(), b"Tng-Answer:none\r\n"])
async def test_a_connection_goes_through_the_tunnel(fields: bytes) -> None:
    port = free_port()
    async with (
        service(echo) as web,
        serving({"add_egress": [{**mapping(port, web.port), **NO_RA}]}),
        private_proxy(port) as (gateway, proxy),
        calling(proxy) as client,
    ):
        await client.say(connect(port, fields) + b"early")
        if not fields:
            assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 200 Connection established\r\n\r\n"
        assert await client.until(b"early") == b"early"
        await client.stream.send_eof()
        assert await client.rest() == b""
    text = render_prometheus([gateway.entries[0].meter])
    assert f'ingress_type="hook",ingress_id="0",ingress_proxy_listen="127.0.0.1:{proxy}"' in text


async def test_a_request_may_come_octet_by_octet() -> None:
    port = free_port()
    async with (
        service(echo) as web,
        serving({"add_egress": [{**mapping(port, web.port), **NO_RA}]}),
        private_proxy(port) as (_, proxy),
        calling(proxy) as client,
    ):
        for octet in connect(port):
            await client.say(bytes([octet]))
        await client.until(b"\r\n\r\n")


@pytest.mark.parametrize("fields", [b"", SILENT])
async def test_nothing_leaves_and_nobody_is_told_yes_without_a_verdict(
    fields: bytes, tmp_path
) -> None:
    with Recorder(write_pem(tmp_path, *self_signed())) as peer:
        judge = Refusing()
        async with private_proxy(peer.port, judge) as (_, proxy), calling(proxy) as client:
            await client.say(connect(peer.port, fields) + b"the secret")
            if fields:
                assert await client.is_cut()
                assert not client.ahead
            else:
                assert (await client.rest()).startswith(b"HTTP/1.1 502 ")
    assert peer.handshakes >= 1
    assert judge.asked >= 1
    assert b"secret" not in peer.recorded


@pytest.mark.parametrize("fields", [b"", SILENT])
async def test_a_refused_peer_gets_nothing(fields: bytes) -> None:
    port, judge = free_port(), Refusing()
    async with (
        service(echo) as web,
        serving(
            {"add_egress": [{**mapping(port, web.port), "attest": {"aa_addr": "unix:///x"}}]},
            source=Ordinary(),
        ),
        private_proxy(port, judge) as (_, proxy),
        calling(proxy) as client,
    ):
        await client.say(connect(port, fields) + b"the secret")
        if fields:
            assert await client.is_cut()
        else:
            assert b"policy_denied" in await client.rest()
        assert web.connections == 0
    assert judge.asked == 1


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"CONNECT 127.0.0.1 HTTP/1.1\r\n\r\n", b"400"),
        (b"CONNECT 127.0.0.1:0 HTTP/1.1\r\n\r\n", b"400"),
        (b"CONNECT [::1:80 HTTP/1.1\r\n\r\n", b"400"),
        (b"CONNECT \xff:80 HTTP/1.1\r\n\r\n", b"400"),
        (b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nA: \x00\r\n\r\n", b"400"),
        (b"x" * 2000, b"400"),
        (connect(9), b"403"),
        (connect(9, SILENT), b"403"),
        (connect(9, host=b"localhost"), b"403"),
        (connect(9, host=b"[::1]"), b"403"),
    ],
)
async def test_the_private_proxy_is_for_what_is_captured(request_: bytes, status: bytes) -> None:
    async with private_proxy(10) as (gateway, proxy), calling(proxy) as client:
        await client.say(request_)
        assert (await client.rest()).startswith(b"HTTP/1.1 " + status)
        assert gateway.entries[0].meter.cx_failed == 1


async def test_captured_names_are_networks_and_ranges() -> None:
    rules = [{"host": "127.1.0.0/16", "port": 7, "port_end": 9}, {"port": 11}]
    config = {"add_ingress": [{"hook": {"capture_dst": rules}, **NO_RA}]}
    async with running(config) as gateway:
        proxy = gateway.entries[0].listeners[0][0].port
        for host, port, status in (
            (b"127.1.2.3", 7, b"502"),
            (b"127.1.2.3", 9, b"502"),
            (b"127.1.2.3", 10, b"403"),
            (b"127.2.2.3", 7, b"403"),
            (b"[::1]", 11, b"502"),
        ):
            async with calling(proxy) as client:
                await client.say(connect(port, host=host))
                assert (await client.rest()).startswith(b"HTTP/1.1 " + status)


async def test_who_says_nothing_is_let_go(monkeypatch) -> None:
    monkeypatch.setattr(hook, "HEAD_TIMEOUT_S", 0.05)
    async with private_proxy(9) as (_, proxy), calling(proxy) as client:
        assert (await client.rest()).startswith(b"HTTP/1.1 408 ")


async def test_who_leaves_without_a_word_does_no_harm() -> None:
    async with private_proxy(9) as (gateway, proxy):
        async with calling(proxy) as client:
            await client.stream.send_eof()
            await client.is_cut()
        await eventually(lambda: gateway.entries[0].meter.cx_active == 0)


@given(st.binary(max_size=200))
def test_garbage_is_no_request(data: bytes) -> None:
    found = hook._REQUEST.match(data)
    assert found is None or data.startswith(b"CONNECT ")


# -- egress ------------------------------------------------------------------------------


@asynccontextmanager
async def front(
    target: int, judge: Judge | None = None, **more: object
) -> AsyncIterator[tuple[Gateway, int]]:
    """A gateway in front of a moved service, and the port that it listens on."""
    port = free_port()
    rule = {"port": port, "redirect_to_port": target}
    rule |= {key: value for key, value in more.items() if key in {"host", "ifname"}}
    captures = {"capture_local_traffic": more.get("capture_local_traffic", True)}
    mode: dict[str, object] = {"hook": {"capture_listen": [rule], **captures}}
    mode |= {key: value for key, value in more.items() if key in {"ohttp", "direct_forward"}}
    trust = None
    if judge is not None:
        trust = dataclasses.replace(Trust(), make_verifier=lambda _verify, _clock: judge)
        mode["verify"] = {"as_addr": "http://127.0.0.1:1", "policy_ids": ["default"]}
    else:
        mode |= NO_RA
    async with running({"add_egress": [mode]}, trust) as gateway:
        yield gateway, port


@asynccontextmanager
async def tunnel(port: int, multiplex: bool) -> AsyncIterator[Line]:
    """A line through a tunnel to `port`."""
    entrance = free_port()
    way = {"rats_tls": {"multiplex": multiplex}, **NO_RA}
    async with (
        serving({"add_ingress": [{**mapping(entrance, port), **way}]}),
        calling(entrance) as line,
    ):
        yield line


@pytest.mark.parametrize("multiplex", [False, True])
async def test_a_tunnel_leads_to_the_moved_service(multiplex: bool) -> None:
    async with (
        service(echo) as web,
        front(web.port) as (gateway, port),
        tunnel(port, multiplex) as client,
    ):
        await client.say(b"hello")
        await client.until(b"hello")
        await client.stream.send_eof()
        assert await client.rest() == b""
        meter = gateway.entries[0].meter
        await eventually(lambda: (meter.cx_active, meter.octets_from_client) == (0, 5))
    text = render_prometheus([meter])
    assert 'egress_type="hook",egress_id="0"' in text
    assert f'egress_in="0.0.0.0:{port}",egress_out="127.0.0.1:{web.port}"' in text


async def test_a_service_that_takes_ipv6_alone_is_found() -> None:
    try:
        listeners = await trio.open_tcp_listeners(0, host="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, lambda stream: echo(Line(stream)), listeners)
        target = listeners[0].socket.getsockname()[1]
        async with front(target) as (_, port), tunnel(port, False) as client:
            await client.say(b"hello")
            await client.until(b"hello")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("multiplex", [False, True])
async def test_a_service_that_does_not_listen_yet_is_a_failed_connection(multiplex: bool) -> None:
    async with front(free_port()) as (gateway, port), tunnel(port, multiplex) as client:
        await client.say(b"hello")
        assert await client.is_cut()
        assert gateway.entries[0].meter.cx_failed == 1


async def test_what_is_no_tunnel_does_not_reach_the_service() -> None:
    async with service(echo) as web, front(web.port) as (_, port), calling(port) as client:
        await client.say(b"GET / HTTP/1.1\r\n\r\n")
        await client.is_cut()
        assert web.connections == 0


async def test_a_client_that_is_refused_does_not_reach_the_service() -> None:
    judge = Refusing()
    entrance = free_port()
    async with (
        service(echo) as web,
        front(web.port, judge) as (_, port),
        serving(
            {"add_ingress": [{**mapping(entrance, port), "attest": {"aa_addr": "unix:///x"}}]},
            source=Ordinary(),
        ),
        calling(entrance) as client,
    ):
        await client.say(b"hello")
        assert await client.is_cut()
        assert web.connections == 0
    assert judge.asked >= 1


async def test_local_connections_pass_as_they_are_unless_they_are_captured() -> None:
    async with (
        service(echo) as web,
        front(web.port, capture_local_traffic=False) as (gateway, port),
        calling(port) as client,
    ):
        await client.say(b"hello")
        await client.until(b"hello")
        assert gateway.entries[0].meter.cx_active == 1


@pytest.mark.parametrize("more", [{"ohttp": {}}, {"direct_forward": [{"http_path": "^/health$"}]}])
async def test_no_transport_and_no_rule_is_asked_about_what_is_not_captured(
    more: dict[str, object], caplog
) -> None:
    """Local clients of the program notice nothing, whatever they speak."""
    with caplog.at_level(logging.INFO, logger="tng.access"):
        async with (
            service(echo) as web,
            front(web.port, capture_local_traffic=False, **more) as (_, port),
            calling(port) as client,
        ):
            await client.say(b"GET /secret HTTP/1.1\r\n\r\n")
            await client.until(b"GET /secret HTTP/1.1\r\n\r\n")
    assert f"0.0.0.0:{port}(hook)" in caplog.text
    assert "encrypted=false attested=false" in caplog.text


@pytest.mark.parametrize("more", [{"ohttp": {}}, {"direct_forward": [{"http_path": "^/health$"}]}])
async def test_what_is_captured_has_to_come_by_the_transport(more: dict[str, object]) -> None:
    async with (
        service(echo) as web,
        front(web.port, **more) as (_, port),
        calling(port) as client,
    ):
        await client.say(b"GET /secret HTTP/1.1\r\nHost: h\r\n\r\n")
        assert b"HTTP/1.1 403 " in await client.rest()
        assert web.connections == 0


async def test_requests_come_by_ohttp_to_a_program_that_takes_ipv6_alone() -> None:
    try:
        listeners = await trio.open_tcp_listeners(0, host="::1")
    except OSError:
        pytest.skip("no IPv6 here")

    async def answer(stream: trio.SocketStream) -> None:
        await answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")(Line(stream))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer, listeners)
        target = listeners[0].socket.getsockname()[1]
        async with (
            front(target, ohttp={}) as (_, port),
            ohttp_ingress(port) as (_, entrance),
            calling(entrance) as client,
        ):
            await client.say(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await hear(client))[2] == b"ok"
        nursery.cancel_scope.cancel()


async def test_a_local_connection_to_a_service_that_is_away_is_reset() -> None:
    async with front(free_port(), capture_local_traffic=False) as (gateway, port):
        with suppress(OSError):  # the reset may be faster than our look at the connection
            async with calling(port) as client:
                assert await client.is_cut()
        await eventually(lambda: gateway.entries[0].meter.cx_failed == 1)


async def test_another_address_than_the_captured_one_passes_as_it_is() -> None:
    async with (
        service(echo) as web,
        front(web.port, host="127.0.0.9") as (_, port),
        calling(port) as client,
    ):
        await client.say(b"hello")
        await client.until(b"hello")


def egress(**rule: object) -> HookEgress:
    entry = HookListen.model_validate({"port": 1, "redirect_to_port": 2, **rule})
    unused = (None, None)
    return HookEgress(moved_port(entry), *unused, captures_local=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "client", "local", "captured"),
    [
        ({}, "192.0.2.1", "10.0.0.1", True),
        ({}, "127.0.0.1", "127.0.0.1", False),
        ({}, "::ffff:127.0.0.1", "127.0.0.1", False),
        ({}, "::1", "::1", False),
        ({"host": "10.0.0.1"}, "192.0.2.1", "10.0.0.1", True),
        ({"host": "10.0.0.1"}, "192.0.2.1", "10.0.0.2", False),
        ({"host": "0.0.0.0"}, "192.0.2.1", "10.0.0.2", True),
        ({"host": "fe80::1"}, "2001:db8::1", "fe80::1%lo", True),
        ({"ifname": "lo"}, "192.0.2.1", "127.0.0.1", True),
        ({"ifname": "lo"}, "192.0.2.1", "10.0.0.1", False),
        ({"ifname": "no-such"}, "192.0.2.1", "127.0.0.1", False),
    ],
)  # fmt: skip
def test_who_has_to_come_through_a_tunnel(rule, client: str, local: str, captured: bool) -> None:
    assert egress(**rule).is_captured(client, local) is captured


def test_the_gateway_listens_for_the_family_of_the_captured_address() -> None:
    for host, listen in ((None, "0.0.0.0"), ("10.0.0.1", "0.0.0.0"), ("fd00::1", "::")):
        rule = HookListen.model_validate({"port": 1, "redirect_to_port": 2, "host": host})
        assert moved_port(rule).listen == (listen, 1)


def test_own_addresses_are_known_by_their_routes() -> None:
    assert is_own_address("127.9.9.9")
    assert is_own_address("::1")
    assert not is_own_address("192.0.2.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return  # loopback alone
        assert is_own_address(probe.getsockname()[0])


def test_interfaces_have_their_addresses() -> None:
    assert "127.0.0.1" in interface_addresses("lo")
    assert interface_addresses("no-such") == frozenset()
