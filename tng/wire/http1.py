"""What a forward proxy has to know of HTTP/1 messages (RFC 9110, RFC 9112).

h11 parses and writes the messages; this module reads the destination out of a request, decides
which fields travel on, and keeps the guards that a proxy needs and a plain server does not.
Sources: RFC 9112 section 3.2 (request targets), RFC 9110 section 7.6.1 (Connection), spec of the
RATS-TLS transport, section 5.2.  Where we differ from the reference: the destination of an
absolute-form request is its URI, and fields meant for this hop never travel on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import h11

from tng.endpoint import Endpoint, parse_authority
from tng.errors import RequestRejectedError
from tng.wire import http1_head

MAX_HEAD_SIZE: Final = http1_head.MAX_HEAD_SIZE
"""Octets of a message head; the same on every path."""

FORWARDED_BY_TNG: Final = b"x-tng-http-forward"
"""Marks requests that came through an ingress, so that a loop is noticed."""

_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields for the next hop only.  h11 writes Transfer-Encoding anew where a body is chunked."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

# The one shape that nearly every CONNECT has; anything else goes through h11.
_PLAIN_CONNECT: Final = re.compile(
    rb"CONNECT ([A-Za-z0-9.\-]{1,255}):([0-9]{1,5}) HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9\-]{1,64}:[ \t]*[\x21-\x7e][\x20-\x7e]{0,4095}\r\n){1,64})\r\n"
)

Fields = list[tuple[bytes, bytes]]
"""Header fields in order, names in the sender's case."""


class FieldSection(Protocol):
    """Header fields as h11 gives them."""

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """Names in lower case, and values."""
        ...

    def raw_items(self) -> list[tuple[bytes, bytes]]:
        """Names in the sender's case, and values."""
        ...


class PlainConnect(NamedTuple):
    """A CONNECT request in its usual shape.

    Attributes:
        destination: what it asks for.
        length: octets of the head; what follows is the client's payload.
    """

    destination: Endpoint
    length: int


def match_plain_connect(data: bytes) -> PlainConnect | None:
    """Read a CONNECT request in its usual shape; None where h11 has to look."""
    found = _PLAIN_CONNECT.match(data)
    if found is None:
        return None
    port = int(found[2])
    if not 1 <= port <= 65535:
        return None
    return PlainConnect(Endpoint(found[1].decode("ascii"), port), found.end())


def connect_destination(target: bytes) -> Endpoint:
    """Where a CONNECT request wants to go (RFC 9112 section 3.2.3); a missing port is 80.

    Raises:
        RequestRejectedError: 400, the target is not an authority.
    """
    try:
        return parse_authority(target.decode("latin-1"), 80)
    except ValueError as exc:
        raise RequestRejectedError(f"no authority in CONNECT request target: {exc}") from exc


def refuse_loops(fields: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse a request that has been through an ingress already.

    Raises:
        RequestRejectedError: 400, `recursion is detected`.
    """
    if any(name == FORWARDED_BY_TNG for name, _ in fields):
        raise RequestRejectedError(
            "recursion is detected: the request came through a TNG ingress already; "
            "check proxy variables on the egress side"
        )


@dataclass(frozen=True, slots=True)
class Forward:
    """A request as it travels on.

    Attributes:
        destination: which endpoint it is for.
        request: in origin-form, with its own fields.
        upgrades: whether it asks to leave HTTP (RFC 9110 section 7.8).
    """

    destination: Endpoint
    request: h11.Request
    upgrades: bool


def forward_request(request: h11.Request) -> Forward:
    """Rewrite a request for the destination that it names.

    Raises:
        RequestRejectedError: 400 without a usable destination or with a loop, 501 for a scheme
            other than http and https, 505 for a version other than HTTP/1.x.
    """
    if request.http_version not in (b"1.0", b"1.1"):
        raise RequestRejectedError("only HTTP/1.0 and HTTP/1.1 are served here", status=505)
    refuse_loops(request.headers)
    destination, target, authority = read_target(request.target, request.headers)
    upgrades = _asks_upgrade(request.headers)
    fields: Fields = [(b"Host", authority)]
    fields += [
        (name, value)
        for name, value in _travelling(request.headers, keep_upgrade=upgrades)
        if name.lower() != b"host"
    ]
    fields.append((FORWARDED_BY_TNG, b"true"))
    rewritten = h11.Request(method=request.method, target=target, headers=fields)
    return Forward(destination, rewritten, upgrades)


def forward_response(fields: FieldSection, *, switching: bool) -> Fields:
    """The fields of a response, or of an informational one, that travel on.

    Args:
        fields: as they came.
        switching: for a 101, whose Upgrade and Connection fields concern both ends.
    """
    return _travelling(fields, keep_upgrade=switching)


# -- destinations ----------------------------------------------------------------------


def read_target(
    target: bytes, fields: Iterable[tuple[bytes, bytes]]
) -> tuple[Endpoint, bytes, bytes]:
    """Where a request that is not CONNECT wants to go.

    Args:
        target: in absolute-form, or in origin-form with a Host field.
        fields: of the request, names in lower case.

    Returns:
        Endpoint, target in origin-form, and value of the Host field to send on.

    Raises:
        RequestRejectedError: 400 no usable destination, 501 a scheme other than http and https.
    """
    if target.startswith(b"/") or target == b"*":
        host = _host_field(fields)
        return _from_host_field(host), target, host
    scheme, separator, rest = target.partition(b"://")
    if not separator:
        raise RequestRejectedError("the request target is neither a path nor a URI")
    return _from_uri(scheme.decode("latin-1").lower(), rest)


def _from_uri(scheme: str, rest: bytes) -> tuple[Endpoint, bytes, bytes]:
    port = _DEFAULT_PORTS.get(scheme)
    if port is None:
        raise RequestRejectedError(
            f"scheme {scheme[:20]!r} is not served, only http and https", status=501
        )
    length = min((at for at in map(rest.find, (b"/", b"?", b"#")) if at >= 0), default=len(rest))
    authority, path = rest[:length], rest[length:].partition(b"#")[0]
    if b"@" in authority:
        raise RequestRejectedError("user information in a request target is not served")
    try:
        endpoint = parse_authority(authority.decode("latin-1"), port)
    except ValueError as exc:
        raise RequestRejectedError("no valid host in the request target") from exc
    if not path.startswith(b"/"):
        path = b"/" + path
    return endpoint, path, authority


def _host_field(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    values = [value for name, value in fields if name == b"host"]
    if not values:
        raise RequestRejectedError("No 'HOST' header in http request")
    return values[0]


def _from_host_field(value: bytes) -> Endpoint:
    try:
        return parse_authority(value.decode("latin-1"), 80)
    except ValueError as exc:
        raise RequestRejectedError(
            f"The 'HOST' value in request header is not a valid host: {exc}"
        ) from exc


# -- fields ------------------------------------------------------------------------------


def _tokens(fields: FieldSection, wanted: bytes) -> set[bytes]:
    return {
        token.strip().lower()
        for name, value in fields
        if name == wanted
        for token in value.split(b",")
    }


def _asks_upgrade(fields: FieldSection) -> bool:
    return b"upgrade" in _tokens(fields, b"connection") and any(
        name == b"upgrade" for name, _ in fields
    )


def _travelling(fields: FieldSection, *, keep_upgrade: bool) -> Fields:
    """All fields but those of this hop, in order and in the sender's case."""
    named = _tokens(fields, b"connection")
    chunked = any(name == b"transfer-encoding" for name, _ in fields)
    kept: Fields = []
    for raw_name, value in fields.raw_items():
        name = raw_name.lower()
        if name == b"transfer-encoding" or (name == b"upgrade" and keep_upgrade):
            kept.append((raw_name, value))
        elif name in _HOP_BY_HOP or name in named:
            continue
        elif not (chunked and name == b"content-length"):
            # A length beside a chunked body is dropped: two hops must never count differently.
            kept.append((raw_name, value))
    if keep_upgrade:
        kept.append((b"Connection", b"upgrade"))
    return kept
