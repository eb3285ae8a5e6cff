"""A RATS-TLS port that also takes plain HTTP requests, where `direct_forward` allows them.

In: connections.  Out: tunnels for those that begin with TLS; for the others each HTTP request is
decided upon by itself, and answered 403 unless the operator exempted its path.  Source: spec of the
RATS-TLS transport, section 6.4.

Invariant: a connection that began as a tunnel stays one; no octet of a plain request that was not
exempted reaches the service, whatever came before it on the connection.
"""

from __future__ import annotations

import logging
import socket
from typing import Final

from tng.dataplane.ends import End
from tng.dataplane.first_octet import first_octet
from tng.dataplane.http_server import Request, ResponseWriter
from tng.dataplane.http_upstream import UpstreamPool
from tng.dataplane.plain import PlainEnd
from tng.dataplane.reactor import Reactor
from tng.dataplane.socket_end import SocketEnd
from tng.endpoint import Endpoint
from tng.errors import NetError, RemoteProtocolError, RequestRejectedError, TngError
from tng.gateway.egress.delivery import Route, RouteOf
from tng.gateway.egress.direct_forward import DirectForward
from tng.gateway.entries import Serve
from tng.gateway.http_requests import HttpClients, RequestHandler
from tng.gateway.plain_exchange import PlainExchange
from tng.observe.access_log import AccessRecord, log_access
from tng.observe.metrics import EntryMeter
from tng.tunnel.dialer import Dialer

FIRST_OCTET_S: Final = 5.0
"""Seconds until a new connection must say something; health probes say nothing and leave."""

_TLS_HANDSHAKE: Final = b"\x16"

log = logging.getLogger(__name__)


class PlainOrTunnel:
    """Serves the connections of one listening port.

    Args:
        reactor: where connections live.
        tunnel: serves those that begin with TLS.
        rules: which plain requests are passed on.
        dialer: connects to the service.
        route_of: where an accepted connection goes.
        meter: counts.
    """

    def __init__(
        self,
        reactor: Reactor,
        tunnel: Serve,
        rules: DirectForward,
        dialer: Dialer,
        route_of: RouteOf,
        meter: EntryMeter,
    ) -> None:
        self._reactor = reactor
        self._tunnel = tunnel
        self._rules = rules
        self._dialer = dialer
        self._route_of = route_of
        self._meter = meter
        self._pool = UpstreamPool(reactor)
        self._clients = HttpClients(reactor)

    async def serve(self, accepted: socket.socket, client: Endpoint) -> None:
        """Serve one TCP connection."""
        try:
            first = await first_octet(self._reactor, accepted, FIRST_OCTET_S)
        except RemoteProtocolError as error:
            accepted.close()
            log.info("nothing asked client=%s: %s", client, error)
            return
        except BaseException:
            accepted.close()
            raise
        if first == _TLS_HANDSHAKE:
            await self._tunnel(accepted, client)
            return
        route = self._route_of(accepted)
        end = PlainEnd(self._reactor, accepted, str(client))
        if route is None:
            log.info("refused client=%s: it connected to the listener, not captured", client)
            end.abort()
            return
        try:
            await self._serve_plain(end, client, route)
        except NetError:
            end.abort()
        except BaseException:
            end.abort()
            raise

    def let_idle_go(self) -> None:
        """End the plain connections that ask nothing now, and the others after their answer."""
        self._pool.drain()
        self._clients.let_idle_go()

    async def _serve_plain(self, end: PlainEnd, client: Endpoint, route: Route) -> None:
        async def answer(stream: End, request: Request, writer: ResponseWriter) -> bool:
            await self._forward(stream, client, request, writer, route)
            return True

        def refused(error: TngError) -> None:
            self._meter.cx_failed += 1
            log.warning("plain request refused client=%s code=%s: %s", client, error.code, error)

        handler = RequestHandler(answer, refused, "HttpPlainTextForwardError")
        await self._clients.serve(end, handler)

    async def _forward(
        self,
        end: End,
        client: Endpoint,
        request: Request,
        writer: ResponseWriter,
        route: Route,
    ) -> None:
        if not self._rules.takes(request.head):
            raise RequestRejectedError(
                "this port takes tunnels of a TNG ingress; no rule of `direct_forward` lets this "
                "request pass without one",
                status=403,
            )

        async def connect() -> SocketEnd:
            upstream = await self._dialer.connect(route.target)
            log_access(
                AccessRecord(client, route.listen, "direct_forward", route.target, upstream.local)
            )
            return upstream

        exchange = PlainExchange(self._reactor, end, request, writer)
        await exchange.run(self._pool, route.target, connect, request.head.target, [])
