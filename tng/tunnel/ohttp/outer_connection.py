"""Connections of an ingress to egresses, or to the load balancers in front of them.

In: an endpoint.  Out: an HTTP/1.1 connection, over TLS where the operator said so, used again when
it is free.  The certificate on the outside proves a host name, as on the web; it says nothing of
the TEE behind it, which the key configuration proves.
"""

from __future__ import annotations

from typing import Final

from tng.dataplane.http_upstream import Upstream, UpstreamPool
from tng.dataplane.reactor import Reactor
from tng.dataplane.socket_end import SocketEnd
from tng.dataplane.web_tls import WebTls
from tng.endpoint import Endpoint
from tng.tunnel.dialer import Dialer
from tng.tunnel.ohttp.outer import API_FIELD, USER_AGENT
from tng.tunnel.ohttp.recipients import OuterUrl
from tng.wire.http1_body import dump_chunk
from tng.wire.http1_head import Fields, dump_request_head

_ACCEPT: Final = (b"accept", b"*/*")
_IDENTITY: Final = (b"accept-encoding", b"identity")


class OuterConnections:
    """Connections of one `add_ingress` entry.

    Args:
        reactor: where they live.
        dialer: makes them.
        tls: how to do TLS on them; None for plain HTTP.
    """

    def __init__(self, reactor: Reactor, dialer: Dialer, tls: WebTls | None) -> None:
        self._pool = UpstreamPool(reactor)
        self._dialer = dialer
        self._tls = tls

    @property
    def scheme(self) -> str:
        """Scheme of outer URLs, for the status page."""
        return "http" if self._tls is None else "https"

    async def take(self, endpoint: Endpoint, *, fresh: bool = False) -> Upstream:
        """A connection for one request.

        Args:
            endpoint: where to.
            fresh: whether to pass over those that were used before.

        Raises:
            NetError: nobody there, or not with an acceptable certificate.
        """

        async def connect() -> SocketEnd:
            return await self._connect(endpoint)

        if fresh:
            return await self._pool.take_new(connect)
        return await self._pool.take(endpoint, connect)

    def put(self, endpoint: Endpoint, upstream: Upstream) -> None:
        """Give a connection back; it is kept only if it can serve another request."""
        self._pool.put(endpoint, upstream)

    def drain(self) -> None:
        """Close what is not in use, and the rest when it comes back."""
        self._pool.drain()

    async def _connect(self, endpoint: Endpoint) -> SocketEnd:
        if self._tls is None:
            return await self._dialer.connect(endpoint)
        plain = await self._dialer.connect_socket(endpoint)
        return await self._tls.connect(plain, endpoint)


def post_head(url: OuterUrl, api: str, content_type: bytes, fields: Fields, more: Fields) -> bytes:
    """The head of an outer request.

    Args:
        url: whose path and host it has.
        api: what is asked of the egress.
        content_type: of the body.
        fields: how the body is framed.
        more: what the operator wants to be seen on the outside; a User-Agent replaces ours.
    """
    written = [
        (b"host", str(url.endpoint).encode("latin-1")),
        (API_FIELD, api.encode("ascii")),
        (b"content-type", content_type),
        *fields,
        *more,
    ]
    names = {name for name, _ in more}
    if b"accept" not in names:
        written.append(_ACCEPT)
    if b"accept-encoding" not in names:
        written.append(_IDENTITY)
    if b"user-agent" not in names:
        written.append((b"user-agent", USER_AGENT))
    return dump_request_head(b"POST", url.path, written)


def chunk_of(*parts: bytes) -> bytes:
    """One HTTP chunk that holds the parts."""
    return dump_chunk(b"".join(parts))
