"""What we use of the library's inside still means what we take it to mean."""

from __future__ import annotations

import gc
import weakref

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.tls import Group

from stage.certificates import self_signed
from tng.tunnel.quic.connection import (
    SMALLEST_PACKET,
    DatagramConnection,
    make_configuration,
)

CLIENT, SERVER = ("127.0.0.1", 1), ("127.0.0.1", 2)


def configuration(*, is_client: bool, shows: bool = True) -> QuicConfiguration:
    key, certificate = self_signed() if shows else (None, None)
    return make_configuration(
        is_client=is_client, idle_timeout_s=30, key=key, certificate=certificate
    )


def exchange(client: DatagramConnection, server: DatagramConnection, now: float) -> None:
    """Carry packets until nobody has anything to say."""
    for _ in range(20):
        ours = client.datagrams_to_send(now)
        for data, _ in ours:
            server.receive_datagram(data, CLIENT, now)
        theirs = server.datagrams_to_send(now)
        for data, _ in theirs:
            client.receive_datagram(data, SERVER, now)
        now += 0.01
        if not ours and not theirs:
            return


def connected(
    *, shows: bool = True, ask: bool = True
) -> tuple[DatagramConnection, DatagramConnection]:
    client = DatagramConnection(configuration(is_client=True, shows=shows))
    client.connect(SERVER, 0.0)
    server = DatagramConnection(
        configuration(is_client=False),
        ask_certificate=ask,
        original_cid=client.original_destination_connection_id,
    )
    assert not server.has_begun
    exchange(client, server, 0.0)
    assert server.has_begun
    return client, server


def test_each_side_has_the_certificate_that_the_other_has_shown() -> None:
    client, server = connected()
    assert client.peer_certificate != server.peer_certificate
    assert None not in (client.peer_certificate, server.peer_certificate)


@pytest.mark.parametrize(("shows", "ask"), [(False, True), (True, False)])
def test_a_client_that_shows_nothing_or_is_not_asked_has_no_certificate(
    shows: bool, ask: bool
) -> None:
    client, server = connected(shows=shows, ask=ask)
    assert server.peer_certificate is None
    assert client.peer_certificate is not None


def test_groups_are_those_of_our_other_tunnels_in_their_order() -> None:
    client, server = connected()
    assert client.tls._supported_groups == [Group.X25519, Group.SECP256R1]
    assert server.tls._supported_groups == [Group.X25519, Group.SECP256R1, Group.SECP384R1]
    assert not client.tls.session_resumed


@pytest.mark.parametrize("size", [SMALLEST_PACKET, 1452])
def test_the_largest_datagram_fills_one_packet_and_arrives(size: int) -> None:
    client, server = connected()
    assert client.takes_datagrams
    client.use_packet_size(size)
    client.send_datagram_frame(b"x" * client.largest_datagram)
    ((packet, _),) = client.datagrams_to_send(1.0)
    assert len(packet) == size
    server.receive_datagram(packet, CLIENT, 1.0)
    received = []
    while (event := server.next_event()) is not None:
        received.append(getattr(event, "data", b""))
    assert b"x" * client.largest_datagram in received


def test_what_waits_is_counted_and_dropped_from_the_front() -> None:
    client, _ = connected()
    for datagram in (b"one", b"two", b"x" * 1170):
        client.send_datagram_frame(datagram)
    assert client.waiting == 3
    client.drop_oldest()
    assert client.waiting == 2


def test_a_datagram_too_large_for_a_path_that_has_shrunk_blocks_nothing() -> None:
    client, _ = connected()
    client.use_packet_size(1452)
    client.send_datagram_frame(b"x" * 1400)
    client.send_datagram_frame(b"small")
    client.use_packet_size(SMALLEST_PACKET)
    assert client.waiting == 1


def test_streams_are_not_granted() -> None:
    client, server = connected()
    assert client._remote_max_streams_bidi == client._remote_max_streams_uni == 0
    assert server._remote_max_streams_bidi == server._remote_max_data == 0


def test_an_end_is_known_at_once_on_both_sides() -> None:
    client, server = connected()
    assert client.ending is server.ending is None
    client.close(error_code=7, reason_phrase="enough")
    exchange(client, server, 1.0)
    for side in (client, server):
        assert side.ending is not None
        assert (side.ending.error_code, side.ending.reason_phrase) == (7, "enough")


def test_a_connection_that_was_taken_apart_is_gone_without_a_collector() -> None:
    gc.disable()
    try:
        client, server = connected()
        seen = [weakref.ref(client), weakref.ref(server)]
        client.dispose()
        server.dispose()
        del client, server
        assert [reference() for reference in seen] == [None, None]
    finally:
        gc.enable()
