"""Captured datagrams: a socket that knows where each was going, and answers from there.

In: datagrams that TPROXY rules lead to a port of ours.  Out: each with its sender and its
destination; answers, sent to the one from the other.

Theory of operation.  The kernel tells the destination of each datagram as ancillary data
(IP_RECVORIGDSTADDR).  The address that answers come from may belong to another machine, or its port
to a service of this one, and no socket of ours could be bound to it.  So answers are sent through
one raw socket that takes whole packets, with the heads of IP and UDP made here.  That socket sends
only; it is one for all addresses, and holds nothing for any of them.

Source: RFC 768, RFC 791, RFC 1071; ip(7), raw(7); Documentation/networking/tproxy of the kernel.
IPv4 only, as the rules are.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import struct
from collections.abc import Callable
from typing import Final

from tng.endpoint import Endpoint
from tng.errors import LocalProtocolError, StartError
from tng.tunnel.quic.sockets import Address, CapturedPeer, make_udp_socket

log = logging.getLogger(__name__)

_IP_RECVORIGDSTADDR: Final = 20  # linux/in.h; the message has the same number
_ADDRESS: Final = struct.Struct("!2xH4s8x")
_ADDRESS_ROOM: Final = socket.CMSG_SPACE(_ADDRESS.size)

_IP_HEAD: Final = struct.Struct("!BBHHHBBH4s4s")
_UDP_HEAD: Final = struct.Struct("!HHHH")
_FALSE_HEAD: Final = struct.Struct("!4s4sxBH")  # the pseudo header of RFC 768

_VERSION_AND_LENGTH: Final = 0x45
_DO_NOT_FRAGMENT: Final = 0x4000
_TTL: Final = 64
_MAX_PACKET: Final = 65_535
_BUFFER_OCTETS: Final = 4 << 20  # of a send buffer: answers to many clients at once

Refuses = Callable[[Endpoint, Endpoint], bool]
"""Whether a datagram to the first address was made for our own socket, whose address is the
second, and captured by no rule."""


class CapturedDatagrams:
    """A `PacketSocket` whose peers are `CapturedPeer`s.

    Args:
        where: address and port that rules lead to; port 0 for any free one.
        mark: firewall mark of answers, which keeps rules from capturing them.
        refuses: tells datagrams that no rule has captured.

    Raises:
        StartError: the address is in use, or capturing is not allowed.
    """

    def __init__(self, where: Endpoint, mark: int, refuses: Refuses) -> None:
        self._refuses = refuses
        self._has_refused = False
        self._answers = _make_raw_socket(mark)
        try:
            self._sock = make_udp_socket(where)
            self._sock.setsockopt(socket.IPPROTO_IP, _IP_RECVORIGDSTADDR, 1)
        except BaseException:
            self._answers.close()
            raise
        host, port = self._sock.getsockname()[:2]
        self._own = Endpoint(host, port)

    def fileno(self) -> int:
        """See `PacketSocket`."""
        return self._sock.fileno()

    def getsockname(self) -> tuple[str, int]:
        """See `PacketSocket`."""
        return self._own.host, self._own.port

    def setsockopt(self, level: int, name: int, value: int, /) -> None:
        """See `PacketSocket`."""
        self._sock.setsockopt(level, name, value)

    def close(self) -> None:
        """See `PacketSocket`."""
        self._sock.close()
        self._answers.close()

    def recvfrom(self, size: int, /) -> tuple[bytes, CapturedPeer]:
        """See `PacketSocket`; a datagram that was not captured is none at all."""
        data, notes, _, (host, port) = self._sock.recvmsg(size, _ADDRESS_ROOM)
        destination = _destination_in(notes)
        if destination is None or self._refuses(destination, self._own):
            self._complain(Endpoint(host, port))
            # As if nothing had come: whoever reads comes back at once, after others had a turn.
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return data, CapturedPeer(host, port, destination.host, destination.port)

    def sendto(self, data: bytes, address: Address, /) -> int:
        """See `PacketSocket`; the peer sees the address that it has sent to."""
        if not isinstance(address, CapturedPeer):
            raise OSError(errno.EDESTADDRREQ, "an answer needs the address that it comes from")
        packet = udp_packet(
            Endpoint(address.to_host, address.to_port), Endpoint(address.host, address.port), data
        )
        return self._answers.sendto(packet, (address.host, 0))

    def _complain(self, client: Endpoint) -> None:
        """Say it once: anybody can send as many as they like."""
        if not self._has_refused:
            self._has_refused = True
            log.info("refused client=%s: it sent to the listener, not captured", client)


def destination_of(peer: Address) -> Endpoint:
    """Where the datagrams of a peer were going.

    Raises:
        LocalProtocolError: the peer is none of `CapturedDatagrams`.
    """
    if not isinstance(peer, CapturedPeer):
        raise LocalProtocolError(f"a captured peer has a destination, not {peer!r}")
    return Endpoint(peer.to_host, peer.to_port)


def is_loopback(destination: Endpoint, _own: Endpoint) -> bool:
    """For an ingress: no rule captures what goes to this machine."""
    return destination.host.startswith("127.")


def is_own_port(destination: Endpoint, own: Endpoint) -> bool:
    """For an egress: the service would be ourselves."""
    return destination.port == own.port


def udp_packet(source: Endpoint, destination: Endpoint, data: bytes) -> bytes:
    """One IPv4 packet that must not be fragmented.

    Args:
        source: address and port.
        destination: likewise.
        data: payload.

    Raises:
        OSError: (EMSGSIZE) no packet carries so much.
    """
    length = _UDP_HEAD.size + len(data)
    if _IP_HEAD.size + length > _MAX_PACKET:
        raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
    near, far = socket.inet_aton(source.host), socket.inet_aton(destination.host)
    udp = _UDP_HEAD.pack(source.port, destination.port, length, 0) + data
    false_head = _FALSE_HEAD.pack(near, far, socket.IPPROTO_UDP, length)
    head = _UDP_HEAD.pack(source.port, destination.port, length, _checksum(false_head + udp))
    ip = _IP_HEAD.pack(
        _VERSION_AND_LENGTH,
        0,  # no type of service
        _IP_HEAD.size + length,
        0,  # no identification: there are no fragments
        _DO_NOT_FRAGMENT,
        _TTL,
        socket.IPPROTO_UDP,
        0,  # the kernel fills in the checksum of the head
        near,
        far,
    )
    return ip + head + data


def _checksum(octets: bytes) -> int:
    """The Internet checksum (RFC 1071), 1 to 0xFFFF: UDP uses 0 for none.

    Adding 16-bit words with their carries brought round is counting modulo 0xFFFF.
    """
    return 0xFFFF - int.from_bytes(octets + bytes(len(octets) % 2), "big") % 0xFFFF


def _destination_in(notes: list[tuple[int, int, bytes]]) -> Endpoint | None:
    for level, kind, value in notes:
        if (level, kind) == (socket.IPPROTO_IP, _IP_RECVORIGDSTADDR):
            port, address = _ADDRESS.unpack(value)
            return Endpoint(socket.inet_ntoa(address), port)
    return None


def _make_raw_socket(mark: int) -> socket.socket:
    try:
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    except OSError as exc:
        raise StartError(
            f"cannot open a raw socket, which netfilter_udp answers through: {exc.strerror}; this "
            "needs the capability CAP_NET_RAW besides CAP_NET_ADMIN"
        ) from exc
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_OCTETS)
    except OSError as exc:
        sock.close()
        raise StartError(
            f"answers of netfilter_udp cannot be marked: {exc.strerror}; "
            "this needs the capability CAP_NET_ADMIN"
        ) from exc
    return sock
