"""What carries messages between egresses that share keys: the seam `PeerTransport`.

The messages hold private keys.  An implementation gives them to nobody but a peer that was judged
and accepted in both directions, or that the operator trusts by `no_ra`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

import trio

Handler: TypeAlias = Callable[[bytes], Awaitable[bytes]]
"""Answers one message of an accepted peer; RemoteProtocolError refuses it."""


class PeerTransport(Protocol):
    """Questions to peers and answers to them (trio side)."""

    async def exchange(self, peer: str, body: bytes) -> bytes:
        """The peer's answer to a message; the caller bounds the time.

        Args:
            peer: as the operator wrote it, `host:port`.
            body: the message, `tng.wire.ohttp_cluster.MAX_MESSAGE` octets at most.

        Raises:
            NetError: the peer cannot be reached.
            UntrustedPeerError: the peer was judged, and refused.
            RemoteProtocolError: the peer refused the message, or answered with more than
                `MAX_MESSAGE` octets.
        """
        ...

    async def serve(
        self, handler: Handler, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Let `handler` answer peers until cancelled; has started when peers can connect.

        Raises:
            StartError: the address cannot be bound.
        """
        ...
