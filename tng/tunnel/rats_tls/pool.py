"""Multiplexed connections, shared per destination.

A connection takes streams until it holds `max_streams` of them; then the next one is opened, up
to `max_connections`, after which streams overflow onto the least loaded as far as the peer admits.
No stream is opened on a connection whose verdict has ended; what it carries may drain.  One
connection is opened at a time per destination: who comes meanwhile waits for it and shares it.
A destination that has answered raw is remembered, and its streams are then dialled side by side.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from tng.clock import Clock
from tng.dataplane.mux import MuxConnection, MuxFull, MuxStream
from tng.dataplane.reactor import Reactor
from tng.dataplane.task import Wait
from tng.dataplane.tls import TlsEnd
from tng.endpoint import Endpoint
from tng.errors import NetError
from tng.tunnel.base import Opened, Peer
from tng.tunnel.rats_tls.judging import lifetime_s, remaining_s

log = logging.getLogger(__name__)

STREAMS_PER_CONNECTION: Final = 100
"""Streams on a connection before the next is opened; the reference's egress admits 200."""

CONNECTIONS_PER_DESTINATION: Final = 256
"""Bound on the connections of one destination."""

DESTINATIONS: Final = 4096
"""Destinations remembered; clients name them, so the table is bounded."""

OPEN_TIMEOUT_S: Final = 15.0
"""Seconds for the peer to accept a stream; it dials its backend meanwhile."""

IDLE_TIMEOUT_S: Final = 60.0
"""Seconds without a stream after which a connection is closed."""

ATTEMPTS: Final = 3
"""A pooled connection may break just as a stream is opened on it; nothing was sent by then."""


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """What the operator set, or None.

    Attributes:
        max_streams: `multiplex_max_streams_per_connection`.
        max_connections: `multiplex_max_connections`.
    """

    max_streams: int | None = None
    max_connections: int | None = None


@dataclass(frozen=True, slots=True)
class Connected:
    """A TLS connection whose peer has been judged.

    Attributes:
        end: the connection, open; nothing but the handshake has passed through it.
        peer: the judged peer.
        multiplexed: whether it carries HTTP/2 streams rather than one raw stream.
    """

    end: TlsEnd
    peer: Peer
    multiplexed: bool


@dataclass(slots=True, eq=False)
class _Shard:
    """One multiplexed connection of a destination."""

    number: int
    mux: MuxConnection
    peer: Peer
    local: Endpoint


@dataclass(slots=True)
class _Destination:
    shards: list[_Shard] = field(default_factory=list)
    waiters: list[Wait[None]] = field(default_factory=list)
    is_opening: bool = False
    speaks_raw: bool = False
    last_number: int = -1


class Pool:
    """All multiplexed connections of one entry.

    Args:
        reactor: where they live.
        connect: makes one judged connection.
        limits: see `PoolLimits`.
        clock: against which verdicts end.
    """

    def __init__(
        self,
        reactor: Reactor,
        connect: Callable[[Endpoint], Awaitable[Connected]],
        limits: PoolLimits,
        clock: Clock,
    ) -> None:
        self._reactor = reactor
        self._connect = connect
        self._limits = limits
        self._clock = clock
        self._destinations: dict[Endpoint, _Destination] = {}
        self._max_streams = limits.max_streams or STREAMS_PER_CONNECTION
        self._max_connections = limits.max_connections or CONNECTIONS_PER_DESTINATION
        self._overflowed = 0

    async def open(self, destination: Endpoint) -> Opened | Connected:
        """A stream on a shared connection, or a connection of its own if the peer speaks raw.

        Raises:
            TngError: what connecting or judging raised.
        """
        for attempt in range(ATTEMPTS):
            found = await self._connection(destination)
            if isinstance(found, Connected):
                return found
            try:
                stream = await found.mux.open(OPEN_TIMEOUT_S)
            except MuxFull:
                continue
            except NetError:
                if found.mux.is_open or attempt == ATTEMPTS - 1:
                    raise  # the peer refused this stream, or connections keep breaking
                continue
            return self._opened(stream, found)
        raise NetError(f"{destination} admits no further stream")

    def drain(self) -> None:
        """Close every connection as soon as its last stream has ended."""
        for known in self._destinations.values():
            for shard in list(known.shards):
                shard.mux.drain()

    def status(self, multiplex: bool | None) -> dict[str, object]:
        """The pool as `/status/ingress/N/rats_tls/pool` shows it; any thread may call this."""
        return {
            "multiplex": multiplex is not False,
            "multiplex_max_streams_per_connection": self._limits.max_streams,
            "multiplex_max_connections": self._limits.max_connections,
            "overflowed_streams": self._overflowed,
            "endpoints": [
                {
                    "endpoint": str(destination),
                    "shard_count": len(known.shards),
                    "cooling_shards": sum(not shard.mux.is_open for shard in known.shards),
                    "shards": [
                        {"id": shard.number, "active_streams": shard.mux.active_streams}
                        for shard in list(known.shards)
                    ],
                }
                for destination, known in list(self._destinations.items())
                if known.shards
            ],
        }

    # -- choosing a connection -----------------------------------------------------

    async def _connection(self, destination: Endpoint) -> _Shard | Connected:
        known = self._known(destination)
        while True:
            shard = self._with_room(known)
            if shard is not None:
                return shard
            if known.speaks_raw and not known.shards:
                return await self._connect_and_sort(destination, known)
            if not known.is_opening:
                return await self._connect_first(destination, known)
            turn: Wait[None] = Wait()
            known.waiters.append(turn)
            await turn

    def _known(self, destination: Endpoint) -> _Destination:
        known = self._destinations.get(destination)
        if known is None:
            if len(self._destinations) >= DESTINATIONS:
                self._forget_unused()
            known = self._destinations[destination] = _Destination()
        return known

    def _forget_unused(self) -> None:
        for endpoint, known in list(self._destinations.items()):
            if not known.shards and not known.is_opening:
                del self._destinations[endpoint]

    def _with_room(self, known: _Destination) -> _Shard | None:
        """A connection for the next stream; None if another is to be opened."""
        usable = [shard for shard in known.shards if self._is_usable(shard)]
        for shard in usable:
            if shard.mux.active_streams < min(self._max_streams, shard.mux.max_streams):
                return shard
        if len(usable) < self._max_connections or not usable:
            return None
        self._overflowed += 1
        return min(usable, key=lambda shard: shard.mux.active_streams)

    def _is_usable(self, shard: _Shard) -> bool:
        if not shard.mux.is_open:
            return False
        if remaining_s(shard.peer, self._clock.now()) == 0:
            shard.mux.drain()
            return False
        return True

    async def _connect_first(
        self, destination: Endpoint, known: _Destination
    ) -> _Shard | Connected:
        """Connect while others wait; whatever comes of it, they have their turn."""
        known.is_opening = True
        try:
            return await self._connect_and_sort(destination, known)
        finally:
            known.is_opening = False
            waiters, known.waiters = known.waiters, []
            for turn in waiters:
                turn.set(None)

    async def _connect_and_sort(
        self, destination: Endpoint, known: _Destination
    ) -> _Shard | Connected:
        connected = await self._connect(destination)
        known.speaks_raw = not connected.multiplexed
        if known.speaks_raw:
            return connected
        return self._share(destination, known, connected)

    def _share(self, destination: Endpoint, known: _Destination, connected: Connected) -> _Shard:
        known.last_number += 1
        number = known.last_number
        mux = MuxConnection(
            self._reactor,
            connected.end,
            role="client",
            on_stream=None,
            on_closed=lambda reason: self._closed(destination, number, reason),
        )
        shard = _Shard(number, mux, connected.peer, connected.end.local)
        known.shards.append(shard)
        mux.start()
        self._reactor.call_later(IDLE_TIMEOUT_S, self._close_if_idle, known, shard)
        return shard

    def _opened(self, stream: MuxStream, shard: _Shard) -> Opened:
        return Opened(stream, shard.peer, shard.local, lifetime_s(shard.peer, self._clock.now()))

    # -- ending connections ----------------------------------------------------------

    def _closed(self, destination: Endpoint, number: int, reason: str) -> None:
        known = self._destinations.get(destination)
        if known is not None:
            known.shards = [shard for shard in known.shards if shard.number != number]
            log.debug("shared connection closed dst=%s id=%d: %s", destination, number, reason)

    def _close_if_idle(self, known: _Destination, shard: _Shard) -> None:
        if shard not in known.shards:
            return
        idle_since = shard.mux.idle_since
        idle = 0.0 if idle_since is None else self._reactor.now - idle_since
        if idle >= IDLE_TIMEOUT_S:
            shard.mux.drain()
            return
        self._reactor.call_later(IDLE_TIMEOUT_S - idle, self._close_if_idle, known, shard)
