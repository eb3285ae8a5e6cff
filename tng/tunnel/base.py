"""What gateways see of a tunnel: a destination in, a stream with a judged peer out."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from tng.dataplane.ends import End
from tng.endpoint import Endpoint
from tng.verdict import AttestedPeer, NoRa

Peer = AttestedPeer | NoRa
"""Who is at the other end: a peer that passed every check, or the operator's wish to ask none."""


class Opened(NamedTuple):
    """A stream through a tunnel.  There is no way to have one without a `Peer`.

    Attributes:
        end: the stream; the receiver closes it.
        peer: the judged peer.
        local: our address on the way there.
        lifetime_s: seconds that the stream may last, None for no bound.
    """

    end: End
    peer: Peer
    local: Endpoint
    lifetime_s: float | None

    @property
    def attested(self) -> bool:
        """Whether the peer was attested."""
        return isinstance(self.peer, AttestedPeer)


class Tunnel(Protocol):
    """Opens streams to egresses (in the reactor)."""

    async def open(self, destination: Endpoint) -> Opened:
        """A stream to `destination`, whose peer has been judged.

        Raises:
            NetError: nobody there, or it broke while opening.
            RemoteProtocolError: what answers does not speak TNG.
            UntrustedPeerError: the peer was judged and refused.
            AppraiserError: there was no judge to ask.
        """
        ...
