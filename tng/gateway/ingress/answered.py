"""The access log of an OHTTP ingress: who was answered by whom.

In: the exchanges of a client's connection.  Out: one line for each destination, at the first chunk
of an answer that decrypts, or when its first request has failed.  Later requests of the connection
to the same destination say nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tng.dataplane.http_exchange import Exchange
from tng.dataplane.http_upstream import Upstream
from tng.dataplane.plain import PlainEnd
from tng.endpoint import Endpoint
from tng.errors import TngError
from tng.gateway.flow import addresses_of
from tng.observe.access_log import AccessRecord, log_access
from tng.tunnel.base import Peer
from tng.tunnel.ohttp.client import ClientExchange
from tng.tunnel.ohttp.recipients import Recipient
from tng.verdict import AttestedPeer
from tng.wire.ohttp_response import ResponseOpener

_MAX_REMEMBERED: Final = 64
"""Destinations of one connection: a proxy's client may name as many as it likes."""


class AccessNotes:
    """Which destinations of one client's connection have had their line.

    Args:
        client: its connection.
        mode: the entry's mode.
    """

    def __init__(self, client: PlainEnd, mode: str) -> None:
        self._client = client
        self._mode = mode
        self._noted: set[Endpoint] = set()

    def has(self, destination: Endpoint) -> bool:
        """Whether `destination` has had its line."""
        return destination in self._noted

    def answered(self, destination: Endpoint, local: Endpoint, peer: Peer) -> None:
        """Log that `destination` has answered, over a connection with the address `local`."""
        if len(self._noted) >= _MAX_REMEMBERED:
            self._noted.clear()
        self._noted.add(destination)
        addresses, attested = addresses_of(self._client), isinstance(peer, AttestedPeer)
        log_access(AccessRecord(*addresses, self._mode, destination, local, True, attested))

    def failed(self, destination: Endpoint) -> None:
        """Log that `destination` was not reached."""
        addresses = addresses_of(self._client)
        log_access(AccessRecord(*addresses, self._mode, destination, encrypted=True))


class NotedExchange(ClientExchange):
    """A `ClientExchange` that has its answer noted."""

    _notes: AccessNotes | None = None
    _to: Endpoint
    _between: tuple[Endpoint, Peer]

    async def run_noted(self, notes: AccessNotes, destination: Endpoint) -> None:
        """See `ClientExchange.run`.

        Args:
            notes: of the client's connection.
            destination: whom the request is for.
        """
        if notes.has(destination):
            await self.run()
            return
        self._notes, self._to = notes, destination
        try:
            await self.run()
        except TngError:
            if not notes.has(destination):
                notes.failed(destination)
            raise

    async def _send_and_receive(
        self, recipient: Recipient, upstream: Upstream, exchange: Exchange
    ) -> None:
        if self._notes is not None:
            self._between = upstream.end.local, recipient.peer
        await super()._send_and_receive(recipient, upstream, exchange)

    def _open(self, opener: ResponseOpener, pieces: Sequence[bytes]) -> list[bytes]:
        opened = super()._open(opener, pieces)
        if opened and self._notes is not None:
            self._notes.answered(self._to, *self._between)
            self._notes = None
        return opened
