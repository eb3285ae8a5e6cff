"""The server side: what it demands of a client, in which order, and until when."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import pytest
import trio

from stage.conversation import calling, eventually
from stage.identities import Ordinary
from stage.judges import Judge, Refusing, verdict
from tng.clock import FixedClock
from tng.endpoint import Endpoint
from tng.errors import ErrorCode, NetError, RemoteProtocolError, UntrustedPeerError
from tng.tunnel.base import Opened
from tng.tunnel.dialer import Dialer
from tng.tunnel.rats_tls import server as server_module
from tng.tunnel.rats_tls.client import ClientOptions, RatsTlsClient
from tng.tunnel.rats_tls.identity import Identity
from tng.tunnel.rats_tls.pool import ATTEMPTS, PoolLimits
from tng.tunnel.rats_tls.server import RatsTlsServer
from tng.verdict import AttestedPeer

NOW = 1_000_000.0


class Lasting(Judge):
    """Its verdicts end a hundred seconds after NOW."""

    async def judge(self, certificate_der: bytes, peer: str) -> AttestedPeer:
        self.asked += 1
        return AttestedPeer(verdict(accepted=True, valid_until=NOW + 100), "token")


class Stage:
    """A server whose streams are noted and kept open."""

    def __init__(self, plane: Any, multiplex: bool | None, judge: Judge | None) -> None:
        self.plane = plane
        self.clock = FixedClock(NOW)
        self.served: list[Opened] = []
        self.server = RatsTlsServer(plane.reactor, plane.bridge, multiplex, None, judge, self.clock)
        self.port = 0

    async def start(self) -> Stage:
        async def serve(opened: Opened, stream: Any) -> None:
            self.served.append(opened)
            if stream is not None:
                stream.accept()
            try:
                await opened.end.receive()
            finally:
                opened.end.abort()

        self.port = (await self.plane.listen(self.server, serve)).port
        return self

    def client(self, *, multiplex: bool | None = True, attests: bool = True) -> RatsTlsClient:
        parts = (self.plane.reactor, self.plane.bridge)
        ours = Identity(Ordinary(), 0, self.clock) if attests else None
        options = ClientOptions(multiplex, PoolLimits())
        return RatsTlsClient(*parts, Dialer(*parts), options, ours, None, self.clock)

    async def open(self, client: RatsTlsClient) -> Opened:
        opened: Opened = await self.plane.run(client.open(Endpoint("127.0.0.1", self.port)))
        return opened

    async def error(self) -> BaseException:
        await eventually(lambda: len(self.plane.errors) > 0)
        error: BaseException = self.plane.errors[0]
        return error


async def test_a_client_that_says_nothing_is_let_go(plane, monkeypatch) -> None:
    monkeypatch.setattr(server_module, "FIRST_OCTET_TIMEOUT_S", 0.02)
    stage = await Stage(plane, None, None).start()
    async with calling(stage.port) as client:
        assert await client.is_cut() in (True, False)
    assert "sent nothing" in str(await stage.error())


async def test_a_client_that_does_not_finish_its_handshake_is_let_go(plane, monkeypatch) -> None:
    monkeypatch.setattr(server_module, "HANDSHAKE_TIMEOUT_S", 0.02)
    stage = await Stage(plane, None, None).start()
    async with calling(stage.port) as client:
        await client.say(b"\x16\x03\x01")
        await client.is_cut()
    assert isinstance(await stage.error(), NetError)


async def test_a_health_probe_that_leaves_is_no_tunnel(plane) -> None:
    stage = await Stage(plane, None, None).start()
    async with calling(stage.port):
        pass
    assert isinstance(await stage.error(), NetError)
    assert stage.served == []


async def test_plain_text_is_no_tunnel(plane) -> None:
    stage = await Stage(plane, None, None).start()
    async with calling(stage.port) as client:
        await client.say(b"GET / HTTP/1.1\r\n\r\n")
        assert isinstance(await stage.error(), RemoteProtocolError)
    assert stage.served == []


def tls_client(port: int, alpn: list[str], version: ssl.TLSVersion) -> str | None:
    """The protocol agreed on by Python's own TLS client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = version
    if alpn:
        context.set_alpn_protocols(alpn)
    with (
        socket.create_connection(("127.0.0.1", port), 5) as plain,
        context.wrap_socket(plain) as end,
    ):
        return end.selected_alpn_protocol()


@pytest.mark.parametrize(
    ("multiplex", "offered", "agreed"),
    [
        (None, ["rats-tls", "h2"], "h2"),
        (None, ["rats-tls"], "rats-tls"),
        (True, ["rats-tls", "h2"], "h2"),
        (False, ["rats-tls", "h2"], "rats-tls"),
    ],
)
async def test_the_server_chooses_the_protocol(plane, multiplex, offered, agreed) -> None:
    stage = await Stage(plane, multiplex, None).start()
    arguments = (stage.port, offered, ssl.TLSVersion.TLSv1_3)
    assert await trio.to_thread.run_sync(tls_client, *arguments) == agreed


@pytest.mark.parametrize(
    ("multiplex", "offered", "version"),
    [
        (None, ["http/1.1"], ssl.TLSVersion.TLSv1_3),
        (True, ["rats-tls"], ssl.TLSVersion.TLSv1_3),
        (False, ["h2"], ssl.TLSVersion.TLSv1_3),
        (None, ["h2"], ssl.TLSVersion.TLSv1_2),
    ],
)
async def test_other_protocols_are_refused(plane, multiplex, offered, version) -> None:
    stage = await Stage(plane, multiplex, None).start()
    with pytest.raises((ssl.SSLError, OSError)):
        await trio.to_thread.run_sync(tls_client, stage.port, offered, version)
    assert isinstance(await stage.error(), RemoteProtocolError)
    assert stage.served == []


async def test_a_client_without_a_certificate_is_refused_before_the_judge_is_asked(plane) -> None:
    judge = Judge()
    stage = await Stage(plane, None, judge).start()
    with pytest.raises((NetError, RemoteProtocolError)):
        await stage.open(stage.client(attests=False))
    assert isinstance(await stage.error(), RemoteProtocolError | UntrustedPeerError)
    assert (judge.asked, stage.served) == (0, [])


@pytest.mark.parametrize("multiplex", [True, False])
async def test_a_refused_client_gets_no_stream(plane, multiplex) -> None:
    judge = Refusing()
    stage = await Stage(plane, None, judge).start()
    client = stage.client(multiplex=multiplex)
    try:
        opened = await stage.open(client)
    except (NetError, RemoteProtocolError):
        assert multiplex
    else:
        assert not multiplex, "raw: the client learns of it with its first octet"
        with pytest.raises((NetError, RemoteProtocolError)):
            await plane.run(opened.end.receive())
        await plane.call(opened.end.abort)
    error = await stage.error()
    assert isinstance(error, UntrustedPeerError)
    assert error.code is ErrorCode.POLICY_DENIED
    assert 1 <= judge.asked <= ATTEMPTS
    assert stage.served == []


@pytest.mark.parametrize("multiplex", [True, False])
async def test_a_judged_client_is_served_until_its_verdict_has_ended(plane, multiplex) -> None:
    stage = await Stage(plane, None, Lasting()).start()
    client = stage.client(multiplex=multiplex)
    opened = await stage.open(client)
    await eventually(lambda: len(stage.served) == 1)
    assert stage.served[0].lifetime_s == 100 + 3600
    assert stage.served[0].attested
    await plane.call(opened.end.abort)


async def test_after_the_verdict_no_stream_is_served_although_its_timer_has_not_fired(
    plane,
) -> None:
    """A machine that slept: its timers are late, the time of day is not."""
    stage = await Stage(plane, None, Lasting()).start()
    client = stage.client()
    first = await stage.open(client)
    stage.clock.at = NOW + 100
    with pytest.raises(NetError) as caught:
        await stage.open(client)
    assert caught.value.code is ErrorCode.STALE
    assert len(stage.served) == 1
    await plane.call(first.end.abort)


async def test_the_end_of_a_verdict_sends_the_client_elsewhere(plane) -> None:
    stage = await Stage(plane, None, Lasting()).start()
    stage.clock.at = NOW + 99.9
    client = stage.client()
    first = await stage.open(client)
    mux = client.pool._destinations[next(iter(client.pool._destinations))].shards[0].mux
    await eventually(lambda: not mux.is_open)
    await plane.call(first.end.abort)
    await eventually(lambda: stage.server._connections == set())


async def test_draining_refuses_new_streams_also_on_connections_that_come_late(plane) -> None:
    stage = await Stage(plane, None, None).start()
    early, late = stage.client(attests=False), stage.client(attests=False)
    first = await stage.open(early)
    await plane.call(stage.server.drain)
    mux = early.pool._destinations[next(iter(early.pool._destinations))].shards[0].mux
    await eventually(lambda: not mux.is_open)
    try:
        second = await stage.open(late)
        await plane.call(second.end.abort)
    except NetError:
        pass
    await plane.call(first.end.abort)
    await eventually(lambda: stage.server._connections == set())


async def test_connections_that_ended_leave_no_timer_behind(plane) -> None:
    stage = await Stage(plane, None, Lasting()).start()
    client = stage.client()
    opened = await stage.open(client)
    await plane.call(opened.end.close)
    await plane.call(client.drain)
    await eventually(lambda: stage.server._connections == set())


async def test_a_shared_connection_that_nobody_uses_is_closed_and_one_with_streams_is_not(
    plane, monkeypatch
) -> None:
    monkeypatch.setattr(server_module, "IDLE_TIMEOUT_S", 0.05)
    stage = await Stage(plane, None, None).start()
    busy = await stage.open(stage.client(attests=False))
    (used,) = stage.server._connections
    # This one is shared later, so its time is over later: by then the other's has been, too.
    idle_client = stage.client(attests=False)
    idle = await stage.open(idle_client)
    mux = idle_client.pool._destinations[next(iter(idle_client.pool._destinations))].shards[0].mux
    await plane.call(idle.end.close)
    await eventually(lambda: stage.server._connections == {used})
    await eventually(lambda: not mux.is_open)
    assert used.idle_since is None
    await plane.call(busy.end.close)
    await eventually(lambda: stage.server._connections == set())


async def test_the_time_of_a_shared_connection_counts_from_its_last_stream(plane) -> None:
    stage = await Stage(plane, None, None).start()
    opened = await stage.open(stage.client(attests=False))
    (connection,) = stage.server._connections

    def look(idle_s: float) -> bool:
        """Whether it takes streams after the timer finds that nobody used it for `idle_s`."""
        connection.idle_since = plane.reactor.now - idle_s
        stage.server._close_if_idle(connection)
        return connection.is_open

    await plane.call(opened.end.close)
    await eventually(lambda: connection.idle_since is not None)
    assert await plane.call(lambda: look(server_module.IDLE_TIMEOUT_S - 1))
    assert not await plane.call(lambda: look(server_module.IDLE_TIMEOUT_S))
    await eventually(lambda: stage.server._connections == set())
