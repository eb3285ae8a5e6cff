"""Connecting to resolved addresses.

In: addresses, best first, as `getaddrinfo` gives them.  Out: a connected socket or end.  Options as
in the reference (v2.12.0): keepalive from 10 s on, TCP_NODELAY.

Invariant: a socket that is not handed out is closed.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Final

from tng.dataplane.plain import PlainEnd
from tng.dataplane.poller import WRITE
from tng.dataplane.socket_end import to_endpoint
from tng.dataplane.task import Wait
from tng.errors import NetError

if TYPE_CHECKING:
    from tng.dataplane.reactor import Reactor

Address = tuple[int, tuple[str | int, ...]]
"""Address family and socket address."""

KEEPALIVE_IDLE_S: Final = 10
KEEPALIVE_INTERVAL_S: Final = 10
KEEPALIVE_PROBES: Final = 3
"""A peer that vanished is noticed after 40 s, also behind a NAT."""

_KEEPALIVE_OPTIONS: Final = tuple(
    (getattr(socket, name), value)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),  # Linux
        ("TCP_KEEPALIVE", KEEPALIVE_IDLE_S),  # macOS
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
    )
    if hasattr(socket, name)
)
"""Options that this platform has."""

_STREAM: Final = socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0)
_IS_BORN_NON_BLOCKING: Final = hasattr(socket, "SOCK_NONBLOCK")
_CONNECTED: Final = frozenset({0, errno.EISCONN})
_UNDER_WAY: Final = frozenset({errno.EINPROGRESS, errno.EALREADY, errno.EINTR})


async def dial(
    reactor: Reactor, addresses: Sequence[Address], timeout_s: float, *, mark: int | None = None
) -> PlainEnd:
    """Connect and make an end of it.  Arguments and errors as `connect_socket`."""
    return PlainEnd(reactor, await connect_socket(reactor, addresses, timeout_s, mark=mark))


def connect_socket(
    reactor: Reactor, addresses: Sequence[Address], timeout_s: float, *, mark: int | None = None
) -> Coroutine[object, None, socket.socket]:
    """Connect to the first address that answers, tried in order.

    Args:
        reactor: whose task this runs in.
        addresses: at least one.
        timeout_s: for all addresses together; each gets an equal share of what is left.
        mark: SO_MARK of the packets, so that netfilter rules can leave them alone (Linux).

    Returns:
        A non-blocking socket, owned by the caller.

    Raises:
        NetError: no address answered; says which, and why the last one did not.
    """
    if len(addresses) == 1:
        family, address = addresses[0]
        return _connect(reactor, family, address, timeout_s, mark)
    return _connect_any(reactor, addresses, timeout_s, mark)


async def _connect_any(
    reactor: Reactor, addresses: Sequence[Address], timeout_s: float, mark: int | None
) -> socket.socket:
    ends_at = reactor.now + timeout_s
    last: NetError | None = None
    for index, (family, address) in enumerate(addresses):
        share_s = max(0.0, ends_at - reactor.now) / (len(addresses) - index)
        try:
            return await _connect(reactor, family, address, share_s, mark)
        except NetError as error:
            last = error
    raise last or NetError("there is no address to connect to")


async def _connect(
    reactor: Reactor,
    family: int,
    address: tuple[str | int, ...],
    timeout_s: float,
    mark: int | None,
) -> socket.socket:
    try:
        sock = socket.socket(family, _STREAM)
    except OSError as error:
        raise NetError(f"cannot connect to {to_endpoint(address)}: {error.strerror}") from error
    try:
        if not _IS_BORN_NON_BLOCKING:
            sock.setblocking(False)
        if not _is_here(address):
            set_keepalive(sock)
        if mark is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        number = sock.connect_ex(address)
        if number in _UNDER_WAY:
            # Asking again tells at once when the address is near: no turn of the loop needed.
            number = sock.connect_ex(address)
        if number in _UNDER_WAY:
            number = await _wait_connected(reactor, sock, timeout_s, str(to_endpoint(address)))
    except OSError as error:
        sock.close()
        raise NetError(f"cannot connect to {to_endpoint(address)}: {error.strerror}") from error
    except BaseException:
        sock.close()
        raise
    if number not in _CONNECTED:
        sock.close()
        raise NetError(f"cannot connect to {to_endpoint(address)}: {os.strerror(number)}")
    return sock


async def _wait_connected(
    reactor: Reactor, sock: socket.socket, timeout_s: float, where: str
) -> int:
    """Wait until the system has connected, or given up; the errno, 0 for success."""
    ready: Wait[int] = Wait()
    late = f"cannot connect to {where}: no answer in {timeout_s:g} s"
    reactor.add(sock.fileno(), WRITE, ready.set)
    try:
        with reactor.deadline(timeout_s, lambda: NetError(late)):
            await ready
    finally:
        reactor.remove(sock.fileno())
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def _is_here(address: tuple[str | int, ...]) -> bool:
    """Whether the peer is on this machine: it cannot vanish without the system telling."""
    host = address[0]
    return isinstance(host, str) and (host.startswith("127.") or host == "::1")


def set_keepalive(sock: socket.socket) -> None:
    """Have the system probe an idle connection; options the platform lacks are left out."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE_OPTIONS:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
