"""A socket as it comes out of `accept`: ready for use, and with its peer's address.

In: a descriptor that a listening socket gave.  Out: a `socket.socket`, non-blocking.  Our address
has to be asked for: rules of the system may lead connections to a listener that went elsewhere.

Invariant: TCP_NODELAY is on, inherited from the listening socket (`dataplane.listener`).
"""

from __future__ import annotations

import socket

from tng.endpoint import Endpoint


class AcceptedSocket(socket.socket):
    """One accepted connection.

    Args:
        family: of the listening socket.
        kind: of the listening socket.
        descriptor: owned by this socket from now on.
        peer: the peer.
    """

    __slots__ = ("peer",)

    def __init__(self, family: int, kind: int, descriptor: int, peer: Endpoint) -> None:
        super().__init__(family, kind, 0, descriptor)
        self.setblocking(False)
        self.peer = peer
