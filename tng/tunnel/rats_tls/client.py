"""The client side: opens streams to egresses, raw or multiplexed.

One instance serves one `add_ingress` entry.  See the package docstring for the order of things.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tng.attest.verifier.base import Verifier
from tng.clock import Clock
from tng.dataplane.reactor import Reactor
from tng.dataplane.tls import TlsEnd
from tng.endpoint import Endpoint, is_ip_literal
from tng.errors import RemoteProtocolError
from tng.tunnel.base import Opened, Peer
from tng.tunnel.bridge import Bridge
from tng.tunnel.dialer import Dialer
from tng.tunnel.express import Asked, Taker
from tng.tunnel.rats_tls import (
    ALPN_MULTIPLEX,
    ALPN_RAW,
    HANDSHAKE_TIMEOUT_S,
)
from tng.tunnel.rats_tls.contexts import Contexts
from tng.tunnel.rats_tls.identity import Identity
from tng.tunnel.rats_tls.judging import judge, lifetime_s
from tng.tunnel.rats_tls.pool import Connected, Pool, PoolLimits
from tng.verdict import NoRa

MULTIPLEX_SERVER_NAME: Final = "tng.internal"
"""SNI and CONNECT authority of multiplexed connections, as the reference sends them."""


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """What the operator chose for one entry.

    Attributes:
        multiplex: True or False to force it, None to let the peer decide.
        limits: of the pool of multiplexed connections.
    """

    multiplex: bool | None
    limits: PoolLimits


class RatsTlsClient:
    """Opens judged streams.

    Args:
        reactor: where the connections live.
        bridge: to trio.
        dialer: makes the TCP connections.
        options: see `ClientOptions`.
        identity: our certificate, if the operator said `attest`.
        verifier: the judge of peers, if the operator said `verify`.
        clock: against which verdicts end.

    Attributes:
        open_nowait: asks for a stream on a connection that stands and was judged, which makes this
            an `ExpressTunnel`; there is none where every stream has a connection of its own.
    """

    open_nowait: Callable[[Endpoint, Taker], Asked | None]

    def __init__(
        self,
        reactor: Reactor,
        bridge: Bridge,
        dialer: Dialer,
        options: ClientOptions,
        identity: Identity | None,
        verifier: Verifier | None,
        clock: Clock,
    ) -> None:
        self._reactor = reactor
        self._bridge = bridge
        self._dialer = dialer
        self._verifier = verifier
        self._clock = clock
        self._multiplex = options.multiplex
        self._offered = _alpn_offer(options.multiplex)
        self._contexts = Contexts(self._offered, identity, bridge, server_side=False)
        self.pool = Pool(reactor, self._connect, options.limits, clock)
        if options.multiplex is not False:
            self.open_nowait = self.pool.open_nowait

    async def open(self, destination: Endpoint) -> Opened:
        """A stream to `destination`; see `Tunnel.open`."""
        if self._multiplex is False:
            return self._raw(await self._connect(destination))
        opened = await self.pool.open(destination)
        return self._raw(opened) if isinstance(opened, Connected) else opened

    async def probe(self, destination: Endpoint) -> Peer:
        """Connect, judge and close: no application data passes."""
        connected = await self._connect(destination)
        connected.end.close()
        return connected.peer

    def drain(self) -> None:
        """Close the connections that no stream uses; the others when their streams end."""
        self.pool.drain()

    def _raw(self, connected: Connected) -> Opened:
        peer, end = connected.peer, connected.end
        lifetime = None if isinstance(peer, NoRa) else lifetime_s(peer, self._clock.now())
        return Opened(end, peer, end.local, lifetime)

    async def _connect(self, destination: Endpoint) -> Connected:
        """A TLS connection whose peer has been judged."""
        label = str(destination)
        context = await self._contexts.get()
        plain = await self._dialer.connect_socket(destination)
        try:
            end = TlsEnd(
                self._reactor,
                plain,
                context,
                server_side=False,
                server_name=self._server_name(destination),
                label=label,
            )
        except BaseException:
            plain.close()
            raise
        try:
            await end.handshake(HANDSHAKE_TIMEOUT_S)
            multiplexed = self._protocol(end, destination)
        except BaseException:
            end.abort()
            raise
        peer = await judge(end, self._verifier, self._bridge, label)
        return Connected(end, peer, multiplexed)

    def _server_name(self, destination: Endpoint) -> str | None:
        if self._multiplex:
            return MULTIPLEX_SERVER_NAME
        return None if is_ip_literal(destination.host) else destination.host

    def _protocol(self, end: TlsEnd, destination: Endpoint) -> bool:
        """Whether the connection is multiplexed."""
        chosen = end.alpn
        if chosen == ALPN_MULTIPLEX and self._multiplex is not False:
            return True
        # A server that chooses nothing speaks raw, as the reference's older releases do.
        if chosen in (ALPN_RAW, b"") and not self._multiplex:
            return False
        raise RemoteProtocolError(
            f"{destination} speaks {chosen.decode(errors='replace') or 'no protocol'!r} over TLS, "
            f"expected {' or '.join(p.decode() for p in self._offered)}"
        )


def _alpn_offer(multiplex: bool | None) -> tuple[bytes, ...]:
    if multiplex is None:
        return (ALPN_MULTIPLEX, ALPN_RAW)
    return (ALPN_MULTIPLEX,) if multiplex else (ALPN_RAW,)
