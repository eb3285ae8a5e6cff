"""The server side: takes a TCP connection, hands on streams whose peer has been judged.

One instance serves one `add_egress` entry.  See the package docstring for the order of things.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine
from typing import Final

from tng.attest.verifier.base import Verifier
from tng.clock import Clock
from tng.dataplane.mux import MuxConnection, MuxStream
from tng.dataplane.poller import READ
from tng.dataplane.reactor import Reactor
from tng.dataplane.task import Wait
from tng.dataplane.tls import TlsEnd
from tng.endpoint import Endpoint
from tng.errors import ErrorCode, RemoteProtocolError
from tng.tunnel.base import Opened, Peer
from tng.tunnel.bridge import Bridge
from tng.tunnel.rats_tls import (
    ALPN_MULTIPLEX,
    ALPN_RAW,
    HANDSHAKE_TIMEOUT_S,
)
from tng.tunnel.rats_tls.contexts import Contexts
from tng.tunnel.rats_tls.identity import Identity
from tng.tunnel.rats_tls.judging import judge, lifetime_s, remaining_s
from tng.verdict import NoRa

FIRST_OCTET_TIMEOUT_S: Final = 5.0
"""Seconds until a new connection must say something; health probes say nothing and leave."""

IDLE_TIMEOUT_S: Final = 180.0
"""Seconds without a stream after which a shared connection is closed: longer than a client of ours
waits (60 s), so that a stream and a close seldom meet."""

Serve = Callable[[Opened, "MuxStream | None"], Coroutine[None, None, None]]
"""Serves one stream.  The second argument is the same stream where it still has to be accepted."""


class RatsTlsServer:
    """Accepts tunnels.

    Args:
        reactor: where the connections live.
        bridge: to trio.
        multiplex: True or False to force it, None to take what the client offers.
        identity: our certificate, if the operator said `attest`.
        verifier: the judge of clients, if the operator said `verify`.
        clock: against which verdicts end.
    """

    def __init__(
        self,
        reactor: Reactor,
        bridge: Bridge,
        multiplex: bool | None,
        identity: Identity | None,
        verifier: Verifier | None,
        clock: Clock,
    ) -> None:
        self._reactor = reactor
        self._bridge = bridge
        self._verifier = verifier
        self._clock = clock
        self._multiplex = multiplex
        self._connections: set[MuxConnection] = set()
        self._is_draining = False
        self._contexts = Contexts(
            _alpn_accepted(multiplex),
            identity,
            bridge,
            server_side=True,
            ask_client_certificate=verifier is not None,
        )

    async def accept(
        self, plain: socket.socket, label: str, serve: Serve, local: Endpoint | None = None
    ) -> None:
        """Serve one TCP connection to its end, or leave its streams to tasks of their own.

        Args:
            plain: the accepted socket; owned from here on.
            label: the client in words.
            serve: called for each stream, after the verdict.
            local: the address that it was made to, where that is known; else the system is asked.

        Raises:
            RemoteProtocolError: not a TNG client, or it broke off.
            TngError: our own certificate is missing, or the client was refused.
        """
        end = await self._handshake(plain, label)
        peer = await judge(end, self._verifier, self._bridge, label)
        if end.alpn == ALPN_MULTIPLEX:
            self._share(end, peer, serve)
        else:
            lifetime = None if isinstance(peer, NoRa) else lifetime_s(peer, self._clock.now())
            await serve(Opened(end, peer, local or end.local, lifetime), None)

    def drain(self) -> None:
        """Tell every client to open no further stream."""
        self._is_draining = True
        for connection in list(self._connections):
            connection.drain()

    async def _handshake(self, plain: socket.socket, label: str) -> TlsEnd:
        try:
            if not _has_octets(plain):
                await _first_octet(self._reactor, plain)
            context = await self._contexts.get()
            end = TlsEnd(self._reactor, plain, context, server_side=True, label=label)
        except BaseException:
            plain.close()
            raise
        try:
            await end.handshake(HANDSHAKE_TIMEOUT_S)
        except BaseException:
            end.abort()
            raise
        return end

    def _share(self, end: TlsEnd, peer: Peer, serve: Serve) -> None:
        local = end.local

        def on_stream(stream: MuxStream) -> Coroutine[None, None, None]:
            now = self._clock.now()
            if remaining_s(peer, now) == 0:
                connection.drain()
                return _refuse_stale(stream)
            return serve(Opened(stream, peer, local, lifetime_s(peer, now)), stream)

        def on_closed(_reason: str) -> None:
            self._connections.discard(connection)
            if verdict_ends is not None:
                verdict_ends.cancel()

        connection = MuxConnection(
            self._reactor, end, role="server", on_stream=on_stream, on_closed=on_closed
        )
        self._connections.add(connection)
        remaining = remaining_s(peer, self._clock.now())
        verdict_ends = (
            None if remaining is None else self._reactor.call_later(remaining, connection.drain)
        )
        connection.start()
        self._reactor.call_later(IDLE_TIMEOUT_S, self._close_if_idle, connection)
        if self._is_draining:
            connection.drain()

    def _close_if_idle(self, connection: MuxConnection) -> None:
        if connection not in self._connections:
            return
        since = connection.idle_since
        idle = 0.0 if since is None else self._reactor.now - since
        if idle >= IDLE_TIMEOUT_S:
            connection.drain()
        else:
            self._reactor.call_later(IDLE_TIMEOUT_S - idle, self._close_if_idle, connection)


async def _refuse_stale(stream: MuxStream) -> None:
    """Clocks differ and machines sleep: a stream may come after the verdict on its client."""
    stream.refuse(503, ErrorCode.STALE)


def _alpn_accepted(multiplex: bool | None) -> tuple[bytes, ...]:
    if multiplex is None:
        return (ALPN_MULTIPLEX, ALPN_RAW)
    return (ALPN_MULTIPLEX,) if multiplex else (ALPN_RAW,)


def _has_octets(plain: socket.socket) -> bool:
    """Whether the client was heard already, as it mostly is; or has gone, which reading tells."""
    try:
        plain.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


async def _first_octet(reactor: Reactor, plain: socket.socket) -> None:
    """Wait until the client has sent something, or has gone.

    Raises:
        RemoteProtocolError: nothing came within `FIRST_OCTET_TIMEOUT_S`.
    """
    readable: Wait[None] = Wait()

    def on_event(_events: int) -> None:
        if not readable.is_set:
            readable.set(None)

    reactor.add(plain.fileno(), READ, on_event)
    try:
        with reactor.deadline(FIRST_OCTET_TIMEOUT_S, _silent):
            await readable
    finally:
        reactor.remove(plain.fileno())


def _silent() -> RemoteProtocolError:
    return RemoteProtocolError(f"the client sent nothing within {FIRST_OCTET_TIMEOUT_S:g} s")
