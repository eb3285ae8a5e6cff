"""One HTTP request forwarded as it is: neither encrypted nor judged, because the operator said so.

In: a request whose path or destination the configuration exempts.  Out: the service's response.
Used for `direct_forward` at an egress, and for destinations that an OHTTP ingress does not tunnel.
Every request is decided upon by itself; nothing is ever spliced.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from tng.dataplane.ends import End
from tng.dataplane.http_exchange import SHARE, Exchange
from tng.dataplane.http_server import Request, ResponseWriter
from tng.dataplane.http_upstream import Upstream, UpstreamPool
from tng.dataplane.reactor import Reactor
from tng.dataplane.socket_end import SocketEnd
from tng.endpoint import Endpoint
from tng.errors import ErrorCode, NetError, RemoteProtocolError, RequestRejectedError, TngError
from tng.tunnel.ohttp.fields import asks_upgrade, end_to_end
from tng.wire.http1_body import dump_chunk, dump_last_chunk
from tng.wire.http1_head import Fields, dump_request_head

_CHUNKED: Final = (b"transfer-encoding", b"chunked")

Connect = Callable[[], Awaitable[SocketEnd]]


class PlainExchange:
    """One request and its response.

    Args:
        reactor: where connections live.
        client: the client's connection.
        request: its request.
        writer: makes the octets of the response.
    """

    def __init__(
        self, reactor: Reactor, client: End, request: Request, writer: ResponseWriter
    ) -> None:
        self._reactor = reactor
        self._client = client
        self._request = request
        self._writer = writer

    async def run(
        self,
        pool: UpstreamPool,
        key: Endpoint,
        connect: Connect,
        target: bytes,
        more: Fields,
    ) -> None:
        """Forward the request.

        Args:
            pool: connections to servers.
            key: the server.
            connect: makes a connection to it.
            target: request target in origin-form.
            more: fields added to the request.

        Raises:
            RequestRejectedError: the request wants to leave HTTP.
            TngError: not served, or cut short (`writer.is_started`).
        """
        head = self._request.head
        if head.method == b"CONNECT" or asks_upgrade(head.fields):
            raise RequestRejectedError("only plain HTTP requests are forwarded here", status=501)
        fields = [*end_to_end(head.fields, keep_host=True), *more]
        if head.is_chunked:
            fields.append(_CHUNKED)
        octets = dump_request_head(head.method, target, fields)
        upstream = await pool.take(key, connect)
        exchange = Exchange(self._reactor, self._client, upstream.end)
        try:
            await self._exchange(upstream, exchange, octets)
        except BaseException as exc:
            upstream.end.abort()
            await exchange.stop()
            if exchange.failure is not None and isinstance(exc, TngError):
                raise exchange.failure from exc
            if isinstance(exc, RemoteProtocolError):  # a service, not a peer of ours
                code = ErrorCode.UPSTREAM_UNREACHABLE
                raise NetError(f"the service at {key}: {exc}", code=code) from exc
            raise
        await exchange.stop()
        pool.put(key, upstream)

    async def _exchange(self, upstream: Upstream, exchange: Exchange, octets: bytes) -> None:
        body = self._request.body
        octets += self._framed(body.read_nowait())
        await upstream.send(octets, is_last=body.is_complete)
        if body.is_complete:
            exchange.watch_client()
        else:
            exchange.start(self._send_body(upstream, exchange))
        head = await upstream.response_head(self._request.head.method)
        out = [self._writer.start(head.status, end_to_end(head.fields, keep_host=False))]
        size = 0
        while not upstream.is_complete:
            if size >= SHARE or not upstream.look():
                await exchange.send_to_client(b"".join(out))
                out, size = [], 0
            for piece in await upstream.read():
                size += len(piece)
                out.append(self._writer.data(piece))
        out.append(self._writer.end(end_to_end(upstream.trailers, keep_host=False)))
        await exchange.send_to_client(b"".join(out))

    async def _send_body(self, upstream: Upstream, exchange: Exchange) -> None:
        body = self._request.body
        while not upstream.is_sent:
            octets = self._framed(await body.read())
            await upstream.send(octets, is_last=body.is_complete)
            if upstream.end.is_closed or (body.is_complete and not upstream.is_sent):
                return  # its answer, or the lack of one, says why
            await exchange.share(len(octets))

    def _framed(self, pieces: list[bytes]) -> bytes:
        body = self._request.body
        if not self._request.head.is_chunked:
            return b"".join(pieces)
        out = [dump_chunk(piece) for piece in pieces]
        if body.is_complete:
            out.append(dump_last_chunk(end_to_end(body.trailers, keep_host=False)))
        return b"".join(out)
