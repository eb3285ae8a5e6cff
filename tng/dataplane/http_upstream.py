"""The client's side of HTTP/1 connections, and the connections that wait to be used again.

In: octets of requests, made elsewhere.  Out: response heads, and bodies as they come.  An idle
connection is watched: one that its server closes is dropped at once, so that a request seldom
meets a connection that is about to end.

Invariant: a connection goes back to the pool only when both messages on it were complete.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Awaitable, Callable, Hashable
from typing import Final

from tng.dataplane.http_server import REMEMBERED_HEAD
from tng.dataplane.reactor import Reactor
from tng.dataplane.socket_end import SocketEnd
from tng.dataplane.timers import Timer
from tng.errors import NetError, RemoteProtocolError
from tng.wire.http1_body import BodyReader, response_body
from tng.wire.http1_head import (
    MAX_HEAD_SIZE,
    Fields,
    ResponseHead,
    find_head_end,
    is_persistent,
    parse_response_head,
)

IDLE_S: Final = 15.0
"""Seconds that an unused connection is kept; a request that follows later pays for a new one."""

SERVICE_IDLE_S: Final = 4.0
"""The same towards services beside an egress: model servers commonly close after five seconds, and
a request that meets a close cannot always be sent again."""

MAX_IDLE: Final = 128
"""Unused connections kept per destination."""

MAX_IDLE_IN_ALL: Final = 1024
"""Unused connections kept for all destinations, which clients of a proxy choose."""

MAX_INFORMATIONAL: Final = 32
"""Informational responses before a final one."""

_RECEIVE_SIZE: Final = 64 * 1024


_NO_HEAD: Final = ResponseHead(0, b"", [], None, is_chunked=False)
"""Stands for the head before the first."""


class Upstream:
    """One connection to a server.

    Args:
        end: the connection; owned from here on.

    Attributes:
        end: the same.
        is_reused: whether an earlier request was served on it.
        heard: whether anything of the response to the present request has come.
        is_sent: whether the present request was sent to its end.
    """

    __slots__ = (
        "_data",
        "_has_ended",
        "_is_persistent",
        "_last_head",
        "_last_octets",
        "_reader",
        "end",
        "heard",
        "is_reused",
        "is_sent",
    )

    def __init__(self, end: SocketEnd) -> None:
        self.end = end
        self.is_reused = False
        self.heard = False
        self.is_sent = False
        self._data: bytes | bytearray = b""
        self._reader: BodyReader | None = None
        self._is_persistent = False
        self._has_ended = False
        self._last_octets = b""
        self._last_head = _NO_HEAD

    async def send(self, octets: bytes, *, is_last: bool) -> None:
        """Send octets of the present request.

        A connection that takes no more is not an error here: the server may have answered early,
        and its answer, or the lack of one, says what is the matter.

        Args:
            octets: the next ones.
            is_last: whether the request ends with them.
        """
        try:
            await self.end.send(octets)
        except NetError:
            return
        self.is_sent = is_last

    async def response_head(self, method: bytes) -> ResponseHead:
        """The head of the final response; informational ones are passed over.

        Args:
            method: of the request, which decides whether there is a body.

        Raises:
            RemoteProtocolError: not HTTP/1, or it ended before a response.
            NetError: the connection broke.
        """
        for _ in range(MAX_INFORMATIONAL):
            head = await self._one_head()
            if head.status >= 200:
                self._begin_body(head, method)
                return head
            if head.status == 101:
                raise RemoteProtocolError("the server switches protocols without being asked")
        raise RemoteProtocolError(f"more than {MAX_INFORMATIONAL} informational responses")

    async def read(self) -> list[bytes]:
        """The next pieces of the body, at least one; empty at its end.

        Raises:
            RemoteProtocolError: the body is malformed, or was cut short.
            NetError: the connection broke.
        """
        reader = self._reader
        if reader is None:
            raise AssertionError("a body is read after its head")
        while not reader.is_done:
            if self._data:
                data, self._data = self._data, b""
            elif not self._has_ended:
                data = await self.end.receive(_RECEIVE_SIZE)
            else:
                data = b""
            if not data:
                reader.at_eof()
                return []
            pieces = reader.feed(bytes(data))
            if pieces:
                return pieces
        return []

    def look(self) -> bool:
        """Whether `read` would return at once; takes from the socket what is there.

        Raises:
            NetError: the connection broke.
        """
        reader = self._reader
        if self._data or self._has_ended or (reader is not None and reader.is_done):
            return True
        data = self.end.receive_nowait(_RECEIVE_SIZE)
        if data is None:
            return False
        self._data, self._has_ended = data, not data
        return True

    @property
    def trailers(self) -> Fields:
        """Fields after the body, once it is complete."""
        return self._reader.trailers if self._reader is not None else []

    @property
    def is_complete(self) -> bool:
        """Whether the response has been read to its end."""
        return self._reader is not None and self._reader.is_done

    @property
    def is_reusable(self) -> bool:
        """Whether another request may follow: both messages are complete, nothing came after."""
        reader = self._reader
        if not self.is_sent or not self._is_persistent or reader is None:
            return False
        return reader.is_done and not reader.ends_at_close and not reader.rest and not self._data

    def renew(self) -> None:
        """Be ready for the next request."""
        self.is_reused = True
        self.heard = False
        self.is_sent = False
        self._reader = None
        self._data = b""

    def _begin_body(self, head: ResponseHead, method: bytes) -> None:
        self._reader = response_body(head, method)
        self._is_persistent = is_persistent(head)

    async def _one_head(self) -> ResponseHead:
        data = bytes(self._data) or await self._first_octets()
        if self._last_octets and data.startswith(self._last_octets):
            # Octet for octet the head before it, as servers of one purpose send them.
            self._data = data[len(self._last_octets) :]
            return self._last_head
        length = find_head_end(data)
        if length < 0:
            data = await self._whole_head(data)
            length = find_head_end(data)
        self._data = data[length:]
        self._last_head = parse_response_head(data[:length])
        self._last_octets = data[:length] if length <= REMEMBERED_HEAD else b""
        return self._last_head

    async def _first_octets(self) -> bytes:
        """The beginning of an answer, which is never there as soon as the request is sent."""
        if not self.end.is_closed:  # else nothing would wake us, and reading says why
            await self.end.wait_readable()
        return await self._more()

    async def _whole_head(self, begin: bytes) -> bytes:
        data = bytearray(begin)
        searched = 0
        while find_head_end(data, searched) < 0:
            if len(data) > MAX_HEAD_SIZE:
                raise RemoteProtocolError(f"a response head of more than {MAX_HEAD_SIZE} octets")
            searched = max(0, len(data) - 3)
            data += await self._more()
        return bytes(data)

    async def _more(self) -> bytes:
        data = await self.end.receive(_RECEIVE_SIZE)
        if not data:
            raise RemoteProtocolError("the server closed before it answered")
        self.heard = True
        return data


Connect = Callable[[], Awaitable[SocketEnd]]
"""Makes a new connection."""


class _Idle:
    """A connection that waits in the pool.

    Attributes:
        upstream: the connection.
        since: monotonic time in seconds at which it began to wait.
    """

    __slots__ = ("since", "upstream")

    def __init__(self, upstream: Upstream, since: float) -> None:
        self.upstream = upstream
        self.since = since


class UpstreamPool:
    """Connections that can be used again, by destination.

    Args:
        reactor: where they live.
        idle_s: seconds that one may wait, and up to half as long again.
    """

    def __init__(self, reactor: Reactor, idle_s: float = IDLE_S) -> None:
        self._reactor = reactor
        self._idle_s = idle_s
        self._count = 0
        self._idle: dict[Hashable, collections.deque[_Idle]] = {}
        self._is_draining = False
        self._sweeper: Timer | None = None

    async def take(self, key: Hashable, connect: Connect) -> Upstream:
        """A connection for one request: the one used last, or a new one.

        Args:
            key: what connections can stand for each other.
            connect: makes a new one.

        Raises:
            TngError: what `connect` raises.
        """
        held = self._idle.get(key)
        while held:
            idle = held[-1]
            self._remove(key, idle)
            upstream = idle.upstream
            # The end may have come in this very turn of the reactor.
            if _is_silent(upstream.end):
                upstream.renew()
                return upstream
            upstream.end.close()
        return await self.take_new(connect)

    async def take_new(self, connect: Connect) -> Upstream:
        """A connection that no request has used."""
        return Upstream(await connect())

    def put(self, key: Hashable, upstream: Upstream) -> None:
        """Keep a connection whose response is complete; close it if it cannot be used again."""
        end = upstream.end
        held = self._idle.get(key)
        is_full = self._count >= MAX_IDLE_IN_ALL or (held is not None and len(held) >= MAX_IDLE)
        if self._is_draining or not upstream.is_reusable or is_full:
            end.close()
            return
        if held is None:
            held = self._idle[key] = collections.deque()
        idle = _Idle(upstream, self._reactor.now)
        held.append(idle)
        self._count += 1
        end.notify_readable(functools.partial(self._heard, key, idle))
        if self._sweeper is None:
            self._sweeper = self._reactor.call_later(self._idle_s / 2, self._sweep)
            self._reactor.at_stop.add(self.drain)

    def drain(self) -> None:
        """Close every unused connection, and those in use when they come back."""
        self._is_draining = True
        for key, held in list(self._idle.items()):
            for idle in list(held):
                self._drop(key, idle)

    def _sweep(self) -> None:
        """Close what has waited too long; one look at all of them costs less than a timer each."""
        self._sweeper = None
        latest = self._reactor.now - self._idle_s
        for key, held in list(self._idle.items()):
            for idle in [idle for idle in held if idle.since <= latest]:
                self._drop(key, idle)
        if self._count:
            self._sweeper = self._reactor.call_later(self._idle_s / 2, self._sweep)
        else:
            self._reactor.at_stop.discard(self.drain)

    def _heard(self, key: Hashable, idle: _Idle) -> None:
        """Octets or the end: whatever a server says unasked, this connection is over."""
        if not _is_silent(idle.upstream.end):
            self._drop(key, idle)

    def _drop(self, key: Hashable, idle: _Idle) -> None:
        self._remove(key, idle)
        idle.upstream.end.close()

    def _remove(self, key: Hashable, idle: _Idle) -> None:
        idle.upstream.end.notify_readable(None)  # else the connection would lead back to `idle`
        held = self._idle[key]
        held.remove(idle)
        self._count -= 1
        if not held:
            del self._idle[key]


def _is_silent(end: SocketEnd) -> bool:
    """Whether the server has neither spoken nor left; records of TLS itself do not count."""
    try:
        return end.receive_nowait(1) is None
    except (NetError, RemoteProtocolError):
        return False


async def read_limited(upstream: Upstream, limit: int) -> bytes:
    """The whole body of a response.

    Raises:
        RemoteProtocolError: it is longer than `limit` octets.
        NetError: see `Upstream.read`.
    """
    gathered = bytearray()
    while pieces := await upstream.read():
        for piece in pieces:
            gathered += piece
        if len(gathered) > limit:
            raise RemoteProtocolError(f"an answer of more than {limit} octets")
    return bytes(gathered)
