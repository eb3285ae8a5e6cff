"""Answers to browsers of other origins: `ohttp.cors` of an egress.

In: the header fields of a request.  Out: fields for the answer.  Source: the Fetch standard,
section 3.2; spec of the OHTTP transport, section 4.3.

Invariant: without `cors` nothing here exists, and no preflight request goes anywhere.
"""

from __future__ import annotations

from tng.config.ohttp import Cors
from tng.wire.http1_head import Fields

_VARY = (
    b"vary",
    b"origin, access-control-request-method, access-control-request-headers",
)


class CorsPolicy:
    """What browsers are told.

    Args:
        config: as written.
    """

    def __init__(self, config: Cors) -> None:
        self._origins = frozenset(name.encode() for name in config.allow_origins)
        self._preflight: Fields = []
        self._always: Fields = [_VARY]
        if config.allow_methods:
            self._preflight.append(_listed(b"access-control-allow-methods", config.allow_methods))
        if config.allow_headers:
            self._preflight.append(_listed(b"access-control-allow-headers", config.allow_headers))
        if config.expose_headers:
            self._always.append(_listed(b"access-control-expose-headers", config.expose_headers))
        if config.allow_credentials:
            self._always.append((b"access-control-allow-credentials", b"true"))

    def fields(self, request: Fields, *, is_preflight: bool) -> Fields:
        """Fields for the answer to a request with these fields."""
        answer = [*self._always, *(self._preflight if is_preflight else [])]
        allowed = self._allowed(request)
        if allowed is not None:
            answer.append((b"access-control-allow-origin", allowed))
        return answer

    def _allowed(self, request: Fields) -> bytes | None:
        if b"*" in self._origins:
            return b"*"
        for name, value in request:
            if name == b"origin" and value in self._origins:
                return value
        return None


def _listed(name: bytes, values: list[str]) -> tuple[bytes, bytes]:
    return name, ",".join(values).encode()
