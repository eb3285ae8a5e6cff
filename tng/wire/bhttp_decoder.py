"""Binary HTTP messages to read: every form of RFC 9292, as the octets arrive.

Octets in, events out; one decoder reads one message:

    decoder = Decoder("request")
    for event in decoder.feed(plaintext):   # RequestHead, then Content, then End
        ...
    events = decoder.finish()               # the outer message has ended, and was verified

Known-length and indeterminate-length messages, informational responses (passed over), padding,
and the omissions of RFC 9292 section 3.8 are understood.

Theory of operation.  Each state is a method that reads one thing at a position, and returns the
position after it; when octets are missing it raises `_MissingError` with the position that they
have to reach.  What is unfinished is kept, and looked at again only once that much has come: the
work is proportional to the octets, however they are cut.

Invariant: an `End` means that the message is whole.  No more than one field section (64 KiB) is
kept, content is handed on at once, and the content has as many octets as its head announced.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from tng.wire.bhttp import BhttpError, WrongKindError
from tng.wire.http1_head import (
    FORBIDDEN_IN_TRAILERS,
    MAX_HEAD_SIZE,
    Fields,
    parse_content_length,
)
from tng.wire.varint import read_varint

MAX_TRAILERS: Final = 16384
"""Octets of a trailer section; checksums and timings fit many times."""

MAX_FIELDS: Final = 1000
"""Fields of one section; an HTTP/2 client may send a cookie in many of them."""

MAX_INFORMATIONAL: Final = 16
"""Informational responses before the final one; servers send one or two."""

MAX_PADDING: Final = 65536
"""Octets after the message, which nobody looks at."""

_NAMES: Final = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9a-z]++:)*+")  # tokens, in lower case
_VALUES: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*+")
_METHOD: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++")
_SCHEME: Final = re.compile(rb"(?:[A-Za-z][A-Za-z0-9+\-.]*+)?")
_AUTHORITY: Final = re.compile(rb"[A-Za-z0-9\-._~!$&'()*+,;=:%\[\]]*+")  # without user information
_PATH: Final = re.compile(rb"(?:/[\x21-\x7e]*+|\*)?")

Kind = Literal["request", "response"]
"""What a decoder expects."""


class RequestHead(NamedTuple):
    """Control data and header section of a request.

    Attributes:
        method: a token.
        scheme: often empty, and without meaning here.
        authority: of the target URI; empty where a Host field names the host.
        path: with the query; begins with a slash, or is `*`, or empty.
        fields: names in lower case; those of the peer's own connection may be among them.
    """

    method: bytes
    scheme: bytes
    authority: bytes
    path: bytes
    fields: Fields


class ResponseHead(NamedTuple):
    """Control data and header section of a final response.

    Attributes:
        status: 200 to 599.
        fields: names in lower case; those of the peer's own connection may be among them.
    """

    status: int
    fields: Fields


class Content(NamedTuple):
    """Some of the content, as it came.

    Attributes:
        data: one octet or more.
    """

    data: bytes


class End(NamedTuple):
    """The message is whole.

    Attributes:
        trailers: fields after the content.
    """

    trailers: Fields


Event = RequestHead | ResponseHead | Content | End


class _MissingError(Exception):
    """More octets are needed.

    Attributes:
        end: the position up to which they are.
    """

    def __init__(self, end: int) -> None:
        super().__init__()
        self.end = end


class _Phase(enum.Enum):
    """How far a message has been read."""

    HEAD = "head"
    CONTENT = "content"
    TRAILERS = "trailers"
    PADDING = "padding"


class Decoder:
    """Reads one Binary HTTP message.

    Args:
        kind: what the message has to be.
    """

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._phase = _Phase.HEAD
        # A function, not a method: one that is bound would lead back to its decoder.
        self._read: Callable[[Decoder, bytes, int], int] = Decoder._read_framing
        self._events: list[Event] = []
        self._held = bytearray()  # the beginning of something unfinished
        self._needed = 0  # octets it has to have before it is worth another look
        self._is_indeterminate = False
        self._fields: Fields = []  # of the present section
        self._budget = MAX_HEAD_SIZE  # octets that the present section may still have
        self._request_line = (b"", b"", b"", b"")
        self._status = 0
        self._informational = 0
        self._announced: int | None = None  # octets of content, as a field says
        self._is_chunked = False  # a field says that there is content, of unknown size
        self._left = 0  # octets of content still to come, in this chunk or altogether
        self._content_size = 0
        self._padding = 0

    def feed(self, data: bytes) -> list[Event]:
        """What `data` completes, in order.

        Raises:
            WrongKindError: the message is of the other kind.
            BhttpError: no message, or beyond a limit.  Feed nothing more after it.
        """
        if self._held:
            self._held += data
            if len(self._held) < self._needed:
                return []
            data = bytes(self._held)
            self._held.clear()
        at = 0
        try:
            while at < len(data):
                at = self._read(self, data, at)
        except _MissingError as missing:
            self._needed = missing.end - at
            self._held += data[at:]
        events, self._events = self._events, []
        return events

    def finish(self) -> list[Event]:
        """Take the end of the outer message; an `End` where the message left it to that.

        What RFC 9292 section 3.8 lets senders omit may be missing: empty trailers, and with them
        empty content, unless the head speaks of content.  A response without content is whole
        only where its status or its Content-Length says so.

        Raises:
            BhttpError: the message was cut short.
        """
        if self._phase is _Phase.PADDING:
            return []
        if self._held or self._left or self._fields:
            raise BhttpError(f"the message was cut short within its {self._phase.value}")
        if self._phase is not _Phase.TRAILERS and not self._may_lack_content():
            raise BhttpError(
                f"the message was cut short before its {self._phase.value} was complete"
            )
        self._end_message()
        events, self._events = self._events, []
        return events

    # -- states: each reads one thing at a position, and returns the position after it -----

    def _read_framing(self, data: bytes, at: int) -> int:
        indicator, after = _varint(data, at)
        if indicator > 3:
            raise BhttpError(f"expected framing indicator 0 to 3, got {indicator}")
        if (indicator & 1 == 1) != (self._kind == "response"):
            raise WrongKindError(f"expected a {self._kind}, got a message of the other kind")
        self._is_indeterminate = indicator >= 2
        self._read = Decoder._read_request_line if self._kind == "request" else Decoder._read_status
        return after

    def _read_request_line(self, data: bytes, at: int) -> int:
        method, after = self._text(data, at)
        scheme, after = self._text(data, after)
        authority, after = self._text(data, after)
        path, after = self._text(data, after)
        self._spend(after - at)
        _check_request_line(method, scheme, authority, path)
        self._request_line = (method, scheme, authority, path)
        self._begin_section()
        return after

    def _read_status(self, data: bytes, at: int) -> int:
        status, after = _varint(data, at)
        if status == 101 or not 100 <= status <= 599:
            raise BhttpError(f"expected a status of 100 or 102 to 599, got {status}")
        self._spend(after - at)
        self._status = status
        self._begin_section()
        return after

    def _read_known_section(self, data: bytes, at: int) -> int:
        """A field section of known length; nothing is read before all of it is there."""
        size, begin = _varint(data, at)
        self._check_budget(size)
        end = begin + size
        if end > len(data):
            raise _MissingError(end)
        section = data[begin:end]
        position = 0
        try:
            while position < size:
                position = self._read_one_field(section, position)
        except _MissingError as missing:
            raise BhttpError("a field goes beyond the end of its section") from missing
        self._end_section()
        return end

    def _read_fields(self, data: bytes, at: int) -> int:
        """Fields up to a terminator, as many as there are."""
        start = at
        try:
            while at < len(data):
                if data[at] & 0x3F == 0:  # a zero, or the beginning of a longer number
                    size, after = _varint(data, at)
                    if size == 0:
                        self._end_section()
                        return after
                at = self._read_one_field(data, at)
        except _MissingError:
            if at == start:
                raise
        return at

    def _read_one_field(self, data: bytes, at: int) -> int:
        # Most names and values have fewer than 64 octets, whose length is one octet: read here.
        available = len(data)
        begin = at + 1
        size = data[at]
        if size >= 0x40:
            size, begin = _varint(data, at)
        end = begin + size
        if end >= available:
            self._check_budget(size)
            raise _MissingError(end + 1)
        name = data[begin:end]
        begin = end + 1
        size = data[end]
        if size >= 0x40:
            size, begin = _varint(data, end)
        end = begin + size
        if end > available:
            self._check_budget(size)
            raise _MissingError(end)
        self._spend(end - at)
        fields = self._fields
        if len(fields) == MAX_FIELDS:
            raise BhttpError(f"more than {MAX_FIELDS} fields in one section")
        fields.append((name, data[begin:end].strip(b" \t")))
        return end

    def _read_content_size(self, data: bytes, at: int) -> int:
        """The size of known-length content, or of one chunk of indeterminate-length content."""
        size, after = _varint(data, at)
        self._left = size
        self._content_size += size
        if self._announced is not None and self._content_size > self._announced:
            raise BhttpError(f"more content than the {self._announced} octets of Content-Length")
        if size:
            self._read = Decoder._read_content
        else:
            self._end_content()
        return after

    def _read_content(self, data: bytes, at: int) -> int:
        end = min(at + self._left, len(data))
        self._events.append(Content(data[at:end]))
        self._left -= end - at
        if not self._left:
            if self._is_indeterminate:
                self._read = Decoder._read_content_size
            else:
                self._end_content()
        return end

    def _read_padding(self, data: bytes, at: int) -> int:
        self._padding += len(data) - at
        if self._padding > MAX_PADDING:
            raise BhttpError(f"more than {MAX_PADDING} octets after the message")
        return len(data)

    # -- steps between states --------------------------------------------------------------

    def _begin_section(self) -> None:
        self._fields = []
        self._read = Decoder._read_fields if self._is_indeterminate else Decoder._read_known_section

    def _end_section(self) -> None:
        fields, self._fields = self._fields, []
        _check_fields(fields)
        if self._phase is _Phase.TRAILERS:
            if not FORBIDDEN_IN_TRAILERS.isdisjoint(dict(fields)):
                raise BhttpError("a field that frames or routes a message came in its trailers")
            self._end_message(fields)
        elif self._kind == "response" and self._status < 200:
            self._informational += 1
            if self._informational > MAX_INFORMATIONAL:
                raise BhttpError(f"more than {MAX_INFORMATIONAL} informational responses")
            self._read = Decoder._read_status
        else:
            self._end_head(fields)

    def _end_head(self, fields: Fields) -> None:
        self._announced = parse_content_length(fields, BhttpError)
        self._is_chunked = any(name == b"transfer-encoding" for name, _ in fields)
        if self._is_chunked and self._announced is not None:
            raise BhttpError("Content-Length beside Transfer-Encoding")
        if self._kind == "request":
            self._events.append(RequestHead(*self._request_line, fields))
        else:
            self._events.append(ResponseHead(self._status, fields))
        self._phase = _Phase.CONTENT
        self._read = Decoder._read_content_size

    def _end_content(self) -> None:
        # A response to HEAD announces the content that it leaves out; a 304 does so too.
        lacking = self._content_size == 0 and self._kind == "response"
        if self._announced is not None and self._content_size < self._announced and not lacking:
            raise BhttpError(
                f"expected {self._announced} octets of content as Content-Length says, "
                f"got {self._content_size}"
            )
        self._phase = _Phase.TRAILERS
        self._budget = MAX_TRAILERS
        self._begin_section()

    def _end_message(self, trailers: Fields | None = None) -> None:
        self._events.append(End(trailers or []))
        self._phase = _Phase.PADDING
        self._read = Decoder._read_padding

    def _may_lack_content(self) -> bool:
        """Whether a message that ends after its head is whole."""
        if self._phase is not _Phase.CONTENT or self._content_size:
            return False
        if self._kind == "request":
            return not self._announced and not self._is_chunked
        return self._status in {204, 304} or self._announced == 0

    # -- parts -----------------------------------------------------------------------------

    def _text(self, data: bytes, at: int) -> tuple[bytes, int]:
        """Octets with their length before them."""
        size, at = _varint(data, at)
        self._check_budget(size)
        end = at + size
        if end > len(data):
            raise _MissingError(end)
        return data[at:end], end

    def _spend(self, octets: int) -> None:
        self._check_budget(octets)
        self._budget -= octets

    def _check_budget(self, octets: int) -> None:
        if octets > self._budget:
            limit = MAX_TRAILERS if self._phase is _Phase.TRAILERS else MAX_HEAD_SIZE
            raise BhttpError(f"the {self._phase.value} of the message goes beyond {limit} octets")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length integer and the position after it."""
    number, end = read_varint(data, at)
    if end > len(data):
        raise _MissingError(end)
    return number, end


def _check_fields(fields: Fields) -> None:
    """Check all names at once, and all values: one by one takes five times as long."""
    names = b"".join([b"%b:" % name for name, _ in fields])
    if names.count(b":") != len(fields) or _NAMES.fullmatch(names) is None:
        raise BhttpError("a field name is not a token in lower case")
    if _VALUES.fullmatch(b"".join([value for _, value in fields])) is None:
        raise BhttpError("a field value has controls in it")


def _check_request_line(method: bytes, scheme: bytes, authority: bytes, path: bytes) -> None:
    for name, shape, text in (
        ("method", _METHOD, method),
        ("scheme", _SCHEME, scheme),
        ("authority", _AUTHORITY, authority),
        ("path", _PATH, path),
    ):
        if shape.fullmatch(text) is None:
            raise BhttpError(f"the {name} of the request has octets that no {name} has")
