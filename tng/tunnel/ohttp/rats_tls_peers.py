"""Messages between egresses that share keys, over RATS-TLS: the `PeerTransport` of the gateway.

A message is the body of `POST /v1/keys` (HTTP/1.1, one request per connection), its answer the body
of the response.  Both ends show a certificate and judge the other's, as the two directions of
mutual attestation in any tunnel.

Invariant: no octet of a message is sent, and none is read, before the peer was judged and accepted,
or the operator said `no_ra`.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import socket
from collections.abc import Coroutine
from typing import Final, TypeVar

import trio

from tng.attest.verifier.base import Verifier
from tng.clock import Clock
from tng.dataplane.ends import End
from tng.dataplane.http_server import Request, ServerConnection
from tng.dataplane.http_upstream import Upstream, read_limited
from tng.dataplane.listener import Listener, make_listening_socket
from tng.dataplane.mux_stream import MuxStream
from tng.dataplane.reactor import Reactor
from tng.dataplane.socket_end import SocketEnd, to_endpoint
from tng.endpoint import Endpoint, parse_authority
from tng.errors import ErrorCode, LocalProtocolError, NetError, RemoteProtocolError, TngError
from tng.tunnel.base import Opened
from tng.tunnel.bridge import Bridge
from tng.tunnel.dialer import Dialer
from tng.tunnel.ohttp.cluster import EXCHANGE_TIMEOUT_S
from tng.tunnel.ohttp.peer_transport import Handler
from tng.tunnel.rats_tls.client import ClientOptions, RatsTlsClient
from tng.tunnel.rats_tls.identity import Identity
from tng.tunnel.rats_tls.pool import PoolLimits
from tng.tunnel.rats_tls.server import RatsTlsServer
from tng.wire.http1_head import dump_request_head, dump_response_head
from tng.wire.ohttp_cluster import MAX_MESSAGE

log = logging.getLogger(__name__)

PATH: Final = b"/v1/keys"
"""Target of every request."""

CONTENT_TYPE: Final = b"application/x-protobuf"
"""Of requests and answers."""

SERVE_TIMEOUT_S: Final = 30.0
"""Seconds from accepting a peer to the end of its answer; judging may ask a distant service."""

MAX_CONNECTIONS: Final = 512
"""Peers served at a time: each of 256 asks every two seconds, and strangers may try."""

T = TypeVar("T")


class RatsTlsPeers:
    """Carries messages to peers and from them.

    Args:
        reactor: where the connections live.
        bridge: to trio.
        dialer: makes the TCP connections.
        listen: address to listen on.
        identity: our certificate; None only with `no_ra`.
        verifier: the judge of peers; None only with `no_ra`.
        clock: against which verdicts end.

    Raises:
        LocalProtocolError: one of identity and verifier is there without the other: keys would be
            given to nodes that nobody judged, or taken from them.
    """

    def __init__(
        self,
        reactor: Reactor,
        bridge: Bridge,
        dialer: Dialer,
        listen: Endpoint,
        identity: Identity | None,
        verifier: Verifier | None,
        clock: Clock,
    ) -> None:
        if (identity is None) != (verifier is None):
            raise LocalProtocolError("peers that share keys attest and verify, or do neither")
        self._reactor = reactor
        self._bridge = bridge
        self._listen = listen
        self._background = [part for part in (identity, verifier) if part is not None]
        self._client = RatsTlsClient(
            reactor, bridge, dialer, ClientOptions(False, PoolLimits()), identity, verifier, clock
        )
        self._server = RatsTlsServer(reactor, bridge, False, identity, verifier, clock)
        self._handler: Handler | None = None
        self._connections = 0

    @property
    def address(self) -> Endpoint:
        """Where we listen; after `serve` has started also the port that the system chose."""
        return self._listen

    async def exchange(self, peer: str, body: bytes) -> bytes:
        """The peer's answer to a message; see `PeerTransport.exchange`."""
        try:
            destination = parse_authority(peer)
        except ValueError as exc:
            raise NetError(f"expected a peer as host:port, got {peer!r}: {exc}") from exc
        return await _in_reactor(self._reactor, self._ask(destination, body))

    async def serve(
        self, handler: Handler, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Let `handler` answer peers until cancelled; see `PeerTransport.serve`."""
        sock = make_listening_socket(self._listen.host, self._listen.port)
        self._listen, self._handler = to_endpoint(sock.getsockname()), handler
        listener = await _in_reactor(self._reactor, self._start_listening(sock))
        log.info("listening for OHTTP key peers on %s", self._listen)
        try:
            async with trio.open_nursery() as nursery:
                for part in self._background:
                    nursery.start_soon(part.run)
                task_status.started()
                await trio.sleep_forever()
        finally:
            with contextlib.suppress(LocalProtocolError):  # a stopped reactor has closed it
                self._reactor.call(listener.close)

    # -- in the reactor --------------------------------------------------------------

    async def _start_listening(self, sock: socket.socket) -> Listener:
        return Listener(self._reactor, sock, self._accept, "ohttp key peers")

    async def _ask(self, destination: Endpoint, body: bytes) -> bytes:
        def too_slow() -> NetError:
            return NetError(f"{destination} gave no answer within {EXCHANGE_TIMEOUT_S:g} s")

        with self._reactor.deadline(EXCHANGE_TIMEOUT_S, too_slow):
            opened = await self._client.open(destination)
            try:
                answer = await _post(opened.end, destination, body)
            except BaseException:
                opened.end.abort()
                raise
        opened.end.close()
        return answer

    async def _accept(self, accepted: socket.socket, address: tuple[object, ...]) -> None:
        peer = to_endpoint(address)
        if self._connections >= MAX_CONNECTIONS:
            accepted.close()
            return

        def too_slow() -> RemoteProtocolError:
            return RemoteProtocolError(f"asked for longer than {SERVE_TIMEOUT_S:g} s")

        self._connections += 1
        try:
            with self._reactor.deadline(SERVE_TIMEOUT_S, too_slow):
                await self._server.accept(accepted, str(peer), self._serve)
        except TngError as error:
            log.info("OHTTP key peer ended peer=%s code=%s: %s", peer, error.code, error)
        finally:
            self._connections -= 1

    async def _serve(self, opened: Opened, _stream: MuxStream | None) -> None:
        """Answer the one request of a peer that was accepted."""
        end = opened.end
        try:
            request = await ServerConnection(self._reactor, end).next_request()
            if request is not None:
                status, answer = await self._answer(request)
                fields = [
                    (b"content-type", CONTENT_TYPE if status == 200 else b"text/plain"),
                    (b"content-length", b"%d" % len(answer)),
                    (b"connection", b"close"),
                ]
                await end.send(dump_response_head(status, fields) + answer)
        except BaseException:
            end.abort()
            raise
        end.close()

    async def _answer(self, request: Request) -> tuple[int, bytes]:
        """Status and body of the response."""
        if (request.head.method, request.head.target) != (b"POST", PATH):
            return 404, b"expected POST " + PATH
        body = bytearray()
        while pieces := await request.body.read():
            for piece in pieces:
                body += piece
            if len(body) > MAX_MESSAGE:
                return 413, b"expected at most %d octets" % MAX_MESSAGE
        if self._handler is None:
            raise AssertionError("peers are accepted once there is a handler")
        try:
            return 200, await self._bridge.ask(self._handler, bytes(body))
        except RemoteProtocolError as error:
            return 400, str(error).encode()


async def _post(end: End, destination: Endpoint, body: bytes) -> bytes:
    fields = [
        (b"host", str(destination).encode()),
        (b"content-type", CONTENT_TYPE),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    await end.send(dump_request_head(b"POST", PATH, fields) + body)
    if not isinstance(end, SocketEnd):
        raise AssertionError(  # noqa: TRY004 - nobody gave us a wrong argument
            "a tunnel that is not multiplexed ends in a socket"
        )
    upstream = Upstream(end)
    head = await upstream.response_head(b"POST")
    if head.status != 200:
        raise RemoteProtocolError(f"{destination} refused our keys with status {head.status}")
    return await read_limited(upstream, MAX_MESSAGE)


async def _in_reactor(reactor: Reactor, coroutine: Coroutine[object, None, T]) -> T:
    """The result of a coroutine in the reactor (trio side).

    A caller that is cancelled leaves it alone: it has a deadline of its own.
    """
    done, token = trio.Event(), trio.lowlevel.current_trio_token()

    def wake(_: concurrent.futures.Future[T]) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(done.set)

    future = reactor.spawn_threadsafe(coroutine, "ohttp key exchange")
    future.add_done_callback(wake)
    await done.wait()
    try:
        return future.result()
    except concurrent.futures.CancelledError:
        raise TngError("the gateway is shutting down", code=ErrorCode.SHUTTING_DOWN) from None
