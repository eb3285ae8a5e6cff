"""The requests of one HTTP/1 connection, one after another, whoever answers them.

In: a client's connection and a way to answer one request.  Out: nothing; at the return the
connection is closed, or reset.  Errors become answers in here, in one place for every kind of port.

Invariant: an answer that was cut short never looks complete to the client, and after a request
whose body was not read to its end the connection serves no other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tng.dataplane.http_server import ClientLeftError, Request, ResponseWriter, ServerConnection
from tng.dataplane.plain import PlainEnd
from tng.dataplane.reactor import Reactor
from tng.errors import RequestRejectedError, TngError
from tng.gateway.farewell import farewell
from tng.gateway.http_errors import error_answer
from tng.gateway.replies import error_response
from tng.wire.http1_head import Fields


class RequestHandler(NamedTuple):
    """What a kind of port does with a request.

    Attributes:
        answer: writes the whole answer; an error that it raises becomes the answer if nothing was
            written yet.  False if it took the connection over for good.
        refused: counts and logs an error.
        title: `code` of error bodies that have no better one.
        more: fields of every answer to a request.
    """

    answer: Callable[[Request, ResponseWriter], Awaitable[bool]]
    refused: Callable[[TngError], None]
    title: str
    more: Callable[[Request], Fields] = lambda _: []


async def serve_requests(
    reactor: Reactor,
    client: PlainEnd,
    connection: ServerConnection,
    handler: RequestHandler,
    *,
    idle_timeout_s: float,
) -> None:
    """Serve a connection to its end.

    Args:
        reactor: where it lives.
        client: the connection.
        connection: its requests.
        handler: answers them.
        idle_timeout_s: seconds between requests, from the second one on.

    Raises:
        NetError: the client went away; the connection is to be reset.
    """
    try:
        while (request := await connection.next_request()) is not None:
            connection.idle_timeout_s = idle_timeout_s
            if not await _answer(reactor, client, connection, request, handler):
                return
        client.close()
    except RequestRejectedError as error:
        handler.refused(error)
        await farewell(reactor, client, error_response(error))


async def _answer(
    reactor: Reactor,
    client: PlainEnd,
    connection: ServerConnection,
    request: Request,
    handler: RequestHandler,
) -> bool:
    """Answer one request; whether the connection may serve another."""
    more = handler.more(request)
    writer = ResponseWriter(request, closes=connection.is_draining, more=more)
    try:
        if not await handler.answer(request, writer):
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
