"""Plain requests over HTTP/2: `H2Machine` as a server of messages, and their heads as HTTP/1.1.

In: the fields of a header block.  Out: the head of the same request in HTTP/1.1, so that one set of
rules decides about both.  Source: RFC 9113 sections 8.1 to 8.3 and 8.5.

Invariant: a head that comes out was written by `dump_request_head`; whatever RFC 9113 calls
malformed raises RemoteProtocolError, and nothing of it is quoted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from hpack import Encoder, NeverIndexedHeaderTuple

from tng.errors import LocalProtocolError, RemoteProtocolError
from tng.wire.h2 import H2Machine
from tng.wire.h2_frames import (
    END_HEADERS,
    END_STREAM,
    SMALLEST_FRAME_LIMIT,
    Frame,
    H2Code,
    make_frame,
)
from tng.wire.h2_headers import Headers
from tng.wire.h2_stream import ConnectionHandler, H2Limits, H2Stream
from tng.wire.http1_head import (
    FORBIDDEN_IN_TRAILERS,
    Fields,
    dump_fields,
    dump_request_head,
    parse_content_length,
)

OF_THE_CONNECTION: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
"""Fields that HTTP/2 has no place for (RFC 9113 section 8.2.2)."""

_PSEUDO: Final = frozenset({b":method", b":scheme", b":authority", b":path"})
_CHUNKED: Final = (b"transfer-encoding", b"chunked")


@dataclass(frozen=True, slots=True)
class RequestAsHttp1:
    """One request.

    Attributes:
        method: its method.
        head: its head in HTTP/1.1, with the framing fields of what follows.
        length: octets of the body; None for one that comes in chunks.
    """

    method: bytes
    head: bytes
    length: int | None


def request_as_http1(headers: Headers, *, ends: bool) -> RequestAsHttp1:
    """Translate the head of a request.

    Args:
        headers: of one header block.
        ends: whether no body follows.

    Raises:
        RemoteProtocolError: the request is malformed, or is CONNECT.
    """
    pseudo, fields = _divide(headers)
    if pseudo.keys() - {b":authority"} != {b":method", b":scheme", b":path"}:
        raise RemoteProtocolError("expected one :method, one :scheme and one :path in a request")
    method, path = pseudo[b":method"], pseudo[b":path"]
    if pseudo[b":scheme"].lower() not in (b"http", b"https"):
        raise RemoteProtocolError("expected the :scheme http or https")
    if method == b"CONNECT" or not (path.startswith(b"/") or (method, path) == (b"OPTIONS", b"*")):
        raise RemoteProtocolError("expected a :path that begins with a slash")
    length = parse_content_length(fields, RemoteProtocolError)
    if ends:
        if length:
            raise RemoteProtocolError("a request without a body announces the length of one")
        length = 0
    elif length is None:
        fields.append(_CHUNKED)
    try:
        head = dump_request_head(method, path, _with_host(pseudo.get(b":authority"), fields))
    except LocalProtocolError as error:
        raise RemoteProtocolError(f"malformed request over HTTP/2: {error}") from error
    return RequestAsHttp1(method, head, length)


def request_trailers(headers: Headers) -> Fields:
    """Read the fields after a body.

    Raises:
        RemoteProtocolError: they are malformed, or frame or route the message.
    """
    pseudo, fields = _divide(headers)
    if pseudo or not FORBIDDEN_IN_TRAILERS.isdisjoint(dict(fields)):
        raise RemoteProtocolError("a field that frames or routes a message came in its trailers")
    try:
        dump_fields(fields)
    except LocalProtocolError as error:
        raise RemoteProtocolError(f"malformed trailers over HTTP/2: {error}") from error
    return fields


class RequestConnection(ConnectionHandler, Protocol):
    """Whoever owns a connection that carries requests."""

    def trailers_received(self, stream: H2Stream, headers: Headers) -> None:
        """Fields came that end a request's body; `end_received` follows."""
        ...


class H2RequestMachine(H2Machine):
    """The server's side of a connection that carries requests instead of tunnels.

    Args:
        handler: as for `H2Machine`; `stream_requested` finds the request in `requested`.
        now: monotonic time, seconds.
        limits: what the peer may do.

    Attributes:
        requested: the fields of the request that is being told, and whether no body follows.
    """

    def __init__(self, handler: RequestConnection, *, now: float, limits: H2Limits) -> None:
        super().__init__("server", handler, now=now, limits=limits)
        self._owner = handler
        self._encoder = Encoder()
        self.requested: tuple[Headers, bool] = ((), False)

    def headers_read(self, stream_id: int, headers: Headers, *, ends: bool) -> None:
        """See `FrameSink`."""
        stream = self.streams.get(stream_id)
        if stream is not None and stream.can_receive and ends:
            self._owner.trailers_received(stream, headers)
        super().headers_read(stream_id, headers, ends=ends)

    def _read_request(self, stream_id: int, headers: Headers, *, ends: bool) -> None:
        self.requested = headers, ends
        super()._read_request(stream_id, headers, ends=ends)

    def send_headers(self, stream: H2Stream, fields: Fields, *, ends: bool) -> None:
        """Queue a header block; nothing happens when our half of the stream has ended.

        Nothing is put into the peer's table: the block means the same wherever it stands, and no
        value stays in memory.

        Args:
            stream: whose request is answered.
            fields: with :status for a head, without it for trailers; names in lower case.
            ends: whether our half ends with it.
        """
        if not stream.can_send:
            return
        literals = [NeverIndexedHeaderTuple(name, value) for name, value in fields]
        block: bytes = self._encoder.encode(literals, huffman=False)
        kind = Frame.HEADERS
        flags = END_STREAM if ends else 0
        while True:
            part, block = block[:SMALLEST_FRAME_LIMIT], block[SMALLEST_FRAME_LIMIT:]
            if not block:
                flags |= END_HEADERS
            self.output += make_frame(kind, flags, stream.id, part)
            if not block:
                break
            kind, flags = Frame.CONTINUATION, 0
        if ends:
            self._end_sending(stream)

    def refuse(self, stream: H2Stream, code: H2Code) -> None:
        """Reset a stream by the peer's fault, at its cost.  Only while `receive` runs."""
        self._chatter.charge()
        self.reset(stream, code)


def _divide(headers: Headers) -> tuple[dict[bytes, bytes], Fields]:
    """Pseudo-header fields, and the others with the crumbs of a cookie put together."""
    pseudo: dict[bytes, bytes] = {}
    fields: Fields = []
    cookies: list[bytes] = []
    for name, value in headers:
        if name.startswith(b":"):
            if fields or cookies or name in pseudo or name not in _PSEUDO:
                raise RemoteProtocolError("a pseudo-header field out of its place, or unknown")
            pseudo[name] = value
            continue
        if name in OF_THE_CONNECTION or (name == b"te" and value.lower() != b"trailers"):
            raise RemoteProtocolError("a field of the connection, which HTTP/2 has no place for")
        if name != name.lower() or value != value.strip(b" \t"):
            raise RemoteProtocolError("a field name in capitals, or blanks around a field value")
        if name == b"cookie":  # RFC 9113 section 8.2.3
            cookies.append(value)
        else:
            fields.append((name, value))
    if cookies:
        fields.append((b"cookie", b"; ".join(cookies)))
    return pseudo, fields


def _with_host(authority: bytes | None, fields: Fields) -> Fields:
    """Fields that begin with the Host field, which :authority stands for."""
    hosts = [value for name, value in fields if name == b"host"]
    if authority is None:
        return fields  # one Host field or none: HTTP/1.1's own rule decides
    if any(host != authority for host in hosts):
        raise RemoteProtocolError("the Host field and :authority differ")
    return [(b"host", authority), *(field for field in fields if field[0] != b"host")]
