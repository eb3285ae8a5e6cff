"""One decrypted request, delivered to the service, and its response, encrypted on the way back.

In: the inner message as it is decrypted.  Out: an HTTP/1.1 request to the service, and the answer
of the egress.  Source: spec of the OHTTP transport, sections 2.6 to 2.8.

Both directions run at once, and nothing is gathered.  The service must not take a request for
complete before the final chunk was verified, so what completes it is held back until then: the
last chunk of a body in chunks, the last piece of a body of known length, all of a request without
a body.

Invariants: the inner message never decides where it is delivered; no field of one hop travels to
the next; a response that was cut short never gets the end of its message.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from tng.dataplane.ends import End
from tng.dataplane.http_exchange import SHARE, Exchange
from tng.dataplane.http_server import Request, ResponseWriter
from tng.dataplane.http_upstream import Upstream, UpstreamPool
from tng.dataplane.reactor import Reactor
from tng.dataplane.socket_end import SocketEnd
from tng.endpoint import Endpoint
from tng.errors import NetError, RemoteProtocolError, TngError
from tng.tunnel.base import Peer
from tng.tunnel.ohttp.fields import REPEATABLE, asks_upgrade, end_to_end
from tng.tunnel.ohttp.incoming import IncomingRequest
from tng.tunnel.ohttp.outer import RESPONSE_TYPE, Passthrough, overwrite
from tng.tunnel.ohttp.problems import OhttpError, Problem
from tng.wire import bhttp
from tng.wire.bhttp_decoder import Content, Event
from tng.wire.bhttp_decoder import End as MessageEnd
from tng.wire.bhttp_decoder import RequestHead as InnerRequestHead
from tng.wire.http1_body import dump_chunk, dump_last_chunk
from tng.wire.http1_head import Fields, dump_request_head, parse_content_length
from tng.wire.ohttp_response import ResponseSealer

_RESPONSE_TYPE: Final = (b"content-type", RESPONSE_TYPE)
_CHUNKED: Final = (b"transfer-encoding", b"chunked")
_NO_CONTENT: Final = (b"content-length", b"0")
_HAS_CONTENT: Final = frozenset({b"POST", b"PUT", b"PATCH"})


@dataclass(frozen=True, slots=True)
class Service:
    """Where requests are delivered.

    Attributes:
        target: the service.
        connect: makes a connection to it.
        pool: connections that wait to be used again.
        passthrough: fields copied between outside and inside.
        tells_address: whether the service is told the client's address.
        on_connected: called with each connection that is used for the first time.
        server: our own Server field.
    """

    target: Endpoint
    connect: Callable[[], Awaitable[SocketEnd]]
    pool: UpstreamPool
    passthrough: Passthrough
    tells_address: bool
    on_connected: Callable[[SocketEnd, Peer], None]
    server: tuple[bytes, bytes]


class Delivery:
    """One request and its response.

    Args:
        reactor: where connections live.
        client: the client's connection.
        outer: the request as it came.
        incoming: what is inside.
        sealer: encrypts the response.
        writer: makes the octets of the outer response.
    """

    def __init__(
        self,
        reactor: Reactor,
        client: End,
        outer: Request,
        incoming: IncomingRequest,
        sealer: ResponseSealer,
        writer: ResponseWriter,
    ) -> None:
        self._reactor = reactor
        self._client = client
        self._outer = outer
        self._incoming = incoming
        self._sealer = sealer
        self._writer = writer
        self._body: _RequestBody | None = None

    async def run(self, service: Service, address: str, peer: Peer) -> None:
        """Deliver, and answer.

        Raises:
            OhttpError: not delivered, or not answered; the client has not been told anything yet.
            TngError: the same, or it ended in the middle of the answer (`writer.is_started`).
        """
        head = await self._incoming.head()
        _refuse_upgrades(head)
        events = self._incoming.read_nowait()
        # Only then is it known whether there is content; a request without is sent when whole.
        while not self._incoming.is_whole and not _has_content(events):
            events += await self._incoming.read()
        body = _RequestBody(head, events)
        fields = _service_fields(head, self._outer, service, address)
        octets = dump_request_head(head.method, head.path or b"/", [*fields, *body.framing])
        octets += body.take(events, is_whole=self._incoming.is_whole)
        self._body = body
        upstream = await self._deliver(service, peer, head.method, octets)
        service.pool.put(service.target, upstream)

    async def _deliver(
        self, service: Service, peer: Peer, method: bytes, octets: bytes
    ) -> Upstream:
        """Send and answer; once more on a new connection if one used before turns out closed."""
        upstream = await self._connect(service, peer, fresh=False)
        is_all = self._incoming.is_whole  # of the request, in `octets`
        try:
            await self._exchange(service, upstream, method, octets)
        except OhttpError:
            if (
                not upstream.is_reused
                or upstream.heard
                or not is_all
                or method not in REPEATABLE
                or self._writer.is_started
                or self._client.is_closed
            ):
                raise
            upstream = await self._connect(service, peer, fresh=True)
            await self._exchange(service, upstream, method, octets)
        return upstream

    async def _connect(self, service: Service, peer: Peer, *, fresh: bool) -> Upstream:
        try:
            if fresh:
                upstream = await service.pool.take_new(service.connect)
            else:
                upstream = await service.pool.take(service.target, service.connect)
        except NetError as exc:
            raise OhttpError(Problem.PLAIN_TEXT_FORWARD_ERROR, str(exc), code=exc.code) from exc
        if not upstream.is_reused:
            service.on_connected(upstream.end, peer)
        return upstream

    async def _exchange(
        self, service: Service, upstream: Upstream, method: bytes, octets: bytes
    ) -> None:
        exchange = Exchange(self._reactor, self._client, upstream.end)
        try:
            await upstream.send(octets, is_last=self._incoming.is_whole)
            if self._incoming.is_whole:
                exchange.watch_client()
            else:
                exchange.start(self._send_body(upstream, exchange))
            await self._answer(service, upstream, exchange, method)
        except BaseException as exc:
            upstream.end.abort()
            await exchange.stop()
            if exchange.failure is not None and isinstance(exc, TngError):
                raise exchange.failure from exc
            if isinstance(exc, OhttpError) or not isinstance(exc, TngError):
                raise
            # A service that breaks its protocol is not a peer of ours that does.
            code = None if isinstance(exc, RemoteProtocolError) else exc.code
            raise OhttpError(Problem.PLAIN_TEXT_FORWARD_ERROR, str(exc), code=code) from exc
        await exchange.stop()

    # -- towards the service ---------------------------------------------------------------

    async def _send_body(self, upstream: Upstream, exchange: Exchange) -> None:
        if self._body is None:
            raise AssertionError("the body goes on after the head")
        while True:
            events = await self._incoming.read()
            is_whole = self._incoming.is_whole
            octets = self._body.take(events, is_whole=is_whole)
            if octets or is_whole:
                await upstream.send(octets, is_last=is_whole)
            if is_whole:
                return
            await exchange.share(len(octets))

    # -- towards the client ----------------------------------------------------------------

    async def _answer(
        self, service: Service, upstream: Upstream, exchange: Exchange, method: bytes
    ) -> None:
        head = await upstream.response_head(method)
        sealer = self._sealer
        fields = end_to_end(head.fields, keep_host=False)
        outer = [service.server, _RESPONSE_TYPE, *service.passthrough.of_response(fields)]
        out = [self._writer.start(200, outer)]
        before = sealer.prefix
        inner = [bhttp.dump_response_head(head.status, fields)]
        size = 0
        while not upstream.is_complete:
            # What is ready goes out before more is waited for, and before it is much.
            if size >= SHARE or not upstream.look():
                out.append(self._writer.data(before + sealer.seal(b"".join(inner))))
                await exchange.send_to_client(b"".join(out))
                out, before, inner, size = [], b"", [], 0
            for piece in await upstream.read():
                size += len(piece)
                inner.append(bhttp.dump_content(piece))
        inner.append(bhttp.dump_end(end_to_end(upstream.trailers, keep_host=False)))
        sealed = sealer.seal(b"".join(inner)) + sealer.finish()
        out += [self._writer.data(before + sealed), self._writer.end([])]
        await exchange.send_to_client(b"".join(out))


class _RequestBody:
    """The octets of a request body, of which the completing ones are held back.

    Args:
        head: of the inner request.
        first: the first events after the head: content among them, or all that will come.
    """

    def __init__(self, head: InnerRequestHead, first: list[Event]) -> None:
        self._left = parse_content_length(head.fields, _bad_length)
        self._held = b""
        self._trailers: Fields = []
        self._is_chunked = self._left is None and _has_content(first)
        self.framing: Fields = []
        """Fields to be added to those of the request."""
        if self._is_chunked:
            self.framing = [_CHUNKED]
        elif self._left is None and head.method in _HAS_CONTENT:
            self.framing = [_NO_CONTENT]

    def take(self, events: list[Event], *, is_whole: bool) -> bytes:
        """What may go to the service now.

        Raises:
            OhttpError: the content is not as long as the head says.
        """
        out: list[bytes] = []
        for event in events:
            if isinstance(event, Content):
                self._add(event.data, out)
            elif isinstance(event, MessageEnd):
                self._trailers = end_to_end(event.trailers, keep_host=False)
        if is_whole:
            out.append(self._end())
        return b"".join(out)

    def _add(self, data: bytes, out: list[bytes]) -> None:
        if self._is_chunked:
            out.append(dump_chunk(data))
            return
        self._left = (self._left or 0) - len(data)
        if self._left < 0:
            raise _bad_length("more content than its Content-Length")
        out.append(self._held)
        self._held = data

    def _end(self) -> bytes:
        if self._is_chunked:
            return dump_last_chunk(self._trailers)
        if self._left:
            raise _bad_length("less content than its Content-Length")
        held, self._held = self._held, b""
        return held


def _has_content(events: list[Event]) -> bool:
    return any(isinstance(event, Content) for event in events)


def _bad_length(message: str) -> OhttpError:
    return OhttpError(Problem.PLAIN_TEXT_FORWARD_ERROR, f"the inner request has {message}")


def _refuse_upgrades(head: InnerRequestHead) -> None:
    if head.method == b"CONNECT":
        raise OhttpError(
            Problem.UPGRADE_NOT_SUPPORTED, "OHTTP carries single messages, not CONNECT"
        )
    if asks_upgrade(head.fields):
        raise OhttpError(
            Problem.UPGRADE_NOT_SUPPORTED,
            "OHTTP carries single messages: a connection cannot be upgraded (WebSocket)",
        )


def _service_fields(
    head: InnerRequestHead, outer: Request, service: Service, address: str
) -> Fields:
    """The fields of the request to the service."""
    fields = end_to_end(head.fields, keep_host=True)
    shown = end_to_end(outer.head.fields, keep_host=False)
    fields = overwrite(fields, service.passthrough.of_request(shown))
    if not any(name == b"host" for name, _ in fields):
        host = head.authority or str(service.target).encode("latin-1")
        fields.insert(0, (b"host", host))
    if service.tells_address:
        fields = _tell_address(fields, address.encode("latin-1"))
    return fields


def _tell_address(fields: Fields, address: bytes) -> Fields:
    before = [value for name, value in fields if name == b"x-forwarded-for"]
    told = [field for field in fields if field[0] not in (b"x-real-ip", b"x-forwarded-for")]
    told.append((b"x-real-ip", address))
    told.append((b"x-forwarded-for", b", ".join([*before, address])))
    return told
