"""The server's side of one HTTP/1 connection: requests in, responses out, one at a time.

In: a client's connection.  Out: `Request` objects whose bodies are read as they come, and the
octets of responses.  Source: RFC 9112; time and size limits are ours.

Invariants: a response that was cut short never looks complete to the client; a request whose body
has not been read to its end is the last one of its connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tng.dataplane.ends import End
from tng.dataplane.reactor import Reactor
from tng.dataplane.task import Cancelled, Task
from tng.errors import NetError, RemoteProtocolError, RequestRejectedError
from tng.wire.http1_body import BodyReader, dump_chunk, dump_last_chunk, request_body
from tng.wire.http1_head import (
    MAX_HEAD_SIZE,
    Fields,
    RequestHead,
    dump_response_head,
    find_head_end,
    is_persistent,
    parse_content_length,
    parse_request_head,
)

IDLE_TIMEOUT_S: Final = 120.0
"""Seconds a client may keep a connection without a request."""

HEAD_TIMEOUT_S: Final = 10.0
"""Seconds from the first octet of a request head to its last."""

RECEIVE_SIZE: Final = 64 * 1024
"""Octets asked for at once."""

REMEMBERED_HEAD: Final = 4096
"""Octets of a head that a connection remembers, to know the next one when it is the same."""

_PREFACE_HEAD: Final = b"PRI * HTTP/2.0\r\n\r\n"  # RFC 9113 section 3.4: it reads as a whole head
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_CHUNKED: Final = (b"transfer-encoding", b"chunked")
_CLOSE: Final = (b"connection", b"close")


class ClientLeftError(NetError):
    """The client closed its connection before its response was complete."""


class Http2BeganError(RequestRejectedError):
    """The client began HTTP/2 with prior knowledge; its preface is there to be read again.

    An answer only where HTTP/2 is not served.
    """

    def __init__(self) -> None:
        super().__init__("the client began HTTP/2, only HTTP/1.1 is served here", status=505)


class IncomingBody:
    """The body of a request, read as it comes.

    Args:
        client: where the rest comes from.
        reader: its framing.
        pieces: what has come already.
        expects_continue: whether the client waits to be asked for the body.
    """

    __slots__ = ("_client", "_expects_continue", "_pieces", "_reader")

    def __init__(
        self, client: End, reader: BodyReader, pieces: Sequence[bytes], *, expects_continue: bool
    ) -> None:
        self._client = client
        self._reader = reader
        self._pieces = list(pieces)
        self._expects_continue = expects_continue
        self._hand_back_rest()

    @property
    def is_complete(self) -> bool:
        """Whether its last octet has come from the client, read by us or not."""
        return self._reader.is_done

    @property
    def trailers(self) -> Fields:
        """Fields after the body, once it is complete."""
        return self._reader.trailers

    def read_nowait(self) -> list[bytes]:
        """What has come and was not given out yet; may be empty."""
        pieces, self._pieces = self._pieces, []
        return pieces

    @property
    def has_unread(self) -> bool:
        """Whether something has come that was not given out yet."""
        return bool(self._pieces)

    def hand_back(self, pieces: Sequence[bytes]) -> None:
        """Take pieces back; they are the next ones to be read."""
        self._pieces[:0] = pieces

    async def wait(self) -> None:
        """Return when something is there to be read, or nothing will come any more.

        Raises:
            ClientLeftError: the client broke off.
            RequestRejectedError: what came is not the framing that was announced.
        """
        while not self._pieces and not self._reader.is_done:
            await self._receive()

    async def read(self) -> list[bytes]:
        """The next pieces, at least one; empty when the body is complete.  Errors as `wait`."""
        await self.wait()
        return self.read_nowait()

    async def _receive(self) -> None:
        try:
            if self._expects_continue:
                self._expects_continue = False
                await self._client.send(_CONTINUE)
            data = await self._client.receive(RECEIVE_SIZE)
        except NetError as exc:
            raise ClientLeftError(f"the client left: {exc}") from exc
        if not data:
            raise ClientLeftError("the client closed before its request was complete")
        self._pieces.extend(self._reader.feed(data))
        self._hand_back_rest()

    def _hand_back_rest(self) -> None:
        """Leave what came after the body to whoever reads the next request."""
        if self._reader.is_done and (rest := self._reader.rest):
            self._client.unread(bytes(rest))


class Request:
    """One request.

    Attributes:
        head: its head.
        body: its body.
        keeps_alive: whether the client wants the connection to stay.
    """

    __slots__ = ("body", "head", "keeps_alive")

    def __init__(self, head: RequestHead, body: IncomingBody, *, keeps_alive: bool) -> None:
        self.head = head
        self.body = body
        self.keeps_alive = keeps_alive

    @property
    def is_old(self) -> bool:
        """Whether the client speaks HTTP/1.0, which knows no 1xx, no chunks and no trailers."""
        return self.head.version == b"1.0"


_NO_HEAD: Final = RequestHead(b"", b"", b"", [], None, is_chunked=False)
"""Stands for the head before the first."""


class ServerConnection:
    """Requests of one client connection, in their order.

    Args:
        reactor: where the connection lives.
        client: the connection; closed by its owner.
        head_timeout_s: seconds for a request head.
        idle_timeout_s: seconds between requests.

    Attributes:
        idle_timeout_s: the same, for the requests to come.
    """

    def __init__(
        self,
        reactor: Reactor,
        client: End,
        *,
        head_timeout_s: float = HEAD_TIMEOUT_S,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
    ) -> None:
        self._reactor = reactor
        self._client = client
        self._head_timeout_s = head_timeout_s
        self.idle_timeout_s = idle_timeout_s
        self._idle: Task | None = None
        self._is_draining = False
        self._is_used = False
        self._last_octets = b""
        self._last_head = _NO_HEAD

    def let_idle_go(self) -> None:
        """End the connection if it waits for a request; otherwise after the request under way."""
        self._is_draining = True
        if self._idle is not None:
            self._idle.cancel()

    @property
    def is_draining(self) -> bool:
        """Whether the client should be told that no further request will be served."""
        return self._is_draining

    async def next_request(self) -> Request | None:
        """The next request; None when the client, or the time for being idle, has ended.

        Raises:
            RequestRejectedError: the head is not one we serve; the connection must be closed.
            Http2BeganError: what comes first is the preface of HTTP/2.
            NetError: the connection broke.
        """
        data = await self._first_octets()
        if not data:
            return None
        if self._last_octets and data.startswith(self._last_octets):
            # Octet for octet the head before it, as clients of one purpose send them.
            end = len(self._last_octets)
        else:
            end = find_head_end(data, 0)
            if end < 0:
                data = await self._whole_head(data)
                end = find_head_end(data, 0)
            if self._last_head is _NO_HEAD and data.startswith(_PREFACE_HEAD):
                self._client.unread(data)
                raise Http2BeganError
            self._last_head = parse_request_head(data[:end])
            self._last_octets = data[:end] if end <= REMEMBERED_HEAD else b""
        head = self._last_head
        reader = request_body(head)
        pieces = reader.feed(data[end:])
        return Request(
            head,
            IncomingBody(self._client, reader, pieces, expects_continue=_expects_continue(head)),
            keeps_alive=is_persistent(head),
        )

    async def _first_octets(self) -> bytes:
        # Whoever connects mostly speaks at once; whoever has just been answered does not.
        if not self._is_used or self._client.has_octets:
            self._is_used = True
            data = self._client.receive_nowait(RECEIVE_SIZE)
            if data is not None:
                return data
        if self._is_draining:
            return b""
        self._idle = self._reactor.current
        try:
            with self._reactor.deadline(self.idle_timeout_s, _IdleTooLongError):
                await self._client.wait_readable()
                return await self._client.receive(RECEIVE_SIZE)
        except _IdleTooLongError:
            return b""
        except Cancelled:
            if self.is_draining:
                self._client.close()  # in order, since nothing was asked
            raise
        finally:
            self._idle = None

    async def _whole_head(self, data: bytes) -> bytes:
        gathered = bytearray(data)
        searched = 0
        with self._reactor.deadline(self._head_timeout_s, self._late):
            while True:
                if len(gathered) > MAX_HEAD_SIZE:
                    raise RequestRejectedError(
                        f"the request head is longer than {MAX_HEAD_SIZE} octets", status=431
                    )
                more = await self._client.receive(RECEIVE_SIZE)
                if not more:
                    raise NetError("the client closed in the middle of a request head")
                # The blank line may have begun in what was searched before.
                searched = max(0, len(gathered) - 3)
                gathered += more
                if find_head_end(gathered, searched) >= 0:
                    return bytes(gathered)

    def _late(self) -> RequestRejectedError:
        return RequestRejectedError(
            f"the request head did not arrive within {self._head_timeout_s:g} s", status=408
        )


class ResponseWriter:
    """The octets of one response, in the framing that the request allows.

    Args:
        request: what is answered.
        closes: whether the connection ends with this response.
        more: fields of every response on this connection.
    """

    __slots__ = ("_closes", "_has_body", "_is_chunked", "_left", "_more", "_request", "is_started")

    def __init__(self, request: Request, *, closes: bool, more: Fields | None = None) -> None:
        self._request = request
        self._more = more or []
        self._closes = closes or not request.keeps_alive
        self._is_chunked = False
        self._has_body = True
        self._left: int | None = None
        self.is_started = False

    @property
    def closes(self) -> bool:
        """Whether the connection cannot serve another request after this response."""
        return self._closes

    def start(self, status: int, fields: Fields) -> bytes:
        """The head.

        Args:
            status: 200 to 599.
            fields: end-to-end fields alone; a Content-Length among them frames the body.

        Raises:
            RemoteProtocolError: the Content-Length among the fields is none.
        """
        written = [*fields, *self._more]
        self._has_body = not (
            self._request.head.method == b"HEAD" or status in (204, 304) or status < 200
        )
        if self._has_body:
            self._left = _length(written)
            if self._left is None:
                if self._request.is_old:
                    self._closes = True
                else:
                    self._is_chunked = True
                    written.append(_CHUNKED)
        if self._closes:
            written.append(_CLOSE)
        elif self._request.is_old:
            written.append((b"connection", b"keep-alive"))
        self.is_started = True
        return dump_response_head(status, written)

    def data(self, piece: bytes) -> bytes:
        """A piece of the body.

        Raises:
            RemoteProtocolError: more than the head announced.
        """
        if not self._has_body or not piece:
            return b""
        if self._is_chunked:
            return dump_chunk(piece)
        if self._left is not None:
            self._left -= len(piece)
            if self._left < 0:
                raise RemoteProtocolError("the response is longer than its Content-Length")
        return bytes(piece)

    def end(self, trailers: Fields) -> bytes:
        """The end of the body.

        Raises:
            RemoteProtocolError: less than the head announced.
        """
        if not self._has_body:
            return b""
        if self._is_chunked:
            return dump_last_chunk(trailers)
        if self._left:
            raise RemoteProtocolError("the response is shorter than its Content-Length")
        return b""


class _IdleTooLongError(NetError):
    """The client had nothing to ask for too long."""

    def __init__(self) -> None:
        super().__init__("idle for too long")


def _expects_continue(head: RequestHead) -> bool:
    for name, value in head.fields:
        if name == b"expect" and value.lower() == b"100-continue":
            return head.version != b"1.0"
    return False


def _length(fields: Fields) -> int | None:
    return parse_content_length(fields, RemoteProtocolError)
