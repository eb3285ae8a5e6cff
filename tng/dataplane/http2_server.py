"""The server's side of one HTTP/2 connection that a client began with prior knowledge.

In: a client's connection whose next octets are the preface.  Out: a `RequestStream` for each
request, which whoever serves HTTP/1 connections serves.  Source: RFC 9113; windows, turns and
budgets for useless frames are those of `MuxConnection`.

Invariants: what a client makes us keep is bounded by `LIMITS`; when a client resets a request or
goes away, whoever serves it is told at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Final

from tng.dataplane.http2_stream import RequestStream
from tng.dataplane.mux import TASKS_PER_STREAM, MuxConnection
from tng.dataplane.mux_stream import MuxStream
from tng.dataplane.task import Cancelled, Wait
from tng.errors import RemoteProtocolError, TngError
from tng.wire.h2_frames import H2Code
from tng.wire.h2_requests import H2RequestMachine, request_as_http1, request_trailers
from tng.wire.h2_stream import NOBODY, H2Limits, H2Stream, StreamHandler

if TYPE_CHECKING:
    from tng.dataplane.ends import End
    from tng.dataplane.reactor import Reactor
    from tng.wire.h2_headers import Headers

LIMITS: Final = H2Limits(
    stream_window=128 << 10,
    largest_stream_window=1 << 20,
    connection_window=1 << 20,
    # More than all streams hold that have never been read, so that none of them stops the others.
    held_octets=16 << 20,
    streams=100,  # the least that RFC 9113 section 6.5.2 recommends, and what browsers use
    # A client may cancel all its requests a few times over; who goes on with it is flooding.
    chatter_burst=1000,
    chatter_per_second=200.0,
)
"""What one client may do on one connection."""

OnRequest = Callable[[RequestStream], Coroutine[object, None, object]]
"""Serves one request; the stream is closed when this returns, and reset when this raises."""

log = logging.getLogger(__name__)


class Http2Connection(MuxConnection):
    """One connection of a client.

    Args:
        reactor: where it lives.
        end: the connection; owned from now on.
        on_request: serves one request.
        first_timeout_s: seconds until the first request must have come.
        idle_timeout_s: seconds without a request.
        limits: see `LIMITS`.

    Attributes:
        requests: the protocol's state.  For `RequestStream` only.
    """

    __slots__ = (
        "_first_timeout_s",
        "_gone",
        "_idle_timeout_s",
        "_idle_timer",
        "_lets_go",
        "_on_request",
        "_open",
        "requests",
    )

    def __init__(
        self,
        reactor: Reactor,
        end: End,
        on_request: OnRequest,
        *,
        first_timeout_s: float,
        idle_timeout_s: float,
        limits: H2Limits = LIMITS,
    ) -> None:
        super().__init__(reactor, end, role="server", on_closed=self._lost, limits=limits)
        self.machine = self.requests = H2RequestMachine(self, now=reactor.now, limits=limits)
        self._on_request = on_request
        self._first_timeout_s = first_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._idle_timer = reactor.call_later(first_timeout_s, self._check_idle)
        self._lets_go = False
        self._open: dict[int, RequestStream] = {}
        self._gone: Wait[None] = Wait()

    async def run(self) -> None:
        """Serve the connection; return when it is closed."""
        self.start()
        try:
            await self._gone
        except Cancelled:
            self._stop()
            raise
        finally:
            self._idle_timer.cancel()

    def let_idle_go(self) -> None:
        """Take no more requests, and close after the answers under way.

        GOAWAY follows the last of them, since there are clients that drop what is under way when
        they see it.  What they ask until then is refused so that it can be asked elsewhere.
        """
        self._lets_go = True
        self._leave_if_idle()

    def stream_closed(self, stream: MuxStream) -> None:
        """See `MuxOwner`."""
        super().stream_closed(stream)
        self._leave_if_idle()

    # --- what the machine tells ---

    def stream_requested(self, stream: H2Stream, method: bytes) -> StreamHandler:
        """See `ConnectionHandler`."""
        headers, ends = self.requests.requested
        if self._lets_go or self._serving >= TASKS_PER_STREAM * self._limits.streams:
            self.requests.refuse(stream, H2Code.REFUSED_STREAM)
            return NOBODY
        if method == b"CONNECT":
            self.requests.send_headers(stream, [(b":status", b"501")], ends=True)
            self.requests.refuse(stream, H2Code.NO_ERROR)
            return NOBODY
        try:
            request = request_as_http1(headers, ends=ends)
        except RemoteProtocolError as error:
            self._refuse_malformed(stream, error)
            return NOBODY
        carrier = MuxStream(self._reactor, self, stream)
        self._streams.add(carrier)
        self.idle_since = None
        self._first_timeout_s = self._idle_timeout_s
        label = f"{self._end.label} {carrier.label}"
        end = RequestStream(self._reactor, self, stream, carrier, request, ends=ends, label=label)
        self._open[stream.id] = end
        self._serving += 1
        self._reactor.spawn(self._serve_request(stream.id, end), label)
        return end

    def trailers_received(self, stream: H2Stream, headers: Headers) -> None:
        """See `RequestConnection`."""
        end = self._open.get(stream.id)
        if end is None:
            return
        try:
            end.trailers_received(request_trailers(headers))
        except RemoteProtocolError as error:
            end.broken(f"is malformed: {error}")
            self._refuse_malformed(stream, error)

    # --- private ---

    def _refuse_malformed(self, stream: H2Stream, error: RemoteProtocolError) -> None:
        log.debug("malformed request client=%s: %s", self._end.label, error)
        self.requests.refuse(stream, H2Code.PROTOCOL_ERROR)

    async def _serve_request(self, stream_id: int, end: RequestStream) -> None:
        try:
            await self._on_request(end)
            end.close()
        except TngError as error:
            log.debug("request ended client=%s: %s", end.label, error)
            end.abort()
        except BaseException:
            end.abort()
            raise
        finally:
            self._serving -= 1
            self._open.pop(stream_id, None)

    def _leave_if_idle(self) -> None:
        if self._lets_go and not self._streams:
            self.close("shutting down")

    def _lost(self, reason: str) -> None:
        """The connection has ended: whoever waits for a client learns it now."""
        for end in list(self._open.values()):
            end.broken(f"is lost: {reason}")

    def _check_idle(self) -> None:
        since = self.idle_since
        limit = self._first_timeout_s
        left = limit if since is None else limit - (self._reactor.now - since)
        if left > 0:
            self._idle_timer = self._reactor.call_later(left, self._check_idle)
        else:
            self.close("no request for too long")

    def _release(self, end_it: Callable[[], None]) -> None:
        super()._release(end_it)
        self._gone.set(None)
