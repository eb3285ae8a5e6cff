"""The first octet of a connection, looked at without taking it.

In: a connected socket.  Out: the octet, which the next reader finds in its place.  A tunnel begins
with a TLS record, and nothing that is HTTP does.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from tng.dataplane.poller import READ
from tng.dataplane.task import Wait
from tng.errors import RemoteProtocolError

if TYPE_CHECKING:
    from tng.dataplane.reactor import Reactor


async def first_octet(reactor: Reactor, sock: socket.socket, timeout_s: float) -> bytes:
    """The octet, or b"" if the peer has left without a word.

    Args:
        reactor: where this runs.
        sock: non-blocking; stays the caller's, nothing is taken from it.
        timeout_s: seconds until the peer must have said something.

    Raises:
        RemoteProtocolError: it said nothing.
    """
    seen = _peek(sock)
    if seen is not None:
        return seen
    readable: Wait[None] = Wait()

    def on_event(_events: int) -> None:
        readable.set(None)

    def silent() -> RemoteProtocolError:
        return RemoteProtocolError(f"the client sent nothing within {timeout_s:g} s")

    reactor.add(sock.fileno(), READ, on_event)
    try:
        with reactor.deadline(timeout_s, silent):
            await readable
    finally:
        reactor.remove(sock.fileno())
    return _peek(sock) or b""


def _peek(sock: socket.socket) -> bytes | None:
    try:
        return sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return None
    except OSError:
        return b""
