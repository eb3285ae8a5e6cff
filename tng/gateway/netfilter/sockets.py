"""Options of sockets that netfilter modes need (Linux).

Transparent listeners take connections to addresses that are not ours; the destination of such a
connection is its own address, and that of a redirected one is remembered by the kernel.  Marked
sockets are ours: no rule captures them.
"""

from __future__ import annotations

import socket
import struct
from typing import Final, Protocol

import trio

from tng.endpoint import Endpoint

_SO_ORIGINAL_DST: Final = 80  # linux/netfilter_ipv4.h; the socket module does not name it
_SOCKADDR_IN: Final = struct.Struct("!2xH4s8x")


class CanBeTransparent(Protocol):
    """Something with options of a socket."""

    def setsockopt(self, level: int, name: int, value: int, /) -> None:
        """As socket(7) says."""
        ...


def make_transparent(sock: CanBeTransparent) -> None:
    """Let a listener take connections to addresses that this machine has not.

    Raises:
        OSError: not allowed (CAP_NET_ADMIN).
    """
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)


def original_destination(sock: socket.socket) -> Endpoint | None:
    """Where a redirected connection was going to; None for one that came here by itself."""
    try:
        raw = sock.getsockopt(socket.IPPROTO_IP, _SO_ORIGINAL_DST, _SOCKADDR_IN.size)
        own = sock.getsockname()[:2]
    except OSError:
        return None  # the kernel does not follow it, or it has gone already
    port, address = _SOCKADDR_IN.unpack(raw)
    original = Endpoint(socket.inet_ntoa(address), port)
    return None if original == own else original


class MarkedSockets(trio.abc.SocketFactory):
    """Makes the sockets of trio's side: questions to attestation services are not captured either.

    Args:
        mark: firewall mark, 1 or more.
    """

    def __init__(self, mark: int) -> None:
        self._mark = mark

    def socket(
        self,
        family: socket.AddressFamily | int = socket.AF_INET,
        type: socket.SocketKind | int = socket.SOCK_STREAM,  # noqa: A002 - trio's name
        proto: int = 0,
    ) -> trio.socket.SocketType:
        """A socket, marked where it is one of the Internet.

        Raises:
            OSError: there is no socket, or it cannot be marked.
        """
        made = socket.socket(family, type, proto)
        try:
            if family in {socket.AF_INET, socket.AF_INET6}:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._mark)
        except BaseException:
            made.close()
            raise
        return trio.socket.from_stdlib_socket(made)
