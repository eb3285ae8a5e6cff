"""One plain HTTP/1 request through a tunnel, and its response back, as they come.

Both directions run at once: the response may start, end or fail while the body is still being
sent, and a client that leaves ends the request at the service.  Each part is passed on when it
arrives; nothing is gathered.  Every request has a stream of its own to the service.

Invariants: a response that was cut short never looks complete to the client; a request that was
cut short never looks complete to the service; after 101 one reader alone touches each end.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Coroutine
from typing import Final

import h11

from tng.dataplane.ends import End
from tng.dataplane.plain import PlainEnd
from tng.dataplane.relay import relay
from tng.dataplane.task import Task, Wait
from tng.errors import ErrorCode, NetError, RemoteProtocolError, RequestRejectedError, TngError
from tng.gateway.flow import Flow
from tng.gateway.replies import error_body, error_fields, reason
from tng.tunnel.base import Opened
from tng.wire.http1 import MAX_HEAD_SIZE, Forward, forward_request, forward_response

_RECEIVE_SIZE: Final = 65536
_SWITCHING_PROTOCOLS: Final = 101
_COMPLETE: Final = (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)

_CLOSE: Final = (b"Connection", b"close")


class ClientLeftError(NetError):
    """The client closed its connection before its response was complete."""


class _Next(enum.Enum):
    """What a finished exchange leaves to do."""

    ANOTHER_REQUEST = enum.auto()
    CLOSE = enum.auto()
    LEAVE_HTTP = enum.auto()


_Outcome = Wait[_Next]
"""How the exchange ended; or the error that ended it."""


class ForwardExchange:
    """One request and its response.

    Args:
        flow: opens the stream, logs and counts.
        client: the client's connection.
        server: its HTTP/1 state, where a request head has just been read.
        is_last: whether the client is to be told, when its response begins, that the connection
            serves no further request.
    """

    def __init__(
        self, flow: Flow, client: PlainEnd, server: h11.Connection, is_last: Callable[[], bool]
    ) -> None:
        self._flow = flow
        self._client = client
        self._server = server
        self._is_last = is_last

    async def run(self, request: h11.Request) -> bool:
        """Serve `request`; True if the client's connection may serve another.

        Raises:
            RequestRejectedError: the request names no destination that can be served.
            NetError: it failed after the response had started; the client is reset already.
        """
        forward = forward_request(request)
        try:
            opened, tunnelled = await self._flow.open(forward.destination)
        except TngError as error:
            self._flow.failed(self._client, forward.destination, error)
            await self._answer_error(error)
            return False
        upstream = opened.end
        try:
            self._flow.connected(self._client, forward.destination, opened, tunnelled=tunnelled)
            following = await self._exchange(opened, forward)
        except TngError as error:
            self._flow.cut(self._client, forward.destination, error)
            upstream.abort()  # the service notices now, not when the client has been answered
            if (
                isinstance(error, ClientLeftError)
                or self._server.our_state is not h11.SEND_RESPONSE
            ):
                self._client.abort()  # a response cut short must not look complete
                raise NetError(f"cut short: {error}", code=error.code) from error
            await self._answer_error(error)
            return False
        finally:
            self._let_go(upstream)
        return following is _Next.ANOTHER_REQUEST

    def _let_go(self, upstream: End) -> None:
        """End the stream: in order after a whole exchange, with a reset after half of one."""
        server = self._server
        if server.our_state in _COMPLETE and server.their_state in _COMPLETE:
            upstream.close()
        else:
            upstream.abort()
        self._flow.meter.octets_from_client += upstream.bytes_out
        self._flow.meter.octets_to_client += upstream.bytes_in

    async def _exchange(self, opened: Opened, forward: Forward) -> _Next:
        upstream = opened.end
        remote = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_SIZE)
        reactor = self._flow.reactor
        ends_at = None if opened.lifetime_s is None else reactor.now + opened.lifetime_s
        if opened.lifetime_s is None:
            following = await self._both_halves(upstream, remote, forward)
        else:
            with reactor.deadline(opened.lifetime_s, _outlived):
                following = await self._both_halves(upstream, remote, forward)
        if following is _Next.LEAVE_HTTP:
            # Both connections now carry whatever the ends agreed on.
            self._client.unread(self._server.trailing_data[0])
            upstream.unread(remote.trailing_data[0])
            left = None if ends_at is None else max(0.0, ends_at - reactor.now)
            await relay(reactor, self._client, upstream, total_timeout_s=left)
        return following

    async def _both_halves(self, upstream: End, remote: h11.Connection, forward: Forward) -> _Next:
        await upstream.send(remote.send(forward.request) or b"")
        outcome: _Outcome = Wait()
        body = self._send_body(upstream, remote)
        response = self._return_response(upstream, remote, outcome)
        halves = [self._start(body, outcome), self._start(response, outcome)]
        try:
            return await outcome
        finally:
            for task, _ in halves:
                task.cancel()
            for _, ended in halves:
                await ended  # until then the half may still hold one of our ends

    def _start(
        self, work: Coroutine[None, None, None], outcome: _Outcome
    ) -> tuple[Task, Wait[None]]:
        ended: Wait[None] = Wait()
        return self._flow.reactor.spawn(_report(work, outcome, ended), "http exchange"), ended

    # -- towards the service -------------------------------------------------------------

    async def _send_body(self, upstream: End, remote: h11.Connection) -> None:
        """Pass the request body on; then notice the client's leaving."""
        takes_more = True
        while True:
            event = self._next_from_client()
            if isinstance(event, h11.Data | h11.EndOfMessage):
                if takes_more:
                    takes_more = await self._pass_body(upstream, remote.send(event) or b"")
            elif event is h11.NEED_DATA or not self._server.trailing_data[0]:
                await self._receive_from_client()
            else:
                return  # what follows is here already: stop reading until its turn

    async def _pass_body(self, upstream: End, data: bytes) -> bool:
        """Whether the service takes more.

        A service may answer early and take no more of the body (RFC 9112 section 9.5): then its
        response, or the end of its connection, decides what becomes of the exchange.
        """
        try:
            await upstream.send(data)
        except NetError:
            return False
        return True

    def _next_from_client(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            return self._server.next_event()
        except h11.RemoteProtocolError as exc:
            # The words of h11 quote what came, in a prompt's place here; see also below.
            raise RequestRejectedError("the request body is not in chunks (RFC 9112 7.1)") from exc

    async def _receive_from_client(self) -> None:
        try:
            data = await self._client.receive(_RECEIVE_SIZE)
        except NetError as exc:
            raise ClientLeftError(f"the client left: {exc}") from exc
        if not data:
            raise ClientLeftError("the client closed before its response was complete")
        self._server.receive_data(data)

    # -- towards the client ----------------------------------------------------------------

    async def _return_response(
        self, upstream: End, remote: h11.Connection, outcome: _Outcome
    ) -> None:
        while True:
            event = _next_from_service(remote)
            if event is h11.NEED_DATA:
                remote.receive_data(await upstream.receive(_RECEIVE_SIZE))
            elif isinstance(event, h11.InformationalResponse):
                if event.status_code == _SWITCHING_PROTOCOLS:
                    await self._switch(event)
                    outcome.set(_Next.LEAVE_HTTP)
                    return
                await self._pass_informational(event)
            elif isinstance(event, h11.Response):
                await self._send(self._response(event))
            elif isinstance(event, h11.Data):
                await self._send(event)
            elif isinstance(event, h11.EndOfMessage):
                await self._send(self._end(event))
                outcome.set(_Next.ANOTHER_REQUEST if self._is_reusable() else _Next.CLOSE)
                return
            else:
                raise RemoteProtocolError("the service closed before its response was complete")

    @property
    def _client_is_old(self) -> bool:
        """Whether the client speaks HTTP/1.0, which knows no 1xx, no chunks and no trailers."""
        return self._server.their_http_version == b"1.0"

    async def _pass_informational(self, event: h11.InformationalResponse) -> None:
        if self._client_is_old:
            return
        await self._send(
            h11.InformationalResponse(
                status_code=event.status_code,
                headers=forward_response(event.headers, switching=False),
                reason=event.reason,
            )
        )

    async def _switch(self, event: h11.InformationalResponse) -> None:
        if self._client_is_old or self._server.their_state is h11.SEND_BODY:
            raise RemoteProtocolError("the service switches protocols where it may not")
        await self._send(
            h11.InformationalResponse(
                status_code=_SWITCHING_PROTOCOLS,
                headers=forward_response(event.headers, switching=True),
                reason=event.reason,
            )
        )

    def _response(self, event: h11.Response) -> h11.Response:
        fields = forward_response(event.headers, switching=False)
        if self._is_last():
            fields.append(_CLOSE)
        return h11.Response(status_code=event.status_code, headers=fields, reason=event.reason)

    def _end(self, event: h11.EndOfMessage) -> h11.EndOfMessage:
        return h11.EndOfMessage() if self._client_is_old else event

    async def _send(self, event: h11.Event) -> None:
        data = self._server.send(event)
        if data:
            try:
                await self._client.send(data)
            except NetError as exc:
                raise ClientLeftError(f"the client left: {exc}") from exc

    async def _answer_error(self, error: TngError) -> None:
        """Tell the client; its connection serves nothing else, whatever of its body is unread."""
        body = error_body(error)
        status = error.http_status
        fields = [*error_fields(error, body), _CLOSE]
        await self._send(
            h11.Response(status_code=status, headers=fields, reason=reason(status).encode())
        )
        await self._send(h11.Data(data=body))
        await self._send(h11.EndOfMessage())

    def _is_reusable(self) -> bool:
        return self._server.our_state is h11.DONE and self._server.their_state is h11.DONE


def _next_from_service(
    remote: h11.Connection,
) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
    try:
        return remote.next_event()
    except h11.RemoteProtocolError as exc:
        raise RemoteProtocolError("the service answers with what is not HTTP/1.1") from exc


def _outlived() -> NetError:
    return NetError(
        "the verdict on the peer has ended, and so has the time that a stream may go on after it",
        code=ErrorCode.STALE,
    )


async def _report(work: Coroutine[None, None, None], outcome: _Outcome, ended: Wait[None]) -> None:
    """Run one direction; its error, whatever it is, ends the whole exchange."""
    try:
        await work
    except h11.LocalProtocolError as exc:
        # What the service says cannot be said to this client.
        error = RemoteProtocolError("the service's answer cannot be said to this client")
        error.__cause__ = exc
        outcome.fail(error)
    except Exception as failure:  # noqa: BLE001 - raised again in the task that owns the exchange
        outcome.fail(failure)
    finally:
        ended.set(None)
