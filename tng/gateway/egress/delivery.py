"""From a judged stream to the service: what every way out over RATS-TLS shares.

In: connections, and where each is to go (`Route`).  Out: relays between streams and the service.
Source: spec of the RATS-TLS transport, sections 4.3 and 6.1.  No destination crosses the tunnel:
the configuration, or the kernel that captured the connection, says where it goes.

Invariant: the service is connected to only once there is an `Opened`, and that exists only with a
judged peer (or, for a connection that is not captured, by the operator's word: `pass_on`).
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, NamedTuple

from tng.dataplane.plain import PlainEnd
from tng.dataplane.reactor import Reactor
from tng.dataplane.relay import Relay, RelayResult
from tng.endpoint import Endpoint
from tng.errors import NetError, TngError
from tng.observe.access_log import AccessRecord, log_access
from tng.observe.metrics import EntryMeter
from tng.tunnel.base import Opened
from tng.tunnel.dialer import Dialer
from tng.verdict import NoRa

if TYPE_CHECKING:
    from tng.dataplane.mux import MuxStream
    from tng.tunnel.rats_tls.server import RatsTlsServer

log = logging.getLogger(__name__)


class Route(NamedTuple):
    """Where a connection goes.

    Attributes:
        listen: the address that it was made to, for the access log.
        target: the service.
    """

    listen: Endpoint
    target: Endpoint


RouteOf = Callable[[socket.socket], Route | None]
"""The route of an accepted connection; None where it came by no way that was captured."""


class Delivery:
    """Connects streams to services.

    Args:
        reactor: where connections live.
        dialer: connects to services.
        mode: the entry's mode, for the access log.
        meter: counts.
    """

    def __init__(self, reactor: Reactor, dialer: Dialer, mode: str, meter: EntryMeter) -> None:
        self._reactor = reactor
        self._dialer = dialer
        self._mode = mode
        self._meter = meter

    async def take_tunnel(
        self, server: RatsTlsServer, accepted: socket.socket, client: Endpoint, route: Route
    ) -> None:
        """Serve one TCP connection, which has to be a tunnel.

        Args:
            server: takes the tunnel and judges its client.
            accepted: the connection.
            client: the client's address.
            route: where its streams go.
        """

        def deliver(opened: Opened, stream: MuxStream | None) -> Coroutine[None, None, None]:
            return self._deliver(client, opened, stream, route, encrypted=True)

        try:
            await server.accept(accepted, str(client), deliver, route.listen)
        except TngError as error:
            self.refused(client, route.listen)
            log.warning("tunnel refused client=%s code=%s: %s", client, error.code, error)

    async def pass_on(self, accepted: socket.socket, client: Endpoint, route: Route) -> None:
        """Serve one TCP connection as it is; arguments as `take_tunnel`."""
        end = PlainEnd(self._reactor, accepted, str(client))
        opened = Opened(end, NoRa.NO_RA, route.listen, None)
        await self._deliver(client, opened, None, route, encrypted=False)

    def refused(self, client: Endpoint, listen: Endpoint) -> None:
        """Count, and note in the access log, a connection that leads nowhere."""
        self._meter.cx_failed += 1
        log_access(AccessRecord(client, listen, self._mode))

    async def _deliver(
        self,
        client: Endpoint,
        opened: Opened,
        stream: MuxStream | None,
        route: Route,
        *,
        encrypted: bool,
    ) -> None:
        """Connect one stream to the service, and leave both to a relay."""
        meter = self._meter
        meter.cx_total += 1
        meter.cx_active += 1
        try:
            service = await self._dialer.connect(route.target)
        except NetError as error:
            meter.cx_active -= 1
            record = AccessRecord(client, route.listen, self._mode, route.target, None, encrypted)
            self._unreachable(record, opened, stream, error)
            return
        except BaseException:
            meter.cx_active -= 1
            opened.end.abort()
            raise
        log_access(
            AccessRecord(
                client,
                route.listen,
                self._mode,
                route.target,
                service.local,
                encrypted,
                opened.attested,
            )
        )
        if stream is not None:
            stream.accept()
        Relay(self._reactor, opened.end, service, self._ended).start(
            total_timeout_s=opened.lifetime_s
        )

    def _ended(self, result: RelayResult) -> None:
        meter = self._meter
        meter.cx_active -= 1
        meter.octets_from_client += result.left_to_right
        meter.octets_to_client += result.right_to_left

    def _unreachable(
        self, record: AccessRecord, opened: Opened, stream: MuxStream | None, error: NetError
    ) -> None:
        self._meter.cx_failed += 1
        log_access(record)
        log.warning("service not reached dst=%s: %s", record.upstream_remote, error)
        if stream is not None:
            stream.refuse(502, str(error.code))
        else:
            opened.end.abort()


class TunnelEgress:
    """Serves the tunnels of one listening port.

    Args:
        server: takes the tunnels and judges their clients.
        delivery: connects their streams.
        listen: the port's own address, for the access log.
        route_of: where a connection goes.
    """

    def __init__(
        self, server: RatsTlsServer, delivery: Delivery, listen: Endpoint, route_of: RouteOf
    ) -> None:
        self._server = server
        self._delivery = delivery
        self._listen = listen
        self._route_of = route_of

    async def serve(self, accepted: socket.socket, client: Endpoint) -> None:
        """Serve one TCP connection."""
        route = self._route_of(accepted)
        if route is None:
            accepted.close()
            self._delivery.refused(client, self._listen)
            log.info("refused client=%s: it connected to the listener, not captured", client)
            return
        await self._delivery.take_tunnel(self._server, accepted, client, route)
