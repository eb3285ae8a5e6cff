"""One plain HTTP/1 request through a tunnel, and its response back, as they come.

Both directions run at once: the response may start, end or fail while the body is still being
sent, and a client that leaves ends the request at the service.  Each part is passed on when it
arrives; nothing is gathered.  Every request has a stream of its own to the service.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Final

import h11

from tng.dataplane.ends import End
from tng.dataplane.plain import PlainEnd
from tng.dataplane.relay import relay
from tng.dataplane.task import Task, Wait
from tng.errors import NetError, RemoteProtocolError, RequestRejectedError, TngError
from tng.gateway.flow import Flow
from tng.gateway.replies import error_body, error_fields, reason
from tng.wire.http1 import MAX_HEAD_SIZE, Forward, forward_request, forward_response

_RECEIVE_SIZE: Final = 65536
_SWITCHING_PROTOCOLS: Final = 101

_Outcome = Wait[bool]
"""Whether the client's connection may serve another request; or the error that ended this one."""


class ClientLeftError(NetError):
    """The client closed its connection before its response was complete."""


class ForwardExchange:
    """One request and its response.

    Args:
        flow: opens the stream, logs and counts.
        client: the client's connection.
        server: its HTTP/1 state, where a request head has just been read.
    """

    def __init__(self, flow: Flow, client: PlainEnd, server: h11.Connection) -> None:
        self._flow = flow
        self._client = client
        self._server = server

    async def run(self, request: h11.Request) -> bool:
        """Serve `request`; True if the client's connection may serve another.

        Raises:
            RequestRejectedError: the request names no destination that can be served.
            TngError: it failed after the response had started; the connection is of no more use.
        """
        forward = forward_request(request)
        try:
            opened, tunnelled = await self._flow.open(forward.destination)
        except TngError as error:
            self._flow.failed(self._client, forward.destination, error)
            return await self._answer_error(error)
        self._flow.connected(self._client, forward.destination, opened, tunnelled=tunnelled)
        upstream = opened.end
        try:
            return await self._exchange(upstream, forward)
        except TngError as error:
            if (
                isinstance(error, ClientLeftError)
                or self._server.our_state is not h11.SEND_RESPONSE
            ):
                self._client.abort()  # a response cut short must not look complete
                raise
            return await self._answer_error(error)
        finally:
            # Reset, not closed in order: after a whole exchange nothing is lost by it, and after
            # half of one the service must notice.
            upstream.abort() if self._server.our_state is not h11.DONE else upstream.close()
            self._flow.meter.tx_bytes_total += upstream.bytes_out
            self._flow.meter.rx_bytes_total += upstream.bytes_in

    async def _exchange(self, upstream: End, forward: Forward) -> bool:
        remote = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_SIZE)
        await upstream.send(remote.send(forward.request) or b"")
        outcome: _Outcome = Wait()
        # After 101 the octets belong to the relay: nobody else may read them.
        body = self._send_body(upstream, remote, watch=not forward.upgrades)
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

    async def _send_body(self, upstream: End, remote: h11.Connection, *, watch: bool) -> None:
        """Pass the request body on; then, if `watch`, notice the client's leaving."""
        while True:
            event = self._next_from_client()
            if isinstance(event, h11.Data | h11.EndOfMessage):
                await upstream.send(remote.send(event) or b"")
            elif event is h11.NEED_DATA or (watch and not self._server.trailing_data[0]):
                await self._receive_from_client()
            else:
                return  # the next request is here already: stop reading until its turn

    def _next_from_client(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            return self._server.next_event()
        except h11.RemoteProtocolError as exc:
            raise RequestRejectedError(f"the request body is malformed: {exc}") from exc

    async def _receive_from_client(self) -> None:
        try:
            data = await self._client.receive(_RECEIVE_SIZE)
        except NetError as exc:
            raise ClientLeftError(f"the client left: {exc}") from exc
        if not data:
            raise ClientLeftError("the client closed before its response was complete")
        self._server.receive_data(data)

    async def _return_response(
        self, upstream: End, remote: h11.Connection, outcome: _Outcome
    ) -> None:
        while True:
            event = remote.next_event()
            if event is h11.NEED_DATA:
                remote.receive_data(await upstream.receive(_RECEIVE_SIZE))
            elif isinstance(event, h11.InformationalResponse):
                await self._pass_informational(event)
                if event.status_code == _SWITCHING_PROTOCOLS:
                    await self._leave_http(upstream, remote)
                    outcome.set(False)
                    return
            elif isinstance(event, h11.Response):
                await self._send(_response(event))
            elif isinstance(event, h11.Data | h11.EndOfMessage):
                await self._send(event)
                if isinstance(event, h11.EndOfMessage):
                    outcome.set(self._is_reusable())
                    return
            else:
                raise RemoteProtocolError("the service closed before its response was complete")

    async def _pass_informational(self, event: h11.InformationalResponse) -> None:
        switching = event.status_code == _SWITCHING_PROTOCOLS
        await self._send(
            h11.InformationalResponse(
                status_code=event.status_code,
                headers=forward_response(event.headers, switching=switching),
                reason=event.reason,
            )
        )

    async def _leave_http(self, upstream: End, remote: h11.Connection) -> None:
        """After 101 both connections carry whatever the ends agreed on."""
        self._client.unread(self._server.trailing_data[0])
        upstream.unread(remote.trailing_data[0])
        await relay(self._flow.reactor, self._client, upstream)

    async def _send(self, event: h11.Event) -> None:
        data = self._server.send(event)
        if data:
            try:
                await self._client.send(data)
            except NetError as exc:
                raise ClientLeftError(f"the client left: {exc}") from exc

    async def _answer_error(self, error: TngError) -> bool:
        body = error_body(error)
        status = error.http_status
        await self._send(
            h11.Response(
                status_code=status,
                headers=error_fields(error, body),
                reason=reason(status).encode(),
            )
        )
        await self._send(h11.Data(data=body))
        await self._send(h11.EndOfMessage())
        return self._is_reusable()

    def _is_reusable(self) -> bool:
        return self._server.our_state is h11.DONE and self._server.their_state is h11.DONE


def _response(event: h11.Response) -> h11.Response:
    return h11.Response(
        status_code=event.status_code,
        headers=forward_response(event.headers, switching=False),
        reason=event.reason,
    )


async def _report(work: Coroutine[None, None, None], outcome: _Outcome, ended: Wait[None]) -> None:
    """Run one direction; its error ends the whole exchange."""
    try:
        await work
    except h11.RemoteProtocolError as exc:
        outcome.fail(RemoteProtocolError(f"the service does not speak HTTP/1: {exc}"))
    except TngError as error:
        outcome.fail(error)
    finally:
        ended.set(None)
