"""The requests of HTTP connections, whoever answers them.

In: a client's connection and a way to answer one request.  Out: nothing; at the return the
connection is closed, or reset.  Errors become answers in here, in one place for every kind of port.
Requests of HTTP/1 come one after another; a client that begins with the preface of HTTP/2 has a
stream for each request, which is served as a connection of its own.

Invariant: an answer that was cut short never looks complete to the client, and after a request
whose body was not read to its end the connection serves no other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tng.dataplane.ends import End
from tng.dataplane.http2_server import Http2Connection
from tng.dataplane.http_server import (
    IDLE_TIMEOUT_S,
    ClientLeftError,
    Http2BeganError,
    Request,
    ResponseWriter,
    ServerConnection,
)
from tng.dataplane.reactor import Reactor
from tng.errors import RequestRejectedError, TngError
from tng.gateway.farewell import farewell
from tng.gateway.http_errors import error_answer
from tng.gateway.replies import error_response
from tng.wire.http1_head import Fields


class RequestHandler(NamedTuple):
    """What a kind of port does with a request.

    Attributes:
        answer: writes the whole answer to the client's end that it is given, which stands for one
            stream where HTTP/2 is spoken; an error that it raises becomes the answer if nothing
            was written yet.  False if it took the connection over for good.
        refused: counts and logs an error.
        title: `code` of error bodies that have no better one.
        more: fields of every answer to a request.
    """

    answer: Callable[[End, Request, ResponseWriter], Awaitable[bool]]
    refused: Callable[[TngError], None]
    title: str
    more: Callable[[Request], Fields] = lambda _: []


class HttpClients:
    """Serves the connections of one entry, and knows which of them are open.

    Args:
        reactor: where they live.
        first_timeout_s: seconds for a connection to begin its first request.
        idle_timeout_s: seconds between requests.
    """

    def __init__(
        self,
        reactor: Reactor,
        *,
        first_timeout_s: float = IDLE_TIMEOUT_S,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
    ) -> None:
        self._reactor = reactor
        self._first_timeout_s = first_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._open: set[ServerConnection | Http2Connection] = set()

    async def serve(self, client: End, handler: RequestHandler) -> None:
        """Serve a connection to its end.

        Args:
            client: the connection.
            handler: answers its requests.

        Raises:
            NetError: the client went away; the connection is to be reset.
        """
        connection = ServerConnection(self._reactor, client, idle_timeout_s=self._first_timeout_s)
        self._open.add(connection)
        try:
            while (request := await connection.next_request()) is not None:
                connection.idle_timeout_s = self._idle_timeout_s
                if not await _answer(self._reactor, client, connection, request, handler):
                    return
            client.close()
        except Http2BeganError:
            await self._serve_http2(client, handler)
        except RequestRejectedError as error:
            handler.refused(error)
            await farewell(self._reactor, client, error_response(error))
        finally:
            self._open.discard(connection)

    async def _serve_http2(self, client: End, handler: RequestHandler) -> None:
        connection = Http2Connection(
            self._reactor,
            client,
            lambda stream: self.serve(stream, handler),
            first_timeout_s=self._first_timeout_s,
            idle_timeout_s=self._idle_timeout_s,
        )
        self._open.add(connection)
        try:
            await connection.run()
        finally:
            self._open.discard(connection)

    def let_idle_go(self) -> None:
        """End the connections that ask nothing now, and the others after their answer."""
        for connection in list(self._open):
            connection.let_idle_go()


async def _answer(
    reactor: Reactor,
    client: End,
    connection: ServerConnection,
    request: Request,
    handler: RequestHandler,
) -> bool:
    """Answer one request; whether the connection may serve another."""
    more = handler.more(request)
    writer = ResponseWriter(request, closes=connection.is_draining, more=more)
    try:
        if not await handler.answer(client, request, writer):
            return False
    except ClientLeftError as error:
        handler.refused(error)
        client.abort()
        return False
    except TngError as error:
        handler.refused(error)
        if writer.is_started:
            client.abort()
            return False
        last = ResponseWriter(request, closes=True, more=more)
        await farewell(reactor, client, error_answer(last, error, title=handler.title))
        return False
    if writer.closes or not request.body.is_complete:
        await farewell(reactor, client, b"")
        return False
    return True
