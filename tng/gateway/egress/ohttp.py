"""The ways out with OHTTP: one port that takes encapsulated requests, and what else was allowed.

In: connections of ingresses, of load balancers, of browsers.  Out: answers.  Source: spec of the
OHTTP transport, sections 1.1, 4.3 and 4.4.  Each request of a connection is decided upon by
itself: a request of TNG's own, a plain one that `direct_forward` exempts, a preflight request that
`cors` answers; everything else is refused.

Invariant: without `direct_forward` no octet of a plain request reaches the service.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tng.dataplane.ends import End
from tng.dataplane.http_server import Request, ResponseWriter
from tng.dataplane.http_upstream import SERVICE_IDLE_S, UpstreamPool
from tng.dataplane.plain import PlainEnd
from tng.dataplane.reactor import Reactor
from tng.dataplane.socket_end import SocketEnd
from tng.endpoint import Endpoint
from tng.errors import NetError, TngError
from tng.gateway.egress.cors import CorsPolicy
from tng.gateway.egress.delivery import Route
from tng.gateway.egress.direct_forward import DirectForward
from tng.gateway.http_requests import HttpClients, RequestHandler
from tng.gateway.plain_exchange import PlainExchange
from tng.observe.access_log import AccessRecord, log_access
from tng.observe.metrics import EntryMeter
from tng.tunnel.base import Peer
from tng.tunnel.dialer import Dialer
from tng.tunnel.ohttp.delivery import Service
from tng.tunnel.ohttp.outer import API_FIELD, Passthrough
from tng.tunnel.ohttp.server import SERVER, OhttpServer
from tng.verdict import AttestedPeer

FIRST_REQUEST_S: Final = 5.0
"""Seconds until a new connection must ask something; health probes say nothing and leave."""

IDLE_S: Final = 180.0
"""Seconds between requests: longer than clients keep their connections, so that a request and a
close seldom meet."""

_GENERIC: Final = "HttpPlainTextForwardError"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OhttpRules:
    """What the operator chose for one entry.

    Attributes:
        passthrough: fields copied between outside and inside.
        tells_address: whether the service is told the client's address.
        direct_forward: which plain requests are passed on.
        cors: what browsers are told; None for nothing.
    """

    passthrough: Passthrough
    tells_address: bool
    direct_forward: DirectForward
    cors: CorsPolicy | None


class OhttpEgress:
    """Serves the connections of one `add_egress` entry.

    Args:
        reactor: where connections live.
        server: answers what TNG asks.
        dialer: connects to the service.
        rules: see `OhttpRules`.
        mode: the entry's mode, for the access log.
        meter: counts.
    """

    def __init__(
        self,
        reactor: Reactor,
        server: OhttpServer,
        dialer: Dialer,
        rules: OhttpRules,
        mode: str,
        meter: EntryMeter,
    ) -> None:
        self._reactor = reactor
        self._server = server
        self._dialer = dialer
        self._rules = rules
        self._mode = mode
        self._meter = meter
        self._pool = UpstreamPool(reactor, SERVICE_IDLE_S)
        self._clients = HttpClients(reactor, first_timeout_s=FIRST_REQUEST_S, idle_timeout_s=IDLE_S)

    async def serve(self, accepted: socket.socket, client: Endpoint, route: Route | None) -> None:
        """Serve one TCP connection.

        Args:
            accepted: the connection.
            client: the client's address.
            route: where it goes; None if it was not captured.
        """
        end = PlainEnd(self._reactor, accepted, str(client))
        if route is None:
            log.info("refused client=%s: it connected to the listener, not captured", client)
            end.abort()
            return
        self._meter.cx_total += 1
        self._meter.cx_active += 1
        try:
            await self._serve(end, client, self._service(client, route))
        except NetError:
            end.abort()  # the client went away
        except BaseException:
            end.abort()
            raise
        finally:
            self._meter.cx_active -= 1
            self._meter.octets_from_client += end.bytes_in
            self._meter.octets_to_client += end.bytes_out

    def let_idle_go(self) -> None:
        """End the connections that ask nothing now, and the others after their answer."""
        self._pool.drain()
        self._clients.let_idle_go()

    async def _serve(self, end: PlainEnd, client: Endpoint, service: Service) -> None:
        async def answer(stream: End, request: Request, writer: ResponseWriter) -> bool:
            await self._dispatch(stream, client, request, writer, service)
            return True

        def refused(error: TngError) -> None:
            self._meter.cx_failed += 1
            log.warning("request not served client=%s code=%s: %s", client, error.code, error)

        handler = RequestHandler(answer, refused, _GENERIC, self._cors_fields)
        await self._clients.serve(end, handler)

    async def _dispatch(
        self,
        end: End,
        client: Endpoint,
        request: Request,
        writer: ResponseWriter,
        service: Service,
    ) -> None:
        head = request.head
        is_ours = any(name == API_FIELD for name, _ in head.fields)
        if head.method == b"OPTIONS" and self._rules.cors is not None and not is_ours:
            await end.send(writer.start(200, [SERVER, (b"content-length", b"0")]))
        elif self._rules.direct_forward.takes(head):
            exchange = PlainExchange(self._reactor, end, request, writer)
            await exchange.run(self._pool, service.target, service.connect, head.target, [])
        else:
            await self._server.serve(end, request, writer, service, client.host)

    def _cors_fields(self, request: Request) -> list[tuple[bytes, bytes]]:
        cors = self._rules.cors
        if cors is None:
            return []
        is_preflight = request.head.method == b"OPTIONS"
        return cors.fields(request.head.fields, is_preflight=is_preflight)

    def _service(self, client: Endpoint, route: Route) -> Service:
        async def connect() -> SocketEnd:
            return await self._dialer.connect(route.target)

        return Service(
            route.target,
            connect,
            self._pool,
            self._rules.passthrough,
            self._rules.tells_address,
            self._logger(client, route),
            SERVER,
        )

    def _logger(self, client: Endpoint, route: Route) -> Callable[[SocketEnd, Peer], None]:
        def on_connected(upstream: SocketEnd, peer: Peer) -> None:
            attested = isinstance(peer, AttestedPeer)
            log_access(
                AccessRecord(
                    client,
                    route.listen,
                    self._mode,
                    route.target,
                    upstream.local,
                    encrypted=True,
                    attested=attested,
                )
            )

        return on_connected
