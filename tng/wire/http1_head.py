"""HTTP/1 message heads on the OHTTP path: strict to read, fast to read and write.

The octets of one head in, its parts out, and back (RFC 9112 sections 2 to 6, RFC 9110 section 5):

    end = find_head_end(buffer)                     # -1: more octets are needed
    head = parse_request_head(bytes(buffer[:end]))
    octets = dump_request_head(b"GET", b"/v1/models", [(b"host", b"vllm:8000")])

`tng.wire.http1_body` reads what follows a head.

Invariant: what is accepted has exactly one reading.  A head that two implementations might frame
differently (bare CR or LF, folded lines, blanks around names, several lengths, a length beside a
transfer coding) is refused, and nothing that is written can hold a line that was not asked for.
Messages name the fault and its line, and quote nothing: targets and fields carry secrets.
"""

from __future__ import annotations

import http
import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Never

from tng.errors import LocalProtocolError, RemoteProtocolError, RequestRejectedError, TngError

MAX_HEAD_SIZE: Final = 65536
"""Octets of a message head; cookies and bearer tokens fit, a memory attack does not."""

MAX_FIELDS: Final = 256
"""Fields of one head; browsers and SDKs send about twenty."""

FORBIDDEN_IN_TRAILERS: Final = frozenset({b"content-length", b"host", b"transfer-encoding"})
"""Fields that frame or route a message and so must come before it (RFC 9110 section 6.5.1)."""

Field = tuple[bytes, bytes]
"""A header field: its name in lower case, its value without blanks around it."""

Fields = list[Field]
"""Header fields in order."""

Refusal = Callable[[str], TngError]
"""Makes the error for what is wrong with a message."""

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_VALUE: Final = rb"[\t\x20-\x7e\x80-\xff]*+"
# Tried at the beginning of lines only, so that garbage is stepped over in linear time.
_FIELD: Final = re.compile(rb"(?<=\n)(" + _TOKEN + rb"):(" + _VALUE + rb")\r\n")
_FIELD_LINES: Final = re.compile(rb"(?:" + _TOKEN + rb":" + _VALUE + rb"\r\n)*+")
_REQUEST_LINE: Final = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]++) HTTP/(1\.[01])\r\n")
_OTHER_VERSION: Final = re.compile(_TOKEN + rb" [\x21-\x7e]++ HTTP/[0-9](?:\.[0-9])?\r\n")
_STATUS_LINE: Final = re.compile(rb"HTTP/(1\.[01]) ([1-5][0-9]{2})(?: " + _VALUE + rb")?\r\n")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")  # 18 digits fit everybody's 64-bit integers
_HOST: Final = re.compile(rb"[A-Za-z0-9\-._~!$&'()*+,;=:%\[\]]*+")  # RFC 3986 section 3.2, no "@"
_H2_PREFACE: Final = b"PRI * HTTP/2.0\r\n"
_REASONS: Final = {status.value: status.phrase.encode("ascii") for status in http.HTTPStatus}


class RequestHead(NamedTuple):
    """What comes before the body of a request.

    Attributes:
        method: a token, in the sender's case.
        target: request target as it came, visible ASCII.
        version: b"1.0" or b"1.1".
        fields: all of them.
        content_length: octets of the body as announced; None where no field says so.
        is_chunked: whether the body comes in chunks; never beside a content_length.
    """

    method: bytes
    target: bytes
    version: bytes
    fields: Fields
    content_length: int | None
    is_chunked: bool


class ResponseHead(NamedTuple):
    """What comes before the body of a response.

    Attributes:
        status: 100 to 599.
        version: b"1.0" or b"1.1".
        fields: all of them.
        content_length: octets of the body as announced; None where no field says so.
        is_chunked: whether the body comes in chunks; never beside a content_length.
    """

    status: int
    version: bytes
    fields: Fields
    content_length: int | None
    is_chunked: bool


def find_head_end(buffer: bytes | bytearray, start: int = 0) -> int:
    """Where the head at the beginning of `buffer` ends; -1 when more octets are needed.

    What can never become a head (another protocol, lines that end in LF) is not waited for: its
    end is the end of the buffer, and the parsers say what is wrong with it.

    Args:
        buffer: octets from the beginning of the head; callers bound it by `MAX_HEAD_SIZE`.
        start: where to search from: 0, or three octets before what is new.
    """
    found = buffer.find(b"\r\n\r\n", start)
    if found >= 0:
        return found + 4
    return len(buffer) if buffer and _is_hopeless(buffer) else -1


def parse_request_head(head: bytes, *, needs_host: bool = True) -> RequestHead:
    """Read a request head.

    Args:
        head: from the method to the empty line, with its CRLF.
        needs_host: whether HTTP/1.1 without a Host field is refused (RFC 9112 section 3.2).

    Raises:
        RequestRejectedError: 400 not a head, or ambiguous; 431 too long or too many fields;
            501 a transfer coding other than chunked; 505 not HTTP/1.0 or 1.1.
    """
    if len(head) > MAX_HEAD_SIZE:
        raise RequestRejectedError(f"request head of {len(head)} octets", status=431)
    line = _REQUEST_LINE.match(head)
    if line is None:
        _refuse_request_line(head)
    method, target, version = line.groups()
    fields = _parse_section(head, line.end(), _too_many_in_request, RequestRejectedError)
    names = dict(fields)
    if b"host" in names:
        _check_host(fields, names[b"host"])
    elif needs_host and version == b"1.1":
        raise RequestRejectedError("HTTP/1.1 request without a Host field")
    length: int | None = None
    chunked = False
    if b"transfer-encoding" in names:
        chunked = _check_chunked(fields, version, _unknown_coding, RequestRejectedError)
    elif b"content-length" in names:
        length = parse_content_length(fields, RequestRejectedError)
    return RequestHead(method, target, version, fields, length, chunked)


def parse_response_head(head: bytes) -> ResponseHead:
    """Read a response head, final or informational.

    Args:
        head: from the version to the empty line, with its CRLF.

    Raises:
        RemoteProtocolError: not a head of HTTP/1.0 or 1.1, too long, or ambiguous.
    """
    if len(head) > MAX_HEAD_SIZE:
        raise RemoteProtocolError(f"response head of {len(head)} octets")
    line = _STATUS_LINE.match(head)
    if line is None:
        raise RemoteProtocolError("expected an HTTP/1.0 or HTTP/1.1 status line from the service")
    version = line[1]
    fields = _parse_section(head, line.end(), RemoteProtocolError, RemoteProtocolError)
    names = dict(fields)
    length: int | None = None
    chunked = False
    if b"transfer-encoding" in names:
        chunked = _check_chunked(fields, version, RemoteProtocolError, RemoteProtocolError)
    elif b"content-length" in names:
        length = parse_content_length(fields, RemoteProtocolError)
    return ResponseHead(int(line[2]), version, fields, length, chunked)


def parse_trailers(section: bytes, refusal: Refusal) -> Fields:
    """Read a trailer section.

    Args:
        section: one field line or more, and the empty line after them, with its CRLF.
        refusal: makes the error.

    Raises:
        TngError: made by `refusal`; no field lines, too many, or `FORBIDDEN_IN_TRAILERS`.
    """
    fields = _parse_section(b"\n" + section, 1, refusal, refusal)
    if not FORBIDDEN_IN_TRAILERS.isdisjoint(dict(fields)):
        raise refusal("a field that frames or routes a message came in its trailers")
    return fields


def parse_content_length(fields: Fields, refusal: Refusal) -> int | None:
    """The one Content-Length of a message, in octets; None without one.

    Raises:
        TngError: made by `refusal`; several, equal ones too, or not 1 to 18 digits.
    """
    values = [value for name, value in fields if name == b"content-length"]
    if not values:
        return None
    if len(values) > 1:
        raise refusal(f"{len(values)} Content-Length fields, expected one")
    if _LENGTH.fullmatch(values[0]) is None:
        raise refusal("the Content-Length field is not a number of 1 to 18 digits")
    return int(values[0])


def is_persistent(head: RequestHead | ResponseHead) -> bool:
    """Whether the connection may carry another message after this one (RFC 9112 section 9.3)."""
    options = [
        option.strip(b" \t").lower()
        for name, value in head.fields
        if name == b"connection"
        for option in value.split(b",")
    ]
    if b"close" in options:
        return False
    return head.version == b"1.1" or b"keep-alive" in options


def dump_request_head(method: bytes, target: bytes, fields: Sequence[Field]) -> bytes:
    """Write the head of an HTTP/1.1 request.

    Raises:
        LocalProtocolError: a part that is not one token, target, name or value.
    """
    line = b"%b %b HTTP/1.1\r\n" % (method, target)
    if _REQUEST_LINE.fullmatch(line) is None:
        raise LocalProtocolError("method or request target cannot be written in a request line")
    return line + dump_fields(fields)


def dump_response_head(status: int, fields: Sequence[Field]) -> bytes:
    """Write the head of an HTTP/1.1 response; the reason phrase is the registered one.

    Args:
        status: 100 to 599.
        fields: header fields in order.

    Raises:
        LocalProtocolError: a status out of range, or a part that is not one name or value.
    """
    if not 100 <= status <= 599:
        raise LocalProtocolError(f"HTTP/1 has no status {status}, expected 100 to 599")
    return b"HTTP/1.1 %d %b\r\n" % (status, _REASONS.get(status, b"")) + dump_fields(fields)


def dump_fields(fields: Sequence[Field]) -> bytes:
    r"""Write field lines and the empty line after them.

    Raises:
        LocalProtocolError: a name that is not a token, or a value with controls in it.
    """
    lines = b"".join([b"%b: %b\r\n" % field for field in fields])
    # As many lines as fields, each of them a field line: nothing was smuggled into one of them.
    if lines.count(b"\n") != len(fields) or _FIELD_LINES.fullmatch(lines) is None:
        raise LocalProtocolError("a field name or value cannot be written in a field line")
    return lines + b"\r\n"


# -- sections ----------------------------------------------------------------------------


def _is_hopeless(buffer: bytes | bytearray) -> bool:
    if not 0x21 <= buffer[0] <= 0x7E:
        return True
    newline = buffer.find(b"\n")
    return newline > 0 and buffer[newline - 1] != 0x0D


def _parse_section(head: bytes, start: int, too_many: Refusal, refusal: Refusal) -> Fields:
    found = _FIELD.findall(head, start)
    if len(found) > MAX_FIELDS:
        raise too_many(f"more than {MAX_FIELDS} fields in one section")
    # findall steps over what is no field line; then fewer octets are accounted for than came.
    length = start + 2 + 3 * len(found)
    for name, value in found:
        length += len(name) + len(value)
    if length != len(head) or not head.endswith(b"\r\n"):
        raise refusal(f"line {_faulty_line(head, start)} of the head is no header field")
    return [(name.lower(), value.strip(b" \t")) for name, value in found]


def _faulty_line(head: bytes, start: int) -> int:
    """Number of the first line that is no field line; the first line of the head is 1."""
    while (line := _FIELD.match(head, start)) is not None:
        start = line.end()
    return head.count(b"\r\n", 0, start) + 1


def _refuse_request_line(head: bytes) -> Never:
    if head.startswith(_H2_PREFACE):
        raise RequestRejectedError(
            "the client began HTTP/2 without being asked to; only HTTP/1.1 is served here",
            status=505,
        )
    if _OTHER_VERSION.match(head) is not None:
        raise RequestRejectedError("only HTTP/1.0 and HTTP/1.1 are served here", status=505)
    raise RequestRejectedError("expected `METHOD TARGET HTTP/1.1` as first line of the request")


def _too_many_in_request(message: str) -> RequestRejectedError:
    return RequestRejectedError(message, status=431)


def _unknown_coding(message: str) -> RequestRejectedError:
    return RequestRejectedError(message, status=501)


def _check_host(fields: Fields, value: bytes) -> None:
    if [name for name, _ in fields].count(b"host") > 1:
        raise RequestRejectedError("more than one Host field")
    if _HOST.fullmatch(value) is None:
        raise RequestRejectedError("the Host field is no host with an optional port")


def _check_chunked(
    fields: Fields, version: bytes, unknown_coding: Refusal, refusal: Refusal
) -> bool:
    """True, or an error: chunked is the only transfer coding (RFC 9112 sections 6.1 and 6.3)."""
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    if version == b"1.0":
        raise refusal("a transfer coding in an HTTP/1.0 message")
    if b"content-length" in dict(fields):
        raise refusal("Content-Length beside Transfer-Encoding")
    if len(codings) > 1 or codings[0].lower() != b"chunked":
        raise unknown_coding("a transfer coding other than chunked, once")
    return True
