"""Accepting connections: one task for each.

In: a listening socket and the coroutine function that serves a connection.  Out: tasks, whose first
steps are done at once, since whoever connects mostly has spoken already.

Invariants: a connection is accepted only if a task will own it; running out of descriptors pauses
accepting and ends nothing that is established.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Final

from tng.dataplane.accepted import AcceptedSocket
from tng.dataplane.dial import set_keepalive
from tng.dataplane.poller import READ
from tng.dataplane.socket_end import set_no_delay, to_endpoint
from tng.endpoint import Endpoint
from tng.errors import StartError

if TYPE_CHECKING:
    from tng.dataplane.reactor import Reactor
    from tng.dataplane.timers import Timer

log = logging.getLogger("tng.dataplane")

ACCEPTS_PER_TURN: Final = 64
"""Connections accepted before established ones have their turn, at most.

Asking in vain costs 6 us, since the system makes a socket before it looks (measured), and a turn
of the loop costs no less.  So as many are asked for as came together the last time.
"""

FULL_SHARES: Final = 3
"""After so many events that all had what was asked for, twice as many are asked for."""

PAUSE_S: Final = 0.1
"""How long to wait for descriptors to become free."""

BACKLOG: Final = 1024
"""Connections the system completes while we are busy: 20,000 per second are that in 50 ms."""

_OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

Serve = Callable[[socket.socket, Endpoint], Coroutine[object, None, object]]
"""Serves one accepted, non-blocking socket, which it owns; second argument: the peer."""


class Listener:
    """Accepts from one socket until it is closed.

    Args:
        reactor: whose thread accepts; construct and close it there.
        sock: listening socket; owned by the listener from now on.
        serve: see `Serve`.
        name: of the tasks, for logs.
    """

    def __init__(self, reactor: Reactor, sock: socket.socket, serve: Serve, name: str) -> None:
        self._reactor = reactor
        self._sock = sock
        self._serve = serve
        self._name = name
        self._pause: Timer | None = None
        self._is_short = False
        self._is_closed = False
        self._share = 1
        self._full_shares = 0
        self._family, self._kind = int(sock.family), int(sock.type)
        sock.setblocking(False)
        set_no_delay(sock)  # inherited by the accepted sockets
        reactor.add(sock.fileno(), READ, self._on_event)
        reactor.at_stop.add(self.close)

    def close(self) -> None:
        """Accept no more; established connections go on.  Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self._reactor.at_stop.discard(self.close)
        if self._pause is not None:
            self._pause.cancel()
        self._reactor.remove(self._sock.fileno())
        self._sock.close()

    def _on_event(self, events: int) -> None:
        for accepted in range(self._share):
            try:
                # What `accept` is made of; it would look up two enums and ask twice how to block.
                descriptor, peer = self._sock._accept()  # type: ignore[attr-defined]  # noqa: SLF001
            except BlockingIOError:
                self._share, self._full_shares = accepted or 1, 0
                return
            except OSError as error:
                if error.errno in _OUT_OF_RESOURCES:
                    self._pause_accepting(error)
                    return
                # The peer gave up in between (ECONNABORTED), or the network has news about a
                # connection that never was ours (accept(2)): the next one may be fine.
                continue
            self._take(descriptor, to_endpoint(peer))
        self._full_shares += 1
        if self._full_shares == FULL_SHARES and self._share < ACCEPTS_PER_TURN:
            self._share, self._full_shares = min(2 * self._share, ACCEPTS_PER_TURN), 0

    def _take(self, descriptor: int, peer: Endpoint) -> None:
        connection = AcceptedSocket(self._family, self._kind, descriptor, peer)
        if self._reactor.is_stopping:
            connection.close()
            return
        self._is_short = False
        self._reactor.spawn_now(self._serve(connection, peer), self._name)

    def _pause_accepting(self, error: OSError) -> None:
        if not self._is_short:
            self._is_short = True
            log.warning(
                "accepting pauses; raise the limit of open files listener=%s error=%s",
                self._name,
                error.strerror,
            )
        self._reactor.modify(self._sock.fileno(), 0)
        self._pause = self._reactor.call_later(PAUSE_S, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._reactor.modify(self._sock.fileno(), READ)


def make_listening_socket(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """Bind and listen; arguments and errors as `make_bound_socket`."""
    sock = make_bound_socket(host, port, reuse_port=reuse_port)
    start_listening(sock)
    return sock


def start_listening(sock: socket.socket) -> None:
    """Have the system take connections to a bound socket; one that listens already goes on.

    Raises:
        StartError: somebody else was faster; the socket is closed.
    """
    try:
        sock.listen(BACKLOG)
    except OSError as error:
        where = to_endpoint(sock.getsockname())
        sock.close()
        raise _refusal(where, error) from error


def make_bound_socket(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """Bind; options as in the reference (v2.12.0), with a longer backlog later.

    Args:
        host: an address, or a name to resolve now (blocks; start-up only).
        port: 0-65535, 0 for any free one.
        reuse_port: share the port with other processes that ask for the same.

    Raises:
        StartError: the address is in use, forbidden, or not of this machine.
    """
    where = Endpoint(host, port)
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise StartError(f"cannot listen on {where}: {error.strerror}") from error
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        set_keepalive(sock)  # inherited by the accepted sockets
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise _refusal(where, error) from error
    return sock


def _refusal(where: Endpoint, error: OSError) -> StartError:
    hint = _HINTS.get(error.errno or 0, "")
    return StartError(f"cannot listen on {where}: {error.strerror}{hint}")


_HINTS: Final = {
    errno.EADDRINUSE: "; stop the other process (ss -ltnp shows it) or choose another port",
    errno.EACCES: "; ports below 1024 need CAP_NET_BIND_SERVICE, or choose a higher one",
    errno.EADDRNOTAVAIL: "; no interface of this machine has that address",
}
