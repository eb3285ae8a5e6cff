"""The access log of an OHTTP ingress: who was answered by whom.

In: the exchanges of a client's connection.  Out: one line for each destination, at the first chunk
of an answer that decrypts, or when its first request has failed.  Later requests of the connection
to the same destination say nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

from tng.dataplane.plain import PlainEnd
from tng.endpoint import Endpoint
from tng.errors import TngError
from tng.gateway.flow import addresses_of
from tng.observe.access_log import AccessRecord, log_access
from tng.tunnel.base import Peer
from tng.tunnel.ohttp.client import ClientExchange, OnAnswered
from tng.verdict import AttestedPeer

_MAX_REMEMBERED: Final = 64
"""Destinations of one connection: a proxy's client may name as many as it likes."""


NotedExchange = Callable[[OnAnswered | None], ClientExchange]
"""Makes the exchange of one request."""


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

    async def note(self, exchange: NotedExchange, destination: Endpoint) -> None:
        """Run an exchange, and write its line if `destination` has had none.

        Args:
            exchange: makes the exchange, given whom to tell of its answer.
            destination: whom the request is for.

        Raises:
            TngError: see `ClientExchange.run`.
        """
        if destination in self._noted:
            await exchange(None).run()
            return
        try:
            await exchange(functools.partial(self._answered, destination)).run()
        except TngError:
            if destination not in self._noted:
                self._failed(destination)
            raise

    def _answered(self, destination: Endpoint, local: Endpoint, peer: Peer) -> None:
        if len(self._noted) >= _MAX_REMEMBERED:
            self._noted.clear()
        self._noted.add(destination)
        addresses, attested = addresses_of(self._client), isinstance(peer, AttestedPeer)
        log_access(AccessRecord(*addresses, self._mode, destination, local, True, attested))

    def _failed(self, destination: Endpoint) -> None:
        addresses = addresses_of(self._client)
        log_access(AccessRecord(*addresses, self._mode, destination, encrypted=True))
