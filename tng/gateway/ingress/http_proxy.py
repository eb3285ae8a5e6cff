"""The `http_proxy` way in: CONNECT, and plain HTTP/1 requests forwarded one by one.

Source: RFC 9110 section 9.3.6, RFC 9112; spec of the RATS-TLS transport, section 5.2.  CONNECT is
answered only after the tunnel stands; a request in absolute-form goes where its URI says.
"""

from __future__ import annotations

from typing import Final

import h11

from tng.dataplane.plain import PlainEnd
from tng.dataplane.task import Cancelled, Task
from tng.errors import RequestRejectedError, TngError
from tng.gateway.farewell import farewell
from tng.gateway.flow import Accepted, Flow
from tng.gateway.ingress.http_forward import ForwardExchange
from tng.gateway.replies import CONNECTED, error_response
from tng.wire.http1 import MAX_HEAD_SIZE, connect_destination, match_plain_connect

IDLE_TIMEOUT_S: Final = 120.0
"""Seconds a client may keep a connection without a request."""

HEAD_TIMEOUT_S: Final = 10.0
"""Seconds from the first octet of a request head to its last."""

_RECEIVE_SIZE: Final = 16384

_REFUSALS: Final = {
    431: f"the request head is longer than {MAX_HEAD_SIZE} octets",
    501: "the request has a transfer coding other than chunked",
}


class _ClientGone(Exception):  # noqa: N818 - an event, not an error
    """The client closed between requests."""


class HttpProxyIngress:
    """Serves the clients of one proxy port.

    Args:
        flow: carries them.
    """

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._idle: set[Task] = set()
        self._is_draining = False

    def let_idle_go(self) -> None:
        """End the connections that wait for a request; others after the response under way."""
        self._is_draining = True
        for task in list(self._idle):
            task.cancel()

    async def serve(self, client: PlainEnd) -> None:
        """Serve one client connection to its end."""
        try:
            data = await self._first_octets(client)
            accepted = _plain_connect(client, data)
            if accepted is None:
                await self._serve_requests(client, data)
            else:
                await self._flow.carry(accepted)
        except _ClientGone:
            client.close()
        except h11.RemoteProtocolError as exc:
            await self._refuse(client, _malformed(exc))
        except RequestRejectedError as error:
            await self._refuse(client, error)

    async def _serve_requests(self, client: PlainEnd, data: bytes) -> None:
        """Serve the requests of a connection that begins with `data`."""
        server = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_SIZE)
        server.receive_data(data)
        while True:
            request = await self._next_request(client, server)
            if request.method == b"CONNECT":
                destination = connect_destination(request.target)
                client.unread(server.trailing_data[0])
                await self._flow.carry(Accepted(client, destination, CONNECTED, error_response))
                return
            exchange = ForwardExchange(self._flow, client, server, lambda: self._is_draining)
            if not await exchange.run(request):
                await farewell(self._flow.reactor, client, b"")
                return
            server.start_next_cycle()

    async def _next_request(self, client: PlainEnd, server: h11.Connection) -> h11.Request:
        """The next request head; idle time and head time are bounded apart."""
        if not server.trailing_data[0]:
            server.receive_data(await self._first_octets(client))
        with self._flow.reactor.deadline(HEAD_TIMEOUT_S, _late):
            while (event := server.next_event()) is h11.NEED_DATA:
                data = await client.receive(_RECEIVE_SIZE)
                if not data:
                    raise _ClientGone
                server.receive_data(data)
        if not isinstance(event, h11.Request):
            raise AssertionError(f"h11 begins a message with {event!r}")  # noqa: TRY004
        return event

    async def _first_octets(self, client: PlainEnd) -> bytes:
        """Wait, idle, for the beginning of a request."""
        if self._is_draining:
            raise _ClientGone
        data = client.receive_nowait(_RECEIVE_SIZE)  # whoever connects mostly speaks at once
        if data is None:
            data = await self._idle_octets(client)
        if not data:
            raise _ClientGone
        return data

    async def _idle_octets(self, client: PlainEnd) -> bytes:
        reactor = self._flow.reactor
        task = reactor.current
        if task is None:
            raise AssertionError("a connection is served by a task")
        self._idle.add(task)
        try:
            with reactor.deadline(IDLE_TIMEOUT_S, _ClientGone):
                return await client.receive(_RECEIVE_SIZE)
        except Cancelled:
            client.close()  # in order, since nothing was asked; anywhere else it is a reset
            raise
        finally:
            self._idle.discard(task)

    async def _refuse(self, client: PlainEnd, error: TngError) -> None:
        self._flow.unrouted(client, error)
        await farewell(self._flow.reactor, client, error_response(error))


def _plain_connect(client: PlainEnd, data: bytes) -> Accepted | None:
    """The client of a CONNECT request in its usual shape."""
    connect = match_plain_connect(data)
    if connect is None:
        return None
    if len(data) > connect.length:
        client.unread(data[connect.length :])
    return Accepted(client, connect.destination, CONNECTED, error_response)


def _late() -> RequestRejectedError:
    return RequestRejectedError(
        f"the request head did not arrive within {HEAD_TIMEOUT_S:g} s", status=408
    )


def _malformed(error: h11.RemoteProtocolError) -> RequestRejectedError:
    """What to tell of a head that h11 refuses; its own words quote the head, keys included."""
    status = error.error_status_hint or 400
    words = _REFUSALS.get(status, "the request head is not valid HTTP/1 (RFC 9112)")
    return RequestRejectedError(words, status=status)
