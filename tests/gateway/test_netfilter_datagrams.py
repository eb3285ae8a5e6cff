"""Captured datagrams: where they were going, and answers that come from there."""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.endpoint import Endpoint
from tng.errors import LocalProtocolError, StartError
from tng.gateway.netfilter.datagrams import (
    CapturedDatagrams,
    _destination_in,
    destination_of,
    is_loopback,
    is_own_port,
    udp_packet,
)
from tng.tunnel.quic.sockets import CapturedPeer

LOOPBACK = "127.0.0.1"
ANY_PORT = Endpoint(LOOPBACK, 0)
HERE, THERE = Endpoint("192.0.2.1", 1234), Endpoint("198.51.100.255", 65535)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="raw sockets need root")


def nothing(_destination: Endpoint, _own: Endpoint) -> bool:
    return False


@given(st.binary(max_size=2000))
def test_a_packet_has_the_checksum_of_its_addresses_and_its_data(data: bytes) -> None:
    packet = udp_packet(HERE, THERE, data)
    ip, udp = packet[:20], packet[20:]
    assert ip[0] == 0x45
    assert int.from_bytes(ip[2:4], "big") == len(packet)
    assert ip[6:8] == b"\x40\x00", "it must not be fragmented"
    assert ip[12:] == socket.inet_aton(HERE.host) + socket.inet_aton(THERE.host)
    source, target, length, checksum = struct.unpack("!HHHH", udp[:8])
    assert (source, target, length, udp[8:]) == (HERE.port, THERE.port, len(udp), data)
    assert checksum != 0, "which means that there is none"
    whole = ip[12:] + b"\x00\x11" + udp[4:6] + udp
    whole += b"\x00" * (len(whole) % 2)
    total = sum(struct.unpack(f"!{len(whole) // 2}H", whole))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF, "as every receiver checks (RFC 1071)"


def test_a_checksum_of_zero_is_sent_as_its_other_form() -> None:
    packets = [udp_packet(HERE, THERE, struct.pack("!H", word)) for word in range(0x10000)]
    sums = {packet[26:28] for packet in packets}
    assert b"\x00\x00" not in sums
    assert b"\xff\xff" in sums


def test_what_no_packet_carries_is_refused() -> None:
    assert len(udp_packet(HERE, THERE, bytes(65_507))) == 65_535
    with pytest.raises(OSError, match="too long") as refusal:
        udp_packet(HERE, THERE, bytes(65_508))
    assert refusal.value.errno == errno.EMSGSIZE


@needs_root
@pytest.mark.parametrize("data", [b"", b"odd", b"even", bytes(30_000)])
def test_an_answer_comes_from_where_the_datagram_was_going(data: bytes) -> None:
    captured = CapturedDatagrams(ANY_PORT, 1, nothing)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(2)
            client.bind((LOOPBACK, 0))
            captured.sendto(data, CapturedPeer(*client.getsockname(), "127.0.0.77", 99))
            assert client.recvfrom(65_535) == (data, ("127.0.0.77", 99))
    finally:
        captured.close()


@needs_root
def test_a_datagram_comes_with_its_sender_and_its_destination() -> None:
    captured = CapturedDatagrams(Endpoint("0.0.0.0", 0), 1, nothing)
    try:
        port = captured.getsockname()[1]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind((LOOPBACK, 0))
            client.sendto(b"hello", ("127.0.0.5", port))
            data, peer = captured.recvfrom(100)
            assert (data, peer) == (b"hello", (*client.getsockname(), "127.0.0.5", port))
            assert destination_of(peer) == Endpoint("127.0.0.5", port)
        with pytest.raises(BlockingIOError):
            captured.recvfrom(100)
    finally:
        captured.close()


@needs_root
def test_a_datagram_that_was_not_captured_is_none_and_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    captured = CapturedDatagrams(ANY_PORT, 1, is_own_port)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for _ in range(3):
                client.sendto(b"secret", captured.getsockname())
                with pytest.raises(BlockingIOError):
                    captured.recvfrom(100)
    finally:
        captured.close()
    assert caplog.text.count("not captured") == 1
    assert "secret" not in caplog.text


@needs_root
def test_an_answer_to_nobody_s_datagram_is_not_sent() -> None:
    captured = CapturedDatagrams(ANY_PORT, 1, nothing)
    try:
        with pytest.raises(OSError, match="needs the address"):
            captured.sendto(b"x", (LOOPBACK, 9))
    finally:
        captured.close()
    captured.close()  # once more does no harm


@needs_root
def test_a_port_in_use_is_an_error_that_leaves_nothing_open() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((LOOPBACK, 0))
        with pytest.raises(StartError, match="cannot listen"):
            CapturedDatagrams(Endpoint(*taken.getsockname()), 1, nothing)


def test_a_peer_that_was_not_captured_has_no_destination() -> None:
    with pytest.raises(LocalProtocolError):
        destination_of((LOOPBACK, 9))
    assert _destination_in([]) is None
    assert _destination_in([(socket.SOL_SOCKET, 20, bytes(16))]) is None


@pytest.mark.parametrize(
    ("destination", "at_ingress", "at_egress"),
    [
        (Endpoint("127.0.0.1", 5000), True, True),
        (Endpoint("127.8.8.8", 80), True, False),
        (Endpoint("192.0.2.7", 5000), False, True),
        (Endpoint("192.0.2.7", 80), False, False),
    ],
)
def test_what_was_sent_to_the_listener_itself_is_known_by_its_destination(
    destination: Endpoint, at_ingress: bool, at_egress: bool
) -> None:
    own = Endpoint("0.0.0.0", 5000)
    assert is_loopback(destination, own) is at_ingress
    assert is_own_port(destination, own) is at_egress
