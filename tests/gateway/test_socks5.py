"""SOCKS5 clients: success after the verdict alone, numbered refusals, bounded handshakes."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from stage.certificates import self_signed, write_pem
from stage.conversation import Line, calling, eventually, is_cut_at_once, service
from stage.gateways import free_port, listen, mapping, serving
from stage.judges import Absent, Judge, Refusing
from stage.recorder import Recorder
from tng.gateway.app import Gateway
from tng.gateway.ingress import socks5

VERIFY = {"as_addr": "http://127.0.0.1:9/as", "policy_ids": ["default"]}
GREETING = b"\x05\x01\x00"
SUCCESS = bytes.fromhex("05 00 00 01 00000000 0000")
SECRET = b"sk-never-to-be-seen"


def entry(port: int, **more: object) -> dict[str, object]:
    options = {key: more.pop(key) for key in ("auth", "dst_filters") if key in more}
    return {"socks5": {"proxy_listen": listen(port), **options}, **(more or {"no_ra": True})}


def connect(port: int, address: bytes = b"\x01\x7f\x00\x00\x01") -> bytes:
    return b"\x05\x01\x00" + address + port.to_bytes(2, "big")


async def echo(line: Line) -> None:
    while data := await line.stream.receive_some():
        await line.say(data)


@asynccontextmanager
async def plain(**options: object) -> AsyncIterator[tuple[Gateway, int]]:
    """A proxy that connects to its destinations itself."""
    port = free_port()
    filters = [{"domain": "tunnelled.example"}]
    config = entry(port, dst_filters=filters, no_ra=True, **options)
    async with serving({"add_ingress": [config]}) as gateway:
        yield gateway, port


@pytest.mark.parametrize("multiplex", [False, True])
async def test_octets_travel_through_a_tunnel_early_ones_too(multiplex: bool) -> None:
    way = {"rats_tls": {"multiplex": multiplex}, "no_ra": True}
    proxy, egress = free_port(), free_port()
    async with (
        service(echo) as web,
        serving({"add_egress": [{**mapping(egress, web.port), **way}]}),
        serving({"add_ingress": [entry(proxy, **way)]}) as gateway,
        calling(proxy) as client,
    ):
        await client.say(GREETING + connect(egress) + b"early")
        assert await client.until(b"early") == b"\x05\x00" + SUCCESS + b"early"
        await client.say(b"later")
        await client.until(b"later")
        await client.stream.send_eof()
        assert await client.rest() == b""
        await eventually(lambda: gateway.entries[0].meter.octets_from_client == 10)


@pytest.mark.parametrize("address", [b"\x03\x09localhost", b"\x03\x09127.0.0.1"])
async def test_a_destination_may_be_a_name(address: bytes) -> None:
    async with service(echo) as web, plain() as (_, proxy), calling(proxy) as client:
        await client.say(GREETING + connect(web.port, address) + b"x")
        await client.until(SUCCESS + b"x")


async def test_a_handshake_may_come_octet_by_octet() -> None:
    async with service(echo) as web, plain() as (_, proxy), calling(proxy) as client:
        for octet in GREETING + connect(web.port):
            await client.say(bytes([octet]))
        await client.until(SUCCESS)


async def test_whoever_has_the_password_is_let_in_and_nobody_else() -> None:
    auth = {"username": "alice", "password": SECRET.decode()}
    good = b"\x01\x05alice" + bytes([len(SECRET)]) + SECRET
    async with service(echo) as web, plain(auth=auth) as (gateway, proxy):
        async with calling(proxy) as client:
            await client.say(b"\x05\x01\x02" + good + connect(web.port))
            await client.until(SUCCESS)
        for said, heard in (
            (b"\x05\x01\x02\x01\x05alice\x01x", b"\x05\x02\x01\xff"),
            (GREETING, b"\x05\xff"),
        ):
            async with calling(proxy) as client:
                await client.say(said)
                assert await client.rest() == heard
        assert web.connections == 1
        assert gateway.entries[0].meter.cx_failed == 2


@pytest.mark.parametrize(
    ("command", "reply"),
    [(b"\x05\x02\x00\x01", 7), (b"\x05\x03\x00\x01", 7), (b"\x05\x01\x00\x09", 8)],
)
async def test_what_is_not_served_is_refused_by_number(command: bytes, reply: int) -> None:
    async with plain() as (_, proxy), calling(proxy) as client:
        await client.say(GREETING + command + b"\x7f\x00\x00\x01\x00\x50")
        assert await client.rest() == b"\x05\x00\x05" + bytes([reply, 0, 1]) + bytes(6)


async def test_a_destination_where_nobody_is_gets_no_success() -> None:
    async with plain() as (gateway, proxy), calling(proxy) as client:
        await client.say(GREETING + connect(1) + SECRET)
        assert await client.rest() == b"\x05\x00\x05\x04\x00\x01" + bytes(6)
        assert gateway.entries[0].meter.cx_failed == 1


@pytest.mark.parametrize(("judge", "reply"), [(Refusing, 2), (Absent, 1)])
@pytest.mark.parametrize("multiplex", [False, True, None])
async def test_without_a_verdict_no_success_is_told_and_no_octet_moves(
    tmp_path: pathlib.Path, judge: type[Judge], reply: int, multiplex: bool | None
) -> None:
    pem = write_pem(tmp_path, *self_signed())
    asked, proxy = judge(), free_port()
    config = entry(proxy, rats_tls={"multiplex": multiplex}, verify=VERIFY)
    with Recorder(pem) as peer:
        async with serving({"add_ingress": [config]}, asked), calling(proxy) as client:
            await client.say(GREETING + connect(peer.port) + SECRET)
            assert await client.rest() == b"\x05\x00\x05" + bytes([reply, 0, 1]) + bytes(6)
        assert asked.asked == 1
        assert bytes(peer.recorded) == b""


async def test_after_a_verdict_success_is_told_and_octets_move(tmp_path: pathlib.Path) -> None:
    pem, proxy = write_pem(tmp_path, *self_signed()), free_port()
    with Recorder(pem, ["rats-tls"]) as peer:
        config = entry(proxy, rats_tls={"multiplex": False}, verify=VERIFY)
        async with serving({"add_ingress": [config]}, Judge()), calling(proxy) as client:
            await client.say(GREETING + connect(peer.port) + SECRET + b"\r\n\r\n")
            await client.until(SUCCESS)
            await client.until(b"forged")
        assert SECRET in peer.recorded


@pytest.mark.parametrize("opening", [b"\x04\x01\x00\x50", b"GET / HTTP/1.1\r\n\r\n"])
async def test_another_protocol_is_cut_off(opening: bytes) -> None:
    async with plain() as (_, proxy), calling(proxy) as client:
        await client.say(opening)
        assert await client.is_cut()


@pytest.mark.parametrize("said", [b"", GREETING, GREETING + b"\x05\x01"])
async def test_a_client_that_leaves_is_no_failure(said: bytes) -> None:
    async with plain() as (gateway, proxy), calling(proxy) as client:
        await client.say(said)
        await client.stream.send_eof()
        await client.rest()
        assert gateway.entries[0].meter.cx_failed == 0


async def test_a_handshake_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socks5, "HANDSHAKE_TIMEOUT_S", 0.05)
    async with plain() as (gateway, proxy), calling(proxy) as client:
        await client.say(GREETING + b"\x05")
        assert await client.is_cut()
        assert gateway.entries[0].meter.cx_failed == 1


async def test_the_number_of_handshakes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socks5, "MAX_HANDSHAKES", 1)
    async with service(echo) as web, plain() as (gateway, proxy):
        async with calling(proxy) as first:
            await first.say(GREETING)
            await first.until(b"\x05\x00")
            assert await is_cut_at_once(proxy)
            await first.say(connect(web.port))
            await first.until(SUCCESS)
            async with calling(proxy) as second:
                await second.say(GREETING + connect(web.port))
                await second.until(SUCCESS)
        with trio.fail_after(5):
            while gateway.entries[0].meter.cx_active:
                await trio.sleep(0.005)
