"""Which header fields are part of a message, and which belong to one connection alone.

Source: RFC 9110 section 7.6.1; spec of the OHTTP transport, section 2.5.  Both ends of a tunnel
leave the latter out, on sending and on receiving, since a peer may not have.
"""

from __future__ import annotations

from typing import Final

from tng.wire.http1 import FORWARDED_BY_TNG
from tng.wire.http1_head import Fields

_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"expect",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"transfer-encoding",
        b"upgrade",
        FORWARDED_BY_TNG,
    }
)
"""Fields for the next hop only; Expect is answered where it is read.

TE is one of them too, but we do carry trailers, so a client that takes them says so to the service.
"""

_TAKES_TRAILERS: Final = (b"te", b"trailers")

_NEVER_DROPPED: Final = frozenset({b"content-length", b"host"})
"""Fields that frame or address a message: naming them in Connection must not take them away, or
what follows the head would be read as another message."""

REPEATABLE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})
"""Methods that may be sent twice (RFC 9110 section 9.2.2)."""


def end_to_end(fields: Fields, *, keep_host: bool) -> Fields:
    """The fields that travel on, in order.

    Args:
        fields: names in lower case.
        keep_host: False for responses and trailers, where Host has no meaning.
    """
    named: set[bytes] = set()
    for name, value in fields:
        if name == b"connection":
            named.update(token.strip().lower() for token in value.split(b","))
    dropped = _HOP_BY_HOP | (named - _NEVER_DROPPED) if named else _HOP_BY_HOP
    kept: Fields = []
    for field in fields:
        name = field[0]
        if name == b"te":
            if b"trailers" in field[1].lower():
                kept.append(_TAKES_TRAILERS)
        elif name not in dropped and (keep_host or name != b"host"):
            kept.append(field)
    return kept


def asks_upgrade(fields: Fields) -> bool:
    """Whether the client needs another protocol; HTTP/2 (`h2c`) is an offer that may be left."""
    return any(
        token.strip().lower() not in (b"h2c", b"")
        for name, value in fields
        if name == b"upgrade"
        for token in value.split(b",")
    )
