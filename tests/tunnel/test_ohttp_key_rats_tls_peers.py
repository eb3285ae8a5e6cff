"""Messages between egresses over RATS-TLS: carried when both are accepted, and never before."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from stage.identities import Ordinary
from stage.judges import Absent, Judge, Refusing
from tng.attest.verifier.base import Verifier
from tng.clock import SystemClock
from tng.config.ohttp import OhttpKey
from tng.endpoint import Endpoint
from tng.errors import (
    AppraiserError,
    LocalProtocolError,
    NetError,
    RemoteProtocolError,
    StartError,
    TngError,
    UntrustedPeerError,
)
from tng.tunnel.dialer import Dialer
from tng.tunnel.ohttp import rats_tls_peers
from tng.tunnel.ohttp.keys_peer_shared import PeerSharedKeys
from tng.tunnel.ohttp.rats_tls_peers import RatsTlsPeers
from tng.tunnel.rats_tls.identity import Identity
from tng.wire.ohttp_cluster import MAX_MESSAGE


class Echo:
    """Answers with what it was told; notes it."""

    def __init__(self) -> None:
        self.told: list[bytes] = []

    async def __call__(self, body: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        self.told.append(body)
        if body == b"bad":
            raise RemoteProtocolError("it is bad")
        return body[::-1]


def make(plane: Any, verifier: Verifier | None, port: int = 0) -> RatsTlsPeers:
    clock = SystemClock()
    return RatsTlsPeers(
        plane.reactor,
        plane.bridge,
        Dialer(plane.reactor, plane.bridge),
        Endpoint("127.0.0.1", port),
        None if verifier is None else Identity(Ordinary(), 600, clock),
        verifier,
        clock,
    )


@asynccontextmanager
async def serving(
    peers: RatsTlsPeers, handler: Callable[[bytes], Awaitable[bytes]]
) -> AsyncIterator[str]:
    """It answers; gives where."""
    async with trio.open_nursery() as nursery:
        await nursery.start(peers.serve, handler)
        yield str(peers.address)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def both(
    plane: Any, asker: Verifier | None, answerer: Verifier | None
) -> AsyncIterator[tuple[RatsTlsPeers, str, Echo]]:
    """One that asks, the address of one that answers, and what it was told."""
    one, other, echo = make(plane, asker), make(plane, answerer), Echo()
    async with serving(one, Echo()), serving(other, echo) as address:
        with trio.fail_after(8):
            yield one, address, echo


async def test_a_message_goes_to_a_peer_and_its_answer_comes_back(plane) -> None:
    asker, answerer = Judge(), Judge()
    async with both(plane, asker, answerer) as (one, address, echo):
        assert await one.exchange(address, b"abc") == b"cba"
        large = bytes(range(256)) * (MAX_MESSAGE // 256)
        assert await one.exchange(address, large) == large[::-1]
        assert echo.told == [b"abc", large]
    assert asker.asked >= 1
    assert answerer.asked >= 1


async def test_without_remote_attestation_messages_are_carried(plane) -> None:
    async with both(plane, None, None) as (one, address, _):
        assert await one.exchange(address, b"abc") == b"cba"


async def test_a_peer_that_we_refuse_is_told_nothing(plane) -> None:
    async with both(plane, Refusing(), Judge()) as (one, address, echo):
        with pytest.raises(UntrustedPeerError):
            await one.exchange(address, b"abc")
        assert echo.told == []


async def test_a_peer_that_nobody_can_judge_is_told_nothing(plane) -> None:
    async with both(plane, Absent(), Judge()) as (one, address, echo):
        with pytest.raises(AppraiserError):
            await one.exchange(address, b"abc")
        assert echo.told == []


async def test_a_peer_that_refuses_us_is_not_answered(plane) -> None:
    async with both(plane, Judge(), Refusing()) as (one, address, echo):
        with pytest.raises(TngError):
            await one.exchange(address, b"abc")
        assert echo.told == []


async def test_a_peer_without_a_certificate_is_not_answered(plane) -> None:
    async with both(plane, None, Judge()) as (one, address, echo):
        with pytest.raises(TngError):
            await one.exchange(address, b"abc")
        assert echo.told == []


async def test_one_sided_trust_cannot_be_built(plane) -> None:
    parts = (plane.reactor, plane.bridge, Dialer(plane.reactor, plane.bridge))
    clock, listen = SystemClock(), Endpoint("127.0.0.1", 0)
    for identity, verifier in ((Identity(Ordinary(), 600, clock), None), (None, Judge())):
        with pytest.raises(LocalProtocolError, match="attest and verify, or do neither"):
            RatsTlsPeers(*parts, listen, identity, verifier, clock)


async def test_a_message_that_the_peer_refuses_is_an_error_of_the_protocol(plane) -> None:
    async with both(plane, None, None) as (one, address, _):
        with pytest.raises(RemoteProtocolError, match="status 400"):
            await one.exchange(address, b"bad")
        assert await one.exchange(address, b"abc") == b"cba", "the next one is served"


async def test_a_message_that_is_too_long_is_refused_in_both_directions(plane) -> None:
    async def talkative(_body: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return bytes(MAX_MESSAGE + 1)

    async with both(plane, None, None) as (one, address, echo):
        with pytest.raises(TngError, match=r"status 413|broke|reset|closed"):
            await one.exchange(address, bytes(MAX_MESSAGE + 1))
        assert echo.told == []
    async with serving(make(plane, None), talkative) as address:
        with pytest.raises(RemoteProtocolError, match="more than 262144 octets"):
            await make(plane, None).exchange(address, b"")


@pytest.mark.parametrize("peer", ["", "no port", "host:0", "[::1:5"])
async def test_what_is_no_address_is_not_dialled(plane, peer: str) -> None:
    with pytest.raises(NetError, match="expected a peer as host:port"):
        await make(plane, None).exchange(peer, b"")


async def test_a_peer_that_is_not_there_is_a_fault_of_the_network(plane) -> None:
    peers = make(plane, None)
    async with serving(peers, Echo()) as address:
        pass
    await plane.call(lambda: None)
    with pytest.raises(NetError):
        await peers.exchange(address, b"")


async def test_a_silent_peer_is_given_up(plane, monkeypatch) -> None:
    monkeypatch.setattr(rats_tls_peers, "EXCHANGE_TIMEOUT_S", 0.05)

    given_up = trio.Event()

    async def silent(_body: bytes) -> bytes:
        await given_up.wait()
        return b""

    async with serving(make(plane, None), silent) as address:
        with pytest.raises(NetError, match=r"no answer within 0\.05 s"):
            await make(plane, None).exchange(address, b"")
        given_up.set()


async def test_more_peers_than_the_limit_are_let_go(plane, monkeypatch) -> None:
    monkeypatch.setattr(rats_tls_peers, "MAX_CONNECTIONS", 0)
    async with both(plane, None, None) as (one, address, echo):
        with pytest.raises(TngError):
            await one.exchange(address, b"abc")
        assert echo.told == []


async def test_an_address_that_is_taken_is_an_error_of_the_start(plane) -> None:
    peers = make(plane, None)
    async with serving(peers, Echo()):
        again = make(plane, None, peers.address.port)
        with pytest.raises(StartError, match="cannot listen"):
            await again.serve(Echo())


async def talk(address: str, said: bytes) -> bytes:
    """Everything that is answered to something said over TLS."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["rats-tls"])
    host, _, port = address.partition(":")
    heard = b""
    stream = await trio.open_ssl_over_tcp_stream(host, int(port), ssl_context=context)
    try:
        await stream.send_all(said)
        while data := await stream.receive_some():
            heard += data
    except trio.BrokenResourceError:
        pass
    finally:
        await trio.aclose_forcefully(stream)
    return heard


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (b"GET /v1/keys HTTP/1.1\r\nhost: x\r\n\r\n", b"HTTP/1.1 404 "),
        (b"POST /v1/key HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n", b"HTTP/1.1 404 "),
        (b"POST /v1/keys HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nab", b"HTTP/1.1 200 "),
        (b"nonsense\r\n\r\n", b""),
    ],
)
async def test_only_the_one_request_is_answered(plane, said: bytes, heard: bytes) -> None:
    async with both(plane, None, None) as (_, address, echo):
        answer = await talk(address, said)
        assert answer.startswith(heard)
        assert bool(answer) == bool(heard)
        assert echo.told == ([b"ab"] if b"200" in heard else [])


async def test_two_egresses_share_keys_over_it(plane) -> None:
    first, second = make(plane, Judge()), make(plane, Judge())

    def settings(*peers: str) -> OhttpKey:
        return OhttpKey.model_validate(
            {
                "source": "peer_shared",
                "rotation_interval": 300,
                "no_ra": True,
                "peers": list(peers),
            }
        )

    one = PeerSharedKeys(settings(), SystemClock(), first, "key")
    with trio.fail_after(8):
        async with trio.open_nursery() as nursery:
            await nursery.start(one.run)
            two = PeerSharedKeys(settings(str(first.address)), SystemClock(), second, "key")
            await nursery.start(two.run)
            assert {k.public_key for k in one.keyring} == {k.public_key for k in two.keyring}
            nursery.cancel_scope.cancel()
