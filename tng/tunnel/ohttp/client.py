"""The ingress side of OHTTP: one HTTP request after another, each encrypted to a judged key.

In: requests of a client, and where they are to go.  Out: responses.  Source: spec of the OHTTP
transport, section 2.

    client request -> BHTTP -> chunks of OHTTP -> POST to the egress
    client response <- BHTTP <- chunks of OHTTP <- its answer

Theory of operation.  The body of a request is encrypted as it comes, and the response is
decrypted as it comes; both directions run at once.  An egress that does not know the key any more
says 422 before it has looked at the request; the key is then asked for again, and the request is
encrypted anew and sent once more, if all of its body so far has been kept (at most MAX_REPLAY
octets).  The same is done when a connection that was used before turns out to be closed, for
methods that may be repeated.

Invariants: a request is encrypted only to a `Recipient`, which only a verdict makes; a response
that was cut short never looks complete to the client; no plaintext is kept longer than it may be
needed to be sent again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tng.dataplane.ends import End
from tng.dataplane.http_exchange import Exchange
from tng.dataplane.http_server import ClientLeftError, Request, ResponseWriter
from tng.dataplane.http_upstream import Upstream, read_limited
from tng.dataplane.reactor import Reactor
from tng.endpoint import Endpoint
from tng.errors import NetError, RemoteProtocolError, RequestRejectedError, TngError
from tng.tunnel.base import Peer
from tng.tunnel.ohttp.control_messages import Api
from tng.tunnel.ohttp.fields import REPEATABLE, asks_upgrade, end_to_end
from tng.tunnel.ohttp.outer import (
    REQUEST_TYPE,
    RESPONSE_TYPE,
    OuterPath,
    Passthrough,
    overwrite,
)
from tng.tunnel.ohttp.outer_connection import OuterConnections, chunk_of, post_head
from tng.tunnel.ohttp.problems import OhttpError, Problem
from tng.tunnel.ohttp.recipients import OuterUrl, Recipient, Recipients
from tng.wire import bhttp
from tng.wire.bhttp_decoder import Content, Decoder, Event
from tng.wire.bhttp_decoder import End as MessageEnd
from tng.wire.bhttp_decoder import RequestHead as InnerRequestHead
from tng.wire.http1_body import dump_last_chunk
from tng.wire.http1_head import Fields
from tng.wire.ohttp_request import RequestSealer
from tng.wire.ohttp_response import ResponseOpener

MAX_REPLAY: Final = 1 << 20
"""Octets of a request body that are kept to be sent once more; prompts are far smaller."""

MAX_EPHEMERALS: Final = 64
"""Keys made ahead, one per request: as many as clients may ask at the same moment."""

_MAX_ERROR_BODY: Final = 64 * 1024
_EXCERPT: Final = 300

_CHUNKED: Final = [(b"transfer-encoding", b"chunked")]

log = logging.getLogger(__name__)


class _StaleKeyError(Exception):
    """The egress does not know the key that the request was encrypted to."""


class _StaleConnectionError(Exception):
    """A connection that was used before has ended before anything of the response came."""


class OhttpClient:
    """Carries the requests of one `add_ingress` entry.

    Args:
        reactor: where connections live.
        outer: connections to egresses.
        recipients: keys of egresses.
        paths: makes outer paths.
        passthrough: which fields are shown on the outside.
    """

    def __init__(
        self,
        reactor: Reactor,
        outer: OuterConnections,
        recipients: Recipients,
        paths: OuterPath,
        passthrough: Passthrough,
    ) -> None:
        self.reactor = reactor
        self.outer = outer
        self.recipients = recipients
        self.passthrough = passthrough
        self._paths = paths
        self._ephemerals: list[X25519PrivateKey] = []

    def url(self, destination: Endpoint, target: bytes) -> OuterUrl:
        """Where a request for `target` at `destination` is posted."""
        return OuterUrl(destination, self._paths.of(target))

    async def prepare(self, destination: Endpoint) -> Peer:
        """The judged peer at `destination`, for whoever must know before anything is said.

        Raises:
            TngError: see `KeyFetcher.fetch`.
        """
        return (await self.recipients.get(self.url(destination, b"/"))).peer

    def take_ephemeral(self) -> X25519PrivateKey:
        """A fresh key for one request; nobody else gets it."""
        return self._ephemerals.pop() if self._ephemerals else X25519PrivateKey.generate()

    def make_ephemeral(self) -> None:
        """Make a key ahead, at a time when nobody waits for it."""
        if len(self._ephemerals) < MAX_EPHEMERALS:
            self._ephemerals.append(X25519PrivateKey.generate())

    def drain(self) -> None:
        """Close connections that no request uses."""
        self.outer.drain()


OnAnswered = Callable[[Endpoint, Peer], None]
"""Told once, when the first of an answer has decrypted: our address on the way there, and the peer
that has proved with it that the judged key is its own."""


class ClientExchange:
    """One request of a client, and its response.

    Args:
        ohttp: the entry's client side.
        client: the client's connection.
        request: its request.
        destination: whom it is for.
        target: its request target in origin-form.
        writer: makes the octets of the response.
        on_answered: see `OnAnswered`; None for nobody.
    """

    def __init__(
        self,
        ohttp: OhttpClient,
        client: End,
        request: Request,
        destination: Endpoint,
        target: bytes,
        writer: ResponseWriter,
        on_answered: OnAnswered | None = None,
    ) -> None:
        self._ohttp = ohttp
        self._client = client
        self._request = request
        self._writer = writer
        self._on_answered = on_answered
        self._url = ohttp.url(destination, target)
        head = request.head
        fields = end_to_end(head.fields, keep_host=True)
        self._inner_head = bhttp.dump_request_head(head.method, b"", b"", target, fields)
        self._shown = ohttp.passthrough.of_request(fields)
        self._kept: list[bytes] | None = []
        self._kept_size = 0

    async def run(self) -> None:
        """Serve the request.

        Raises:
            OhttpError: not served; the client has not been told anything yet.
            TngError: the same, or it ended in the middle of the response (`writer.is_started`).
        """
        recipient = await self._ohttp.recipients.get(self._url)
        try:
            await self._attempt(recipient, fresh=False)
        except _StaleKeyError as exc:
            recipient = await self._ohttp.recipients.get_other(self._url, recipient)
            await self._last_attempt(recipient, exc)
        except _StaleConnectionError as exc:
            await self._last_attempt(recipient, exc)

    async def _last_attempt(self, recipient: Recipient, reason: Exception) -> None:
        """Send the request once more; it is not sent a third time."""
        if self._kept is None:
            raise OhttpError(
                Problem.NEW_KEY_NEEDED,
                f"{self._url.endpoint} asked for the request again ({reason}), but more than "
                f"{MAX_REPLAY} octets of its body are gone; please send it again",
            ) from reason
        try:
            await self._attempt(recipient, fresh=True)
        except (_StaleKeyError, _StaleConnectionError) as exc:
            raise OhttpError(
                Problem.NEW_KEY_NEEDED,
                f"{self._url.endpoint} refused the request twice: {exc}; behind a load balancer "
                "all egresses need the same key",
            ) from exc

    async def _attempt(self, recipient: Recipient, *, fresh: bool) -> None:
        try:
            upstream = await self._ohttp.outer.take(self._url.endpoint, fresh=fresh)
        except NetError as exc:
            raise OhttpError(Problem.CIPHER_TEXT_FORWARD_ERROR, str(exc), code=exc.code) from exc
        exchange = Exchange(self._ohttp.reactor, self._client, upstream.end)
        try:
            await self._send_and_receive(recipient, upstream, exchange)
        except BaseException as exc:
            upstream.end.abort()
            await exchange.stop()
            if exchange.failure is not None and isinstance(exc, TngError):
                raise exchange.failure from exc
            if self._is_stale_connection(upstream, exc):
                raise _StaleConnectionError("the connection had ended") from exc
            raise
        await exchange.stop()
        self._ohttp.outer.put(self._url.endpoint, upstream)

    def _is_stale_connection(self, upstream: Upstream, error: BaseException) -> bool:
        return (
            upstream.is_reused
            and not upstream.heard
            and isinstance(error, OhttpError | NetError)
            and not isinstance(error, ClientLeftError)
            and self._request.head.method in REPEATABLE
        )

    # -- towards the egress ----------------------------------------------------------------

    async def _send_and_receive(
        self, recipient: Recipient, upstream: Upstream, exchange: Exchange
    ) -> None:
        credential = recipient.credential
        sealer = RequestSealer(
            recipient.config,
            recipient.suite,
            self._ohttp.take_ephemeral(),
            credential.private if credential else None,
        )
        opener = sealer.response_opener()
        head = post_head(self._url, Api.TUNNEL, REQUEST_TYPE, _CHUNKED, self._shown)
        # An egress may need its header in one read: metadata is a chunk of its own.
        begin = [head, chunk_of(recipient.metadata)]
        body = self._request.body
        # What an earlier attempt has sent of the body, and what has come since.
        pieces = [*(self._kept or ()), *self._fresh_pieces()]
        inner = [self._inner_head, *map(bhttp.dump_content, pieces)]
        if body.is_complete:
            inner.append(self._end())
            sealed = sealer.seal(b"".join(inner)) + sealer.finish()
            begin += [chunk_of(sealer.header, sealed), dump_last_chunk()]
            await upstream.send(b"".join(begin), is_last=True)
            exchange.watch_client()
        else:
            begin.append(chunk_of(sealer.header, sealer.seal(b"".join(inner))))
            await upstream.send(b"".join(begin), is_last=False)
            exchange.start(self._send_body(sealer, upstream, exchange))
        self._ohttp.make_ephemeral()  # while the egress works
        await self._receive(recipient.peer, upstream, exchange, opener)

    def _fresh_pieces(self) -> list[bytes]:
        pieces = self._request.body.read_nowait()
        self._keep(pieces)
        return pieces

    def _keep(self, pieces: Sequence[bytes]) -> None:
        if self._kept is not None:
            self._kept_size += sum(map(len, pieces))
            if self._kept_size > MAX_REPLAY:
                self._kept = None
            else:
                self._kept += pieces

    def _end(self) -> bytes:
        """The end of the inner message."""
        return bhttp.dump_end(end_to_end(self._request.body.trailers, keep_host=False))

    async def _send_body(
        self, sealer: RequestSealer, upstream: Upstream, exchange: Exchange
    ) -> None:
        """Encrypt the body as it comes; the message ends in one write with its final chunk."""
        body = self._request.body
        while pieces := await body.read():
            self._keep(pieces)
            inner = b"".join(map(bhttp.dump_content, pieces))
            if body.is_complete:
                await upstream.send(self._seal_last(sealer, inner), is_last=True)
                return
            octets = chunk_of(sealer.seal(inner))
            await upstream.send(octets, is_last=False)
            await exchange.share(len(octets))
        await upstream.send(self._seal_last(sealer, b""), is_last=True)

    def _seal_last(self, sealer: RequestSealer, inner: bytes) -> bytes:
        """The last part of the message, its end and the final chunk, which go out together."""
        return chunk_of(sealer.seal(inner + self._end()), sealer.finish()) + dump_last_chunk()

    # -- towards the client ----------------------------------------------------------------

    async def _receive(
        self, peer: Peer, upstream: Upstream, exchange: Exchange, opener: ResponseOpener
    ) -> None:
        try:
            head = await upstream.response_head(b"POST")
        except (NetError, RemoteProtocolError) as exc:
            raise OhttpError(
                Problem.CIPHER_TEXT_BAD_RESPONSE,
                f"no answer of {self._url.endpoint}: {exc}",
                code=exc.code,
            ) from exc
        if head.status != 200:
            await self._refused(upstream, head.status)
        types = [value for name, value in head.fields if name == b"content-type"]
        if types != [RESPONSE_TYPE]:
            raise OhttpError(
                Problem.INVALID_OHTTP_RESPONSE,
                f"{self._url.endpoint} answered with a body that is not {RESPONSE_TYPE.decode()}",
            )
        self._kept = None  # it will not be sent again
        copied = self._ohttp.passthrough.of_response(head.fields)
        decoder = Decoder("response")
        trailers: Fields | None = None
        while pieces := await upstream.read():
            out: list[bytes] = []
            opened = self._open(opener, pieces)
            if opened and self._on_answered is not None:
                self._on_answered(upstream.end.local, peer)
                self._on_answered = None
            for plain in opened:
                for event in self._decode(decoder, plain):
                    if isinstance(event, Content):
                        out.append(self._writer.data(event.data))
                    elif isinstance(event, MessageEnd):
                        trailers = event.trailers
                    elif isinstance(event, InnerRequestHead):
                        raise OhttpError(Problem.INVALID_HTTP_RESPONSE, "a request came back")
                    else:
                        fields = overwrite(end_to_end(event.fields, keep_host=False), copied)
                        out.append(self._writer.start(event.status, fields))
            if trailers is not None and opener.is_final and upstream.is_complete:
                out.append(self._writer.end(end_to_end(trailers, keep_host=False)))
                await exchange.send_to_client(b"".join(out))
                return
            await exchange.send_to_client(b"".join(out))
        self._check_whole(opener, decoder, trailers)
        await exchange.send_to_client(self._writer.end(end_to_end(trailers or [], keep_host=False)))

    async def _refused(self, upstream: Upstream, status: int) -> None:
        answer = await read_limited(upstream, _MAX_ERROR_BODY)
        if status == 422:
            raise _StaleKeyError("it does not know the key")
        words = answer[:_EXCERPT].decode("utf-8", "replace")
        raise OhttpError(
            Problem.CIPHER_TEXT_BAD_RESPONSE,
            f"{self._url.endpoint} answered {status}: {words}",
        )

    def _open(self, opener: ResponseOpener, pieces: Sequence[bytes]) -> list[bytes]:
        try:
            return [plain for piece in pieces for plain in opener.feed(piece)]
        except RemoteProtocolError as exc:
            raise OhttpError(Problem.ANSWER_UNREADABLE, str(exc)) from exc

    def _decode(self, decoder: Decoder, plain: bytes) -> list[Event]:
        try:
            return decoder.feed(plain)
        except bhttp.WrongKindError as exc:
            raise OhttpError(Problem.INVALID_HTTP_RESPONSE, str(exc)) from exc
        except RemoteProtocolError as exc:
            raise OhttpError(Problem.ANSWER_UNREADABLE, str(exc)) from exc

    def _check_whole(
        self, opener: ResponseOpener, decoder: Decoder, trailers: Fields | None
    ) -> None:
        """Both layers have to say that the response is complete."""
        try:
            opener.finish()
            decoder.finish()
        except RemoteProtocolError as exc:
            raise OhttpError(
                Problem.ANSWER_UNREADABLE, f"the response was cut short: {exc}"
            ) from exc


def origin_target(request: Request) -> bytes:
    """The request target of a request that is served here.

    Raises:
        RequestRejectedError: 501 for CONNECT and for requests that want to leave HTTP.
    """
    head = request.head
    if head.method == b"CONNECT":
        raise RequestRejectedError("CONNECT has no meaning within OHTTP", status=501)
    if asks_upgrade(head.fields):
        raise RequestRejectedError(
            "OHTTP carries single messages: a connection cannot be upgraded (WebSocket); use the "
            "rats_tls transport for it",
            status=501,
        )
    return head.target
