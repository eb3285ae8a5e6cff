"""HTTP/1 message bodies on the OHTTP path: what follows a head, as it arrives.

Octets of the connection in, octets of content out (RFC 9112 sections 6 and 7):

    body = request_body(head)
    while not body.is_done:
        for part in body.feed(await receive()):     # at end of file: body.at_eof()
            ...
    body.trailers, body.rest                        # fields after it, octets of the next message

Invariant: content is handed on as it comes, nothing but an unfinished line (4 KiB) or an
unfinished trailer section (16 KiB) is kept, and a body that was cut short never looks complete.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Protocol

from tng.errors import LocalProtocolError, RemoteProtocolError, RequestRejectedError
from tng.wire.http1_head import (
    Field,
    Fields,
    Refusal,
    RequestHead,
    ResponseHead,
    dump_fields,
    parse_trailers,
)

MAX_CHUNK_EXTENSIONS: Final = 4096
"""Octets of chunk extensions in one body; they are read over, nobody here knows any."""

MAX_TRAILERS: Final = 16384
"""Octets of a trailer section; checksums and timings fit many times."""

_MAX_CHUNK_LINE: Final = MAX_CHUNK_EXTENSIONS + 18  # and the size with its CRLF

# The size, then extensions: RFC 9112 section 7.1.1, without looking into them.
_CHUNK_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,16}+)((?:[ \t]*+;[\t\x20-\x7e\x80-\xff]*+)?+)\r\n"
)


class BodyReader(Protocol):
    """Reads one body; one class for each way of framing.

    Attributes:
        is_done: whether all of the body was read.
        ends_at_close: whether only the end of the connection ends the body.
        trailers: fields after the body, once it is done.
        rest: octets that came after the body, once it is done.
    """

    is_done: bool
    ends_at_close: bool
    trailers: Fields
    rest: bytes

    def feed(self, data: bytes) -> list[bytes]:
        """Content in `data`, in order, no empty parts; once done everything goes to `rest`.

        Raises:
            RequestRejectedError: 400, a request's chunks are malformed or beyond a limit.
            RemoteProtocolError: a response's are.
        """
        ...

    def at_eof(self) -> None:
        """Take the end of the connection.

        Raises:
            RequestRejectedError: 400, a request's body is cut short.
            RemoteProtocolError: a response's is.
        """
        ...


def request_body(head: RequestHead) -> BodyReader:
    """The reader for what follows a request head; no framing fields mean no body."""
    if head.is_chunked:
        return _ChunkedBody(RequestRejectedError)
    return _SizedBody(head.content_length or 0, RequestRejectedError)


def response_body(head: ResponseHead, request_method: bytes) -> BodyReader:
    """The reader for what follows a response head (RFC 9112 section 6.3).

    Args:
        head: of the response, informational ones included.
        request_method: of the request that it answers.
    """
    if (
        request_method == b"HEAD"
        or head.status < 200
        or head.status in {204, 304}
        or (request_method == b"CONNECT" and head.status < 300)
    ):
        return _SizedBody(0, RemoteProtocolError)
    if head.is_chunked:
        return _ChunkedBody(RemoteProtocolError)
    if head.content_length is not None:
        return _SizedBody(head.content_length, RemoteProtocolError)
    return _OpenBody()


def dump_chunk(data: bytes) -> bytes:
    """Write one chunk.

    Raises:
        LocalProtocolError: no data, which would end the body.
    """
    if not data:
        raise LocalProtocolError("an empty chunk would end the body")
    return b"%x\r\n%b\r\n" % (len(data), data)


def dump_last_chunk(trailers: Sequence[Field] = ()) -> bytes:
    """Write the end of a body in chunks.

    Raises:
        LocalProtocolError: a trailer field that cannot be written.
    """
    return b"0\r\n" + dump_fields(trailers) if trailers else b"0\r\n\r\n"


class _SizedBody:
    """A body of a known number of octets, often none."""

    def __init__(self, size: int, refusal: Refusal) -> None:
        self.is_done = size == 0
        self.ends_at_close = False
        self.trailers: Fields = []
        self.rest = b""
        self._left = size
        self._refusal = refusal

    def feed(self, data: bytes) -> list[bytes]:
        """See BodyReader."""
        left = self._left
        if len(data) > left:
            self.rest += data[left:]
            data = data[:left]
        self._left = left - len(data)
        self.is_done = self._left == 0
        return [data] if data else []

    def at_eof(self) -> None:
        """See BodyReader."""
        if not self.is_done:
            raise self._refusal(f"the connection ended {self._left} octets before the body did")


class _OpenBody:
    """A response body that goes on until the connection ends."""

    def __init__(self) -> None:
        self.is_done = False
        self.ends_at_close = True
        self.trailers: Fields = []
        self.rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """See BodyReader."""
        if self.is_done:
            raise LocalProtocolError("octets after the end of the connection")
        return [data] if data else []

    def at_eof(self) -> None:
        """See BodyReader."""
        self.is_done = True


class _ChunkedBody:
    """A body in chunks, with trailers."""

    def __init__(self, refusal: Refusal) -> None:
        self.is_done = False
        self.ends_at_close = False
        self.trailers: Fields = []
        self.rest = b""
        self._refusal = refusal
        self._held = b""  # the beginning of a line, or of the trailer section
        self._left = 0  # octets of this chunk's data still to come
        self._after_data = False  # the CRLF that ends a chunk is due
        self._in_trailers = False
        self._extensions = 0

    def feed(self, data: bytes) -> list[bytes]:
        """See BodyReader."""
        if self.is_done:
            self.rest += data
            return []
        if self._held:
            data, self._held = self._held + data, b""
        parts: list[bytes] = []
        at = 0
        size = len(data)
        while at < size:
            if self._left:
                end = min(at + self._left, size)
                parts.append(data[at:end])
                self._left -= end - at
                self._after_data = self._left == 0
                at = end
                continue
            after = self._read_lines(data, at)
            if after == at:
                self._held = data[at:]
                break
            at = after
        return parts

    def at_eof(self) -> None:
        """See BodyReader."""
        if not self.is_done:
            raise self._refusal("the connection ended before the last chunk of the body")

    def _read_lines(self, data: bytes, at: int) -> int:
        """Position after what is complete at `at`; `at` itself when more octets are needed."""
        if self._after_data:
            if not b"\r\n".startswith(data[at : at + 2]):
                raise self._refusal("expected CRLF after the data of a chunk")
            if len(data) < at + 2:
                return at
            self._after_data = False
            return at + 2
        if self._in_trailers:
            return self._read_trailers(data, at)
        line = _CHUNK_LINE.match(data, at)
        if line is None:
            self._check_unfinished(data, at)
            return at
        self._extensions += len(line[2])
        if self._extensions > MAX_CHUNK_EXTENSIONS:
            raise self._refusal(f"more than {MAX_CHUNK_EXTENSIONS} octets of chunk extensions")
        self._left = int(line[1], 16)
        self._in_trailers = self._left == 0
        return line.end()

    def _check_unfinished(self, data: bytes, at: int) -> None:
        """Raise unless more octets can still make a chunk's first line of this."""
        if data.find(b"\n", at, at + _MAX_CHUNK_LINE) >= 0:
            raise self._refusal("expected the size of a chunk in hexadecimal digits")
        if len(data) - at >= _MAX_CHUNK_LINE:
            raise self._refusal(f"the first line of a chunk is beyond {_MAX_CHUNK_LINE} octets")

    def _read_trailers(self, data: bytes, at: int) -> int:
        if data.startswith(b"\r\n", at):
            return self._end(data, at + 2)
        found = data.find(b"\r\n\r\n", at, at + MAX_TRAILERS)
        if found < 0:
            if len(data) - at >= MAX_TRAILERS:
                raise self._refusal(f"trailers of more than {MAX_TRAILERS} octets")
            return at
        self.trailers = parse_trailers(data[at : found + 4], self._refusal)
        return self._end(data, found + 4)

    def _end(self, data: bytes, at: int) -> int:
        self.is_done = True
        self.rest = data[at:]
        return len(data)
