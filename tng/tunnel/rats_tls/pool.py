"""Multiplexed connections, shared per destination.

A connection takes streams until it holds `max_streams` of them; then the next one is opened, up
to `max_connections`, after which streams overflow onto the least loaded as far as the peer admits.
No stream is opened on a connection whose verdict has ended; what it carries may drain.  One
connection is opened at a time per destination: who comes meanwhile waits for it and shares it.
A destination that has answered raw is remembered, and its streams are then dialled side by side.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from tng.clock import Clock
from tng.dataplane.mux import MuxConnection, MuxFull, MuxSilent, MuxStream
from tng.dataplane.reactor import Reactor
from tng.dataplane.task import Wait
from tng.dataplane.tls import TlsEnd
from tng.endpoint import Endpoint
from tng.errors import NetError, TngError
from tng.tunnel.base import Opened, Peer
from tng.tunnel.express import Asked, Taker
from tng.tunnel.rats_tls.judging import ends_at, lifetime_s

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

FULL_ATTEMPTS: Final = 16
"""A peer says how many streams it admits a moment after it has accepted the connection; who came
in that moment, and was one too many, moves on to the next connection."""


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
    ends_at: float
    """Unix time from which no further stream is opened."""


@dataclass(slots=True)
class _Destination:
    shards: list[_Shard] = field(default_factory=list)
    waiters: list[Wait[None]] = field(default_factory=list)
    is_opening: bool = False
    connecting: int = 0
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
        broken = 0
        for _ in range(FULL_ATTEMPTS):
            found = await self._connection(destination)
            if isinstance(found, Connected):
                return found
            try:
                stream = await found.mux.open(OPEN_TIMEOUT_S)
            except MuxFull:
                continue
            except MuxSilent:
                # Whatever holds the peer up, the next stream shall not wait for it as well.
                found.mux.drain()
                raise
            except NetError:
                broken += 1
                if found.mux.is_open or broken == ATTEMPTS:
                    raise  # the peer refused this stream, or connections keep breaking
                continue
            return self.opened(stream, found)
        raise _full(destination)

    def open_nowait(self, destination: Endpoint, taker: Taker) -> Asked | None:
        """Ask for a stream on a shared connection that stands; None where none has room.

        Its peer was judged when the connection was made, and `_with_room` gives no connection whose
        verdict has ended.
        """
        known = self._destinations.get(destination)
        shard = None if known is None else self._with_room(known)
        return None if shard is None else _Asked(self, shard, taker)

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
                for destination, known in self._destinations.copy().items()
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
            usable = [shard for shard in known.shards if self._is_usable(shard)]
            if len(usable) >= self._max_connections:
                return self._overflow(destination, usable)
            if known.speaks_raw and not known.shards:
                return await self._connect_and_sort(destination, known)
            if not known.is_opening:
                return await self._connect_first(destination, known)
            turn: Wait[None] = Wait()
            known.waiters.append(turn)
            await turn

    def _with_room(self, known: _Destination) -> _Shard | None:
        """A connection that takes the next stream; this is asked for every stream."""
        now = self._clock.now()
        most = self._max_streams
        for shard in known.shards:
            if now < shard.ends_at and shard.mux.has_room(most):
                return shard
        return None

    def _known(self, destination: Endpoint) -> _Destination:
        known = self._destinations.get(destination)
        if known is None:
            if len(self._destinations) >= DESTINATIONS:
                self._forget_unused()
            known = self._destinations[destination] = _Destination()
        return known

    def _forget_unused(self) -> None:
        for endpoint, known in list(self._destinations.items()):
            if not known.shards and not known.connecting:
                del self._destinations[endpoint]

    def _overflow(self, destination: Endpoint, usable: list[_Shard]) -> _Shard:
        """The least loaded connection, where no other may be opened.

        Raises:
            NetError: the peer admits no further stream on any.
        """
        shard = min(usable, key=lambda shard: shard.mux.active_streams)
        if shard.mux.active_streams >= shard.mux.max_streams:
            raise _full(destination)
        self._overflowed += 1
        return shard

    def _is_usable(self, shard: _Shard) -> bool:
        if not shard.mux.is_open:
            return False
        if self._clock.now() >= shard.ends_at:
            shard.mux.drain()
            return False
        return True

    async def _connect_first(
        self, destination: Endpoint, known: _Destination
    ) -> _Shard | Connected:
        """Connect while others wait; they share a failure, and have their turn otherwise."""
        known.is_opening = True
        try:
            found = await self._connect_and_sort(destination, known)
        except TngError as error:
            for turn in _end_waiting(known):
                turn.fail(_shared(error))
            raise
        finally:
            known.is_opening = False
            for turn in _end_waiting(known):
                turn.set(None)
        return found

    async def _connect_and_sort(
        self, destination: Endpoint, known: _Destination
    ) -> _Shard | Connected:
        known.connecting += 1
        try:
            connected = await self._connect(destination)
        finally:
            known.connecting -= 1
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
            on_closed=lambda reason: self._closed(destination, known, number, reason),
        )
        peer = connected.peer
        shard = _Shard(number, mux, peer, connected.end.local, ends_at(peer))
        known.shards.append(shard)
        self._reactor.call_later(IDLE_TIMEOUT_S, self._close_if_idle, known, shard)
        mux.start()
        return shard

    def opened(self, stream: MuxStream, shard: _Shard) -> Opened:
        """What is handed out: never without the judged peer of the connection."""
        return Opened(stream, shard.peer, shard.local, lifetime_s(shard.peer, self._clock.now()))

    # -- ending connections ----------------------------------------------------------

    @staticmethod
    def _closed(destination: Endpoint, known: _Destination, number: int, reason: str) -> None:
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


class _Asked:
    """A stream that a taker has asked for without waiting."""

    __slots__ = ("_pool", "_shard", "_stream", "_taker")

    def __init__(self, pool: Pool, shard: _Shard, taker: Taker) -> None:
        self._pool = pool
        self._shard = shard
        self._taker = taker
        self._stream = shard.mux.ask(OPEN_TIMEOUT_S, self)

    def give_up(self) -> None:
        """See `Asked`."""
        self._stream.abort()

    def stream_opened(self, stream: MuxStream) -> None:
        """See `Asker`."""
        self._taker.tunnel_opened(self._pool.opened(stream, self._shard))

    def stream_failed(self, error: NetError) -> None:
        """See `Asker`; the same distinctions as in `Pool.open`."""
        mux = self._shard.mux
        if isinstance(error, MuxSilent):
            mux.drain()
        is_final = isinstance(error, MuxSilent) or (mux.is_open and not isinstance(error, MuxFull))
        self._taker.tunnel_failed(error, is_final=is_final)


def _end_waiting(known: _Destination) -> list[Wait[None]]:
    waiters, known.waiters = known.waiters, []
    return waiters


def _shared(error: TngError) -> TngError:
    """The same error for one more task; each raises an object of its own."""
    return copy.copy(error)


def _full(destination: Endpoint) -> NetError:
    return NetError(f"{destination} admits no further stream")
