"""UDP sockets: large buffers, packets that are never fragmented, and how large those may be.

In: addresses.  Out: non-blocking sockets, and the payload that the path to an address carries.
A socket here is anything with the few methods of `PacketSocket`: captured datagrams come through
one that knows more addresses than its own.
Source: RFC 9000 section 14 (QUIC packets are not fragmented), ip(7), ipv6(7), socket(7).
"""

from __future__ import annotations

import contextlib
import socket
from typing import Final, NamedTuple, Protocol

from tng.endpoint import Endpoint
from tng.errors import NetError, StartError
from tng.tunnel.dialer import literal_address
from tng.tunnel.quic.connection import SMALLEST_PACKET


class CapturedPeer(NamedTuple):
    """A peer whose datagrams were on their way to another address than ours.

    Attributes:
        host: of the peer.
        port: of the peer.
        to_host: where they were going; answers come from there.
        to_port: likewise.
    """

    host: str
    port: int
    to_host: str
    to_port: int


Address = tuple[str, int] | tuple[str, int, int, int] | CapturedPeer
"""The address of a peer, as the `sendto` of its socket takes it."""


class PacketSocket(Protocol):
    """What is asked of a non-blocking UDP socket; those of the system have it all."""

    def fileno(self) -> int:
        """The descriptor, which becomes readable."""
        ...

    def recvfrom(self, size: int, /) -> tuple[bytes, Address]:
        """One datagram and who sent it.

        Raises:
            OSError: there is none, or an earlier one was not delivered.
        """
        ...

    def sendto(self, data: bytes, address: Address, /) -> int:
        """Send one datagram; the octets sent.

        Raises:
            OSError: it was not sent.
        """
        ...

    def getsockname(self) -> tuple[str, int] | tuple[str, int, int, int]:
        """Where it is bound."""
        ...

    def setsockopt(self, level: int, name: int, value: int, /) -> None:
        """As socket(7) says."""
        ...

    def close(self) -> None:
        """Close it.  Idempotent."""
        ...


LARGEST_READ: Final = 65_535
"""Octets of the largest UDP datagram."""

LARGEST_PACKET: Final = 1452
"""Octets of UDP payload beyond which no path is tried: Ethernet's 1500 less the heads of IPv6 and
UDP; the reference looks no further either (v2.12.0)."""

_BUFFER_OCTETS: Final = 4 << 20
"""Of receive buffer: thousands of packets, which arrive while the thread does something else."""

# Of linux/in.h, linux/in6.h and asm-generic/socket.h; the socket module has no names for them.
_IP_MTU_DISCOVER: Final = 10
_IP_MTU: Final = 14
_IPV6_MTU_DISCOVER: Final = 23
_IPV6_MTU: Final = 24
_PMTUDISC_DO: Final = 2
_SO_RCVBUFFORCE: Final = 33
_UDP_HEAD: Final = 8
_IP_HEADS: Final = {socket.AF_INET: 20, socket.AF_INET6: 40}


class Path(NamedTuple):
    """The way to an address.

    Attributes:
        packet_size: octets of UDP payload that it carries, `SMALLEST_PACKET` to `LARGEST_PACKET`.
        local: our address on it.
    """

    packet_size: int
    local: str


def make_udp_socket(where: Endpoint, mark: int | None = None) -> socket.socket:
    """A bound, non-blocking UDP socket with a large receive buffer.

    Args:
        where: address and port; port 0 for any free one.
        mark: firewall mark of what it sends (Linux, CAP_NET_ADMIN); None for none.

    Raises:
        StartError: the address is in use, forbidden, or not of this machine.
    """
    family, address = literal_address(where)
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if mark is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        enlarge(sock)
        sock.setblocking(False)
        sock.bind(address)
    except OSError as exc:
        sock.close()
        raise StartError(f"cannot listen on {where} (UDP): {exc.strerror or exc}") from exc
    return sock


def enlarge(sock: socket.socket) -> None:
    """Give a socket a large receive buffer, as far as the system lets us."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_OCTETS)
    except OSError:  # needs CAP_NET_ADMIN; the other one is cut to net.core.rmem_max
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_OCTETS)


def forbid_fragments(sock: socket.socket) -> None:
    """Have packets that are too large for their path refused (EMSGSIZE), not fragmented."""
    with contextlib.suppress(OSError):  # elsewhere than on Linux: fragments are a loss of speed
        _forbid_fragments(sock)


def connect_udp(address: Address, mark: int | None = None) -> socket.socket:
    """A non-blocking UDP socket that speaks with one peer alone.

    Args:
        address: of the peer.
        mark: firewall mark of what it sends (Linux, CAP_NET_ADMIN); None for none.

    Raises:
        NetError: there is no way to the address, or no descriptor left.
    """
    try:
        sock = socket.socket(_family(address), socket.SOCK_DGRAM)
    except OSError as exc:
        raise NetError(f"cannot open a UDP socket: {exc.strerror or exc}") from exc
    try:
        if mark is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        sock.setblocking(False)
        sock.connect(address)
    except OSError as exc:
        sock.close()
        where = Endpoint(address[0], address[1])
        raise NetError(f"cannot reach {where} (UDP): {exc.strerror or exc}") from exc
    return sock


def look_at_path(address: Address) -> Path:
    """What the system knows about the way to `address`; nothing is sent."""
    family = _family(address)
    six = family == socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            _forbid_fragments(sock)
            sock.connect(address)
            level = socket.IPPROTO_IPV6 if six else socket.IPPROTO_IP
            mtu = sock.getsockopt(level, _IPV6_MTU if six else _IP_MTU)
            local: str = sock.getsockname()[0]
    except OSError:
        return Path(SMALLEST_PACKET, "::" if six else "0.0.0.0")  # noqa: S104 - unknown, not bound
    carried = mtu - _IP_HEADS[family] - _UDP_HEAD
    return Path(max(SMALLEST_PACKET, min(carried, LARGEST_PACKET)), local)


def _forbid_fragments(sock: socket.socket) -> None:
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DO)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO)


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET
