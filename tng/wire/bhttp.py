"""Binary HTTP messages to write: the indeterminate-length form of RFC 9292.

Parts of a message in, octets out; `tng.wire.bhttp_decoder` reads every form:

    octets = dump_request_head(b"POST", b"", b"", b"/v1/models", [(b"host", b"vllm:8000")])
    octets += dump_content(b"{") + dump_content(b"}")       # as it comes
    octets += dump_end()

Every part is prefixed with its length, so none can be mistaken for another one.

Invariant: nothing is written that would end a section or the content before its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tng.errors import LocalProtocolError, RemoteProtocolError
from tng.wire.http1_head import Field
from tng.wire.varint import dump_varint

_INDETERMINATE_REQUEST: Final = b"\x02"
_INDETERMINATE_RESPONSE: Final = b"\x03"
_TERMINATOR: Final = b"\x00"
_NO_TRAILERS_END: Final = _TERMINATOR + _TERMINATOR


class BhttpError(RemoteProtocolError):
    """The peer sent what is no Binary HTTP message, or only the beginning of one."""


class WrongKindError(BhttpError):
    """A response came where a request was expected, or the other way round."""


def dump_request_head(
    method: bytes, scheme: bytes, authority: bytes, path: bytes, fields: Sequence[Field]
) -> bytes:
    """Write control data and header section of a request.

    Args:
        method: a token.
        scheme: may be empty, as `authority` may: then a Host field names the host.
        authority: host and port of the target URI.
        path: with the query.
        fields: names in lower case.

    Raises:
        LocalProtocolError: a field without a name.
    """
    parts = [_INDETERMINATE_REQUEST]
    for text in (method, scheme, authority, path):
        parts += (dump_varint(len(text)), text)
    _add_fields(parts, fields)
    return b"".join(parts)


def dump_response_head(status: int, fields: Sequence[Field]) -> bytes:
    """Write control data and header section of a final response.

    Args:
        status: 200 to 599; informational responses are not carried.
        fields: names in lower case.

    Raises:
        LocalProtocolError: another status, or a field without a name.
    """
    if not 200 <= status <= 599:
        raise LocalProtocolError(f"no final response has status {status}, expected 200 to 599")
    parts = [_INDETERMINATE_RESPONSE, dump_varint(status)]
    _add_fields(parts, fields)
    return b"".join(parts)


def dump_content(data: bytes) -> bytes:
    """Write one chunk of content.

    Raises:
        LocalProtocolError: no data, which would end the content.
    """
    if not data:
        raise LocalProtocolError("an empty chunk would end the content")
    return dump_varint(len(data)) + data


def dump_end(trailers: Sequence[Field] = ()) -> bytes:
    """Write the end of the content and the trailer section.

    Raises:
        LocalProtocolError: a field without a name.
    """
    if not trailers:
        return _NO_TRAILERS_END
    parts = [_TERMINATOR]
    _add_fields(parts, trailers)
    return b"".join(parts)


def _add_fields(parts: list[bytes], fields: Sequence[Field]) -> None:
    for name, value in fields:
        if not name:
            raise LocalProtocolError("a field without a name would end its section")
        parts += (dump_varint(len(name)), name, dump_varint(len(value)), value)
    parts.append(_TERMINATOR)
