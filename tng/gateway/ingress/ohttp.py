"""The flow of an OHTTP ingress: each HTTP request of a client is carried by itself.

In: clients whose destination is known (`Accepted`), or, at a proxy, clients each of whose requests
names its own.  Out: responses.  Source: spec of the OHTTP transport, sections 2.9 and 4.6.

The order in `OhttpFlow` is the first rule of this project, as in `gateway.flow`: a client that asks
to be connected is told so only after the key at its destination was judged, and a request is
encrypted only to a key that was.
"""

from __future__ import annotations

import functools
import logging
from typing import Final

from tng.dataplane.ends import End
from tng.dataplane.http_server import Request, ResponseWriter
from tng.dataplane.http_upstream import UpstreamPool
from tng.dataplane.plain import PlainEnd
from tng.dataplane.socket_end import SocketEnd
from tng.endpoint import Endpoint
from tng.errors import TngError
from tng.gateway.farewell import farewell
from tng.gateway.flow import Accepted, Flow, addresses_of
from tng.gateway.http_requests import HttpClients, RequestHandler
from tng.gateway.ingress.answered import AccessNotes
from tng.gateway.plain_exchange import PlainExchange
from tng.gateway.replies import CONNECTED, error_response
from tng.gateway.router import Router
from tng.observe.access_log import AccessRecord, log_access
from tng.tunnel.dialer import Dialer
from tng.tunnel.ohttp.client import ClientExchange, OhttpClient, origin_target
from tng.wire.http1 import FORWARDED_BY_TNG, connect_destination, read_target, refuse_loops

_GENERIC: Final = "CreateOHttpClientFailed"
_FORWARDED: Final = (FORWARDED_BY_TNG, b"true")

log = logging.getLogger(__name__)


class OhttpFlow:
    """Carries the clients of one `add_ingress` entry.

    Args:
        plain: carries those whose destination is not tunnelled.
        ohttp: the client side of OHTTP.
        router: which destinations are tunnelled.
        dialer: connects to the others.
        mode: the entry's mode, for the access log.
    """

    def __init__(
        self, plain: Flow, ohttp: OhttpClient, router: Router, dialer: Dialer, mode: str
    ) -> None:
        self.reactor = plain.reactor
        self.meter = plain.meter
        self._plain = plain
        self._ohttp = ohttp
        self._router = router
        self._dialer = dialer
        self._mode = mode
        self._pool = UpstreamPool(plain.reactor)
        self._clients = HttpClients(plain.reactor)

    async def carry(self, accepted: Accepted) -> None:
        """Serve one client whose destination is known; see `Flow.carry`."""
        if not self._router.is_tunnelled(accepted.destination):
            await self._plain.carry(accepted)
            return
        client = accepted.client
        if accepted.answer:
            try:
                await self._ohttp.prepare(accepted.destination)
            except TngError as error:
                self._plain.failed(client, accepted.destination, error)
                await farewell(self.reactor, client, accepted.refusal(error))
                return
            await client.send(accepted.answer)
        await self._serve(client, accepted.destination)

    async def serve_proxy(self, client: PlainEnd) -> None:
        """Serve one client of a proxy, who names a destination with each request."""
        await self._serve(client, None)

    def unrouted(self, client: PlainEnd, error: TngError) -> None:
        """Count and log a client that failed before its destination was known."""
        self._plain.unrouted(client, error)

    def let_idle_go(self) -> None:
        """End the connections that ask nothing now, and the others after their response."""
        self._pool.drain()
        self._clients.let_idle_go()

    async def _serve(self, client: PlainEnd, destination: Endpoint | None) -> None:
        notes = AccessNotes(client, self._mode)

        async def answer(stream: End, request: Request, writer: ResponseWriter) -> bool:
            if destination is None and request.head.method == b"CONNECT":
                to = connect_destination(request.head.target)
                await self.carry(Accepted(client, to, CONNECTED, error_response))
                return False
            await self._dispatch(client, stream, request, writer, destination, notes)
            return True

        def refused(error: TngError) -> None:
            self.meter.cx_failed += 1
            log.warning("request not served client=%s code=%s: %s", client.label, error.code, error)

        handler = RequestHandler(answer, refused, _GENERIC)
        await self._clients.serve(client, handler)

    async def _dispatch(
        self,
        client: PlainEnd,
        stream: End,
        request: Request,
        writer: ResponseWriter,
        destination: Endpoint | None,
        notes: AccessNotes,
    ) -> None:
        target = origin_target(request)
        if destination is None:
            refuse_loops(request.head.fields)
            destination, target, host = read_target(target, request.head.fields)
            fields = [field for field in request.head.fields if field[0] != b"host"]
            request.head = request.head._replace(fields=[(b"host", host), *fields])
        elif not target.startswith((b"/", b"*")):
            target = read_target(target, request.head.fields)[1]
        if not self._router.is_tunnelled(destination):
            await self._forward_plain(client, stream, request, writer, destination, target)
            return
        exchange = functools.partial(
            ClientExchange, self._ohttp, stream, request, destination, target, writer
        )
        await notes.note(exchange, destination)

    async def _forward_plain(
        self,
        client: PlainEnd,
        stream: End,
        request: Request,
        writer: ResponseWriter,
        destination: Endpoint,
        target: bytes,
    ) -> None:
        async def connect() -> SocketEnd:
            end = await self._dialer.connect(destination)
            log_access(AccessRecord(*addresses_of(client), self._mode, destination, end.local))
            return end

        exchange = PlainExchange(self.reactor, stream, request, writer)
        await exchange.run(self._pool, destination, connect, target, [_FORWARDED])
