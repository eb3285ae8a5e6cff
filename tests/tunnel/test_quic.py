"""Both ends of QUIC sessions on loopback, and what strangers send them."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.lowlevel
from aioquic._buffer import Buffer
from aioquic.quic.packet import encode_quic_version_negotiation, pull_quic_header
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from stage.identities import Ordinary
from stage.judges import Judge, Refusing
from tng.attest.credential import Credential
from tng.clock import SystemClock
from tng.endpoint import Endpoint
from tng.errors import (
    EvidenceError,
    LocalProtocolError,
    NetError,
    RemoteProtocolError,
    TngError,
    UntrustedPeerError,
)
from tng.tunnel.base import Peer
from tng.tunnel.quic import MAX_HANDSHAKE_OCTETS, MAX_HELD
from tng.tunnel.quic import server as server_module
from tng.tunnel.quic.client import QuicClient
from tng.tunnel.quic.connection import SMALLEST_PACKET, DatagramConnection, make_configuration
from tng.tunnel.quic.port import QuicPort
from tng.tunnel.quic.server import Newcomer, QuicServer
from tng.tunnel.quic.session import Session
from tng.tunnel.quic.sockets import (
    LARGEST_PACKET,
    Address,
    connect_udp,
    look_at_path,
    make_udp_socket,
)
from tng.tunnel.rats_tls.identity import Identity, Source
from tng.verdict import NoRa

ANY = Endpoint("127.0.0.1", 0)


def identity(source: Source, interval: int = 3600) -> Identity:
    return Identity(source, interval, SystemClock())


class Large:
    """Makes a certificate as long as evidence can be."""

    async def make(self) -> Credential:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "large")])
        now = dt.datetime.now(dt.UTC)
        extension = x509.UnrecognizedExtension(
            x509.ObjectIdentifier("2.23.133.5.4.9"), os.urandom(100_000)
        )
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(42)
            .not_valid_before(now)
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(extension, critical=False)
            .sign(key, hashes.SHA256())
        )
        return Credential(key, certificate, now.timestamp() + 3600, tee="sample")


class Unable:
    async def make(self) -> Credential:
        raise EvidenceError("no TEE here")


class Far:
    """A server whose sessions echo."""

    def __init__(self, ours: Identity | None = None, judge: Judge | None = None) -> None:
        self.server = QuicServer(ours, judge, 30, self._serve, self._failed)
        self.failures: list[TngError] = []
        self.received: list[bytes] = []
        self.sessions: list[Session] = []
        self.sock = make_udp_socket(ANY)
        self.at = Endpoint("127.0.0.1", self.sock.getsockname()[1])

    async def _serve(self, session: Session, peer: Peer, address: Address) -> None:
        self.sessions.append(session)

        def deliver(datagram: bytes) -> None:
            self.received.append(datagram)
            session.send(datagram)

        session.open(peer, deliver, LARGEST_PACKET)
        await session.ended.wait()

    def _failed(self, address: Address, error: TngError) -> None:
        self.failures.append(error)


@asynccontextmanager
async def ends(
    *,
    near: Source | None = None,
    far: Source | None = None,
    near_judge: Judge | None = None,
    far_judge: Judge | None = None,
    interval: int = 3600,
) -> AsyncIterator[tuple[QuicClient, Far]]:
    ours = None if near is None else identity(near, interval)
    theirs = None if far is None else identity(far, interval)
    client, server = QuicClient(ours, near_judge, SystemClock(), 30), Far(theirs, far_judge)
    async with trio.open_nursery() as nursery:
        for part in (ours, theirs):
            if part is not None:
                nursery.start_soon(part.run)
        await nursery.start(server.server.run, server.sock)
        await nursery.start(client.run)
        yield client, server
        nursery.cancel_scope.cancel()


async def asked(client: QuicClient, at: Endpoint, datagram: bytes = b"hello") -> bytes:
    """The answer to one datagram through a session of its own."""
    opened = await client.open(at)
    send, receive = trio.open_memory_channel[bytes](10)
    opened.session.open(opened.peer, send.send_nowait, opened.packet_size)
    opened.session.send(datagram)
    with trio.fail_after(8):
        return await receive.receive()


@pytest.mark.parametrize("interval", [3600, 0], ids=["one certificate", "one per connection"])
async def test_certificates_longer_than_a_flight_are_shown_both_ways(interval: int) -> None:
    judge = Judge()
    async with ends(
        near=Large(), far=Large(), near_judge=judge, far_judge=judge, interval=interval
    ) as (client, server):
        assert await asked(client, server.at) == b"hello"
        assert judge.asked == 2


async def test_a_name_is_resolved() -> None:
    async with ends() as (client, server):
        assert await asked(client, Endpoint("localhost", server.at.port)) == b"hello"


async def test_nothing_is_sent_or_delivered_before_the_session_is_opened() -> None:
    async with ends() as (client, server):
        opened = await client.open(server.at)
        with pytest.raises(LocalProtocolError):
            opened.session.send(b"too early")
        opened.session.open(NoRa.NO_RA, lambda _: None, opened.packet_size)
        with pytest.raises(LocalProtocolError):
            opened.session.open(NoRa.NO_RA, lambda _: None, opened.packet_size)
        assert not opened.attested


async def test_what_comes_before_the_verdict_is_held_in_part_and_dropped_on_refusal() -> None:
    async with ends() as (client, server):
        opened = await client.open(server.at)
        session = opened.session
        while not server.sessions:
            await trio.sleep(0.01)
        for number in range(MAX_HELD + 5):
            server.sessions[0].send(b"%d" % number)
            while server.sessions[0]._connection.waiting:
                await trio.sleep(0.001)
        while session.dropped < 5:
            await trio.sleep(0.01)
        heard: list[bytes] = []
        session.open(NoRa.NO_RA, heard.append, opened.packet_size)
        assert heard == [b"%d" % number for number in range(5, MAX_HELD + 5)]


async def test_a_refused_server_is_told_and_hears_nothing() -> None:
    async with ends(far=Ordinary(), near_judge=Refusing()) as (client, server):
        with pytest.raises(UntrustedPeerError):
            await client.open(server.at)
        with trio.fail_after(8):
            # It hears of it during its own handshake, or right after.
            while not (server.failures or [s for s in server.sessions if s.ended.is_set()]):
                await trio.sleep(0.01)
        told = [str(failure) for failure in server.failures]
        told += [session.reason for session in server.sessions]
        assert "peer refused" in told[0]
        assert server.received == []
        assert not any(session.send(b"late") for session in server.sessions)


async def test_a_client_without_a_certificate_is_refused_unjudged() -> None:
    judge = Judge()
    async with ends(far_judge=judge) as (client, server):
        opened = await client.open(server.at)
        with trio.fail_after(8):
            await opened.session.ended.wait()
        assert isinstance(server.failures[0], UntrustedPeerError)
        assert judge.asked == 0


async def test_without_evidence_of_our_own_nobody_is_served() -> None:
    async with ends(far=Unable()) as (client, server):
        with trio.move_on_after(0.1):
            await client.open(server.at)
        assert isinstance(server.failures[0], EvidenceError)
    async with ends(near=Unable()) as (client, server):
        with pytest.raises(EvidenceError):
            await client.open(server.at)


async def test_nobody_there_is_a_network_error() -> None:
    async with ends() as (client, _):
        with make_udp_socket(ANY) as sock:
            session = QuicPort(sock).add(_client_connection(), "silent")
            with pytest.raises(NetError, match=r"not finish a QUIC handshake within 0\.01 s"):
                await session.wait_handshake(0.01)
    with pytest.raises(NetError):
        await client.open(Endpoint("127.0.0.1", 9))  # runs no more


def _client_connection() -> DatagramConnection:
    return DatagramConnection(
        make_configuration(is_client=True, idle_timeout_s=30, key=None, certificate=None)
    )


@asynccontextmanager
async def stranger(at: Endpoint, connection: DatagramConnection) -> AsyncIterator[Session]:
    """A client with settings of its own, shaking hands."""
    async with trio.open_nursery() as nursery:
        port = QuicPort(make_udp_socket(ANY))
        await nursery.start(port.run)
        session = port.add(connection, str(at))
        connection.connect((at.host, at.port), trio.current_time())
        port.serve(session)
        yield session
        nursery.cancel_scope.cancel()


async def test_another_protocol_is_refused_and_the_next_client_is_served() -> None:
    async with ends() as (client, server):
        connection = _client_connection()
        connection.configuration.alpn_protocols = ["h3"]
        async with stranger(server.at, connection) as session:
            with pytest.raises(RemoteProtocolError, match="No common ALPN"):
                await session.wait_handshake(8)
        while not server.failures:
            await trio.sleep(0.01)
        assert isinstance(server.failures[0], RemoteProtocolError)
        assert await asked(client, server.at) == b"hello"


async def test_a_peer_that_takes_no_datagrams_is_refused() -> None:
    async with ends() as (_, server):
        connection = _client_connection()
        connection.configuration.max_datagram_frame_size = None
        async with stranger(server.at, connection) as session:
            await session.wait_handshake(8)
            with trio.fail_after(8):
                await session.ended.wait()
            assert session.reason == "datagrams are not supported"
        assert isinstance(server.failures[0], RemoteProtocolError)


async def test_a_peer_that_opens_a_stream_is_cut_off() -> None:
    async with ends() as (_, server):
        connection = _client_connection()
        async with stranger(server.at, connection) as session:
            await session.wait_handshake(8)
            connection._remote_max_streams_bidi = 1
            connection.send_stream_data(0, b"", end_stream=True)
            session.keep_alive()
            with trio.fail_after(8):
                await session.ended.wait()
            assert session.reason


async def test_a_handshake_without_end_is_cut_off() -> None:
    with make_udp_socket(ANY) as sock:
        session = QuicPort(sock).add(_client_connection(), "endless")
        packet = b"\xc0" * (MAX_HANDSHAKE_OCTETS + 1)
        session.receive(packet, ("127.0.0.1", 1), trio.current_time())
    assert session.ended.is_set()
    assert session.reason == "handshake is too long"


async def test_a_peer_that_is_silent_although_it_owes_an_answer_has_gone() -> None:
    async with ends() as (client, server):
        opened = await client.open(server.at)
        session = opened.session
        session.open(opened.peer, lambda _: None, opened.packet_size)
        session.send(b"hello")
        now = trio.current_time()
        session.wake(now + 1)
        assert not session.ended.is_set()
        session.wake(now + 9)
        assert session.reason == "no answer"


async def test_an_error_that_nobody_foresaw_ends_one_session(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with ends() as (client, server):
        opened = await client.open(server.at)

        def deliver(_: bytes) -> None:
            raise ZeroDivisionError

        opened.session.open(opened.peer, deliver, opened.packet_size)
        opened.session.send(b"hello")
        with trio.fail_after(8):
            await opened.session.ended.wait()
        assert opened.session.reason == "abandoned"
        assert await asked(client, server.at) == b"hello"
    assert "unexpected error" in caplog.text


async def test_a_client_has_to_come_twice_while_many_are_opening() -> None:
    async with ends() as (client, server):
        for number in range(server_module.TRUSTING_OPENING):
            cid = b"taken%03d" % number
            server.server._opening[cid] = Newcomer(cid, cid, None, ("127.0.0.1", 1))
        assert await asked(client, server.at) == b"hello"


async def test_a_forged_token_and_a_full_house_are_answered_with_silence() -> None:
    async with ends() as (client, server):
        for number in range(server_module.MAX_OPENING):
            cid = b"taken%03d" % number
            server.server._opening[cid] = Newcomer(cid, cid, None, ("127.0.0.1", 1))
        with trio.move_on_after(0.1):
            await client.open(server.at)
        server.server._opening.clear()
        connection = _client_connection()
        connection._peer_token = b"forged token, long enough"
        async with stranger(server.at, connection) as session:
            with pytest.raises(NetError):
                await session.wait_handshake(0.1)
        assert server.sessions == []


async def test_an_unknown_version_is_answered_with_ours_and_an_answer_never() -> None:
    async with ends() as (_, server):
        with connect_udp((server.at.host, server.at.port)) as sock:
            ours, theirs = b"client12", b"server12"
            head = b"\xc0" + b"\x1a\x2a\x3a\x4a" + b"\x08" + theirs + b"\x08" + ours
            sock.send(head.ljust(SMALLEST_PACKET - 1, b"\0"))
            sock.send(
                encode_quic_version_negotiation(theirs, ours, [1]).ljust(SMALLEST_PACKET, b"\0")
            )
            sock.send(head.ljust(SMALLEST_PACKET, b"\0"))
            with trio.fail_after(8):
                await trio.lowlevel.wait_readable(sock)
            header = pull_quic_header(Buffer(data=sock.recv(2000)))
            assert header.supported_versions == [1]
            assert (header.destination_cid, header.source_cid) == (ours, theirs)
            await trio.sleep(0.05)
            with pytest.raises(BlockingIOError):
                sock.recv(2000)


@settings(max_examples=20)
@given(st.lists(st.binary(max_size=1300), max_size=10))
def test_garbage_leaves_nothing_behind(packets: list[bytes]) -> None:
    async def main() -> None:
        async with ends() as (client, server):
            with connect_udp((server.at.host, server.at.port)) as sock:
                for packet in packets:
                    sock.send(packet)
                    initial = b"\xc3\0\0\0\1\x08" + packet[:8].ljust(8, b"\0") + b"\x00\x00\x44\x00"
                    sock.send((initial + packet).ljust(SMALLEST_PACKET, b"\x55"))
                assert await asked(client, server.at) == b"hello"
            assert len(list(server.server._port.sessions)) == 1  # type: ignore[union-attr]

    trio.run(main)


async def test_a_stopping_server_tells_its_clients() -> None:
    server = Far()
    async with trio.open_nursery() as nursery:
        client = QuicClient(None, None, SystemClock(), 30)
        await nursery.start(client.run)
        async with trio.open_nursery() as inner:
            await inner.start(server.server.run, server.sock)
            opened = await client.open(server.at)
            inner.cancel_scope.cancel()
        with trio.fail_after(8):
            await opened.session.ended.wait()
        assert opened.session.reason
        nursery.cancel_scope.cancel()


async def test_an_ended_session_leaves_the_tables_of_its_port() -> None:
    async with ends() as (client, server):
        await asked(client, server.at)
        (port, _), *_ = client._ports.values()
        (session,) = port.sessions
        session.close("enough")
        with trio.fail_after(8):
            while list(port.sessions) or port._by_cid:
                await trio.sleep(0.02)
        assert session.is_terminated
        assert not session.send(b"late")
        session.close("again")


def test_the_path_over_loopback_carries_the_largest_packets() -> None:
    assert look_at_path(("127.0.0.1", 9)).packet_size == LARGEST_PACKET
    assert look_at_path(("::1", 9)).packet_size in (LARGEST_PACKET, SMALLEST_PACKET)
    assert look_at_path(("127.0.0.1", 9)).local == "127.0.0.1"


def test_no_way_to_an_address_is_a_network_error() -> None:
    with pytest.raises(NetError, match="cannot reach"):
        connect_udp(("255.255.255.255", 9))
